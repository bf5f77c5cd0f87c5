import { expect, test } from 'vitest';
import type { Clock } from '../src/clock.js';
import type { Fault } from '../src/demo/simulated-faults.js';
import { chatBody, openStream, payloads, rawRequest, replyTo, startRequest } from './support/clients.js';
import { type Api, engine, type LocalServer, spawnServer, startLocal, until } from './support/server.js';

const CHAT = '/v1/chat/completions';
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };

/** Time that stands still until it is moved. */
function ownClock(start = Date.now()): Clock & { wall: number; elapsed: number } {
  const clock = { wall: start, elapsed: 1000, now: () => clock.wall, mono: () => clock.elapsed };
  return clock;
}

interface Point {
  minute: string;
  success: number;
  error: number;
}

async function history(api: Api): Promise<Point[]> {
  return (await api.get('/api/dashboard/request-history')).json;
}

/** Every number a finished request can move. */
async function numbers(api: Api, id: string) {
  const endpoints = (await api.get('/api/dashboard/endpoints')).json;
  const one = endpoints.find((endpoint: { id: string }) => endpoint.id === id);
  const today = (await api.get(`/api/endpoints/${id}/today-stats`)).json;
  const models = (await api.get(`/api/endpoints/${id}/model-stats`)).json;
  const rates = (await api.get(`/api/endpoints/${id}/model-tps`)).json;
  const { stats, history: points } = (await api.get('/api/dashboard/overview')).json;
  const { records } = (await api.get('/api/dashboard/request-responses')).json;
  const sum = (pick: (point: Point) => number) =>
    points.reduce((all: number, point: Point) => all + pick(point), 0);
  return {
    counters: [one.successful_requests, one.failed_requests],
    totals: [one.total_requests, stats.total_requests, today.total_requests],
    daily: [today.successful_requests, today.failed_requests],
    byModel: models.map((model: Record<string, unknown>) => [
      model.model_id,
      model.successful_requests,
      model.failed_requests,
    ]),
    samples: rates.map((rate: Record<string, unknown>) => [
      rate.api_kind,
      rate.request_count,
      rate.total_output_tokens,
    ]),
    timeline: [sum(({ success }) => success), sum(({ error }) => error)],
    lastHour: [stats.requests_60m.success, stats.requests_60m.error],
    active: one.active_requests,
    records,
  };
}

async function serving(more: Parameters<typeof engine>[0] = {}, env: Record<string, string> = {}) {
  const box = await engine(more);
  const server = await startLocal({ env: { ...QUIET, ...env } });
  const { id } = await server.register('box', box.url);
  return { box, server, id };
}

function counts(success: number, failed: number) {
  return {
    counters: [success, failed],
    totals: [success + failed, success + failed, success + failed],
    daily: [success, failed],
    byModel: success + failed === 0 ? [] : [['sim-small', success, failed]],
  };
}

function timeline(success: number, error: number) {
  return { timeline: [success, error], lastHour: [success, error] };
}

type Row = [what: string, fault: Fault, status: number];

const BOTH_FAIL: Row[] = [
  ['an upstream 500', { kind: 'status', status: 500 }, 500],
  ['an upstream 429', { kind: 'status', status: 429 }, 429],
  ['an upstream 404', { kind: 'status', status: 404 }, 404],
  ['a redirect', { kind: 'redirect', location: 'http://127.0.0.1:9/' }, 502],
  ['a reset', { kind: 'reset' }, 502],
  ['a deadline before the head', { kind: 'hang' }, 504],
  ['a deadline after the endpoint’s head', { kind: 'hang_body' }, 504],
  ['a cut', { kind: 'cut' }, 200],
  ['a reset half-way', { kind: 'reset', afterTokens: 3 }, 200],
  ['silence half-way', { kind: 'stall', afterTokens: 3 }, 200],
  ['bytes that are no answer', { kind: 'garbage' }, 200],
];

const STREAM_FAILS: Row[] = [
  ['a clean end without a finish_reason', { kind: 'end_early', afterTokens: 3 }, 200],
  ['an error event', { kind: 'error_event', afterTokens: 3 }, 200],
  ['an error event before [DONE]', { kind: 'error_event', afterTokens: 3, thenDone: true }, 200],
];

