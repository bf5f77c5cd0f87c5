import { expect, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import type { Seams } from '../src/server.js';
import { chatBody, payloads, type RawReply, rawRequest, replyTo, startRequest } from './support/clients.js';
import { type Boom, onCalls, throwing } from './support/faults.js';
import { engine, type LocalServer, type Reply, startLocal, until } from './support/server.js';

const CHAT = '/v1/chat/completions';
const MODEL = 'sim-small';

interface Queueing extends LocalServer {
  box: SimulatedEngine;
  id: string;
}

/** A server with one endpoint that has room for one request. */
async function queueing(env: Record<string, string> = {}, seams: Seams = {}): Promise<Queueing> {
  const box = await engine();
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '60000', ...env }, seams });
  const { id } = await server.register('box', box.url, { max_concurrency: 1 });
  return { ...server, box, id };
}

/** A request that has the only place until `box.release()`. */
async function hold({ chat, box }: Queueing): Promise<{ reply: Promise<Reply> }> {
  box.faults.next.push({ kind: 'hang' });
  const reply = chat(MODEL, { user: 'held' });
  await until(() => box.active === 1, 5000, 'the request that is held');
  return { reply };
}

/** One more request, once it waits. */
async function queued(server: LocalServer, user: string, headers = {}): Promise<{ reply: Promise<Reply> }> {
  const before = await waitingAt(server);
  const body = JSON.parse(chatBody(MODEL, { user }));
  const reply = server.send('POST', CHAT, body, headers);
  await until(async () => (await waitingAt(server)) === before + 1, 5000, `${user} in the queue`);
  return { reply };
}

async function statsOf(server: LocalServer): Promise<Reply['json']> {
  return (await server.get('/api/dashboard/stats')).json;
}

async function waitingAt(server: LocalServer): Promise<number> {
  return (await statsOf(server)).queued_requests;
}

async function live(server: LocalServer): Promise<Reply['json'][]> {
  return (await server.get('/api/dashboard/requests/live')).json;
}

async function rows(server: LocalServer): Promise<Reply['json'][]> {
  return (await server.get('/api/dashboard/request-responses')).json.records;
}

/** Who was served, in order, by the `user` of their bodies. */
function served({ requests }: SimulatedEngine): string[] {
  return requests.filter(({ method }) => method === 'POST').map(({ body }) => JSON.parse(body).user);
}

const statusesOf = async (replies: { reply: Promise<Reply> }[]) =>
  (await Promise.all(replies.map(({ reply }) => reply))).map(({ status }) => status);

test('a request that finds no room waits, is shown as queued, and runs when the one before it ends', async () => {
  const server = await queueing();
  const first = await hold(server);
  const second = await queued(server, 'second');
  expect(await live(server)).toMatchObject([
    { endpoint_id: server.id, phase: 'waiting', attempts: 1 },
    { endpoint_id: null, phase: 'queued', attempts: 0, model: MODEL, output_tokens: 0 },
  ]);
  expect(await statsOf(server)).toMatchObject({ queued_requests: 1, total_active_requests: 1 });
  expect(served(server.box)).toEqual(['held']);

  server.box.release();
  expect(await statusesOf([first, second])).toEqual([200, 200]);
  expect(served(server.box)).toEqual(['held', 'second']);
  expect(await live(server)).toEqual([]);
  expect(await statsOf(server)).toMatchObject({
    queued_requests: 0,
    total_active_requests: 0,
    total_requests: 2,
    successful_requests: 2,
  });
  const [row] = await rows(server);
  const { decision } = (await server.get(`/api/dashboard/request-responses/${row.id}`)).json;
  expect(decision.phases.queued_ms).toBeGreaterThan(0);
});

test('an endpoint never gets more at once than it has room for', async () => {
  const server = await queueing();
  server.box.options.firstTokenMs = 10;
  const { box } = server;
  let most = 0;
  const replies = Array.from({ length: 20 }, (_, index) => server.chat(MODEL, { stream: index % 2 === 0 }));
  const all = Promise.all(replies);
  let over = false;
  all.finally(() => {
    over = true;
  });
  await until(() => {
    most = Math.max(most, box.active);
    return over;
  });
  expect((await all).map(({ status }) => status)).toEqual(replies.map(() => 200));
  expect(most).toBe(1);
});

