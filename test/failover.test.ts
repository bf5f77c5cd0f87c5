import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { type Clock, systemClock } from '../src/clock.js';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import { chatBody, openStream, payloads, rawRequest } from './support/clients.js';
import { type Api, engine, type LocalServer, pause, startLocal, TEST_KEY, until } from './support/server.js';
import * as shapes from './support/shapes.js';

/** No health check comes between. */
const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '600000' };
/** Of equals the one that was registered first is taken. */
const FIRST = { random: () => 0.999 };

async function rig(count: number, env: Record<string, string> = {}, clock: Clock = systemClock) {
  const engines: SimulatedEngine[] = [];
  const server = await startLocal({ env: { ...QUIET, ...env }, seams: { ...FIRST, clock } });
  const ids: string[] = [];
  for (let i = 0; i < count; i += 1) {
    const box = await engine();
    engines.push(box);
    ids.push((await server.register(`box${i}`, box.url)).id);
  }
  return { server, engines, ids, box: (i: number) => engines[i] as SimulatedEngine };
}

/** A second of it takes as long as the test wants. */
function ownClock() {
  const clock = { elapsed: 1000, now: () => Date.now(), mono: () => clock.elapsed };
  return clock;
}

const asked = (box: SimulatedEngine) => box.requests.filter(({ method }) => method === 'POST').length;
const endpointOf = async (server: Api, id: string | undefined) =>
  (await server.get(`/api/endpoints/${id}`)).json;
const numbersOf = async (server: Api) =>
  (await server.get('/api/dashboard/endpoints')).json.toReversed() as Record<string, number | string>[];
const lastRow = async (server: Api) =>
  (await server.get('/api/dashboard/request-responses?per_page=10')).json.records[0];

test('a request that fails before its first byte is answered by the next best endpoint, and the row tells of both', async () => {
  const { server, box, ids } = await rig(2);
  box(0).faults.next.push({ kind: 'status', status: 500 });
  const reply = await server.chat('sim-small');
  expect(reply.status).toBe(200);
  expect(reply.headers.get('x-troupe-endpoint')).toBe('box1');
  expect(reply.headers.get('x-troupe-attempts')).toBe('2');
  expect(Number(reply.headers.get('x-troupe-overhead-ms'))).toBeGreaterThanOrEqual(0);
  expect(await numbersOf(server)).toMatchObject([
    { failed_requests: 1, successful_requests: 0 },
    { failed_requests: 0, successful_requests: 1 },
  ]);
  const row = await lastRow(server);
  expect(row).toMatchObject({
    outcome: 'success',
    status_code: 200,
    endpoint_id: ids[1],
    attempts: [
      { endpoint_name: 'box0', outcome: 'failure', status_code: 500, error: 'the endpoint answered 500' },
      { endpoint_name: 'box1', outcome: 'success', status_code: 200, error: null },
    ],
  });
  const { decision } = (await server.get(`/api/dashboard/request-responses/${row.id}`)).json;
  expect(decision).toEqual(expect.schemaMatching(shapes.decision));
  expect(decision).toMatchObject({ policy: 'adaptive', rejected: { tried: 1 } });
  expect(decision.candidates[0]).toMatchObject({ endpoint_name: 'box1', eligible: true, reason: null });
  expect((await server.get('/api/dashboard/stats')).json.requests_60m).toEqual({ success: 1, error: 0 });
});

test('a long body is whole at the second endpoint too, and on the second connection to the first', async () => {
  const { server, box } = await rig(2);
  const filler = 'é'.repeat(300_000);
  const bodies = (i: number) =>
    box(i).requests.filter(({ method, body }) => method === 'POST' && JSON.parse(body).filler === filler);
  box(0).faults.next.push({ kind: 'status', status: 500 });
  const reply = await server.chat('sim-small', { filler });
  expect([reply.status, reply.headers.get('x-troupe-endpoint')]).toEqual([200, 'box1']);
  expect([bodies(0).length, bodies(1).length]).toEqual([1, 1]);
  // The idle connection is reset before a byte came, and a fresh one is tried.
  box(0).faults.next.push({ kind: 'reset' });
  const again = await server.chat('sim-small', { filler });
  expect(again.headers.get('x-troupe-endpoint')).toBe('box0');
  expect([again.status, again.headers.get('x-troupe-attempts')]).toEqual([200, '1']);
  expect([bodies(0).length, bodies(1).length]).toEqual([3, 1]);
});

