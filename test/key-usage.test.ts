import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import { chatBody, payloads, type RawReply, rawRequest, startRequest } from './support/clients.js';
import {
  type Api,
  engine,
  type LocalServer,
  newDataDir,
  type Reply,
  spawnServer,
  startLocal,
  TEST_KEY,
  until,
} from './support/server.js';
import * as shapes from './support/shapes.js';

const CHAT = '/v1/chat/completions';
const MODEL = 'sim-small';
const PASSWORD = 'a password of the tests';
const CSV = '/api/dashboard/keys/usage.csv';
const NO_USER = '00000000-0000-0000-0000-000000000000';
const NOTHING = { requests: 0, errors: 0, input_tokens: 0, output_tokens: 0 };

interface Key {
  id: string;
  key: string;
  key_prefix: string;
}

interface Serving extends LocalServer {
  box: SimulatedEngine;
}

async function serving(
  options: { dataDir?: string; clock?: { now(): number; mono(): number } } = {},
): Promise<Serving> {
  const { dataDir = newDataDir(), clock } = options;
  const box = await engine();
  const server = await startLocal({
    dataDir,
    env: { TROUPE_ADMIN_PASSWORD: PASSWORD, TROUPE_HEALTH_INTERVAL_MS: '60000' },
    seams: clock === undefined ? {} : { clock },
  });
  await server.register('box', box.url);
  return { ...server, box };
}

const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

async function newKey(server: Api, name: string): Promise<Key> {
  return (await server.send('POST', '/api/api-keys', { name })).json;
}

async function logIn(server: Api): Promise<{ token: string; id: string }> {
  const body = { username: 'admin', password: PASSWORD };
  const { token, user } = (await server.send('POST', '/api/auth/login', body, { authorization: '' })).json;
  return { token, id: user.id };
}

function chat(server: Api, secret: string, more: object = {}): Promise<Reply> {
  return server.send('POST', CHAT, { ...JSON.parse(chatBody(MODEL)), ...more }, bearer(secret));
}

function stream(server: LocalServer, secret: string): Promise<RawReply> {
  return rawRequest(server.url, CHAT, { body: chatBody(MODEL, { stream: true }), headers: bearer(secret) });
}

async function usageOf(server: Api, id: string): Promise<Reply['json']> {
  const keys = shapes.keyUsage.parse((await server.get('/api/dashboard/keys')).json);
  return keys.find((key) => key.id === id);
}

async function records(server: Api, query = ''): Promise<Reply['json'][]> {
  const reply = await server.get(`/api/dashboard/request-responses?per_page=100${query}`);
  return shapes.recordPage.parse(reply.json).records;
}

// The dashboard.

test('every key is listed with what it used, and the one of the environment without any of it', async () => {
  const server = await serving();
  const key = await newKey(server, 'mine');
  const keys = shapes.keyUsage.parse((await server.get('/api/dashboard/keys')).json);
  expect(keys.map(({ id, name, key_prefix }) => ({ id, name, key_prefix }))).toEqual([
    { id: NO_USER, name: 'TROUPE_API_KEY', key_prefix: '' },
    expect.objectContaining({ name: 'first key' }),
    { id: key.id, name: 'mine', key_prefix: key.key_prefix },
  ]);
  for (const { today, total, last_used_at } of keys) {
    expect([today, total, last_used_at]).toEqual([NOTHING, NOTHING, null]);
  }
  await server.chat(MODEL);
  const { text } = await server.get('/api/dashboard/keys');
  expect(text).not.toContain(TEST_KEY.slice(0, 4));
  expect(text).not.toContain(key.key.slice(10));
  expect((await usageOf(server, NO_USER)).total.requests).toBe(1);
  await server.send('DELETE', `/api/api-keys/${key.id}`);
  expect(await usageOf(server, key.id)).toBeUndefined();
});

test('a success counts with its tokens, in the very next read, for its own key alone', async () => {
  const server = await serving();
  const [key, other] = [await newKey(server, 'mine'), await newKey(server, 'other')];
  const before = Date.now();
  const { usage } = (await chat(server, key.key)).json;
  const used = {
    requests: 1,
    errors: 0,
    input_tokens: usage.prompt_tokens,
    output_tokens: usage.completion_tokens,
  };
  const seen = await usageOf(server, key.id);
  expect(seen).toMatchObject({ today: used, total: used });
  expect(Date.parse(seen.last_used_at)).toBeGreaterThanOrEqual(before);
  expect(await usageOf(server, other.id)).toMatchObject({ total: NOTHING, last_used_at: null });
  const whole = await stream(server, key.key);
  expect(await whole.whole).toBe(true);
  expect((await usageOf(server, key.id)).total).toEqual({
    requests: 2,
    errors: 0,
    input_tokens: 2 * usage.prompt_tokens,
    output_tokens: 2 * usage.completion_tokens,
  });
});

