import { expect, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import type { Fault } from '../src/demo/simulated-faults.js';
import type { Seams } from '../src/server.js';
import { chatBody, payloads, type RawReply, rawRequest } from './support/clients.js';
import { engine, type LocalServer, newDataDir, type Reply, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const CHAT = '/v1/chat/completions';
const MODEL = 'sim-small';
const KEYS = '/api/api-keys';

interface Limited extends LocalServer {
  box: SimulatedEngine;
}

interface Key {
  id: string;
  key: string;
}

async function limited(
  options: {
    env?: Record<string, string>;
    seams?: Seams;
    endpoint?: Record<string, unknown>;
    dataDir?: string;
  } = {},
): Promise<Limited> {
  const { env = {}, seams = {}, endpoint = {}, dataDir = newDataDir() } = options;
  const box = await engine();
  const server = await startLocal({ dataDir, seams, env: { TROUPE_HEALTH_INTERVAL_MS: '60000', ...env } });
  await server.register('box', box.url, endpoint);
  return { ...server, box };
}

async function newKey(server: LocalServer, rateLimit: object | null, more: object = {}): Promise<Key> {
  const reply = await server.send('POST', KEYS, { name: 'limited', rate_limit: rateLimit, ...more });
  expect(reply.status, reply.text).toBe(201);
  return reply.json;
}

const bearer = ({ key }: Key) => ({ authorization: `Bearer ${key}` });

function chat(server: LocalServer, key: Key, more: object = {}): Promise<Reply> {
  return server.send('POST', CHAT, { ...JSON.parse(chatBody(MODEL)), ...more }, bearer(key));
}

/** A stream of which the head is here. */
function stream(server: LocalServer, key: Key, more: Record<string, unknown> = {}): Promise<RawReply> {
  const body = chatBody(MODEL, { stream: true, ...more });
  return rawRequest(server.url, CHAT, { body, headers: bearer(key) });
}

function expectOverLimit(reply: Reply, code = 'rate_limit_exceeded'): void {
  expect([reply.status, reply.json.error.code], reply.text).toEqual([429, code]);
  shapes.openAiError.parse(reply.json);
  expect(reply.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
  expect(reply.headers.get('x-request-id')).not.toBeNull();
}

const count = (replies: { status: number }[], status: number) =>
  replies.filter((reply) => reply.status === status).length;

const asked = ({ box }: Limited) => box.requests.filter(({ method }) => method === 'POST');

async function rows(server: LocalServer): Promise<Reply['json']> {
  return (await server.get('/api/dashboard/request-responses?per_page=100')).json;
}

/** A clock that tests move on; its wall time begins at noon of some day, and stands but for that. */
function clockAt(start: number) {
  let passed = 0;
  return {
    clock: { now: () => start + passed, mono: () => performance.now() + passed },
    to: (at: number) => {
      passed = at - start;
    },
    pass: (ms: number) => {
      passed += ms;
    },
  };
}

// Requests.

test('so many requests a minute pass and not one more, however many come at once', async () => {
  const server = await limited();
  const key = await newKey(server, { requests_per_minute: 7 });
  const replies = await Promise.all(Array.from({ length: 40 }, () => chat(server, key)));
  expect([count(replies, 200), count(replies, 429)]).toEqual([7, 33]);
  expect(asked(server)).toHaveLength(7);
  for (const reply of replies.filter(({ status }) => status === 429)) {
    expectOverLimit(reply);
    expect(Number(reply.headers.get('retry-after'))).toBeLessThanOrEqual(60);
    expect(reply.headers.get('x-ratelimit-limit-requests')).toBe('7');
    expect(reply.headers.get('x-ratelimit-remaining-requests')).toBe('0');
    expect(reply.headers.get('x-ratelimit-reset-requests')).toMatch(/^\d+(\.\d+)?(s|ms)$/);
  }
  const { records, total_count } = await rows(server);
  expect(total_count).toBe(7);
  expect(records.every(({ status_code }: { status_code: number }) => status_code === 200)).toBe(true);
});

test('each answer tells what is left of the limit, and what an endpoint says of its own is not passed on', async () => {
  const server = await limited();
  const key = await newKey(server, { requests_per_minute: 3 });
  const left = async (reply: Promise<{ headers: Headers }>) => {
    const { headers } = await reply;
    return [headers.get('x-ratelimit-limit-requests'), headers.get('x-ratelimit-remaining-requests')];
  };
  expect(await left(chat(server, key))).toEqual(['3', '2']);
  const headers = { 'x-ratelimit-remaining-requests': '999', 'x-ratelimit-limit-tokens': '5' };
  server.box.faults.next.push({ kind: 'status', status: 400, headers });
  const told = await chat(server, key);
  expect(told.status).toBe(400);
  expect(told.headers.get('x-ratelimit-remaining-requests')).toBe('1');
  expect(told.headers.has('x-ratelimit-limit-tokens')).toBe(false);
  const streamed = await stream(server, key);
  expect(streamed.headers).toMatchObject({
    'x-ratelimit-limit-requests': '3',
    'x-ratelimit-remaining-requests': '0',
  });
  expect(await streamed.whole).toBe(true);
  const refused = await stream(server, key);
  expect(refused.status).toBe(429);
  expect(refused.headers['content-type']).toContain('application/json');
  expect(refused.headers['x-ratelimit-remaining-requests']).toBe('0');
});

test('a minute later the same number passes again, and what was refused meanwhile did not count', async () => {
  const time = clockAt(Date.now());
  const server = await limited({ seams: { clock: time.clock } });
  const key = await newKey(server, { requests_per_minute: 3 });
  const burst = async () => {
    const replies = await Promise.all(Array.from({ length: 10 }, () => chat(server, key)));
    return count(replies, 200);
  };
  expect(await burst()).toBe(3);
  time.pass(30_000);
  expect(await burst()).toBe(0);
  time.pass(30_001 + 1000);
  expect(await burst()).toBe(3);
});

test('what is wrong with a request, and who has no endpoint for it, counts like any other request', async () => {
  const server = await limited();
  const key = await newKey(server, { requests_per_minute: 2 });
  expect((await server.send('POST', CHAT, { messages: [] }, bearer(key))).status).toBe(400);
  const unknown = await chat(server, key, { model: 'nowhere' });
  expect(unknown.status).toBe(404);
  expect(unknown.headers.get('x-ratelimit-remaining-requests')).toBe('0');
  expectOverLimit(await chat(server, key));
});

test('limits are each key’s own, and the key of the environment has none', async () => {
  const server = await limited();
  const [one, other] = [
    await newKey(server, { requests_per_minute: 1 }),
    await newKey(server, { requests_per_minute: 1 }),
  ];
  const unlimited = await newKey(server, null);
  expect((await chat(server, one)).status).toBe(200);
  expectOverLimit(await chat(server, one));
  expect((await chat(server, other)).status).toBe(200);
  for (const send of [() => server.chat(MODEL), () => chat(server, unlimited)]) {
    const replies = await Promise.all(Array.from({ length: 30 }, send));
    expect(count(replies, 200)).toBe(30);
    const named = replies.flatMap(({ headers }) => [...headers.keys()]);
    expect(named.filter((name) => name.startsWith('x-ratelimit-'))).toEqual([]);
  }
  // Reading the models is no request of that kind.
  expect((await server.get('/v1/models', bearer(one))).status).toBe(200);
});

test('limits that are changed hold from the next request on', async () => {
  const server = await limited();
  const key = await newKey(server, { requests_per_minute: 1 });
  const put = (rate_limit: object | null) => server.send('PUT', `${KEYS}/${key.id}`, { rate_limit });
  expect((await chat(server, key)).status).toBe(200);
  expectOverLimit(await chat(server, key));
  await put({ requests_per_minute: 3 });
  const replies = [await chat(server, key), await chat(server, key), await chat(server, key)];
  expect(replies.map(({ status }) => status)).toEqual([200, 200, 429]);
  await put(null);
  for (let i = 0; i < 5; i += 1) expect((await chat(server, key)).status).toBe(200);
  await put({ requests_per_minute: 3 });
  expectOverLimit(await chat(server, key));
  const fresh = await newKey(server, null);
  await server.send('PUT', `${KEYS}/${fresh.id}`, { rate_limit: { requests_per_minute: 1 } });
  expect((await chat(server, fresh)).status).toBe(200);
  expectOverLimit(await chat(server, fresh));
});

// Requests at a time.

test('of fifty streams at once so many are open as the key may have, and as many again when they have ended', async () => {
  const server = await limited();
  const key = await newKey(server, { concurrent: 4 });
  for (let round = 1; round <= 2; round += 1) {
    server.box.faults.always = { kind: 'stall', afterTokens: 1 };
    const replies = await Promise.all(Array.from({ length: 50 }, () => stream(server, key)));
    expect([count(replies, 200), count(replies, 429)]).toEqual([4, 46]);
    expect(server.box.active).toBe(4);
    const refused = replies.find(({ status }) => status === 429) as RawReply;
    await refused.whole;
    expect(refused.json().error.code).toBe('rate_limit_exceeded');
    expect(refused.headers['retry-after']).toBe('1');
    server.box.release();
    for (const open of replies.filter(({ status }) => status === 200)) expect(await open.whole).toBe(true);
    server.box.faults.always = null;
    expect(asked(server)).toHaveLength(4 * round);
  }
});

test('a client that leaves gives its place back, before its head and in the middle of its stream', async () => {
  const server = await limited();
  const key = await newKey(server, { concurrent: 1 });
  server.box.faults.next.push({ kind: 'stall', afterTokens: 2 });
  const streaming = await stream(server, key);
  await until(() => payloads(streaming.text()).length > 1, 5000, 'the first tokens');
  expectOverLimit(await chat(server, key));
  streaming.leave();
  await until(async () => (await chat(server, key)).status === 200, 5000, 'the place of who left');

  server.box.faults.next.push({ kind: 'hang' });
  const leaving = new AbortController();
  const waiting = fetch(server.url + CHAT, {
    method: 'POST',
    headers: { ...bearer(key), 'content-type': 'application/json' },
    body: chatBody(MODEL),
    signal: leaving.signal,
  }).catch(() => 'left');
  await until(() => server.box.active === 1, 5000, 'the request that hangs');
  expectOverLimit(await chat(server, key));
  leaving.abort();
  expect(await waiting).toBe('left');
  await until(async () => (await chat(server, key)).status === 200, 5000, 'the place of who left');
});

test('every way in which a request ends gives its place back', async () => {
  const server = await limited();
  const key = await newKey(server, { concurrent: 1 });
  const { box } = server;
  const refuse: Fault = { kind: 'refuse' };
  const ends: [string, number, () => Promise<{ status: number; whole?: Promise<boolean> }>, Fault[]][] = [
    ['unknown model', 404, () => chat(server, key, { model: 'nowhere' }), []],
    ['no model', 400, () => server.send('POST', CHAT, {}, bearer(key)), []],
    ['no JSON', 400, () => rawRequest(server.url, CHAT, { body: '{', headers: bearer(key) }), []],
    ['success', 200, () => chat(server, key), []],
    ['stream', 200, () => stream(server, key), []],
    ['upstream error', 400, () => chat(server, key), [{ kind: 'status', status: 400 }]],
    ['cut', 200, () => stream(server, key), [{ kind: 'cut', afterTokens: 2 }]],
    ['refused', 502, () => chat(server, key), [refuse, refuse]],
  ];
  for (let round = 0; round < 2; round += 1) {
    for (const [name, status, run, faults] of ends) {
      box.faults.next = [...faults];
      const reply = await run();
      expect([name, reply.status]).toEqual([name, status]);
      await reply.whole;
    }
  }
  const forbidden = await newKey(server, { concurrent: 1 }, { models: ['other'] });
  for (let i = 0; i < 3; i += 1) expect((await chat(server, forbidden)).status).toBe(403);
});

test('a request that waits for an endpoint has its place too', async () => {
  const server = await limited({ endpoint: { max_concurrency: 1 } });
  const key = await newKey(server, { concurrent: 2 });
  server.box.faults.next.push({ kind: 'hang' });
  const first = chat(server, key);
  await until(() => server.box.active === 1, 5000, 'the request that is held');
  const second = chat(server, key);
  const queued = async () => (await server.get('/api/dashboard/stats')).json.queued_requests;
  await until(async () => (await queued()) === 1, 5000, 'the request in the queue');
  expectOverLimit(await chat(server, key));
  server.box.release();
  expect([(await first).status, (await second).status]).toEqual([200, 200]);
  expect((await chat(server, key)).status).toBe(200);
});

// Tokens.

const usedBy = (reply: Reply) => reply.json.usage.total_tokens as number;

test('tokens a minute refuse once they are known to be used, and a minute later no more', async () => {
  const time = clockAt(Date.now());
  const server = await limited({ seams: { clock: time.clock } });
  const key = await newKey(server, { tokens_per_minute: 20 });
  const first = await chat(server, key);
  const used = usedBy(first);
  expect(used).toBeGreaterThan(10);
  expect(used).toBeLessThan(20);
  expect(first.headers.get('x-ratelimit-limit-tokens')).toBe('20');
  const second = await chat(server, key);
  expect(second.status).toBe(200);
  expect(Number(second.headers.get('x-ratelimit-remaining-tokens'))).toBe(Math.max(0, 20 - 2 * used));
  const refused = await chat(server, key);
  expectOverLimit(refused);
  expect(refused.headers.get('x-ratelimit-remaining-tokens')).toBe('0');
  expect(asked(server)).toHaveLength(2);
  time.pass(62_000);
  expect((await chat(server, key)).status).toBe(200);
});

test('the tokens of a stream count when it has ended, and those of one that was left as far as they came', async () => {
  const server = await limited();
  const key = await newKey(server, { tokens_per_minute: 8 });
  expect(await (await stream(server, key)).whole).toBe(true);
  expectOverLimit(await chat(server, key));

  const other = await newKey(server, { tokens_per_minute: 3 });
  server.box.faults.next.push({ kind: 'stall', afterTokens: 6 });
  const left = await stream(server, other);
  await until(() => payloads(left.text()).length > 6, 5000, 'six tokens');
  left.leave();
  await until(async () => (await chat(server, other, { max_tokens: 1 })).status === 429, 5000, 'a refusal');
});

test('what a day or a month allows is a quota that holds over a restart, each until it is over', async () => {
  const noon = (month: number, day: number) => new Date(2026, month, day, 12).getTime();
  const time = clockAt(noon(0, 14));
  const dataDir = newDataDir();
  const first = await limited({ dataDir, seams: { clock: time.clock } });
  const daily = await newKey(first, { tokens_per_day: 20 });
  const monthly = await newKey(first, { tokens_per_month: 20 });
  for (const key of [daily, monthly]) {
    const replies = [await chat(first, key), await chat(first, key), await chat(first, key)];
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 429]);
    const refused = replies[2] as Reply;
    expectOverLimit(refused, 'insufficient_quota');
    expect(refused.json.error.type).toBe('insufficient_quota');
    expect(refused.headers.get('x-should-retry')).toBe('false');
    const wait = key === daily ? 12 * 3600 : (17 * 24 + 12) * 3600;
    expect(refused.headers.get('retry-after')).toBe(String(wait));
  }
  await first.server.stop();

  const second = await startLocal({ dataDir, seams: { clock: time.clock } });
  expectOverLimit(await chat(second, daily), 'insufficient_quota');
  expectOverLimit(await chat(second, monthly), 'insufficient_quota');
  time.to(noon(0, 15));
  const statuses = async () => [(await chat(second, daily)).status, (await chat(second, monthly)).status];
  expect(await statuses()).toEqual([200, 429]);
  time.to(noon(1, 1));
  expect(await statuses()).toEqual([200, 200]);
});

// The queue.

async function hold(server: Limited): Promise<Promise<Reply>[]> {
  server.box.faults.next.push({ kind: 'hang' });
  const reply = server.chat(MODEL, { user: 'held' });
  await until(() => server.box.active === 1, 5000, 'the request that is held');
  return [reply];
}

const queuedAt = async (server: LocalServer) =>
  (await server.get('/api/dashboard/stats')).json.queued_requests as number;

/** One more request, once it waits. */
async function queued(server: LocalServer, user: string, key: Key): Promise<{ reply: Promise<Reply> }> {
  const before = await queuedAt(server);
  const reply = chat(server, key, { user });
  await until(async () => (await queuedAt(server)) === before + 1, 5000, `${user} in the queue`);
  return { reply };
}

test('a waiting request of a key with a better priority goes before earlier ones', async () => {
  const server = await limited({ endpoint: { max_concurrency: 1 } });
  const late = await newKey(server, null, { priority: 5 });
  const middle = await newKey(server, null, { priority: 2 });
  const soon = await newKey(server, null, { priority: 0 });
  const replies = await hold(server);
  for (const [user, key] of [
    ['late 1', late],
    ['late 2', late],
    ['middle', middle],
    ['soon', soon],
  ] as const) {
    replies.push((await queued(server, user, key)).reply);
  }
  server.box.release();
  expect(count(await Promise.all(replies), 200)).toBe(5);
  const served = asked(server).map(({ body }) => JSON.parse(body).user);
  expect(served).toEqual(['held', 'soon', 'middle', 'late 1', 'late 2']);
});

test('a priority that is changed holds for the next request', async () => {
  const server = await limited({ endpoint: { max_concurrency: 1 } });
  const [one, other] = [
    await newKey(server, null, { priority: 1 }),
    await newKey(server, null, { priority: 1 }),
  ];
  const replies = await hold(server);
  replies.push((await queued(server, 'one', one)).reply);
  await server.send('PUT', `${KEYS}/${other.id}`, { priority: 0 });
  replies.push((await queued(server, 'other', other)).reply);
  server.box.release();
  await Promise.all(replies);
  expect(asked(server).map(({ body }) => JSON.parse(body).user)).toEqual(['held', 'other', 'one']);
});

const PASSWORD = 'a password of the tests';

/** A session of the admin, which is sent like a key. */
async function session(server: LocalServer): Promise<Key> {
  const body = { username: 'admin', password: PASSWORD };
  const { json } = await server.send('POST', '/api/auth/login', body, { authorization: '' });
  return { id: '', key: json.token };
}

test.each(['the key of the environment', 'an admin'])(
  'one key that %s has made cannot fill the waiting room: others still get in',
  async (maker) => {
    const server = await limited({
      endpoint: { max_concurrency: 1 },
      env: {
        TROUPE_QUEUE_MAX_PER_KEY: '2',
        TROUPE_QUEUE_MAX: '6',
        TROUPE_QUEUE_TIMEOUT_MS: '15000',
        TROUPE_ADMIN_PASSWORD: PASSWORD,
      },
    });
    const made = async (): Promise<Key> => {
      const headers = maker === 'an admin' ? bearer(await session(server)) : {};
      return (await server.send('POST', KEYS, { name: 'k' }, headers)).json;
    };
    const [greedy, modest] = [await made(), await made()];
    const replies = await hold(server);
    for (const user of ['1', '2']) replies.push((await queued(server, user, greedy)).reply);
    for (let i = 0; i < 3; i += 1) expectOverLimit(await chat(server, greedy), 'queue_full');
    replies.push((await queued(server, 'modest', modest)).reply);
    for (let i = 0; i < 3; i += 1) {
      replies.push(server.chat(MODEL));
      await until(async () => (await queuedAt(server)) === 4 + i, 5000, 'one more in the queue');
    }
    expectOverLimit(await chat(server, modest), 'queue_full');
    server.box.release();
    expect(count(await Promise.all(replies), 200)).toBe(7);
    expect((await chat(server, greedy)).status).toBe(200);
  },
);

test('one user’s sessions share a place in the waiting room like one key', async () => {
  const server = await limited({
    endpoint: { max_concurrency: 1 },
    env: { TROUPE_QUEUE_MAX_PER_KEY: '1', TROUPE_ADMIN_PASSWORD: PASSWORD },
  });
  const [one, other] = [await session(server), await session(server)];
  const replies = await hold(server);
  replies.push((await queued(server, 'one', one)).reply);
  expectOverLimit(await chat(server, other), 'queue_full');
  server.box.release();
  expect(count(await Promise.all(replies), 200)).toBe(2);
});