test('an endpoint that refuses a long body without having read it is heard', async () => {
  const { server, box } = await rig(1);
  await box(0).stop();
  const upstream = createServer((socket) => {
    let heard = '';
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      heard = (heard + chunk.toString('latin1')).slice(0, 100);
      if (heard.startsWith('GET')) {
        const list = '{"object":"list","data":[{"id":"sim-small","object":"model"}]}';
        socket.end(
          `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${list.length}\r\n\r\n${list}`,
        );
        return;
      }
      socket.pause();
      socket.write(
        'HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{"error":"large"}',
      );
    });
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void upstream.close());
  const { port } = upstream.address() as AddressInfo;
  await server.register('narrow', `http://127.0.0.1:${port}`);
  const reply = await server.chat('sim-small', { filler: 'x'.repeat(20 * 1024 * 1024) });
  expect([reply.status, reply.text]).toEqual([413, '{"error":"large"']);
});

test('a stream that is answered without content has failed, and is begun elsewhere', async () => {
  const { server, box } = await rig(2);
  const empty = { kind: 'status', status: 204, body: '' } as const;
  box(0).faults.next.push(empty);
  const reply = await openStream(server.url, 'sim-small');
  expect(await reply.whole).toBe(true);
  expect(reply.headers['x-troupe-endpoint']).toBe('box1');
  expect(payloads(reply.text()).at(-1)).toBe('[DONE]');
  const why = 'the endpoint answered without content, not with a stream';
  expect((await lastRow(server)).attempts).toMatchObject([
    { endpoint_name: 'box0', outcome: 'failure', status_code: 204, error: why },
    { endpoint_name: 'box1', outcome: 'success' },
  ]);
  box(0).faults.next.push(empty);
  box(1).faults.next.push(empty);
  const none = await server.chat('sim-small', { stream: true });
  expect([none.status, none.json.error.code]).toEqual([502, 'upstream_broken']);
  expect(await numbersOf(server)).toMatchObject([
    { failed_requests: 2, successful_requests: 0 },
    { failed_requests: 1, successful_requests: 1 },
  ]);
});

test('when all have failed the client gets the last answer there was, as it was', async () => {
  const { server, box } = await rig(3);
  const teapot = {
    kind: 'status',
    status: 503,
    headers: { 'x-why': 'tea' },
    body: '{"error":"brewing"}',
  } as const;
  box(0).faults.next.push({ kind: 'status', status: 500 });
  box(1).faults.next.push(teapot);
  box(2).faults.next.push({ kind: 'reset' });
  const reply = await server.chat('sim-small');
  expect([reply.status, reply.text, reply.headers.get('x-why')]).toEqual([503, '{"error":"brewing"}', 'tea']);
  expect(reply.headers.get('x-troupe-endpoint')).toBe('box1');
  expect(reply.headers.get('x-troupe-attempts')).toBe('3');
  expect(await lastRow(server)).toMatchObject({ outcome: 'failure', status_code: 503 });
  expect([0, 1, 2].map((i) => asked(box(i)))).toEqual([1, 1, 1]);
});

test('where nobody answered at all the error names who was tried and why each failed', async () => {
  const { server, box } = await rig(2, { TROUPE_FIRST_BYTE_TIMEOUT_MS: '200' });
  await box(0).stop();
  box(1).faults.next.push({ kind: 'hang' });
  const reply = await server.chat('sim-small');
  expect(reply.status).toBe(504);
  expect(reply.json.error.code).toBe('timeout_first_byte');
  expect(reply.json.error.message).toMatch(/^box0: .*refused; box1: .*no byte of an answer within 200 ms$/);
  expect(await lastRow(server)).toMatchObject({ outcome: 'failure', status_code: 504 });
});

