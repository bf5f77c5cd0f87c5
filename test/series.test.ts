import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Database, open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import { migrate } from '../src/persistence/sqlite/migrations.js';
import { type Api, engine, type LocalServer, newDataDir, startLocal, until } from './support/server.js';

const METRICS = ['requests', 'errors', 'latency', 'ttft', 'tps', 'tokens'] as const;
type Metric = (typeof METRICS)[number];
const RANGES = { '1h': [60, 60], '24h': [300, 288], '7d': [3600, 168], '30d': [7200, 360] } as const;
type Range = keyof typeof RANGES;
const HOUR_MS = 3_600_000;
/** In the middle of a minute, an hour and a day, so that no test crosses any by the seconds it takes. */
const NOON = Date.UTC(2026, 0, 15, 12, 30, 20);
/** No check of an endpoint comes between. */
const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '600000' };

/** The wall clock stands still; the monotonic one runs. */
function stoppedClock(at = NOON) {
  const clock = { at, later: 0, now: () => clock.at, mono: () => performance.now() + clock.later };
  return clock;
}

interface Series {
  metric: Metric;
  range: Range;
  step_secs: number;
  points: [number, number | null][];
}

async function series(server: Api, metric: Metric, range: Range, filter = ''): Promise<Series> {
  const reply = await server.get(`/api/dashboard/series?metric=${metric}&range=${range}${filter}`);
  expect(reply.status, reply.text).toBe(200);
  return reply.json;
}

async function all(server: Api, range: Range, filter = ''): Promise<Record<Metric, Series['points']>> {
  const found = await Promise.all(METRICS.map((metric) => series(server, metric, range, filter)));
  return Object.fromEntries(found.map(({ metric, points }) => [metric, points])) as never;
}

/** What is there, by the start of its step. */
const seen = (points: Series['points']) => points.filter(([, value]) => value !== null && value !== 0);
const sum = (points: Series['points']) => points.reduce((total, [, value]) => total + (value ?? 0), 0);
const requestsOf = async (server: Api, range: Range, filter = '') =>
  sum((await series(server, 'requests', range, filter)).points);

const openFile = (dataDir: string): Promise<Database> =>
  open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });

async function written(server: LocalServer, count: number): Promise<void> {
  const db = await openFile(server.dataDir);
  const rows = async () => (await db.get('SELECT count(*) AS n FROM requests')).n as number;
  await until(async () => (await rows()) === count, 10_000, 'the last batch');
  await db.close();
}

const mean = (values: number[]) => values.reduce((total, one) => total + one, 0) / values.length;

test('each range is a grid of whole steps that ends with the step of now, and is empty before there was anything', async () => {
  const clock = stoppedClock();
  const server = await startLocal({ seams: { clock } });
  for (const range of Object.keys(RANGES) as Range[]) {
    const [step, count] = RANGES[range];
    for (const metric of METRICS) {
      const { points, ...head } = await series(server, metric, range);
      expect(head).toEqual({ metric, range, step_secs: step });
      const last = Math.floor(NOON / 1000 / step) * step;
      const nothing = metric === 'latency' || metric === 'ttft' || metric === 'tps' ? null : 0;
      expect(points).toEqual(
        Array.from({ length: count }, (_, i) => [last - (count - 1 - i) * step, nothing]),
      );
    }
  }
});

