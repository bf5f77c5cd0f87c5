import { mkdir, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import { engine, newDataDir, runServer, type ServerProcess, spawnServer } from './support/server.js';

const REQUESTS = 40;

/** A data dir with one endpoint and some history, at rest. */
async function usedDataDir() {
  const box = await engine();
  const server = await spawnServer();
  await server.register('box', box.url);
  for (let i = 0; i < REQUESTS; i += 1) await server.chat('sim-small', { max_tokens: 4 });
  const before = await numbers(server);
  expect(await server.end()).toBe(0);
  return { dataDir: server.dataDir, before, box };
}

async function numbers(server: ServerProcess) {
  const { stats, endpoints } = (await server.get('/api/dashboard/overview')).json;
  const list = (await server.get('/api/dashboard/request-responses')).json;
  const [model] = (await server.get('/api/dashboard/model-stats')).json;
  return {
    endpoints: endpoints.length,
    total: stats.total_requests,
    tokens: stats.total_tokens,
    hour: stats.requests_60m.success,
    rows: list.total_count,
    durations: model?.duration_ms ?? null,
  };
}

async function run(dataDir: string, sql: string): Promise<void> {
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await db.exec(sql);
  await db.close();
}

const setAside = async (dataDir: string) =>
  (await readdir(dataDir)).filter((name) => name.includes('.corrupt-'));

test('a database overwritten with garbage is set aside whole, and the server starts with a new one', async () => {
  const { dataDir } = await usedDataDir();
  const garbage = Buffer.alloc(70_000, 'no database at all ');
  await writeFile(join(dataDir, 'troupe.db'), garbage);
  const server = await spawnServer({ dataDir });
  // What was there is not: nobody must take this for a new store.
  expect((await server.get('/ready')).json).toEqual({ status: 'ready', seeded: false, degraded: false });
  expect((await numbers(server)).total).toBe(0);
  const aside = await setAside(dataDir);
  expect(aside).toHaveLength(1);
  expect(await readFile(join(dataDir, aside[0] ?? ''))).toEqual(garbage);
  expect(server.output()).toContain('set aside');
});

test('a database of zero bytes is taken for a new one', async () => {
  const { dataDir } = await usedDataDir();
  await truncate(join(dataDir, 'troupe.db'), 0);
  const server = await spawnServer({ dataDir });
  expect((await server.get('/ready')).json).toEqual({ status: 'ready', seeded: true, degraded: false });
  expect(await numbers(server)).toMatchObject({ endpoints: 0, total: 0, rows: 0 });
});

test('of a database with a damaged page everything readable is copied and the rest is counted', async () => {
  const { dataDir, before } = await usedDataDir();
  const file = join(dataDir, 'troupe.db');
  const bytes = await readFile(file);
  // A leaf page full of request rows: the one where the text of a request type stands most often.
  const pageSize = bytes.readUInt16BE(16);
  let worst = { page: 0, hits: 0 };
  for (let page = 1; page * pageSize < bytes.length; page += 1) {
    const text = bytes.subarray(page * pageSize, (page + 1) * pageSize).toString('latin1');
    const isTableLeaf = text.charCodeAt(0) === 13;
    const hits = isTableLeaf ? text.split('chat_completionschat').length : 0;
    if (hits > worst.hits) worst = { page, hits };
  }
  expect(worst.hits).toBeGreaterThan(3);
  bytes.fill(0xa5, worst.page * pageSize, (worst.page + 1) * pageSize);
  await writeFile(file, bytes);

  const server = await spawnServer({ dataDir });
  expect(await setAside(dataDir)).toHaveLength(1);
  const after = await numbers(server);
  expect(after).toMatchObject({
    endpoints: 1,
    total: before.total,
    tokens: before.tokens,
    hour: before.hour,
    durations: before.durations,
  });
  expect(after.rows).toBeLessThan(before.rows);
  expect(after.rows).toBeGreaterThan(0);
  expect(server.output()).toMatch(/requests: \d+ rows kept, .*lost/);
  expect((await server.chat('sim-small')).status).toBe(200);
});

test.each([
  'requests',
  'endpoint_daily_stats',
  'endpoint_histograms',
  'endpoint_models',
  'stored_responses',
  'request_minutes',
  'ledger_cursors',
])(
  'without its table %s the server starts, says that it is not seeded, and makes the table again',
  async (table) => {
    const { dataDir, before } = await usedDataDir();
    await run(dataDir, `DROP TABLE ${table}`);
    const server = await spawnServer({ dataDir });
    expect((await server.get('/ready')).json).toEqual({ status: 'ready', seeded: false, degraded: false });
    expect(server.output().match(new RegExp(`table ${table} was missing`, 'g'))).toHaveLength(1);
    const after = await numbers(server);
    expect(after.total).toBe(before.total);
    expect(after.rows).toBe(table === 'requests' ? 0 : before.rows);
    expect(after.tokens).toBe(table === 'endpoint_daily_stats' ? 0 : before.tokens);
    expect(after.hour).toBe(table === 'request_minutes' ? 0 : before.hour);
    const gone = table === 'endpoint_histograms' || table === 'endpoint_daily_stats';
    expect(after.durations).toEqual(gone ? null : before.durations);
    expect(await server.end()).toBe(0);
    const again = await spawnServer({ dataDir });
    expect((await again.get('/ready')).json).toMatchObject({ seeded: true });
  },
);

test('without its table of endpoints the server starts empty and takes new ones', async () => {
  const { dataDir, box } = await usedDataDir();
  await run(dataDir, 'DROP TABLE endpoints');
  const server = await spawnServer({ dataDir });
  expect((await server.get('/ready')).json).toMatchObject({ seeded: false });
  expect((await server.get('/api/endpoints')).json.total).toBe(0);
  await server.register('box', box.url);
  expect((await server.chat('sim-small')).status).toBe(200);
});

test('a database of a newer version is refused with exit 2 and not a byte of it changes', async () => {
  const { dataDir } = await usedDataDir();
  await run(dataDir, 'PRAGMA user_version = 9999');
  const file = join(dataDir, 'troupe.db');
  const before = await readFile(file);
  const files = (await readdir(dataDir)).sort();
  const start = runServer(['--port', '0', '--data-dir', dataDir]);
  expect(await start.exited).toBe(2);
  expect(start.stderr().trim().split('\n')).toHaveLength(1);
  expect(start.stderr()).toContain('newer version');
  expect(await readFile(file)).toEqual(before);
  expect((await readdir(dataDir)).sort()).toEqual(files);
});

test('a directory in the place of the database is refused with exit 2', async () => {
  const dataDir = newDataDir();
  await mkdir(join(dataDir, 'troupe.db'), { recursive: true });
  const start = runServer(['--port', '0', '--data-dir', dataDir]);
  expect(await start.exited).toBe(2);
  expect(start.stderr()).toContain('troupe.db');
});

test('a file in the place of the data dir is refused with exit 2', async () => {
  const dataDir = newDataDir();
  await writeFile(dataDir, 'a file');
  const start = runServer(['--port', '0', '--data-dir', dataDir]);
  expect(await start.exited).toBe(2);
  expect(start.stderr()).toContain(dataDir);
  expect((await stat(dataDir)).isFile()).toBe(true);
});
