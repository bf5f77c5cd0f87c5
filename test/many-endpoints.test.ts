import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, onTestFinished, test } from 'vitest';
import { engine, newDataDir, spawnServer, until } from './support/server.js';

const MANY = 500;

/** Half of the paths answer with a model list, the other half never answer. */
async function crowd(): Promise<{ url: string; asked: Set<string> }> {
  const asked = new Set<string>();
  const server: Server = createServer((req, res) => {
    const path = req.url ?? '';
    asked.add(path.split('/')[1] ?? '');
    if (path.startsWith('/hanging')) return;
    const isList = path.endsWith('/v1/models');
    res.writeHead(isList ? 200 : 404, { 'content-type': 'application/json' });
    res.end(isList ? JSON.stringify({ object: 'list', data: [{ id: 'crowd', object: 'model' }] }) : '{}');
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', 2048, resolve);
  });
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** A data dir whose endpoints are registered, but were never checked. */
async function dataDirWith(endpoints: { name: string; url: string }[]): Promise<string> {
  const dataDir = newDataDir();
  const first = await spawnServer({ dataDir });
  await first.end();
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await db.run(
    `INSERT INTO endpoints (id, name, base_url, registered_at)
     SELECT value ->> 'name', value ->> 'name', value ->> 'url', 1 FROM json_each(?)`,
    JSON.stringify(endpoints),
  );
  await db.close();
  return dataDir;
}

test('of 500 endpoints the 250 that hang delay neither the start nor the checks of the others', async () => {
  const { url, asked } = await crowd();
  const endpoints = Array.from({ length: MANY }, (_, i) => {
    const name = `${i % 2 === 0 ? 'hanging' : 'well'}-${i}`;
    return { name, url: `${url}/${name}` };
  });
  const dataDir = await dataDirWith(endpoints);
  // A hanging check lasts longer than this whole test may.
  const env = { TROUPE_HEALTH_TIMEOUT_MS: '50000', TROUPE_HEALTH_INTERVAL_MS: '10000' };
  const server = await spawnServer({ dataDir, env });
  expect((await server.get('/ready')).status).toBe(200);
  const online = async () => (await server.get('/api/endpoints?status=online')).json.total;
  await until(async () => (await online()) === MANY / 2, 30_000, 'every well endpoint online');
  await until(() => asked.size === MANY, 30_000, 'every endpoint asked');
  expect((await server.get('/api/endpoints?status=pending')).json.total).toBe(MANY / 2);
  expect((await server.get('/v1/models')).json.data).toHaveLength(1);
});

test('endpoints with names that do not resolve stall neither requests nor the ledger', async () => {
  const box = await engine();
  const dead = Array.from({ length: 60 }, (_, i) => ({ name: `dead-${i}`, url: `http://dead-${i}.invalid` }));
  const dataDir = await dataDirWith([...dead, { name: 'box', url: box.url }]);
  const server = await spawnServer({ dataDir });
  await until(async () => (await server.chat('sim-small')).status === 200);
  await server.chat('sim-small');
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await until(async () => ((await db.get('SELECT count(*) AS rows FROM requests'))?.rows ?? 0) >= 2);
  await db.close();
});