const WHOLE_FAILS: Row[] = [['a 200 whose JSON stops half-way', { kind: 'half_json' }, 200]];

const DEADLINES = { TROUPE_FIRST_BYTE_TIMEOUT_MS: '200', TROUPE_IDLE_TIMEOUT_MS: '200' };

test.each([
  ...BOTH_FAIL.map((row) => [true, ...row] as const),
  ...STREAM_FAILS.map((row) => [true, ...row] as const),
  ...BOTH_FAIL.map((row) => [false, ...row] as const),
  ...WHOLE_FAILS.map((row) => [false, ...row] as const),
])('stream %s: %s is one failure everywhere and no sample', async (stream, _what, fault, status) => {
  const { box, server, id } = await serving({}, DEADLINES);
  box.faults.next.push(fault);
  const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small', { stream }) });
  await reply.whole;
  const seen = await numbers(server, id);
  expect(seen).toMatchObject({ ...counts(0, 1), ...timeline(0, 1), samples: [], active: 0 });
  expect(seen.records).toHaveLength(1);
  const [row] = seen.records;
  // Half of a JSON body may be held back or sent on; what was sent is what the row says.
  expect(row.status_code).toBe(reply.status);
  if (stream) expect(row.status_code).toBe(status);
  expect(row).toMatchObject({
    outcome: 'failure',
    status: { type: 'error', message: expect.stringMatching(/./) },
    endpoint_id: id,
    endpoint_name: 'box',
    attempts: [
      { endpoint_id: id, endpoint_name: 'box', outcome: 'failure', error: expect.stringMatching(/./) },
    ],
  });
});

test.each([true, false])(
  'stream %s: a complete answer is one success everywhere and a sample',
  async (stream) => {
    const { server, id } = await serving({ outputTokens: 7 });
    const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small', { stream }) });
    await reply.whole;
    const seen = await numbers(server, id);
    expect(seen).toMatchObject({
      ...counts(1, 0),
      ...timeline(1, 0),
      samples: [['chat_completions', 1, 7]],
      active: 0,
    });
    const [row] = seen.records;
    expect(row).toMatchObject({
      outcome: 'success',
      status_code: 200,
      status: { type: 'success' },
      endpoint_id: id,
      model: 'sim-small',
      request_type: 'chat',
      client_ip: '127.0.0.1',
      output_tokens: 7,
      tokens_estimated: false,
      attempts: [{ endpoint_id: id, outcome: 'success', status_code: 200, error: null }],
    });
    expect(row.input_tokens).toBeGreaterThan(0);
    expect(row.total_tokens).toBe(row.input_tokens + 7);
    expect(row.ttft_ms === null).toBe(!stream);
  },
);

test.each([
  ['/v1/completions', { prompt: 'x' }, 'completion', 'completions'],
  ['/v1/responses', { input: 'x' }, 'responses', 'responses'],
  ['/v1/embeddings', { input: 'x' }, 'embeddings', null],
])('%s is counted under its own kind', async (path, fields, requestType, kind) => {
  for (const stream of [false, true]) {
    const { server, id } = await serving({ outputTokens: 5 });
    const body = JSON.stringify({ model: 'sim-small', stream, ...fields });
    await (await rawRequest(server.url, path, { body })).whole;
    const seen = await numbers(server, id);
    expect(seen).toMatchObject({
      ...counts(1, 0),
      ...timeline(1, 0),
      samples: kind === null ? [] : [[kind, 1, 5]],
    });
    expect(seen.records[0]).toMatchObject({ request_type: requestType, outcome: 'success' });
  }
});

test.each([
  ['/v1/chat/completions', { messages: [] }],
  ['/v1/completions', { prompt: 'x' }],
])(
  'a stream of %s with a finish_reason and a clean end is a success without [DONE]',
  async (path, fields) => {
    const { box, server, id } = await serving();
    box.faults.next.push({ kind: 'no_done' });
    const body = JSON.stringify({ model: 'sim-small', stream: true, ...fields });
    expect(await (await rawRequest(server.url, path, { body })).whole).toBe(true);
    expect(await numbers(server, id)).toMatchObject({ ...counts(1, 0), ...timeline(1, 0) });
  },
);