test('what went wrong at an endpoint is an error of the key’s, what was refused here is nothing', async () => {
  const server = await serving();
  const { id, key } = await newKey(server, 'mine');
  const { box } = server;
  box.faults.next.push({ kind: 'status', status: 400 });
  expect((await chat(server, key)).status).toBe(400);
  box.faults.always = { kind: 'refuse' };
  expect((await chat(server, key)).status).toBe(502);
  box.faults.always = null;
  await until(async () => (await server.chat(MODEL)).status === 200, 10_000, 'an endpoint that serves');
  box.faults.next.push({ kind: 'cut', afterTokens: 3 });
  await (await stream(server, key)).whole;
  expect((await usageOf(server, id)).total).toMatchObject({ requests: 3, errors: 3 });

  expect((await chat(server, key, { model: 'nowhere' })).status).toBe(404);
  expect((await server.send('POST', CHAT, {}, bearer(key))).status).toBe(400);
  await server.send('PUT', `/api/api-keys/${id}`, { models: ['other'] });
  expect((await chat(server, key)).status).toBe(403);
  await server.send('PUT', `/api/api-keys/${id}`, { models: null, rate_limit: { tokens_per_day: 1 } });
  expect((await chat(server, key)).status).toBe(429);
  expect((await usageOf(server, id)).total).toMatchObject({ requests: 3, errors: 3 });
});

test('a request that its client left counts without an error, with the tokens that were seen', async () => {
  const server = await serving();
  const { id, key } = await newKey(server, 'mine');
  server.box.faults.next.push({ kind: 'stall', afterTokens: 5 });
  const left = await stream(server, key);
  await until(() => payloads(left.text()).length > 5, 5000, 'five tokens');
  left.leave();
  await until(async () => (await usageOf(server, id)).total.requests === 1, 5000, 'the request');
  const { total } = await usageOf(server, id);
  expect(total.errors).toBe(0);
  expect(total.output_tokens).toBeGreaterThanOrEqual(4);
  expect(total.output_tokens).toBeLessThan(12);

  server.box.faults.next.push({ kind: 'hang' });
  const early = startRequest(server.url, CHAT, { body: chatBody(MODEL), headers: bearer(key) });
  await until(() => server.box.active === 1, 5000, 'the request that hangs');
  early.destroy();
  await until(async () => (await usageOf(server, id)).total.requests === 2, 5000, 'the other request');
  expect((await usageOf(server, id)).total.errors).toBe(0);
  expect(await records(server, `&key_id=${id}`)).toMatchObject([
    { outcome: 'cancelled', status_code: 499 },
    { outcome: 'cancelled', status_code: 200 },
  ]);
});

test('a request with a key is that key’s, one in a session is that user’s, and both can be asked for', async () => {
  const server = await serving();
  const admin = await logIn(server);
  const mine = (await server.send('POST', '/api/me/api-keys', { name: 'mine' }, bearer(admin.token))).json;
  await chat(server, mine.key);
  await chat(server, admin.token);
  await server.chat(MODEL);
  const [byEnvironment, bySession, byKey] = await records(server);
  expect(byKey).toMatchObject({ key_id: mine.id });
  expect(bySession).toMatchObject({ key_id: null, user_id: admin.id });
  expect(byEnvironment).toMatchObject({ key_id: NO_USER });
  expect(await records(server, `&key_id=${mine.id}`)).toEqual([byKey]);
  expect(await records(server, `&key_id=${NO_USER}`)).toEqual([byEnvironment]);
  expect(await records(server, '&key_id=none')).toEqual([]);
  expect((await server.get(`/api/dashboard/request-responses/${bySession.id}`)).json.user_id).toBe(admin.id);
  expect(JSON.stringify([byEnvironment, bySession, byKey])).not.toContain(mine.key.slice(10));
});

// What lasts.