test('all metrics are those of the requests that have been answered, in every range', async () => {
  const clock = stoppedClock();
  const box = await engine({ tokensPerSecond: 400, firstTokenMs: 5 });
  const server = await startLocal({ seams: { clock }, env: QUIET });
  await server.register('box', box.url);
  for (let i = 0; i < 3; i += 1) expect((await server.chat('sim-small', { stream: true })).status).toBe(200);
  expect((await server.chat('sim-small')).status).toBe(200);
  box.faults.next.push({ kind: 'status', status: 400 });
  expect((await server.chat('sim-small')).status).toBe(400);
  const { records } = (await server.get('/api/dashboard/request-responses')).json;
  const good = records.filter((one: { outcome: string }) => one.outcome === 'success');
  expect(good).toHaveLength(4);
  const times = good
    .map((one: { ttft_ms: number | null }) => one.ttft_ms)
    .filter((ms: number | null) => ms !== null);
  expect(times.length).toBeGreaterThanOrEqual(3);
  const attempts = good.flatMap((one: { attempts: { duration_ms: number }[] }) => one.attempts);
  const ms = attempts.reduce((total: number, one: { duration_ms: number }) => total + one.duration_ms, 0);
  const wanted: Record<Metric, number> = {
    requests: 5,
    errors: 1,
    latency: mean(good.map((one: { duration_ms: number }) => one.duration_ms)),
    ttft: mean(times),
    tps: (4 * 12 * 1000) / ms,
    tokens: records.reduce(
      (total: number, one: { total_tokens: number | null }) => total + (one.total_tokens ?? 0),
      0,
    ),
  };
  expect(wanted.tokens).toBeGreaterThan(48);
  for (const range of Object.keys(RANGES) as Range[]) {
    const [step] = RANGES[range];
    const found = await all(server, range);
    for (const metric of METRICS) {
      const [[at, value] = [0, null], ...more] = seen(found[metric]);
      expect([metric, at, more]).toEqual([metric, Math.floor(NOON / 1000 / step) * step, []]);
      expect(value).toBeCloseTo(wanted[metric], 6);
    }
  }
});

test('a client sees its own answer in the next read, while batches are written under it, and none counts twice', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  await server.register('box', box.url);
  const ranges = Object.keys(RANGES) as Range[];
  for (let sent = 1; sent <= 120; sent += 1) {
    expect((await server.chat('sim-small', { max_tokens: 1 })).status).toBe(200);
    const range = ranges[sent % ranges.length] as Range;
    expect([range, await requestsOf(server, range)]).toEqual([range, sent]);
  }
  await written(server, 120);
  for (const range of ranges) expect(await requestsOf(server, range)).toBe(120);
});

test('many clients and many readers at once: no read is behind what its reader has seen, the end is exact', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  await server.register('box', box.url);
  let sent = 0;
  let answered = 0;
  const client = async () => {
    for (let i = 0; i < 25; i += 1) {
      sent += 1;
      await server.chat('sim-small', { max_tokens: 1 });
      answered += 1;
      const least = answered;
      const found = await requestsOf(server, i % 2 === 0 ? '1h' : '30d');
      expect(found).toBeGreaterThanOrEqual(least);
      expect(found).toBeLessThanOrEqual(sent);
    }
  };
  await Promise.all(Array.from({ length: 8 }, client));
  expect(await requestsOf(server, '1h')).toBe(200);
  expect(await requestsOf(server, '30d')).toBe(200);
});

test('a restart changes no point', async () => {
  const clock = stoppedClock();
  const box = await engine({ tokensPerSecond: 1000 });
  const first = await startLocal({ seams: { clock }, env: QUIET });
  await first.register('box', box.url);
  for (const minutes of [0, 1, 7, 70]) {
    clock.at = NOON + minutes * 60_000;
    for (let i = 0; i < 4; i += 1) await first.chat('sim-small', { stream: i % 2 === 0 });
    box.faults.next.push({ kind: 'status', status: 400 });
    await first.chat('sim-small');
  }
  const read = async (server: Api) => {
    const found: Record<string, object> = {};
    for (const range of Object.keys(RANGES)) found[range] = await all(server, range as Range);
    return found;
  };
  const before = await read(first);
  expect(seen((before['7d'] as Record<Metric, Series['points']>).requests).map(([, value]) => value)).toEqual(
    [15, 5],
  );
  await first.server.stop();
  const second = await startLocal({ dataDir: first.dataDir, seams: { clock }, env: QUIET });
  expect(await read(second)).toEqual(before);
  await second.chat('sim-small');
  expect(await requestsOf(second, '30d')).toBe(21);
});