test.each([[{ kind: 'no_done' }], [{ kind: 'error_event', afterTokens: 2 }]] as [Fault][])(
  'a responses stream without its terminal event is a failure: %o',
  async (fault) => {
    const { box, server, id } = await serving();
    box.faults.next.push(fault);
    const body = JSON.stringify({ model: 'sim-small', stream: true, input: 'x' });
    await (await rawRequest(server.url, '/v1/responses', { body })).whole;
    expect(await numbers(server, id)).toMatchObject({ ...counts(0, 1), ...timeline(0, 1), samples: [] });
  },
);

test('a responses stream that ends with response.incomplete is a success', async () => {
  const { server, id } = await serving({ outputTokens: 9 });
  const body = JSON.stringify({ model: 'sim-small', stream: true, input: 'x', max_output_tokens: 4 });
  const reply = await rawRequest(server.url, '/v1/responses', { body });
  await reply.whole;
  expect(reply.text()).toContain('response.incomplete');
  expect(await numbers(server, id)).toMatchObject({ ...counts(1, 0), samples: [['responses', 1, 4]] });
});

test('a closed port is a failure of the endpoint and a 502 in the row', async () => {
  const { box, server, id } = await serving();
  await box.stop();
  await server.chat('sim-small');
  const seen = await numbers(server, id);
  expect(seen).toMatchObject({ ...counts(0, 1), ...timeline(0, 1) });
  expect(seen.records[0]).toMatchObject({
    outcome: 'failure',
    status_code: 502,
    attempts: [{ status_code: null }],
  });
});

test('with nobody to serve it a request is a failure of the client alone, without an endpoint', async () => {
  const { server, id } = await serving();
  await server.send('POST', `/api/endpoints/${id}/drain`);
  expect((await server.chat('sim-small')).status).toBe(503);
  const seen = await numbers(server, id);
  expect(seen).toMatchObject({ ...counts(0, 0), ...timeline(0, 1), samples: [] });
  expect(seen.records[0]).toMatchObject({
    outcome: 'failure',
    status_code: 503,
    endpoint_id: null,
    endpoint_name: null,
    input_tokens: null,
    output_tokens: null,
    total_tokens: null,
    attempts: [],
  });
});

test('what Troupe refuses itself leaves no trace', async () => {
  const { server, id } = await serving();
  const refused = [
    await rawRequest(server.url, CHAT, { body: '{' }),
    await rawRequest(server.url, CHAT, { body: '{"model":1}' }),
    await rawRequest(server.url, CHAT, { body: chatBody('nobody-has-it') }),
    await rawRequest(server.url, CHAT, { body: chatBody('sim-small'), headers: { authorization: '' } }),
    await rawRequest(server.url, CHAT, {
      body: chatBody('sim-small'),
      headers: { authorization: 'Bearer nobody' },
    }),
    await rawRequest(server.url, CHAT, { method: 'PUT', body: chatBody('sim-small') }),
    await rawRequest(server.url, CHAT, { body: 'x', headers: { 'content-type': 'text/plain' } }),
    await rawRequest(server.url, CHAT, { body: Buffer.alloc(33 * 1024 * 1024) }),
  ];
  expect(refused.map(({ status }) => status)).toEqual([400, 400, 404, 401, 401, 405, 415, 413]);
  expect(await numbers(server, id)).toMatchObject({ ...counts(0, 0), ...timeline(0, 0), records: [] });
});

test('trying an endpoint out is counted nowhere', async () => {
  const { server, id } = await serving();
  const reply = await server.send('POST', `/api/endpoints/${id}/chat/completions`, {
    model: 'sim-small',
    messages: [],
  });
  expect(reply.status).toBe(200);
  expect(await numbers(server, id)).toMatchObject({
    ...counts(0, 0),
    ...timeline(0, 0),
    samples: [],
    records: [],
  });
});

// Clients that leave.

