import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { type Database, open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, onTestFinished, test, vi } from 'vitest';
import * as readSlices from '../src/persistence/sqlite/request-slices.js';
import { rawRequest } from './support/clients.js';
import { type Api, engine, newDataDir, pause, startLocal, until } from './support/server.js';

const EXPORT = '/api/dashboard/requests/export';
const PASSWORD = 'a password of the tests';
const ENV = { TROUPE_ADMIN_PASSWORD: PASSWORD, TROUPE_HEALTH_INTERVAL_MS: '600000' };
/** Rows that share a millisecond are there, and rows of many of them. */
const START = Date.now() - 3_600_000;
const MODELS = ['alpha', 'beta', 'gamma/one'];
const KEYS = ['k1', 'k2'];
const ENDPOINTS = ['e1', 'e2'];

const openFile = (dataDir: string): Promise<Database> =>
  open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });

/** A data dir with so many requests in it; `more` changes some columns of all. */
async function withRows(count: number, more: Record<string, string> = {}): Promise<string> {
  const dataDir = newDataDir();
  const first = await startLocal({ dataDir, env: ENV });
  await first.server.stop();
  const db = await openFile(dataDir);
  await db.exec('BEGIN');
  for (let i = 0; i < count; i += 1) {
    const failed = i % 7 === 0;
    const endpoint = ENDPOINTS[i % 2] as string;
    const attempt = {
      endpointId: endpoint,
      endpointName: `box ${endpoint}`,
      modelId: 'm',
      counted: failed ? 'failure' : 'success',
      statusCode: failed ? 500 : 200,
      error: failed ? 'it broke' : null,
      durationMs: 40,
      predictedMs: null,
      inputTokens: 3,
      outputTokens: failed ? null : 4,
      sampled: !failed,
    };
    const row: Record<string, string | number | null> = {
      id: randomUUID(),
      request_id: `r${i}`,
      api_kind: 'chat_completions',
      request_type: 'chat',
      model: MODELS[i % 3] as string,
      endpoint_id: endpoint,
      client_ip: '127.0.0.1',
      accepted_at: START + 10 * Math.floor(i / 3) - 50,
      completed_at: START + 10 * Math.floor(i / 3),
      duration_ms: 50,
      ttft_ms: i % 5 === 0 ? 20 : null,
      outcome: failed ? 'failure' : 'success',
      timeline: failed ? 'error' : 'success',
      error: failed ? 'it broke' : null,
      status_code: failed ? 500 : 200,
      tokens_estimated: 0,
      attempts: JSON.stringify([attempt]),
      key_id: KEYS[i % 2] as string,
      ...more,
    };
    const names = Object.keys(row);
    await db.run(
      `INSERT INTO requests (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})`,
      Object.values(row),
    );
  }
  await db.exec('COMMIT');
  await db.close();
  return dataDir;
}