test('the numbers are the same after a restart, and go on from there', async () => {
  const first = await serving();
  const { id, key } = await newKey(first, 'mine');
  for (let i = 0; i < 5; i += 1) await chat(first, key);
  first.box.faults.next.push({ kind: 'status', status: 400 });
  await chat(first, key);
  const before = (await first.get('/api/dashboard/keys')).json;
  expect(await usageOf(first, id)).toMatchObject({ today: { requests: 6, errors: 1 } });
  await first.server.stop();
  const second = await startLocal({ dataDir: first.dataDir });
  expect((await second.get('/api/dashboard/keys')).json).toEqual(before);
  await chat(second, key);
  expect(await usageOf(second, id)).toMatchObject({ today: { requests: 7, errors: 1 } });
});

test('a new day begins at zero and keeps the total', async () => {
  let now = new Date(2026, 0, 31, 12).getTime();
  const clock = { now: () => now, mono: () => performance.now() };
  const first = await serving({ clock });
  const { id, key } = await newKey(first, 'mine');
  await chat(first, key);
  now = new Date(2026, 1, 1, 0, 0, 1).getTime();
  expect(await usageOf(first, id)).toMatchObject({ today: NOTHING, total: { requests: 1 } });
  await chat(first, key);
  const seen = await usageOf(first, id);
  expect(seen).toMatchObject({ today: { requests: 1 }, total: { requests: 2 } });
  await first.server.stop();
  const second = await startLocal({ dataDir: first.dataDir, seams: { clock } });
  expect(await usageOf(second, id)).toEqual(seen);
});

test('a kill loses nothing of what was written', async () => {
  const box = await engine();
  const first = await spawnServer();
  await first.register('box', box.url);
  const { id, key } = await newKey(first, 'mine');
  for (let i = 0; i < 20; i += 1) expect((await chat(first, key)).status).toBe(200);
  const before = await usageOf(first, id);
  const db = await open({ filename: join(first.dataDir, 'troupe.db'), driver: sqlite3.Database });
  const written = async () =>
    (await db.get('SELECT sum(requests) AS n FROM usage_daily WHERE owner_id = ?', id)).n === 20;
  await until(written, 10_000, 'the last batch');
  await db.close();
  expect(await first.end('SIGKILL')).toBe('SIGKILL');
  const second = await spawnServer({ dataDir: first.dataDir });
  expect(await usageOf(second, id)).toEqual(before);
});

// The export.