test.each([true, false])(
  'stream %s: a client that leaves before a head is a row and nothing else',
  async (stream) => {
    const { box, server, id } = await serving();
    box.faults.next.push({ kind: 'hang' });
    const sent = startRequest(server.url, CHAT, { body: chatBody('sim-small', { stream }) });
    await until(() => box.active === 1);
    sent.destroy();
    await until(async () => (await numbers(server, id)).records.length === 1);
    const seen = await numbers(server, id);
    expect(seen).toMatchObject({ ...counts(0, 0), ...timeline(0, 0), samples: [], active: 0 });
    expect(seen.records[0]).toMatchObject({
      outcome: 'cancelled',
      status_code: 499,
      status: { type: 'error' },
      endpoint_id: id,
      attempts: [{ outcome: 'cancelled', status_code: null }],
    });
  },
);

test.each([4, 0])(
  'a client that leaves a stream after %s tokens is a success; it is a sample if it saw any',
  async (tokens) => {
    const { box, server, id } = await serving();
    box.faults.next.push({ kind: 'stall', afterTokens: tokens });
    const reply = await openStream(server.url, 'sim-small');
    await until(() => payloads(reply.text()).length === 1 + tokens);
    reply.leave();
    await until(async () => (await numbers(server, id)).records.length === 1);
    const seen = await numbers(server, id);
    expect(seen).toMatchObject({
      ...counts(1, 0),
      ...timeline(1, 0),
      samples: tokens === 0 ? [] : [['chat_completions', 1, tokens]],
      active: 0,
    });
    expect(seen.records[0]).toMatchObject({
      outcome: 'cancelled',
      status_code: 200,
      status: { type: 'success' },
      attempts: [{ status_code: 200, error: null }],
    });
  },
);

test('a client that leaves after [DONE] got a complete answer, though the endpoint has not ended yet', async () => {
  const { box, server, id } = await serving();
  box.faults.next.push({ kind: 'late_end', ms: 1500 });
  const reply = await openStream(server.url, 'sim-small');
  await until(() => reply.text().includes('[DONE]'));
  // Counted before those bytes went on, so it is in this very read.
  const seen = await numbers(server, id);
  expect(seen).toMatchObject({ ...counts(1, 0), ...timeline(1, 0), samples: [['chat_completions', 1, 12]] });
  reply.leave();
  await until(() => box.active === 0);
  const after = await numbers(server, id);
  expect(after).toMatchObject({ ...counts(1, 0), ...timeline(1, 0), active: 0 });
  expect(after.records.map((row: { outcome: string }) => row.outcome)).toEqual(['success']);
});

test('a cut after [DONE] changes nothing', async () => {
  const { box, server, id } = await serving();
  box.faults.next.push({ kind: 'late_end', ms: 600 });
  const reply = await openStream(server.url, 'sim-small');
  await until(() => reply.text().includes('[DONE]'));
  await box.stop();
  await reply.whole;
  expect(reply.text()).not.toContain('upstream_broken');
  expect(await numbers(server, id)).toMatchObject({ ...counts(1, 0), ...timeline(1, 0) });
});

test('counters are right in the very next read, for many clients at once', async () => {
  const { box, server, id } = await serving();
  for (let i = 0; i < 10; i += 1) box.faults.next.push({ kind: 'status', status: 500 });
  await Promise.all(Array.from({ length: 40 }, (_, i) => server.chat('sim-small', { stream: i % 2 === 0 })));
  expect(await numbers(server, id)).toMatchObject({ ...counts(30, 10), ...timeline(30, 10), active: 0 });
});

// Endpoints that go.

test('an endpoint removed by force ends its streams: a failure for the clients, no step for anybody’s counter', async () => {
  const { box, server, id } = await serving();
  const other = await engine({ models: ['else'] });
  const kept = await server.register('kept', other.url);
  box.faults.always = { kind: 'stall', afterTokens: 3 };
  const streams = [await openStream(server.url, 'sim-small'), await openStream(server.url, 'sim-small')];
  expect((await server.send('DELETE', `/api/endpoints/${id}?force=true`)).status).toBe(204);
  for (const stream of streams) {
    await stream.whole;
    expect(JSON.parse(payloads(stream.text()).at(-1) ?? '').error).toMatchObject({ type: 'upstream_error' });
    expect(stream.text()).not.toContain('[DONE]');
  }
  await until(() => box.active === 0);
  const seen = await numbers(server, kept.id);
  expect(seen).toMatchObject({ counters: [0, 0], totals: [0, 0, 0], ...timeline(0, 2) });
  expect(seen.records).toHaveLength(2);
  for (const row of seen.records) {
    expect(row).toMatchObject({ outcome: 'failure', status_code: 200, attempts: [{ outcome: 'cancelled' }] });
  }
});

