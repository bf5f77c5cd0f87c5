import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import { MIGRATIONS, migrate, schemaVersion } from '../src/persistence/sqlite/migrations.js';
import { salvage } from '../src/persistence/sqlite/repair.js';
import { newDataDir, startLocal } from './support/server.js';

const ENDPOINT = '00000000-0000-4000-8000-000000000001';
const REQUEST = '00000000-0000-7000-8000-000000000002';

/** A database as the first version left it, with an endpoint that served a request. */
async function firstVersion(then = ''): Promise<string> {
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await migrate(db, 1);
  await db.exec(`
    INSERT INTO endpoints (id, name, base_url, registered_at, health, latency_ms, successful_requests)
    VALUES ('${ENDPOINT}', 'old', 'http://127.0.0.1:9', 1700000000000, 'offline', 12, 5);
    INSERT INTO requests (id, request_id, api_kind, request_type, model, endpoint_id, accepted_at, completed_at,
      duration_ms, outcome, timeline, status_code, tokens_estimated, attempts)
    VALUES ('${REQUEST}', 'mine', 'chat_completions', 'chat', 'm', '${ENDPOINT}', ${Date.now() - 9000},
      ${Date.now() - 8000}, 1000, 'success', 'success', 200, 0, '[]');
    ${then}`);
  await db.close();
  return dataDir;
}

test('a database of the first version is brought up to date with all that is in it', async () => {
  const dataDir = await firstVersion();
  const server = await startLocal({ dataDir });
  expect((await server.get('/ready')).json).toMatchObject({ seeded: true, degraded: false });
  const endpoint = (await server.get(`/api/endpoints/${ENDPOINT}`)).json;
  expect(endpoint).toMatchObject({ name: 'old', latency_ms: 12, max_concurrency: null, deadlines: {} });
  expect(endpoint).toMatchObject({ models_allow: null, models_deny: null, model_settings: {} });
  const row = (await server.get('/api/dashboard/request-responses/mine')).json;
  expect(row).toMatchObject({ id: REQUEST, decision: null });
  const changed = await server.send('PUT', `/api/endpoints/${ENDPOINT}`, { max_concurrency: 2 });
  expect(changed.json.max_concurrency).toBe(2);
});

test('a table that the first version has lost is made again before it is brought up to date', async () => {
  const dataDir = await firstVersion('DROP TABLE requests;');
  const server = await startLocal({ dataDir });
  expect((await server.get('/ready')).json).toMatchObject({ status: 'ready', seeded: false });
  expect((await server.get(`/api/endpoints/${ENDPOINT}`)).json.name).toBe('old');
  expect((await server.get('/api/dashboard/request-responses')).json.total_count).toBe(0);
});

test('what is saved from a damaged file of the first version keeps all that it had', async () => {
  const from = join(await firstVersion(), 'troupe.db');
  const to = join(await newHome(), 'troupe.db');
  expect(await salvage(from, to)).toContain('endpoints: 1 rows kept; ');
  const db = await open({ filename: to, driver: sqlite3.Database });
  expect(await schemaVersion(db)).toBe(MIGRATIONS.length);
  expect(await db.get('SELECT name, successful_requests, max_concurrency, deadlines FROM endpoints')).toEqual(
    {
      name: 'old',
      successful_requests: 5,
      max_concurrency: null,
      deadlines: '{}',
    },
  );
  expect(await db.get('SELECT request_id, decision FROM requests')).toEqual({
    request_id: 'mine',
    decision: null,
  });
  await db.close();
});

async function newHome(): Promise<string> {
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  return dataDir;
}