test('what waits for a store that is away is in the series, and is there once when the store is back', async () => {
  const clock = stoppedClock();
  const box = await engine();
  const server = await startLocal({ seams: { clock }, env: QUIET });
  await server.register('box', box.url);
  for (let i = 0; i < 5; i += 1) await server.chat('sim-small');
  expect(await requestsOf(server, '24h')).toBe(5);
  const locker = await openFile(server.dataDir);
  await locker.exec('BEGIN IMMEDIATE');
  for (let i = 0; i < 5; i += 1) await server.chat('sim-small');
  await until(async () => (await server.get('/ready')).json.degraded);
  expect(await requestsOf(server, '24h')).toBe(10);
  // One that was not asked for before.
  expect(await requestsOf(server, '7d')).toBe(10);
  await locker.exec('ROLLBACK');
  await locker.close();
  await until(async () => !(await server.get('/ready')).json.degraded);
  await written(server, 10);
  for (const range of ['1h', '24h', '7d'] as const) expect(await requestsOf(server, range)).toBe(10);
  // Read anew.
  clock.later = 3_600_000;
  for (const range of ['1h', '24h', '7d'] as const) expect(await requestsOf(server, range)).toBe(10);
});

test('a request that was tried twice counts once, under the endpoint that served it', async () => {
  const [bad, good] = [await engine(), await engine()];
  const server = await startLocal({ env: QUIET, args: ['--policy', 'round-robin'] });
  const badId = (await server.register('bad', bad.url)).id;
  const goodId = (await server.register('good', good.url)).id;
  bad.faults.always = { kind: 'reset' };
  for (let i = 0; i < 2; i += 1) expect((await server.chat('sim-small')).status).toBe(200);
  const { failed_requests } = (await server.get(`/api/endpoints/${badId}/today-stats`)).json;
  expect(failed_requests).toBeGreaterThan(0);
  const numbers = async (filter: string) => [
    await requestsOf(server, '1h', filter),
    sum((await series(server, 'errors', '1h', filter)).points),
  ];
  expect(await numbers('')).toEqual([2, 0]);
  expect(await numbers(`&endpoint_id=${goodId}`)).toEqual([2, 0]);
  expect(await numbers(`&endpoint_id=${badId}`)).toEqual([0, 0]);
});

test('a series can be that of one endpoint, of one model or of those that a pattern fits', async () => {
  const models = ['tiny', 'tiny:latest', 'tinier', 'big/one', 'big?two'];
  const server = await startLocal({ env: QUIET });
  const boxes: string[] = [];
  for (const model of models) {
    const box = await engine({ models: [model] });
    boxes.push((await server.register(model, box.url)).id);
  }
  const asked = ['tiny:latest', 'tinier', 'tinier', 'big/one', 'big/one', 'big/one', 'big?two'];
  for (const model of asked) expect((await server.chat(model)).status).toBe(200);
  const filters: [string, number][] = [
    ['', 7],
    ['&model=&endpoint_id=', 7],
    [`&endpoint_id=${boxes[2]}`, 2],
    [`&endpoint_id=${boxes[2]}&model=big/one`, 0],
    ['&endpoint_id=nobody', 0],
    ['&model=tinier', 2],
    // As a client that asks without the tag.
    ['&model=tiny', 1],
    ['&model=tin*', 3],
    ['&model=*one', 3],
    ['&model=b*e', 3],
    ['&model=big%3Ftwo', 1],
    ['&model=big%3Fone', 0],
    ['&model=[bt]*', 0],
    ['&model=*', 7],
    ['&model=TINIER', 0],
  ];
  const found = async () =>
    Promise.all(filters.map(async ([filter]) => [filter, await requestsOf(server, '1h', filter)]));
  // First some of it out of memory, then all from the store.
  expect(await found()).toEqual(filters);
  await written(server, asked.length);
  expect(await found()).toEqual(filters);
});

test('nobody who could serve: the request counts as an error under no endpoint', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  expect((await server.chat('sim-small')).status).toBe(503);
  expect(sum((await series(server, 'errors', '1h')).points)).toBe(1);
  expect(sum((await series(server, 'errors', '1h', '&model=sim-small')).points)).toBe(1);
  expect(sum((await series(server, 'errors', '1h', `&endpoint_id=${id}`)).points)).toBe(0);
  expect(seen((await series(server, 'latency', '1h')).points)).toEqual([]);
});

