import { chmodSync, readdirSync } from 'node:fs';
import { copyFile, mkdir, readFile, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Database, open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import {
  type Api,
  engine,
  newDataDir,
  pause,
  runServer,
  spawnServer,
  startLocal,
  until,
} from './support/server.js';

async function openFile(dataDir: string): Promise<Database> {
  return open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
}

/** What the disk says once the server is gone. */
async function onDisk(dataDir: string) {
  const db = await openFile(dataDir);
  const one = async (sql: string) => Object.values((await db.get<Record<string, number>>(sql)) ?? {})[0] ?? 0;
  const result = {
    counters: await one('SELECT sum(successful_requests + failed_requests) FROM endpoints'),
    daily: await one('SELECT sum(successful_requests + failed_requests) FROM endpoint_daily_stats'),
    minutes: await one('SELECT sum(success + error) FROM request_minutes'),
    measured: await one("SELECT sum(count) FROM endpoint_histograms WHERE hour = 0 AND metric = 'duration'"),
    rows: await one('SELECT count(*) FROM requests'),
  };
  await db.close();
  return result;
}

const same = (count: number) => ({
  counters: count,
  daily: count,
  minutes: count,
  measured: count,
  rows: count,
});

/** Clients that go on asking until they are told to stop; answers how many answers they got. */
function load(server: Api, clients: number) {
  let going = true;
  let answers = 0;
  const client = async () => {
    while (going) {
      const reply = await server.chat('sim-small', { max_tokens: 2 });
      if (reply.status !== 200) throw new Error(`a client got ${reply.status}: ${reply.text}`);
      answers += 1;
      await pause(5);
    }
  };
  const all = Promise.all(Array.from({ length: clients }, client));
  return {
    answers: () => answers,
    async stop() {
      going = false;
      await all;
      return answers;
    },
  };
}

const ready = async (server: Api) => (await server.get('/ready')).json;

test('through a locked, a full, a moved and a returned database nothing is lost and nothing counts twice', async () => {
  const box = await engine();
  let writer: Database | undefined;
  const server = await startLocal({
    seams: {
      onWriter: (opened) => {
        writer = opened;
      },
    },
  });
  await server.register('box', box.url);
  const clients = load(server, 8);
  const moreAnswers = async (count: number) => {
    const before = clients.answers();
    await until(() => clients.answers() > before + count);
  };
  await moreAnswers(50);

  const locker = await openFile(server.dataDir);
  await locker.exec('BEGIN IMMEDIATE');
  await until(async () => (await ready(server)).degraded);
  await moreAnswers(100);
  await locker.exec('ROLLBACK');
  await locker.close();
  await until(async () => !(await ready(server)).degraded);

  const pages = (await writer?.get<{ page_count: number }>('PRAGMA page_count'))?.page_count ?? 0;
  await writer?.exec(`PRAGMA max_page_count = ${pages}`);
  await until(async () => (await ready(server)).degraded, 20_000);
  await moreAnswers(100);
  await writer?.exec('PRAGMA max_page_count = 1000000');
  await until(async () => !(await ready(server)).degraded);

  const file = join(server.dataDir, 'troupe.db');
  await rename(file, `${file}.elsewhere`);
  await until(async () => (await ready(server)).degraded);
  await moreAnswers(100);
  expect(readdirSync(server.dataDir)).not.toContain('troupe.db');
  await rename(`${file}.elsewhere`, file);
  await until(async () => !(await ready(server)).degraded);
  await moreAnswers(50);

  const count = await clients.stop();
  const { stats } = (await server.get('/api/dashboard/overview')).json;
  expect(stats).toMatchObject({ total_requests: count, requests_60m: { success: count, error: 0 } });
  expect(await server.server.stop()).toBe(0);
  expect(await onDisk(server.dataDir)).toEqual(same(count));
});

test('while the store is away a change is refused, nothing changes, and requests are listed from memory', async () => {
  const box = await engine();
  const server = await startLocal();
  const { id } = await server.register('box', box.url);
  const locker = await openFile(server.dataDir);
  await locker.exec('BEGIN IMMEDIATE');
  await server.chat('sim-small');
  await until(async () => (await ready(server)).degraded);
  for (const reply of [
    await server.send('PUT', `/api/endpoints/${id}`, { name: 'another' }),
    await server.send('POST', '/api/endpoints', { name: 'second', base_url: 'http://127.0.0.1:1' }),
    await server.send('POST', `/api/endpoints/${id}/drain`),
    await server.send('DELETE', `/api/endpoints/${id}`),
  ]) {
    expect(reply.status).toBe(503);
    expect(reply.json.error.code).toBe('store_unavailable');
    expect(reply.headers.get('retry-after')).not.toBeNull();
  }
  const { endpoints } = (await server.get('/api/endpoints')).json;
  expect(endpoints).toHaveLength(1);
  expect(endpoints[0]).toMatchObject({ name: 'box', status: 'online' });
  const list = (await server.get('/api/dashboard/request-responses')).json;
  expect(list.total_count).toBe(1);
  const [record] = list.records;
  expect((await server.get(`/api/dashboard/request-responses/${record.request_id}`)).json.id).toBe(record.id);
  await locker.exec('ROLLBACK');
  await locker.close();
  await until(async () => !(await ready(server)).degraded);
  expect((await server.send('PUT', `/api/endpoints/${id}`, { name: 'another' })).status).toBe(200);
});

test('what cannot be written at the end goes to a file, exit 1, and is read in at the next start', async () => {
  const box = await engine();
  const first = await spawnServer();
  await first.register('box', box.url);
  await first.chat('sim-small');
  const locker = await openFile(first.dataDir);
  await locker.exec('BEGIN IMMEDIATE');
  for (let i = 0; i < 5; i += 1) await first.chat('sim-small', { stream: i > 2 });
  const models = (await first.get('/api/dashboard/model-stats')).json;
  expect(await first.end()).toBe(1);
  const saved = await readFile(join(first.dataDir, 'troupe.unsaved.ndjson'), 'utf8');
  expect(saved.trim().split('\n').length).toBeGreaterThan(0);
  await locker.exec('ROLLBACK');
  await locker.close();

  const second = await spawnServer({ dataDir: first.dataDir });
  const { stats } = (await second.get('/api/dashboard/overview')).json;
  expect(stats).toMatchObject({ total_requests: 6, requests_60m: { success: 6 } });
  expect((await second.get('/api/dashboard/model-stats')).json).toEqual(models);
  expect(readdirSync(first.dataDir)).not.toContain('troupe.unsaved.ndjson');
  expect(await second.end()).toBe(0);
  expect(await onDisk(first.dataDir)).toEqual(same(6));
});

test('a file of saved records that was read in before does not count twice', async () => {
  const box = await engine();
  const first = await spawnServer();
  await first.register('box', box.url);
  const locker = await openFile(first.dataDir);
  await locker.exec('BEGIN IMMEDIATE');
  for (let i = 0; i < 3; i += 1) await first.chat('sim-small');
  expect(await first.end()).toBe(1);
  await locker.exec('ROLLBACK');
  await locker.close();
  const file = join(first.dataDir, 'troupe.unsaved.ndjson');
  await copyFile(file, `${file}.copy`);
  expect(await (await spawnServer({ dataDir: first.dataDir })).end()).toBe(0);
  await rename(`${file}.copy`, file);
  expect(await (await spawnServer({ dataDir: first.dataDir })).end()).toBe(0);
  expect(await onDisk(first.dataDir)).toEqual(same(3));
});

test('a server that starts beside a locked database serves, and joins the numbers when the lock goes', async () => {
  const box = await engine();
  const first = await spawnServer();
  const { id } = await first.register('box', box.url);
  for (let i = 0; i < 4; i += 1) await first.chat('sim-small');
  await first.end();

  // Even readers are locked out: nothing can be seeded.
  const locker = await openFile(first.dataDir);
  await locker.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  const second = await spawnServer({ dataDir: first.dataDir, args: ['--endpoint', `again=${box.url}`] });
  expect(await ready(second)).toEqual({ status: 'ready', seeded: false, degraded: true });
  await until(async () => (await second.chat('sim-small')).status === 200);
  const early = (await second.get('/api/dashboard/stats')).json.total_requests;
  expect(early).toBeGreaterThan(0);
  await locker.exec('ROLLBACK; PRAGMA locking_mode = NORMAL');
  await locker.close();
  await until(async () => (await ready(second)).seeded, 20_000);
  const { endpoints } = (await second.get('/api/dashboard/overview')).json;
  expect(endpoints).toHaveLength(1);
  expect(endpoints[0]).toMatchObject({ id, name: 'box', total_requests: 4 + early });
  const models = (await second.get('/api/dashboard/model-stats')).json;
  expect(models).toMatchObject([{ total_requests: 4 + early, duration_ms: { p50: expect.any(Number) } }]);
  expect((await second.chat('sim-small')).status).toBe(200);
  await until(async () => !(await ready(second)).degraded);
  const live = (await second.get('/api/dashboard/model-stats')).json;
  expect(await second.end()).toBe(0);
  const third = await spawnServer({ dataDir: first.dataDir });
  expect((await third.get('/api/dashboard/model-stats')).json).toEqual(live);
  await third.end();
  const disk = await onDisk(first.dataDir);
  expect(disk.counters).toBe(5 + early);
  expect(disk.daily).toBe(5 + early);
  expect(disk.measured).toBe(5 + early);
});

test('on a data dir that can only be read the server serves what it can and says that it is degraded', async () => {
  const box = await engine();
  const first = await spawnServer();
  await first.register('box', box.url);
  for (let i = 0; i < 3; i += 1) await first.chat('sim-small');
  await first.end();
  const before = await readFile(join(first.dataDir, 'troupe.db'));

  const asRoot = process.getuid?.() === 0;
  chmodSync(dirname(first.dataDir), 0o755);
  chmodSync(first.dataDir, 0o555);
  for (const name of readdirSync(first.dataDir)) chmodSync(join(first.dataDir, name), 0o444);
  const run = runServer(['--port', '0', '--data-dir', first.dataDir], {}, asRoot ? 65_534 : undefined);
  const { api } = await import('./support/server.js');
  const second = api(await run.ready());
  expect(await ready(second)).toEqual({ status: 'ready', seeded: true, degraded: true });
  expect((await second.chat('sim-small')).status).toBe(200);
  const { stats } = (await second.get('/api/dashboard/overview')).json;
  expect(stats.total_requests).toBe(4);
  expect((await second.get('/api/dashboard/request-responses')).json.total_count).toBe(4);
  expect(
    (await second.send('POST', '/api/endpoints', { name: 'x', base_url: 'http://127.0.0.1:1' })).status,
  ).toBe(503);
  chmodSync(first.dataDir, 0o755);
  run.child.kill('SIGKILL');
  expect(await readFile(join(first.dataDir, 'troupe.db'))).toEqual(before);
});

test('old rows go in slices, minutes become hours, and no sum changes', async () => {
  const { SqliteStore } = await import('../src/persistence/sqlite/sqlite-store.js');
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const store = new SqliteStore(join(dataDir, 'troupe.db'), () => Date.now());
  await store.open();
  const db = await openFile(dataDir);
  await db.exec(`
    INSERT INTO request_minutes SELECT value, 'e', 'm', 'completions', 1, 2, 3, 4, 1, 10, 1, 5, 6, 7
    FROM json_each('[${Array.from({ length: 1300 }, (_, i) => i).join()}]');`);
  const sums = (table: string) =>
    db.get(
      `SELECT sum(success) AS s, sum(error) AS e, sum(input_tokens) AS i, sum(output_tokens) AS o,
       sum(measured) AS m, sum(measured_ms) AS ms, sum(ttft_count) AS t, sum(ttft_ms) AS tms,
       sum(sample_tokens) AS st, sum(sample_ms) AS sms FROM ${table}`,
    );
  const before = await sums('request_minutes');
  let slices = 0;
  while ((await store.foldMinutes(1300, 500)) > 0) slices += 1;
  expect(slices).toBe(3);
  expect(await sums('request_hours')).toEqual(before);
  expect(await db.get('SELECT count(*) AS hours FROM request_hours')).toEqual({ hours: 22 });
  await db.close();
  await store.close();
  expect((await stat(join(dataDir, 'troupe.db'))).isFile()).toBe(true);
});

test('decisions of old successes are forgotten in slices; those of failures and of the newest rows stay', async () => {
  const { SqliteStore } = await import('../src/persistence/sqlite/sqlite-store.js');
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const store = new SqliteStore(join(dataDir, 'troupe.db'), () => Date.now());
  await store.open();
  const db = await openFile(dataDir);
  await db.exec(`
    INSERT INTO requests (id, request_id, api_kind, request_type, model, accepted_at, completed_at, duration_ms,
      outcome, timeline, error, status_code, tokens_estimated, attempts, decision)
    SELECT value, value, 'completions', 'completion', 'm', 1, 2, 1, 'success', 'success',
      CASE value % 100 WHEN 0 THEN 'broken' END, 200, 0, '[]', '{}'
    FROM json_each('[${Array.from({ length: 1200 }, (_, i) => i + 1).join()}]');`);
  const trimmed: number[] = [];
  do trimmed.push(await store.trimDecisions(100, 500));
  while (trimmed.at(-1) !== 0);
  expect(trimmed).toEqual([500, 500, 100, 0]);
  const left = await db.all<{ seq: number }[]>(
    'SELECT seq FROM requests WHERE decision IS NOT NULL LIMIT 2000',
  );
  const wanted = Array.from({ length: 1200 }, (_, i) => i + 1).filter((seq) => seq > 1100 || seq % 100 === 0);
  expect(left.map(({ seq }) => seq)).toEqual(wanted);
  await db.close();
  await store.close();
});