test('a request whose endpoint is removed by force before its head is told 502, and so is its row', async () => {
  const { box, server, id } = await serving();
  box.faults.always = { kind: 'hang' };
  const sent = replyTo(startRequest(server.url, CHAT, { body: chatBody('sim-small') }));
  await until(() => box.active === 1);
  await server.send('DELETE', `/api/endpoints/${id}?force=true`);
  const reply = await sent;
  await reply.whole;
  expect([reply.status, reply.json().error.code]).toEqual([502, 'upstream_broken']);
  const [row] = (await server.get('/api/dashboard/request-responses')).json.records;
  expect(row).toMatchObject({ outcome: 'failure', status_code: 502, attempts: [{ outcome: 'cancelled' }] });
});

// Tokens and rates.

test('without a usage report the tokens of a stream are counted and marked as estimated', async () => {
  const { box, server, id } = await serving({ outputTokens: 9 });
  box.faults.next.push({ kind: 'no_usage' });
  await server.chat('sim-small', { stream: true });
  const seen = await numbers(server, id);
  expect(seen.records[0]).toMatchObject({
    input_tokens: null,
    output_tokens: 9,
    total_tokens: 9,
    tokens_estimated: true,
  });
  expect(seen.samples).toEqual([['chat_completions', 1, 9]]);
});

test('a whole answer without a usage report has no tokens and is no sample', async () => {
  const { box, server, id } = await serving();
  box.faults.next.push({ kind: 'no_usage' });
  await server.chat('sim-small');
  const seen = await numbers(server, id);
  expect(seen).toMatchObject({ ...counts(1, 0), samples: [] });
  expect(seen.records[0]).toMatchObject({ input_tokens: null, output_tokens: null, total_tokens: null });
});

/** One stream whose attempt takes exactly so many milliseconds by the server's clock. */
async function timedStream(
  server: LocalServer,
  box: Awaited<ReturnType<typeof engine>>,
  clock: ReturnType<typeof ownClock>,
  ms: number,
) {
  box.faults.next.push({ kind: 'stall', afterTokens: 1 });
  const stream = await openStream(server.url, 'sim-small');
  await until(() => payloads(stream.text()).length === 2);
  clock.elapsed += ms;
  box.release();
  expect(await stream.whole).toBe(true);
}

test('100 tokens in 2000 ms are 50 tokens per second, live and after a restart; failures beside them change nothing', async () => {
  const box = await engine({ outputTokens: 100 });
  const clock = ownClock();
  const first = await startLocal({ env: QUIET, seams: { clock } });
  const { id } = await first.register('box', box.url);
  const rate = async (server: Api) => (await server.get(`/api/endpoints/${id}/model-tps`)).json;
  expect(await rate(first)).toEqual([]);
  expect((await first.get('/api/dashboard/overview')).json.endpoint_tps[0].aggregate_tps).toBeNull();

  await timedStream(first, box, clock, 2000);
  const expected = {
    model_id: 'sim-small',
    api_kind: 'chat_completions',
    source: 'production',
    tps: 50,
    request_count: 1,
    total_output_tokens: 100,
    average_duration_ms: 2000,
  };
  expect(await rate(first)).toEqual([expected]);
  box.faults.next.push(
    { kind: 'status', status: 500 },
    { kind: 'cut' },
    { kind: 'error_event', afterTokens: 50 },
  );
  for (const stream of [false, true, true]) await first.chat('sim-small', { stream });
  expect(await rate(first)).toEqual([expected]);
  box.faults.models = { kind: 'status', status: 500 };
  await first.send('POST', `/api/endpoints/${id}/test`);
  expect(await rate(first)).toEqual([expected]);
  await first.server.stop();

  box.faults.models = null;
  const second = await startLocal({ dataDir: first.dataDir, env: QUIET, seams: { clock } });
  expect(await rate(second)).toEqual([expected]);
  const [tps] = (await second.get('/api/dashboard/overview')).json.endpoint_tps;
  expect(tps).toEqual({
    endpoint_id: id,
    model_count: 1,
    aggregate_tps: 50,
    total_output_tokens: 100,
    total_requests: 1,
  });

  // The first sample after the seed moves it by a fifth: 100 tokens in 1000 ms.
  await timedStream(second, box, clock, 1000);
  expect((await rate(second))[0].tps).toBeCloseTo(60, 9);
  await second.server.stop();
  const third = await startLocal({ dataDir: first.dataDir, env: QUIET, seams: { clock } });
  expect((await rate(third))[0]).toMatchObject({
    tps: 200_000 / 3000,
    request_count: 2,
    average_duration_ms: 1500,
  });
});