test.each([400, 401, 403, 404, 413, 422])(
  '%i is the client’s business: passed on, and no mark',
  async (status) => {
    const { server, box, ids } = await rig(2);
    box(0).faults.always = { kind: 'status', status, body: '{"error":{"message":"no"}}' };
    for (let i = 0; i < 4; i += 1) {
      expect((await server.chat('sim-small')).status).toBe(status);
    }
    expect(asked(box(1))).toBe(0);
    expect((await endpointOf(server, ids[0])).circuit).toBe('closed');
  },
);

test('a box that fails fast is left alone after three failures, and comes back by a client’s own request', async () => {
  const { server, box, ids } = await rig(2);
  box(0).faults.always = { kind: 'status', status: 500 };
  for (let i = 0; i < 20; i += 1) expect((await server.chat('sim-small')).status).toBe(200);
  expect((await endpointOf(server, ids[0])).circuit).toBe('open');
  const before = asked(box(0));
  expect(before).toBe(3);
  await until(async () => (await endpointOf(server, ids[0])).circuit === 'half_open');
  // The trial fails: nobody notices, and the next pause is longer.
  expect((await server.chat('sim-small')).status).toBe(200);
  expect(asked(box(0))).toBe(before + 1);
  expect((await endpointOf(server, ids[0])).circuit).toBe('open');
  box(0).faults.always = null;
  await until(async () => (await endpointOf(server, ids[0])).circuit === 'half_open');
  expect((await server.chat('sim-small')).headers.get('x-troupe-endpoint')).toBe('box0');
  expect((await endpointOf(server, ids[0])).circuit).toBe('closed');
  const states = (await server.get(`/api/dashboard/actors/endpoint%3A${ids[0]}`)).json;
  expect(states.context.circuit).toMatchObject({ state: 'closed', failures_in_a_row: 0 });
});

test('refused connections open the endpoint’s own circuit, which its statechart shows', async () => {
  const { server, box, ids } = await rig(2);
  await box(0).stop();
  for (let i = 0; i < 6; i += 1) expect((await server.chat('sim-small')).status).toBe(200);
  const actor = (await server.get(`/api/dashboard/actors/endpoint%3A${ids[0]}`)).json;
  expect(actor.state).toBe('online, open, open');
  expect(actor.transitions.at(-1)).toMatchObject({ event: 'evidence', to: 'online, open, open' });
});

test('with every circuit open the least bad is asked all the same', async () => {
  const { server, box } = await rig(1);
  box(0).faults.always = { kind: 'status', status: 500 };
  for (let i = 0; i < 5; i += 1) expect((await server.chat('sim-small')).status).toBe(500);
  box(0).faults.always = null;
  expect((await server.chat('sim-small')).status).toBe(200);
});

test('an endpoint that asks to be left alone is, for that time, without a mark', async () => {
  const clock = ownClock();
  const { server, box, ids } = await rig(2, {}, clock);
  const busy = { kind: 'status', status: 429, headers: { 'retry-after': '1' } } as const;
  box(0).faults.next.push(busy);
  expect((await server.chat('sim-small')).headers.get('x-troupe-endpoint')).toBe('box1');
  for (let i = 0; i < 5; i += 1) {
    expect((await server.chat('sim-small')).headers.get('x-troupe-endpoint')).toBe('box1');
  }
  expect((await endpointOf(server, ids[0])).circuit).toBe('closed');
  const row = await lastRow(server);
  const { decision } = (await server.get(`/api/dashboard/request-responses/${row.id}`)).json;
  expect(decision.rejected).toEqual({ resting: 1 });
  clock.elapsed += 1000;
  expect((await server.chat('sim-small')).headers.get('x-troupe-endpoint')).toBe('box0');
});