/** RFC 4180, read back. */
function parseCsv(text: string): string[][] {
  expect(text.endsWith('\r\n')).toBe(true);
  const rows: string[][] = [[]];
  for (const [, cell = '', end] of text.matchAll(/("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)/g)) {
    const value = cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell;
    rows.at(-1)?.push(value);
    if (end === '\r\n') rows.push([]);
  }
  expect(rows.pop()).toEqual([]);
  return rows;
}

async function exported(server: Api, query = ''): Promise<Record<string, string>[]> {
  const reply = await server.get(CSV + query);
  expect(reply.status, reply.text).toBe(200);
  const [names = [], ...rows] = parseCsv(reply.text);
  return rows.map((row) => {
    expect(row).toHaveLength(names.length);
    return Object.fromEntries(names.map((name, i) => [name, row[i] ?? '']));
  });
}

const thisMonth = () => {
  const now = new Date();
  return `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, '0')}`;
};

test('the export is a CSV file with a head and a line for each key and user of a month', async () => {
  const server = await serving();
  const admin = await logIn(server);
  const { id, key, key_prefix } = await newKey(server, 'mine');
  const empty = await server.get(CSV);
  expect(empty.headers.get('content-type')).toMatch(/^text\/csv; charset=utf-8$/i);
  expect(empty.headers.get('content-disposition')).toMatch(/^attachment; filename="[\w.-]+\.csv"$/);
  expect(empty.text).toBe('month,kind,id,name,key_prefix,requests,errors,input_tokens,output_tokens\r\n');
  const { usage } = (await chat(server, key)).json;
  server.box.faults.next.push({ kind: 'status', status: 400 });
  await chat(server, key);
  await chat(server, admin.token);
  await server.chat(MODEL);
  const month = thisMonth();
  const numbers = {
    errors: '0',
    input_tokens: String(usage.prompt_tokens),
    output_tokens: String(usage.completion_tokens),
  };
  const lines = await exported(server);
  expect(lines).toHaveLength(3);
  expect(lines).toContainEqual({
    ...numbers,
    ...{ month, kind: 'key', id, name: 'mine', key_prefix, requests: '2', errors: '1' },
  });
  expect(lines).toContainEqual({
    ...numbers,
    ...{ month, kind: 'user', id: admin.id, name: 'admin', key_prefix: '', requests: '1' },
  });
  expect(lines).toContainEqual({
    ...numbers,
    ...{ month, kind: 'key', id: NO_USER, name: 'TROUPE_API_KEY', key_prefix: '', requests: '1' },
  });
});

/** Days of a key as if they had been used; the server is stopped meanwhile. */
async function usedOn(server: LocalServer, days: [string, string, number][]): Promise<LocalServer> {
  await server.server.stop();
  const db = await open({ filename: join(server.dataDir, 'troupe.db'), driver: sqlite3.Database });
  for (const [ownerId, date, requests] of days) {
    await db.run(
      `INSERT INTO usage_daily (owner_id, date, requests, errors, input_tokens, output_tokens, last_used_at)
       VALUES (?, ?, ?, 1, 10, 20, ?)`,
      ...[ownerId, date, requests, Date.parse(date)],
    );
  }
  await db.close();
  return startLocal({ dataDir: server.dataDir });
}

test('days are summed by month, and only the months that are asked for are in it, both ends included', async () => {
  const first = await serving();
  const { id } = await newKey(first, 'mine');
  const server = await usedOn(first, [
    [id, '2025-10-31', 1],
    [id, '2025-11-01', 2],
    [id, '2025-11-30', 3],
    [id, '2025-12-01', 4],
    [id, '2026-01-31', 5],
  ]);
  const months = async (query: string) =>
    (await exported(server, query)).map(({ month, requests }) => `${month}: ${requests}`);
  const all = ['2025-10: 1', '2025-11: 5', '2025-12: 4', '2026-01: 5'];
  expect(await months('')).toEqual(all);
  expect(await months('?from=2025-11')).toEqual(all.slice(1));
  expect(await months('?to=2025-11')).toEqual(all.slice(0, 2));
  expect(await months('?from=2025-11&to=2025-12')).toEqual(all.slice(1, 3));
  expect(await months('?from=2025-12&to=2025-11')).toEqual([]);
  const [november] = await exported(server, '?from=2025-11&to=2025-11');
  expect(november).toMatchObject({ errors: '2', input_tokens: '20', output_tokens: '40' });
});

test.each(['from=2025', 'to=2025-13', 'from=2025-00', 'to=2025-1', 'from=2025-01-01', 'to=now'])(
  '%s is no month and is refused with its name',
  async (query) => {
    const server = await startLocal();
    const reply = await server.get(`${CSV}?${query}`);
    expect([reply.status, reply.json.error.code]).toEqual([400, 'invalid_request']);
    expect(reply.json.error.message).toContain(query.split('=', 1)[0]);
  },
);

test('names come through whole, and none is a formula to a spreadsheet', async () => {
  const first = await serving();
  const names = ['a "quoted", name', '=1+1', '+1', '-1', '@sum', '=cmd|"/c calc",A1', 'é ümlaut', "it's"];
  const days: [string, string, number][] = [];
  for (const name of names) days.push([(await newKey(first, name)).id, '2025-11-05', 1]);
  const server = await usedOn(first, days);
  const exportedNames = (await exported(server)).map(({ name = '' }) => name);
  expect(exportedNames.filter((name) => /^[=+\-@\t\r]/.test(name))).toEqual([]);
  expect(exportedNames.map((name) => name.replace(/^'(?=[=+\-@])/, '')).sort()).toEqual([...names].sort());
  const { text } = await server.get(CSV);
  expect(text).toContain('"a ""quoted"", name"');
  expect(text).toContain(`,"'=cmd|""/c calc"",A1",`);
});

test('a revoked key keeps its line and its name, also after a restart', async () => {
  const first = await serving();
  const { id, key } = await newKey(first, 'gone');
  await chat(first, key);
  await first.send('DELETE', `/api/api-keys/${id}`);
  const line = { id, kind: 'key', name: 'gone', requests: '1' };
  expect(await exported(first)).toMatchObject([line]);
  await first.server.stop();
  const second = await startLocal({ dataDir: first.dataDir });
  expect(await exported(second)).toMatchObject([line]);
  expect((await second.get(CSV)).text).not.toContain(key.slice(10));
});

test('only who may read the dashboard gets the numbers', async () => {
  const server = await startLocal();
  const keyWith = async (...permissions: string[]) =>
    (await server.send('POST', '/api/api-keys', { name: 'k', permissions })).json.key;
  const [reads, does] = [await keyWith('dashboard.read'), await keyWith('openai.inference', 'logs.read')];
  for (const path of ['/api/dashboard/keys', CSV]) {
    expect((await server.get(path, bearer(reads))).status).toBe(200);
    expect((await server.get(path, bearer(does))).status).toBe(403);
  }
});