test('after a restart of the process the rate is exactly tokens × 1000 ÷ ms of the row', async () => {
  const box = await engine({ outputTokens: 20 });
  const first = await spawnServer({ env: QUIET });
  const { id } = await first.register('box', box.url);
  box.faults.next.push({ kind: 'slow_chunks', ms: 5 });
  await first.chat('sim-small', { stream: true });
  const [row] = (await first.get('/api/dashboard/request-responses')).json.records;
  const expected = (row.output_tokens * 1000) / row.attempts[0].duration_ms;
  const rate = async (api: Api) => (await api.get(`/api/endpoints/${id}/model-tps`)).json[0].tps;
  expect(await rate(first)).toBe(expected);
  await first.end();
  const second = await spawnServer({ dataDir: first.dataDir, env: QUIET });
  expect(await rate(second)).toBe(expected);
});

test('on another local date there is no rate yet and no row of today, but every total', async () => {
  const box = await engine();
  // 26 hours apart: never the same date.
  const first = await spawnServer({ env: { ...QUIET, TZ: 'Etc/GMT+12' } });
  const { id } = await first.register('box', box.url);
  await first.chat('sim-small', { stream: true });
  const before = (await first.get(`/api/endpoints/${id}/model-stats`)).json;
  await first.end();
  const second = await spawnServer({ dataDir: first.dataDir, env: { ...QUIET, TZ: 'Etc/GMT-14' } });
  expect((await second.get(`/api/endpoints/${id}/model-tps`)).json).toEqual([]);
  const { endpoint_tps, endpoints, time_zone } = (await second.get('/api/dashboard/overview')).json;
  expect(endpoint_tps).toEqual([
    { endpoint_id: id, model_count: 0, aggregate_tps: null, total_output_tokens: 0, total_requests: 0 },
  ]);
  expect(time_zone).toBe('Etc/GMT-14');
  expect((await second.get(`/api/endpoints/${id}/today-stats`)).json.total_requests).toBe(0);
  expect(endpoints[0]).toMatchObject({ total_requests: 1, successful_requests: 1 });
  expect((await second.get(`/api/endpoints/${id}/model-stats`)).json).toEqual(before);
});

test('a running process keeps its rate over midnight, with the counts of the new day', async () => {
  const box = await engine();
  const clock = ownClock();
  const server = await startLocal({ env: QUIET, seams: { clock } });
  const { id } = await server.register('box', box.url);
  await timedStream(server, box, clock, 100);
  clock.wall += DAY_MS;
  const [rate] = (await server.get(`/api/endpoints/${id}/model-tps`)).json;
  expect(rate).toMatchObject({
    tps: 120,
    request_count: 0,
    total_output_tokens: 0,
    average_duration_ms: null,
  });
  expect((await server.get(`/api/endpoints/${id}/today-stats`)).json.total_requests).toBe(0);
  await timedStream(server, box, clock, 100);
  expect((await server.get(`/api/endpoints/${id}/model-tps`)).json[0]).toMatchObject({
    tps: 120,
    request_count: 1,
  });
  // Days before today are read from the disk, which may be a batch behind.
  await until(async () => {
    const days: { total_requests: number }[] = (await server.get(`/api/endpoints/${id}/daily-stats`)).json;
    return days.map(({ total_requests }) => total_requests).join() === '1,1';
  });
});

// The average response time.