test('one that does not say for how long is left to others for a second, and where it is alone asked all the same', async () => {
  const clock = ownClock();
  const { server, box, ids } = await rig(2, {}, clock);
  const busy = { kind: 'status', status: 429 } as const;
  box(0).faults.next.push(busy);
  for (let i = 0; i < 5; i += 1) {
    expect((await server.chat('sim-small')).headers.get('x-troupe-endpoint')).toBe('box1');
  }
  clock.elapsed += 1000;
  box(0).faults.next.push(busy);
  expect((await server.chat('sim-small')).headers.get('x-troupe-attempts')).toBe('2');
  expect((await server.send('POST', `/api/endpoints/${ids[1]}/drain`)).status).toBe(200);
  box(0).faults.next.push(busy, busy);
  for (const status of [429, 429, 200]) {
    const reply = await server.chat('sim-small');
    expect([reply.status, reply.headers.get('x-troupe-endpoint')]).toEqual([status, 'box0']);
  }
  expect(await endpointOf(server, ids[0])).toMatchObject({ circuit: 'closed', status: 'online' });
});

test('one that asks to be left alone for no time at all has failed like any other', async () => {
  const { server, box, ids } = await rig(1);
  const status = async () => (await server.chat('sim-small')).status;
  const busy = (status: number, secs: string) =>
    ({ kind: 'status', status, headers: { 'retry-after': secs } }) as const;
  box(0).faults.next.push(busy(503, '0'), busy(503, '0'), busy(503, 'Wed, 21 Oct 2015 07:28:00 GMT'));
  for (let i = 0; i < 3; i += 1) expect(await status()).toBe(503);
  expect((await endpointOf(server, ids[0])).circuit).toBe('open');
});

test('one that is alone and rests makes a 503 that says when to come back', async () => {
  const { server, box } = await rig(1);
  box(0).faults.next.push({ kind: 'status', status: 503, headers: { 'retry-after': '7' } });
  const first = await server.chat('sim-small');
  expect([first.status, first.headers.get('retry-after')]).toEqual([503, '7']);
  const second = await server.chat('sim-small');
  expect(second.json.error.code).toBe('no_endpoint_available');
  expect(Number(second.headers.get('retry-after'))).toBeGreaterThanOrEqual(5);
  expect(asked(box(0))).toBe(1);
});

test('a fleet in trouble gets at most a fifth more than it is asked, or ten retries in ten seconds', async () => {
  const { server, box } = await rig(3);
  for (const i of [0, 1, 2]) box(i).faults.always = { kind: 'status', status: 500 };
  const replies = await Promise.all([...Array(40)].map(() => server.chat('sim-small')));
  expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([500]));
  // What was taken away from behind a circuit that opened is no retry: it had not been answered.
  const { records } = (await server.get('/api/dashboard/request-responses?per_page=100')).json;
  const answered = records.flatMap((row: { attempts: { outcome: string }[] }) =>
    row.attempts.filter(({ outcome }) => outcome === 'failure'),
  ).length;
  expect(answered).toBeLessThanOrEqual(40 + 10);
  expect(answered).toBeGreaterThan(40);
});

test('a burst on a fleet with one broken box fails nobody', async () => {
  const { server, box } = await rig(2);
  box(0).faults.always = { kind: 'status', status: 500 };
  const replies = await Promise.all([...Array(60)].map(() => server.chat('sim-small')));
  expect(replies.filter(({ status }) => status !== 200)).toHaveLength(0);
});

async function warmedUp() {
  const made = await rig(2);
  await made.server.send('POST', `/api/endpoints/${made.ids[1]}/drain`);
  for (let i = 0; i < 6; i += 1) await (await openStream(made.server.url, 'sim-small')).whole;
  await made.server.send('POST', `/api/endpoints/${made.ids[1]}/resume`);
  return made;
}