// The bounds.

/** A refusal by the queue, in its answer, its row and the numbers: no endpoint is to blame. */
async function expectRefused(server: Queueing, reply: Reply, status: number, code: string): Promise<void> {
  expect([reply.status, reply.json.error.code]).toEqual([status, code]);
  expect(Number(reply.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
  expect(reply.headers.get('x-troupe-attempts')).toBe('0');
  expect(reply.headers.has('x-troupe-endpoint')).toBe(false);
  const refused = (await rows(server)).filter(({ status_code }) => status_code === status);
  expect(refused).toMatchObject([
    { outcome: 'failure', endpoint_id: null, endpoint_name: null, status: { type: 'error' }, attempts: [] },
  ]);
  expect(await statsOf(server)).toMatchObject({ total_requests: 0, requests_60m: { success: 0, error: 1 } });
}

test('one more than TROUPE_QUEUE_MAX is refused at once with 429 queue_full', async () => {
  const server = await queueing({ TROUPE_QUEUE_MAX: '1' });
  const first = await hold(server);
  const second = await queued(server, 'second');
  await expectRefused(server, await server.chat(MODEL), 429, 'queue_full');
  expect(await waitingAt(server)).toBe(1);
  server.box.release();
  expect(await statusesOf([first, second])).toEqual([200, 200]);
});

test('with a TROUPE_QUEUE_MAX of 0 nobody waits', async () => {
  const server = await queueing({ TROUPE_QUEUE_MAX: '0' });
  const first = await hold(server);
  await expectRefused(server, await server.chat(MODEL), 429, 'queue_full');
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
});

test('who has waited for TROUPE_QUEUE_TIMEOUT_MS is told 503 queue_timeout', async () => {
  const server = await queueing({ TROUPE_QUEUE_TIMEOUT_MS: '300' });
  const first = await hold(server);
  await expectRefused(server, await server.chat(MODEL), 503, 'queue_timeout');
  expect(await waitingAt(server)).toBe(0);
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
  expect(served(server.box)).toEqual(['held']);
});

test('who would wait too long by what is known of the pace is told so at once, and when to come back', async () => {
  let mono = 1000;
  const server = await queueing({}, { clock: { now: () => Date.now(), mono: () => mono } });
  const { box } = server;
  box.faults.always = { kind: 'hang' };
  const waiting = [await hold(server)];
  box.faults.next.length = 0;
  for (let i = 0; i < 8; i += 1) waiting.push(await queued(server, `early ${i}`));
  // Each turn takes ten seconds.
  for (let turn = 1; turn <= 6; turn += 1) {
    mono += 10_000;
    box.release();
    await until(() => served(box).length === turn + 1 && box.active === 1, 5000, `turn ${turn}`);
  }
  // Two are left; with four more the next one has six before it, and a minute is the limit.
  for (let i = 0; i < 4; i += 1) waiting.push(await queued(server, `late ${i}`));
  const reply = await server.chat(MODEL);
  expect([reply.status, reply.json.error.code]).toEqual([503, 'queue_timeout']);
  expect(reply.headers.get('retry-after')).toBe('70');
  box.faults.always = null;
  box.release();
  expect(new Set(await statusesOf(waiting))).toEqual(new Set([200]));
});

// Whose turn it is.

async function newKey(server: Queueing, name: string): Promise<string> {
  return (await server.send('POST', '/api/api-keys', { name })).json.key;
}

test('keys take turns, and who has one key is served in the order of arrival', async () => {
  const server = await queueing();
  const all = [await hold(server)];
  const a = { authorization: `Bearer ${await newKey(server, 'a')}` };
  const b = { authorization: `Bearer ${await newKey(server, 'b')}` };
  const c = { 'x-api-key': await newKey(server, 'c') };
  for (const user of ['a1', 'a2', 'a3', 'a4']) all.push(await queued(server, user, a));
  all.push(await queued(server, 'b1', b));
  all.push(await queued(server, 'c1', c));
  all.push(await queued(server, 'b2', b));
  server.box.release();
  expect(new Set(await statusesOf(all))).toEqual(new Set([200]));
  expect(served(server.box)).toEqual(['held', 'a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'a4']);
});

test('who waits for one model does not hold up who asks for another', async () => {
  const server = await queueing();
  const other = await engine({ models: ['other'] });
  await server.register('other', other.url, { max_concurrency: 1 });
  const first = await hold(server);
  const second = await queued(server, 'second');
  expect((await server.chat('other')).status).toBe(200);
  server.box.release();
  expect(await statusesOf([first, second])).toEqual([200, 200]);
});

// What wakes.

const WAKERS: [string, (server: Queueing, spare: Spare) => Promise<unknown>][] = [
  ['a higher max_concurrency', ({ send, id }) => send('PUT', `/api/endpoints/${id}`, { max_concurrency: 2 })],
  ['no max_concurrency', ({ send, id }) => send('PUT', `/api/endpoints/${id}`, { max_concurrency: null })],
  ['a new endpoint', async ({ register }) => register('new', (await engine()).url)],
  ['the resume of a drained endpoint', ({ send }, { drained }) => send('POST', `${drained}/resume`)],
  [
    'the recovery of an endpoint that was offline',
    ({ send }, { offline, ill }) => {
      ill.faults.models = null;
      return send('POST', `${offline}/test`);
    },
  ],
];

/** Endpoints that do not serve, by their paths. */
interface Spare {
  drained: string;
  offline: string;
  ill: SimulatedEngine;
}

test.each(WAKERS)('%s wakes who waits, while the place they waited for is still taken', async (_, wake) => {
  const server = await queueing();
  const well = await engine();
  const ill = await engine();
  const spare = {
    drained: `/api/endpoints/${(await server.register('drained', well.url)).id}`,
    offline: `/api/endpoints/${(await server.register('offline', ill.url)).id}`,
    ill,
  };
  await server.send('POST', `${spare.drained}/drain`);
  ill.faults.models = { kind: 'status', status: 500 };
  for (let i = 0; i < 2; i += 1) await server.send('POST', `${spare.offline}/test`);
  const first = await hold(server);
  const second = await queued(server, 'second');
  await wake(server, spare);
  expect(await statusesOf([second])).toEqual([200]);
  expect([server.box.active, await waitingAt(server)]).toEqual([1, 0]);
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
});

test('who waits for an endpoint that is drained meanwhile is served when it is resumed', async () => {
  const server = await queueing();
  const first = await hold(server);
  const second = await queued(server, 'second');
  await server.send('POST', `/api/endpoints/${server.id}/drain`);
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
  expect(await waitingAt(server)).toBe(1);
  await server.send('POST', `/api/endpoints/${server.id}/resume`);
  expect(await statusesOf([second])).toEqual([200]);
});

test.each(['drained', 'removed'])(
  'who waits for an endpoint that is %s for good is told so: 503 no_endpoint_available',
  async (what) => {
    let skipped = 0;
    const clock = { now: () => Date.now(), mono: () => performance.now() + skipped };
    const server = await queueing({}, { clock });
    const first = await hold(server);
    const second = await queued(server, 'second');
    if (what === 'drained') await server.send('POST', `/api/endpoints/${server.id}/drain`);
    else await server.send('DELETE', `/api/endpoints/${server.id}`);
    server.box.release();
    expect(await statusesOf([first])).toEqual([200]);
    // The ticker has looked once at least: from then on there are five seconds of hope.
    const seen = (await live(server))[0]?.age_ms ?? 0;
    await until(async () => ((await live(server))[0]?.age_ms ?? 0) > seen + 300, 5000, 'a few ticks');
    skipped += 6000;
    const reply = await second.reply;
    expect([reply.status, reply.json.error.code]).toEqual([503, 'no_endpoint_available']);
    expect(Number(reply.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(await waitingAt(server)).toBe(0);
  },
);

test('who waits when the server is stopped is served within the grace', async () => {
  const server = await queueing({ TROUPE_SHUTDOWN_GRACE_MS: '10000' });
  const first = await hold(server);
  const second = await queued(server, 'second');
  const stopped = server.server.stop();
  server.box.release();
  expect(await statusesOf([first, second])).toEqual([200, 200]);
  expect(await stopped).toBe(0);
});

test('who still waits when the grace is over is told 503 shutting_down', async () => {
  const server = await queueing({ TROUPE_SHUTDOWN_GRACE_MS: '300' });
  const first = await hold(server);
  const second = await queued(server, 'second');
  expect(await server.server.stop()).toBe(0);
  for (const { reply } of [first, second]) {
    const { status, json } = await reply;
    expect([status, json.error.code]).toEqual([503, 'shutting_down']);
  }
});

// Crashes.

const ALWAYS: Boom = () => true;
/** Two keys that wait, one request that leaves, the turns of all: every event of the queue's actor. */
test.each([
  ['when somebody enters, before it is noted', 'entered', onCalls(1, 4), 'before'],
  ['when somebody enters, after it is noted', 'entered', onCalls(2, 6), 'after'],
  ['when somebody leaves', 'left', onCalls(1), 'before'],
  ['when somebody has left', 'left', onCalls(1), 'after'],
  ['when it is somebody’s turn', 'taken', onCalls(1, 3, 6), 'before'],
  ['when somebody’s turn is noted', 'taken', onCalls(2, 4), 'after'],
  ['whenever somebody enters', 'entered', ALWAYS, 'after'],
  ['at every turn', 'taken', ALWAYS, 'before'],
] as const)('a queue that crashes %s loses nobody and serves nobody twice', async (_, event, boom, when) => {
  let fired = 0;
  const counted = () => {
    const due = boom();
    if (due) fired += 1;
    return due;
  };
  const server = await queueing({}, { tamper: { queue: (logic) => throwing(logic, event, counted, when) } });
  const { box } = server;
  const all = [await hold(server)];
  const keys = [await newKey(server, 'even'), await newKey(server, 'odd')];
  const users = Array.from({ length: 8 }, (_, index) => `user ${index}`);
  const gone = startRequest(server.url, CHAT, { body: chatBody(MODEL, { user: 'gone' }) });
  await until(async () => (await waitingAt(server)) === 1, 5000, 'the one that will leave');
  for (const [index, user] of users.entries()) {
    all.push(await queued(server, user, { authorization: `Bearer ${keys[index % 2]}` }));
    if (index === 4) gone.destroy();
    if (index === 4) await until(async () => (await waitingAt(server)) === 5, 5000, 'the one that left');
  }
  box.release();
  expect(new Set(await statusesOf(all))).toEqual(new Set([200]));
  expect(served(box).sort()).toEqual(['held', ...users].sort());
  expect(fired).toBeGreaterThan(0);
  expect(await statsOf(server)).toMatchObject({
    queued_requests: 0,
    total_active_requests: 0,
    total_requests: 9,
    successful_requests: 9,
    requests_60m: { success: 9, error: 0 },
  });
  expect(await live(server)).toEqual([]);
});

// A wait longer than ten seconds.

const COMMENTS = /^(: [^\n]*\n\n)+/;

/** A client of a stream that was given a head and comments while it waits. */
async function early(server: Queueing, path = CHAT, fields: object = {}): Promise<RawReply> {
  const body = chatBody(MODEL, { stream: true, input: 'Hello', ...fields });
  const reply = await rawRequest(server.url, path, { body });
  await until(() => reply.bytes().length > 0, 2000, 'the first comment');
  expect(reply.status).toBe(200);
  expect(reply.headers['content-type']).toBe('text/event-stream');
  expect(reply.headers).toHaveProperty('x-request-id');
  expect(reply.headers).not.toHaveProperty('x-troupe-endpoint');
  expect(reply.headers).not.toHaveProperty('x-troupe-attempts');
  expect(reply.text()).toMatch(/^: [^\n]*\n\n$/);
  return reply;
}

/** The row of an early client, by its reply. */
async function rowOf(server: Queueing, reply: RawReply): Promise<Reply['json']> {
  return (await server.get(`/api/dashboard/request-responses/${reply.headers['x-request-id']}`)).json;
}

async function answeredAfterAll(): Promise<void> {
  const server = await queueing();
  const first = await hold(server);
  const whole = startRequest(server.url, CHAT, { body: chatBody(MODEL) });
  let head = false;
  whole.once('response', () => {
    head = true;
  });
  const reply = await early(server);
  // Without a stream there is nothing that could be said meanwhile.
  expect(head).toBe(false);
  const wholeReply = replyTo(whole);
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
  expect((await wholeReply).status).toBe(200);
  expect(await reply.whole).toBe(true);
  const events = payloads(reply.text());
  expect(reply.text().replace(COMMENTS, '')).toBe(events.map((event) => `data: ${event}\n\n`).join(''));
  expect(events).toHaveLength(1 + 12 + 1 + 1);
  expect(events.at(-1)).toBe('[DONE]');
  expect(await rowOf(server, reply)).toMatchObject({
    outcome: 'success',
    status_code: 200,
    endpoint_id: server.id,
    output_tokens: 12,
  });
}

async function timedOut(): Promise<void> {
  const server = await queueing({ TROUPE_QUEUE_TIMEOUT_MS: '10500' });
  const first = await hold(server);
  const [chat, responses] = await Promise.all([early(server), early(server, '/v1/responses')]);
  for (const reply of [chat, responses]) {
    expect(await reply.whole).toBe(true);
    expect(reply.text()).not.toContain('[DONE]');
    await until(() => reply.response.socket.destroyed, 2000, 'the end of the connection');
    expect(await rowOf(server, reply)).toMatchObject({
      outcome: 'failure',
      status_code: 503,
      endpoint_id: null,
      attempts: [],
    });
  }
  const events = payloads(chat.text());
  expect(events).toHaveLength(1);
  expect(JSON.parse(events[0] ?? '')).toEqual({
    error: { message: expect.any(String), type: 'upstream_error', param: null, code: 'queue_timeout' },
  });
  expect(responses.text()).toContain('\n\nevent: error\ndata: {"type":"error","code":"queue_timeout"');
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
}

async function refusedAfterAll(): Promise<void> {
  const server = await queueing();
  const first = await hold(server);
  server.box.faults.next.push({ kind: 'status', status: 500 });
  const reply = await early(server);
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
  expect(await reply.whole).toBe(true);
  expect(JSON.parse(payloads(reply.text())[0] ?? '').error.code).toBe('upstream_broken');
  expect(await rowOf(server, reply)).toMatchObject({
    outcome: 'failure',
    status_code: 500,
    endpoint_id: server.id,
  });
}

async function emptyAfterAll(headers: Record<string, string>, status: number): Promise<void> {
  const server = await queueing();
  const first = await hold(server);
  server.box.faults.next.push({ kind: 'status', status, headers, body: '' });
  const reply = await early(server);
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
  expect(await reply.whole).toBe(true);
  expect(JSON.parse(payloads(reply.text())[0] ?? '').error.code).toBe('upstream_broken');
  expect(await rowOf(server, reply)).toMatchObject({ outcome: 'failure', endpoint_id: server.id });
}

async function leftAfterAll(): Promise<void> {
  const server = await queueing();
  const first = await hold(server);
  const reply = await early(server);
  reply.leave();
  await until(async () => (await waitingAt(server)) === 0, 2000, 'the end of the wait');
  expect(await rowOf(server, reply)).toMatchObject({
    outcome: 'cancelled',
    status_code: 499,
    status: { type: 'error' },
    attempts: [],
  });
  server.box.release();
  expect(await statusesOf([first])).toEqual([200]);
  expect(served(server.box)).toEqual(['held']);
}

test('a stream that waits for more than ten seconds gets comments, and then its answer or an error event', async () => {
  await Promise.all([
    answeredAfterAll(),
    timedOut(),
    refusedAfterAll(),
    emptyAfterAll({}, 204),
    emptyAfterAll({ 'content-encoding': 'gzip' }, 200),
    leftAfterAll(),
  ]);
});