async function average(api: Api): Promise<number | null> {
  return (await api.get('/api/dashboard/stats')).json.average_response_time_ms;
}

test('the average response time is the mean of the successful rows of the last hour, through a restart too', async () => {
  const box = await engine({ healthDelayMs: 40 });
  const clock = ownClock();
  const first = await startLocal({ env: QUIET, seams: { clock } });
  expect(await average(first)).toBeNull();
  await first.register('box', box.url);
  await timedStream(first, box, clock, 300);
  await timedStream(first, box, clock, 500);
  box.faults.next.push({ kind: 'status', status: 500 }, { kind: 'stall', afterTokens: 2 });
  await first.chat('sim-small');
  const left = await openStream(first.url, 'sim-small');
  clock.elapsed += 9000;
  left.leave();
  await until(async () => (await first.get('/api/dashboard/request-responses')).json.total_count === 4);
  expect(await average(first)).toBe(400);
  await first.server.stop();

  const second = await startLocal({ dataDir: first.dataDir, env: QUIET, seams: { clock } });
  expect(await average(second)).toBe(400);
  await second.server.stop();

  // An hour later: the latency of the only endpoint.
  clock.wall += HOUR_MS + MINUTE_MS;
  const third = await startLocal({ dataDir: first.dataDir, env: QUIET, seams: { clock } });
  const [endpoint] = (await third.get('/api/dashboard/endpoints')).json;
  expect(await average(third)).toBe(endpoint.latency_ms);
  await box.stop();
  for (let i = 0; i < 2; i += 1) await third.send('POST', `/api/endpoints/${endpoint.id}/test`);
  expect(await average(third)).toBeNull();
});

test('without requests in the last hour latencies are weighted by requests, or plain where there are none', async () => {
  const clock = ownClock();
  // Latencies are measured by this clock: it moves while the list is being asked for.
  const boxes = [
    await engine({ models: ['a'] }),
    await engine({ models: ['b'] }),
    await engine({ models: ['c'] }),
  ];
  const first = await startLocal({ env: { ...QUIET, TROUPE_HEALTH_TIMEOUT_MS: '20000' }, seams: { clock } });
  const ids: string[] = [];
  for (const [index, box] of boxes.entries()) {
    box.options.healthDelayMs = 150;
    const registered = first.register(`box-${index}`, box.url);
    await until(() => box.requests.length > 0);
    clock.elapsed += [30, 90, 120][index] ?? 0;
    ids.push((await registered).id);
  }
  const latencies = async (api: Api) =>
    Object.fromEntries(
      (await api.get('/api/dashboard/endpoints')).json.map((one: { id: string; latency_ms: number }) => [
        one.id,
        one.latency_ms,
      ]),
    );
  expect(Object.values(await latencies(first)).sort((a, b) => Number(a) - Number(b))).toEqual([30, 90, 120]);
  expect(await average(first)).toBe(80);

  clock.wall -= 3 * HOUR_MS;
  for (const [model, times] of [
    ['a', 3],
    ['b', 1],
  ] as const) {
    for (let i = 0; i < times; i += 1) expect((await first.chat(model)).status).toBe(200);
  }
  await first.server.stop();

  clock.wall += 3 * HOUR_MS;
  for (const box of boxes) box.faults.models = { kind: 'hang' };
  const second = await startLocal({
    dataDir: first.dataDir,
    env: { ...QUIET, TROUPE_HEALTH_TIMEOUT_MS: '20000' },
    seams: { clock },
  });
  expect((await second.get('/api/dashboard/stats')).json.requests_60m).toEqual({ success: 0, error: 0 });
  // (3 × 30 + 1 × 90 + 0 × 120) ÷ 4
  expect(await average(second)).toBe(45);
  await second.send('POST', `/api/endpoints/${ids[0]}/drain`);
  expect(await average(second)).toBe(90);
});

// The timeline.