test('a hung box, which is the least busy one, is passed over once it is slower than it ever was', async () => {
  const { server, box } = await warmedUp();
  box(0).faults.always = { kind: 'hang' };
  const hanging = openStream(server.url, 'sim-small');
  await until(() => box(0).active === 1);
  await pause(2300);
  const busy = [1, 2, 3].map(() => box(1).faults.next.push({ kind: 'stall', afterTokens: 1 }));
  const streams = await Promise.all(busy.map(() => openStream(server.url, 'sim-small')));
  for (const stream of streams) expect(stream.headers['x-troupe-endpoint']).toBe('box1');
  expect(asked(box(0))).toBe(7);
  box(1).release();
  box(0).release();
  expect(await (await hanging).whole).toBe(true);
});

test('what waits at a box whose checks fail twice moves on at once; the box is not charged for it', async () => {
  const { server, box, ids } = await rig(2);
  box(0).faults.always = { kind: 'hang' };
  const waiting = openStream(server.url, 'sim-small');
  await until(() => box(0).active === 1);
  const [live] = (await server.get('/api/dashboard/requests/live')).json;
  expect([live]).toEqual(expect.schemaMatching(shapes.liveRequests));
  expect(live).toMatchObject({ endpoint_id: ids[0], phase: 'waiting', attempts: 1 });
  box(0).faults.models = { kind: 'refuse' };
  for (let i = 0; i < 2; i += 1) await server.send('POST', `/api/endpoints/${ids[0]}/test`);
  const stream = await waiting;
  expect(stream.headers['x-troupe-endpoint']).toBe('box1');
  expect(await stream.whole).toBe(true);
  expect(payloads(stream.text()).at(-1)).toBe('[DONE]');
  await until(() => box(0).active === 0);
  expect(await numbersOf(server)).toMatchObject([{ total_requests: 0 }, { successful_requests: 1 }]);
  expect((await lastRow(server)).attempts).toMatchObject([
    { endpoint_name: 'box0', outcome: 'cancelled', error: 'its health checks failed' },
    { endpoint_name: 'box1', outcome: 'success' },
  ]);
});

test('what waits at a box that is removed moves on at once', async () => {
  const { server, box, ids } = await rig(2);
  box(0).faults.always = { kind: 'hang' };
  const waiting = openStream(server.url, 'sim-small');
  await until(() => box(0).active === 1);
  expect((await server.send('DELETE', `/api/endpoints/${ids[0]}`)).status).toBe(204);
  const stream = await waiting;
  expect(stream.headers['x-troupe-endpoint']).toBe('box1');
  expect(await stream.whole).toBe(true);
});

test('what waits stays where it is as long as there is nobody else', async () => {
  const { server, box, ids } = await rig(1);
  box(0).faults.next.push({ kind: 'hang' });
  const waiting = openStream(server.url, 'sim-small');
  await until(() => box(0).active === 1);
  box(0).faults.models = { kind: 'refuse' };
  for (let i = 0; i < 2; i += 1) await server.send('POST', `/api/endpoints/${ids[0]}/test`);
  await pause(100);
  expect(box(0).active).toBe(1);
  box(0).release();
  expect(await (await waiting).whole).toBe(true);
});

test('deadlines may be an endpoint’s own, and a model’s there; the most specific one counts', async () => {
  const server = await startLocal({ env: { ...QUIET, TROUPE_FIRST_BYTE_TIMEOUT_MS: '20000' } });
  const box = await engine({ models: ['slow', 'other'] });
  const deadlines = { first_byte_ms: 400, models: { slow: { first_byte_ms: 150 } } };
  const { id } = await server.register('box', box.url, { deadlines });
  expect((await endpointOf(server, id)).deadlines).toEqual(deadlines);
  box.faults.always = { kind: 'hang' };
  const messages = await Promise.all(
    ['slow', 'other'].map(async (model) => (await server.chat(model)).json.error),
  );
  expect(messages.map(({ code }) => code)).toEqual(['timeout_first_byte', 'timeout_first_byte']);
  expect(messages[0].message).toMatch(/within 150 ms$/);
  expect(messages[1].message).toMatch(/within 400 ms$/);
  const changed = await server.send('PUT', `/api/endpoints/${id}`, { deadlines: null, max_concurrency: 3 });
  expect(changed.json).toMatchObject({ deadlines: {}, max_concurrency: 3 });
  for (const bad of [{ first_byte_ms: -1 }, { sometime_ms: 1 }, { models: { a: { idle_ms: 1.5 } } }]) {
    const refused = await server.send('PUT', `/api/endpoints/${id}`, { deadlines: bad });
    expect(refused.status).toBe(400);
    expect(refused.json.error.message).toMatch(/^deadlines/);
  }
  expect((await endpointOf(server, id)).deadlines).toEqual({});
});