/** RFC 4180, read back: a record for each line. */
function parsed(text: string): Record<string, string>[] {
  expect(text.endsWith('\r\n')).toBe(true);
  const rows: string[][] = [[]];
  for (const [, cell = '', end] of text.matchAll(/("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)/g)) {
    rows.at(-1)?.push(cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell);
    if (end === '\r\n') rows.push([]);
  }
  expect(rows.pop()).toEqual([]);
  const [names = [], ...lines] = rows;
  return lines.map((line) => {
    expect(line).toHaveLength(names.length);
    return Object.fromEntries(names.map((name, i) => [name, line[i] ?? '']));
  });
}

async function csv(server: Api, query = ''): Promise<Record<string, string>[]> {
  const reply = await server.get(`${EXPORT}?format=csv${query}`);
  expect(reply.status, reply.text).toBe(200);
  return parsed(reply.text);
}

/** Every record of the list of requests, page by page. */
async function listed(server: Api, query = '') {
  const found: { id: string; request_id: string }[] = [];
  for (let page = 1; ; page += 1) {
    const path = `/api/dashboard/request-responses?per_page=100&page=${page}${query}`;
    const { records } = (await server.get(path)).json;
    found.push(...records);
    if (records.length < 100) return found;
  }
}

test('all requests are in the file, newest first, as the list of requests has them', async () => {
  const server = await startLocal({ dataDir: await withRows(1234), env: ENV });
  const records = await listed(server);
  expect(records).toHaveLength(1234);
  const json = await server.get(`${EXPORT}?format=json`);
  expect(json.json).toEqual(records);
  expect(json.headers.get('content-type')).toBe('application/json');
  expect(json.headers.get('content-disposition')).toMatch(
    /^attachment; filename="troupe-requests-\d{8}T\d{6}Z\.json"$/,
  );
  const reply = await server.get(EXPORT);
  expect(reply.headers.get('content-type')).toBe('text/csv; charset=utf-8');
  expect(reply.headers.get('content-disposition')).toMatch(
    /^attachment; filename="troupe-requests-\d{8}T\d{6}Z\.csv"$/,
  );
  const lines = parsed(reply.text);
  expect(lines.map(({ id }) => id)).toEqual(records.map(({ id }) => id));
  expect(lines.find(({ request_id }) => request_id === 'r5')).toMatchObject({
    timestamp: new Date(START + 10 - 50).toISOString(),
    completed_at: new Date(START + 10).toISOString(),
    request_type: 'chat',
    model: 'gamma/one',
    endpoint_id: 'e2',
    endpoint_name: 'box e2',
    client_ip: '127.0.0.1',
    key_id: 'k2',
    user_id: '',
    status: 'success',
    error: '',
    outcome: 'success',
    status_code: '200',
    duration_ms: '50',
    ttft_ms: '20',
    input_tokens: '3',
    output_tokens: '4',
    total_tokens: '7',
    tokens_estimated: 'false',
    attempts: '1',
  });
  expect(lines.find(({ request_id }) => request_id === 'r7')).toMatchObject({
    status: 'error',
    error: 'it broke',
    ttft_ms: '',
    output_tokens: '',
  });
});

test('the filters are those of the list of requests', async () => {
  const server = await startLocal({ dataDir: await withRows(1300), env: ENV });
  const time = (at: number) => encodeURIComponent(new Date(at).toISOString());
  const filters: [string, number][] = [
    ['&model=alpha', 434],
    ['&model=*a', 867],
    ['&model=gamma*', 433],
    ['&endpoint_id=e1', 650],
    ['&key_id=k2', 650],
    ['&status=error', 186],
    ['&status=success&endpoint_id=e2&model=beta', 186],
    [`&start_time=${time(START + 1000)}`, 1000],
    [`&end_time=${time(START + 990)}`, 300],
    [`&start_time=${time(START + 1000)}&end_time=${time(START + 1000)}`, 3],
    ['&key_id=nobody', 0],
  ];
  for (const [filter, count] of filters) {
    const ids = (await csv(server, filter)).map(({ id }) => id);
    expect([filter, ids.length]).toEqual([filter, count]);
    expect(ids).toEqual((await listed(server, filter)).map(({ id }) => id));
    expect(
      (await server.get(`${EXPORT}?format=json${filter}`)).json.map(({ id }: { id: string }) => id),
    ).toEqual(ids);
  }
  for (const wrong of ['format=xml', 'status=bad', 'start_time=yesterday']) {
    const { status, json } = await server.get(`${EXPORT}?${wrong}`);
    expect([status, json.error.code]).toEqual([400, 'invalid_request']);
    expect(json.error.message).toContain(wrong.split('=', 1)[0]);
  }
});

test('an empty file has its head, or is an empty list', async () => {
  const server = await startLocal();
  expect((await server.get(EXPORT)).text).toMatch(/^id,request_id,[a-z_,]+\r\n$/);
  expect((await server.get(`${EXPORT}?format=json`)).json).toEqual([]);
});

test.each([
  '=1+1',
  '+1',
  '-1',
  '@sum',
  '\tx',
  '\rx',
  '=cmd|"/c calc",A1',
  'a "quoted", one',
  'two\r\nlines',
  'é ümlaut',
])('the text %j comes through whole and is no formula to a spreadsheet', async (text) => {
  const server = await startLocal({
    dataDir: await withRows(1, { model: text, request_id: text, error: text }),
    env: ENV,
  });
  const [line] = await csv(server);
  const defused = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  expect(line).toMatchObject({ model: defused, request_id: defused, error: defused, status_code: '500' });
  const [record] = (await server.get(`${EXPORT}?format=json`)).json;
  expect(record).toMatchObject({ model: text, status: { type: 'error', message: text } });
});

test('requests that wait for the store come first, each once, also when they are written meanwhile', async () => {
  const box = await engine();
  const server = await startLocal({ dataDir: await withRows(1100), env: ENV });
  await server.register('box', box.url);
  const locker = await openFile(server.dataDir);
  await locker.exec('BEGIN IMMEDIATE');
  const sent: string[] = [];
  for (let i = 0; i < 3; i += 1)
    sent.push((await server.chat('sim-small')).headers.get('x-request-id') ?? '');
  await until(async () => (await server.get('/ready')).json.degraded);
  const ids = (lines: { request_id?: string }[]) => lines.map(({ request_id }) => request_id);
  expect(ids(await csv(server)).slice(0, 4)).toEqual([...sent.toReversed(), 'r1099']);
  expect(ids(await csv(server, '&model=sim-small'))).toEqual(sent.toReversed());
  const under = await rawRequest(server.url, `${EXPORT}?format=json`);
  under.response.pause();
  await locker.exec('ROLLBACK');
  await locker.close();
  await until(async () => !(await server.get('/ready')).json.degraded);
  under.response.resume();
  expect(await under.whole).toBe(true);
  const whole = ids(under.json());
  expect(whole.slice(0, 3)).toEqual(sent.toReversed());
  expect(new Set(whole).size).toBe(whole.length);
  expect(whole).toHaveLength(1103);
});

/** Called before each slice is read of a store that is opened from now on. */
function watchSlices(seen: () => void): void {
  const real = readSlices.readRequestSlice;
  vi.spyOn(readSlices, 'readRequestSlice').mockImplementation(async (...args) => {
    seen();
    return real(...args);
  });
  onTestFinished(() => {
    vi.restoreAllMocks();
  });
}

test('a client that leaves half-way ends the reading, one that is slow holds it up', async () => {
  const dataDir = await withRows(6000, { error: 'x'.repeat(2000) });
  const server = await startLocal({ dataDir, env: ENV });
  let reads = 0;
  watchSlices(() => {
    reads += 1;
  });
  const slow = await rawRequest(server.url, `${EXPORT}?format=json`);
  slow.response.pause();
  let held = 0;
  // No slice in half a second.
  while (held !== reads || held === 0) {
    held = reads;
    await pause(500);
  }
  expect(held).toBeLessThan(10);
  slow.leave();
  await pause(500);
  expect(reads).toBeLessThanOrEqual(held + 1);
  // Nobody is in the way of the next one.
  reads = 0;
  expect((await server.get(`${EXPORT}?format=json`)).json).toHaveLength(6000);
  expect(reads).toBe(13);
});

test('a store that fails half-way breaks the file off, one that is away from the start is told', async () => {
  const server = await startLocal({ dataDir: await withRows(1200), env: ENV });
  let reads = 0;
  let failAt = 2;
  watchSlices(() => {
    reads += 1;
    if (reads === failAt) throw new Error('the disk is gone');
  });
  for (const format of ['csv', 'json']) {
    reads = 0;
    const cut = await rawRequest(server.url, `${EXPORT}?format=${format}`);
    expect([cut.status, await cut.whole]).toEqual([200, false]);
    expect(cut.text()).toContain('r1199');
    expect(cut.text()).not.toContain('the disk');
  }
  reads = 0;
  failAt = 1;
  const told = await server.get(EXPORT);
  expect([told.status, told.json.error.code]).toEqual([503, 'store_unavailable']);
  failAt = 0;
  expect(await csv(server)).toHaveLength(1200);
});

test('whoever may read the dashboard may export, and nobody else', async () => {
  const server = await startLocal({ dataDir: await withRows(3), env: ENV });
  const { generated_password: password } = (
    await server.send('POST', '/api/users', { username: 'eve', role: 'viewer' })
  ).json;
  const { token } = (
    await server.send('POST', '/api/auth/login', { username: 'eve', password }, { authorization: '' })
  ).json;
  const statusFor = async (authorization: string) => (await server.get(EXPORT, { authorization })).status;
  expect(await statusFor(`Bearer ${token}`)).toBe(200);
  expect(await statusFor('')).toBe(401);
  expect(await statusFor('Bearer sk_nobody')).toBe(401);
  const { key } = (
    await server.send('POST', '/api/api-keys', { name: 'k', permissions: ['openai.inference'] })
  ).json;
  expect(await statusFor(`Bearer ${key}`)).toBe(403);
});