test('minutes that are folded into hours keep every sum, whatever is folded already', async () => {
  const clock = stoppedClock();
  const first = await startLocal({ seams: { clock } });
  await first.server.stop();
  const nowMinute = Math.floor(NOON / 60_000);
  const db = await openFile(first.dataDir);
  // Every 20 minutes of three days, and an hour of the fourth that is folded.
  const minutes = Array.from({ length: 3 * 72 }, (_, i) => nowMinute - 20 * i);
  await db.run(
    `INSERT INTO request_minutes (minute, endpoint_id, model_id, api_kind, success, error, input_tokens,
       output_tokens, measured, measured_ms, ttft_count, ttft_ms, sample_tokens, sample_ms)
     SELECT value, 'e', 'm', 'completions', 3, 1, 10, 20, 2, 100, 2, 30, 20, 400 FROM json_each(?)`,
    JSON.stringify(minutes),
  );
  await db.run(
    `INSERT INTO request_hours (hour, endpoint_id, model_id, api_kind, success, error, input_tokens,
       output_tokens, measured, measured_ms, ttft_count, ttft_ms, sample_tokens, sample_ms)
     VALUES (?, 'e', 'm', 'completions', 5, 2, 10, 20, 5, 500, 5, 5, 50, 1000)`,
    Math.floor(nowMinute / 60) - 90,
  );
  const server = await startLocal({ dataDir: first.dataDir, seams: { clock } });
  const before = { '7d': await all(server, '7d'), '30d': await all(server, '30d') };
  const expected = new Map<number, number>();
  const add = (secs: number, count: number) => {
    const at = Math.floor(secs / 3600) * 3600;
    expected.set(at, (expected.get(at) ?? 0) + count);
  };
  for (const minute of minutes) add(minute * 60, 4);
  add(Math.floor(nowMinute / 60 - 90) * 3600, 7);
  expect(seen(before['7d'].requests)).toEqual([...expected].sort(([a], [b]) => a - b));
  expect(seen(before['7d'].ttft).map(([, value]) => value)).toEqual([
    1,
    ...new Array(seen(before['7d'].ttft).length - 1).fill(15),
  ]);
  expect(sum(before['30d'].requests)).toBe(4 * minutes.length + 7);
  const left = async () =>
    (await db.get('SELECT count(*) AS n FROM request_minutes WHERE minute < ?', nowMinute - 2880)).n;
  // Housekeeping waits for nothing but its turn.
  clock.later += HOUR_MS;
  await until(async () => (await left()) === 0, 20_000, 'the fold');
  clock.later += HOUR_MS;
  expect({ '7d': await all(server, '7d'), '30d': await all(server, '30d') }).toEqual(before);
  await db.close();
});

test('what an earlier version has counted is there, without what it did not measure', async () => {
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const db = await openFile(dataDir);
  await migrate(db, 6);
  await db.run(
    `INSERT INTO request_minutes (minute, endpoint_id, model_id, api_kind, success, error, input_tokens,
       output_tokens, measured, measured_ms) VALUES (?, 'e', 'm', 'completions', 3, 1, 10, 20, 2, 100)`,
    Math.floor(NOON / 60_000),
  );
  await db.close();
  const server = await startLocal({ dataDir, seams: { clock: stoppedClock() } });
  const found = await all(server, '1h');
  const values = Object.fromEntries(
    METRICS.map((metric) => [metric, seen(found[metric]).map(([, value]) => value)]),
  );
  expect(values).toEqual({ requests: [4], errors: [1], latency: [50], ttft: [], tps: [], tokens: [30] });
});

test.each([
  ['', 'metric: one of requests, errors, latency, ttft, tps, tokens'],
  ['?range=1h', 'metric: one of requests, errors, latency, ttft, tps, tokens'],
  ['?metric=cost&range=1h', 'metric: one of requests, errors, latency, ttft, tps, tokens'],
  ['?metric=requests', 'range: one of 1h, 24h, 7d, 30d'],
  ['?metric=requests&range=2h', 'range: one of 1h, 24h, 7d, 30d'],
])('a series of %j is refused by the field and its values', async (query, message) => {
  const server = await startLocal();
  const { status, json } = await server.get(`/api/dashboard/series${query}`);
  expect([status, json.error.code, json.error.message]).toEqual([400, 'invalid_request', message]);
});