test('a deadline that is set holds for a long prompt too', async () => {
  const server = await startLocal({ env: { ...QUIET, TROUPE_FIRST_BYTE_TIMEOUT_MS: '300' } });
  const box = await engine();
  await server.register('box', box.url);
  box.faults.next.push({ kind: 'hang' });
  const messages = [{ role: 'user', content: 'x'.repeat(200_000) }];
  const reply = await server.chat('sim-small', { stream: true, messages });
  expect(reply.json.error).toMatchObject({ code: 'timeout_first_byte' });
  expect(reply.json.error.message).toMatch(/within 300 ms$/);
});

test('one that tries an endpoint out is for that endpoint: nothing takes it away', async () => {
  const { server, box, ids } = await rig(2);
  box(0).faults.next.push({ kind: 'hang' });
  const tried = rawRequest(server.url, `/api/endpoints/${ids[0]}/chat/completions`, {
    body: chatBody('sim-small'),
  });
  await until(() => box(0).active === 1);
  expect((await server.send('DELETE', `/api/endpoints/${ids[0]}`)).status).toBe(204);
  await pause(50);
  box(0).release();
  const reply = await tried;
  expect([reply.status, await reply.whole]).toEqual([200, true]);
});

test('an error about an endpoint that is gone still names it', async () => {
  const { server, box, ids } = await rig(1);
  box(0).faults.next.push({ kind: 'hang' });
  const asking = server.chat('sim-small');
  await until(() => box(0).active === 1);
  await server.send('DELETE', `/api/endpoints/${ids[0]}?force=true`);
  const reply = await asking;
  expect(reply.headers.get('x-troupe-endpoint')).toBe('box0');
  expect(reply.json.error.message).toBe('box0: the endpoint was removed');
});

test('what is pipelined behind a request whose client left is not asked of anybody', async () => {
  const { server, box, ids } = await rig(1);
  await server.send('PUT', `/api/endpoints/${ids[0]}`, { max_concurrency: 1 });
  box(0).faults.always = { kind: 'hang' };
  const one = chatBody('sim-small');
  const text = `POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: ${TEST_KEY}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(one)}\r\n\r\n${one}`;
  const socket = connect(server.server.port, '127.0.0.1');
  socket.write(text + text);
  await until(async () => (await server.get('/api/dashboard/stats')).json.queued_requests === 1);
  socket.destroy();
  await until(async () => (await server.get('/api/dashboard/requests/live')).json.length === 0);
  expect(asked(box(0))).toBe(1);
  expect((await server.get('/api/dashboard/stats')).json).toMatchObject({
    queued_requests: 0,
    total_active_requests: 0,
  });
});

test('decisions and limits survive a restart', async () => {
  const { server, ids } = await rig(2);
  await server.send('PUT', `/api/endpoints/${ids[0]}`, { max_concurrency: 5, deadlines: { idle_ms: 1234 } });
  await server.chat('sim-small');
  const { id } = await lastRow(server);
  const before = (await server.get(`/api/dashboard/request-responses/${id}`)).json;
  await server.server.stop();
  const second: LocalServer = await startLocal({ dataDir: server.dataDir, env: QUIET });
  expect((await second.get(`/api/dashboard/request-responses/${id}`)).json).toEqual(before);
  expect(await endpointOf(second, ids[0])).toMatchObject({
    max_concurrency: 5,
    deadlines: { idle_ms: 1234 },
  });
});