test('the timeline after a restart is the one that was live before', async () => {
  const box = await engine();
  const clock = ownClock(Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS + 30_000);
  const end = clock.wall;
  const first = await startLocal({ env: QUIET, seams: { clock } });
  await first.register('box', box.url);
  for (const minutesAgo of [75, 60, 59, 30, 30, 1, 0]) {
    clock.wall = end - minutesAgo * MINUTE_MS;
    if (minutesAgo === 30) box.faults.next.push({ kind: 'status', status: 500 });
    await first.chat('sim-small');
  }
  const live = await history(first);
  expect(live.filter(({ success, error }) => success + error > 0)).toHaveLength(4);
  expect(live[0]).toMatchObject({ success: 1 });
  expect(live[29]).toMatchObject({ error: 2 });
  expect(live[59]).toEqual({
    minute: new Date(end - 30_000).toISOString().replace('.000', ''),
    success: 1,
    error: 0,
  });
  await first.server.stop();
  const second = await startLocal({ dataDir: first.dataDir, env: QUIET, seams: { clock } });
  expect(await history(second)).toEqual(live);
  await second.server.stop();

  // Two hours before all of that: the rows lie in the future and do not show.
  clock.wall = end - 2 * HOUR_MS;
  const early = await startLocal({ dataDir: first.dataDir, env: QUIET, seams: { clock } });
  for (const { success, error } of await history(early)) expect([success, error]).toEqual([0, 0]);
});

function expectSane(points: Point[], now: number): void {
  expect(points).toHaveLength(60);
  const last = Math.floor(now / MINUTE_MS);
  points.forEach(({ minute, success, error }, index) => {
    expect(minute).toMatch(/:00Z$/);
    expect(Date.parse(minute) / MINUTE_MS).toBe(last - 59 + index);
    expect(success).toBeGreaterThanOrEqual(0);
    expect(error).toBeGreaterThanOrEqual(0);
  });
}

test('a clock that jumps a day back and forward costs no number and crashes nothing', async () => {
  const box = await engine();
  const clock = ownClock();
  const start = clock.wall;
  const server = await startLocal({ env: QUIET, seams: { clock } });
  const { id } = await server.register('box', box.url);
  let sent = 0;
  for (const days of [0, 1, -1, 0, -2, 3]) {
    clock.wall = start + days * DAY_MS;
    await server.chat('sim-small', { stream: true });
    sent += 1;
    const points = await history(server);
    expectSane(points, clock.wall);
    const [one] = (await server.get('/api/dashboard/endpoints')).json;
    expect(one.successful_requests).toBe(sent);
    const stats = (await server.get('/api/dashboard/stats')).json;
    expect(stats.average_response_time_ms).toBeGreaterThan(0);
    const [rate] = (await server.get(`/api/endpoints/${id}/model-tps`)).json;
    expect(rate.tps).toBeGreaterThan(0);
    for (const row of (await server.get('/api/dashboard/request-responses')).json.records) {
      expect(row.duration_ms).toBeGreaterThan(0);
    }
    const dailyRows = (await server.get(`/api/endpoints/${id}/daily-stats?days=365`)).json;
    for (const day of dailyRows) expect(day.total_requests).toBeGreaterThan(0);
  }
  const text = JSON.stringify((await server.get('/api/dashboard/actors')).json);
  expect(text).not.toContain('"restarts":1');
  await server.server.stop();
  const second = await startLocal({ dataDir: server.dataDir, env: QUIET, seams: { clock } });
  expect((await second.get('/api/dashboard/endpoints')).json[0].successful_requests).toBe(sent);
});

test('a failed health check clears neither latency nor rate, on disk neither', async () => {
  const { box, server, id } = await serving();
  await server.chat('sim-small');
  const before = (await server.get(`/api/endpoints/${id}`)).json.latency_ms;
  const rate = (await server.get(`/api/endpoints/${id}/model-tps`)).json;
  box.faults.models = { kind: 'status', status: 500 };
  for (const status of ['error', 'offline', 'offline']) {
    await server.send('POST', `/api/endpoints/${id}/test`);
    expect((await server.get(`/api/endpoints/${id}`)).json).toMatchObject({ status, latency_ms: before });
  }
  expect((await server.get(`/api/endpoints/${id}/model-tps`)).json).toEqual(rate);
  await server.server.stop();
  const second = await startLocal({ dataDir: server.dataDir, env: QUIET });
  expect((await second.get(`/api/endpoints/${id}`)).json.latency_ms).toBe(before);
});
