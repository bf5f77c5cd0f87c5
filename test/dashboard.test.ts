import { expect, test } from 'vitest';
import { framesOf, openStream, rawRequest } from './support/clients.js';
import { type Api, engine, type LocalServer, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };

/** A server with an endpoint that works, one whose key is wrong and one that is away, and some traffic. */
async function busyServer() {
  const good = await engine({ models: ['org/alpha', 'beta:latest'], apiKey: 'secret-one', outputTokens: 5 });
  const away = await engine({ models: ['gone'] });
  const refusing = await engine({ apiKey: 'other' });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('good', good.url, { api_key: 'secret-one', notes: 'on the left' });
  const { id: refusingId } = await server.register('refusing', refusing.url, { api_key: 'secret-two' });
  await away.stop();
  const { id: awayId } = await server.register('away', away.url);
  await server.chat('org/alpha', { stream: true });
  await server.chat('beta');
  good.faults.next.push({ kind: 'status', status: 500 });
  await server.chat('org/alpha');
  return { good, server, id, refusingId, awayId };
}

const READS = [
  ['overview', shapes.overview],
  ['endpoints', shapes.dashboardEndpoint.array()],
  ['stats', shapes.stats],
  ['request-history', shapes.historyPoint.array().length(60)],
  ['model-stats', shapes.modelStat.array()],
  ['request-responses', shapes.recordPage],
] as const;

test('every read has exactly its keys and types, before there is anything and after', async () => {
  const empty = await startLocal({ env: QUIET });
  const { server } = await busyServer();
  for (const api of [empty, server]) {
    for (const [path, shape] of READS) {
      const reply = await api.get(`/api/dashboard/${path}`);
      expect([path, reply.status, reply.headers.get('content-type')]).toEqual([
        path,
        200,
        'application/json',
      ]);
      expect(reply.json, path).toEqual(expect.schemaMatching(shape));
    }
  }
});

test('an empty house reads as zeros and nulls', async () => {
  const server = await startLocal({ env: QUIET });
  const { stats, endpoints, endpoint_tps, history } = (await server.get('/api/dashboard/overview')).json;
  expect([endpoints, endpoint_tps]).toEqual([[], []]);
  expect(stats).toMatchObject({
    total_runtimes: 0,
    total_requests: 0,
    requests_60m: { success: 0, error: 0 },
    average_response_time_ms: null,
    last_metrics_updated_at: null,
    last_registered_at: null,
    last_seen_at: null,
    total_tokens: 0,
  });
  expect(
    history.every((point: { success: number; error: number }) => point.success + point.error === 0),
  ).toBe(true);
  expect((await server.get('/api/dashboard/request-responses')).json).toEqual({
    records: [],
    total_count: 0,
    total_is_capped: false,
    page: 1,
    per_page: 10,
  });
});

test('the parts of the overview are what their own routes say', async () => {
  const { server } = await busyServer();
  const overview = (await server.get('/api/dashboard/overview')).json;
  expect((await server.get('/api/dashboard/endpoints')).json).toEqual(overview.endpoints);
  expect((await server.get('/api/dashboard/stats')).json).toEqual(overview.stats);
  expect((await server.get('/api/dashboard/request-history')).json).toEqual(overview.history);
});

test('the stats sort the endpoints by status and sum their numbers up', async () => {
  const { server, id } = await busyServer();
  const before = (await server.get('/api/dashboard/stats')).json;
  expect(before).toMatchObject({
    total_runtimes: 3,
    online_runtimes: 1,
    pending_runtimes: 0,
    registering_runtimes: 0,
    offline_runtimes: 2,
    total_requests: 3,
    successful_requests: 2,
    failed_requests: 1,
    total_active_requests: 0,
    queued_requests: 0,
    requests_60m: { success: 2, error: 1 },
    total_output_tokens: 10,
  });
  expect(before.total_input_tokens).toBeGreaterThan(0);
  expect(before.total_tokens).toBe(before.total_input_tokens + 10);
  const { records } = (await server.get('/api/dashboard/request-responses')).json;
  const [newest] = (await server.get('/api/dashboard/endpoints')).json;
  expect(before.last_registered_at).toBe(newest.registered_at);
  expect(records).toHaveLength(3);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  expect((await server.get('/api/dashboard/stats')).json).toMatchObject({
    online_runtimes: 1,
    offline_runtimes: 2,
  });
});

test('requests in flight are counted as long as they are', async () => {
  const { good, server, id } = await busyServer();
  good.faults.always = { kind: 'stall', afterTokens: 1 };
  const streams = [await openStream(server.url, 'beta'), await openStream(server.url, 'org/alpha')];
  const active = async () => {
    const { endpoints, stats } = (await server.get('/api/dashboard/overview')).json;
    const one = endpoints.find((endpoint: { id: string }) => endpoint.id === id);
    return [one.active_requests, stats.total_active_requests];
  };
  expect(await active()).toEqual([2, 2]);
  good.release();
  await Promise.all(streams.map(({ whole }) => whole));
  expect(await active()).toEqual([0, 0]);
});

test('the timeline has 60 aligned minutes, oldest first, the last is the current one', async () => {
  const { server } = await busyServer();
  const minute = () => Math.floor(Date.now() / 60_000) * 60_000;
  const before = minute();
  const points = (await server.get('/api/dashboard/request-history')).json;
  const times = points.map((point: { minute: string }) => Date.parse(point.minute));
  expect([before, minute()]).toContain(times[59]);
  times.forEach((time: number, index: number) => {
    expect(time).toBe(times[0] + index * 60_000);
  });
  const sum = (key: string) =>
    points.reduce((all: number, point: Record<string, number>) => all + (point[key] ?? 0), 0);
  expect([sum('success'), sum('error')]).toEqual([2, 1]);
});

test('model stats name models as the endpoint lists them, and go with their endpoint', async () => {
  const { server, id } = await busyServer();
  const stats = (await server.get('/api/dashboard/model-stats')).json;
  const brief = stats.map((one: Record<string, unknown>) => [
    one.model_id,
    one.total_requests,
    one.successful_requests,
    one.failed_requests,
    one.total_output_tokens,
  ]);
  expect(brief).toEqual([
    ['beta:latest', 1, 1, 0, 5],
    ['org/alpha', 2, 1, 1, 5],
  ]);
  expect((await server.get(`/api/endpoints/${id}/model-stats`)).json).toEqual(stats);
  await server.send('DELETE', `/api/endpoints/${id}`);
  expect((await server.get('/api/dashboard/model-stats')).json).toEqual([]);
});

// Records.

/** 27 finished requests: models a-1 and a-2 of one endpoint, b.1 of another; every fifth fails. */
async function withRecords(): Promise<{
  server: LocalServer;
  one: string;
  two: string;
  all: shapes.RequestRow[];
}> {
  const first = await engine({ models: ['a-1', 'a-2'] });
  const second = await engine({ models: ['b.1'] });
  const server = await startLocal({ env: QUIET });
  const { id: one } = await server.register('first', first.url);
  const { id: two } = await server.register('second', second.url);
  for (let i = 0; i < 27; i += 1) {
    const model = ['a-1', 'a-2', 'b.1'][i % 3] as string;
    if (i % 5 === 0) (model === 'b.1' ? second : first).faults.next.push({ kind: 'status', status: 500 });
    await server.chat(model);
  }
  const all = (await list(server, 'per_page=50')).records;
  expect(all).toHaveLength(27);
  return { server, one, two, all };
}

async function list(server: Api, query: string) {
  const reply = await server.get(`/api/dashboard/request-responses?${query}`);
  expect([query, reply.status]).toEqual([query, 200]);
  expect(reply.json).toEqual(expect.schemaMatching(shapes.recordPage));
  return reply.json as { records: shapes.RequestRow[]; total_count: number; page: number; per_page: number };
}

const idsOf = (records: { id: string }[]) => records.map(({ id }) => id);

test('records come newest first, in pages without gap or overlap', async () => {
  const { server, all } = await withRecords();
  const times = all.map(({ completed_at }) => completed_at);
  expect(times).toEqual([...times].sort().reverse());
  expect(new Set(idsOf(all)).size).toBe(27);

  const pages = [
    await list(server, ''),
    await list(server, 'page=2'),
    await list(server, 'page=3&per_page=10'),
  ];
  expect(pages.map(({ page, per_page, total_count }) => [page, per_page, total_count])).toEqual([
    [1, 10, 27],
    [2, 10, 27],
    [3, 10, 27],
  ]);
  expect(idsOf(pages.flatMap(({ records }) => records))).toEqual(idsOf(all));
  expect((await list(server, 'page=4')).records).toEqual([]);
  for (const size of [10, 25, 50, 100]) {
    const { records, per_page } = await list(server, `per_page=${size}`);
    expect([records.length, per_page]).toEqual([Math.min(size, 27), size]);
  }
  expect(idsOf((await list(server, 'limit=7&offset=5')).records)).toEqual(idsOf(all.slice(5, 12)));
  const follow = await list(server, `before=${all[9]?.id}&per_page=10`);
  expect(idsOf(follow.records)).toEqual(idsOf(all.slice(10, 20)));
});

test('records are filtered by model, endpoint, status and time, alone and together', async () => {
  const { server, one, two, all } = await withRecords();
  const expected = (keep: (row: shapes.RequestRow) => boolean) => idsOf(all.filter(keep));
  const at = all[13]?.completed_at ?? '';
  const cases: [string, (row: shapes.RequestRow) => boolean][] = [
    ['model=a-1', ({ model }) => model === 'a-1'],
    ['model=a-*', ({ model }) => model.startsWith('a-')],
    ['model=*1', ({ model }) => model.endsWith('1')],
    ['model=*', () => true],
    ['model=b.*', ({ model }) => model === 'b.1'],
    ['model=a-%3F', () => false],
    ['model=%5Bab%5D*', () => false],
    ['model=A-1', () => false],
    [`endpoint_id=${one}`, ({ endpoint_id }) => endpoint_id === one],
    ['status=error', ({ status }) => status.type === 'error'],
    ['status=success', ({ status }) => status.type === 'success'],
    [`start_time=${at}`, ({ completed_at }) => completed_at >= at],
    [`end_time=${at}`, ({ completed_at }) => completed_at <= at],
    [`start_time=${at}&end_time=${at}`, ({ completed_at }) => completed_at === at],
    [`endpoint_id=${two}&status=error`, (row) => row.endpoint_id === two && row.status.type === 'error'],
    ['model=a-2&status=success', (row) => row.model === 'a-2' && row.status.type === 'success'],
  ];
  for (const [query, keep] of cases) {
    const { records, total_count } = await list(server, `per_page=50&${query}`);
    expect([query, idsOf(records)]).toEqual([query, expected(keep)]);
    expect([query, total_count]).toEqual([query, records.length]);
  }
  const offset = new Date(Date.parse(at) + 2 * 3_600_000).toISOString().replace('Z', '+02:00');
  const { records } = await list(server, `per_page=50&start_time=${encodeURIComponent(offset)}`);
  expect(idsOf(records)).toEqual(expected(({ completed_at }) => completed_at >= at));
});

test.each([
  ['page=0', 'page'],
  ['page=x', 'page'],
  ['per_page=7', 'per_page'],
  ['per_page=-10', 'per_page'],
  ['limit=0', 'limit'],
  ['limit=101', 'limit'],
  ['offset=-1', 'offset'],
  ['offset=1.5', 'offset'],
  ['status=fine', 'status'],
  ['start_time=yesterday', 'start_time'],
  ['end_time=2026-13-40T00:00:00Z', 'end_time'],
])('the bad filter %s is a 400 that names it', async (query, field) => {
  const server = await startLocal({ env: QUIET });
  const reply = await server.get(`/api/dashboard/request-responses?${query}`);
  expect(reply.status).toBe(400);
  expect(reply.json).toEqual(expect.schemaMatching(shapes.apiError));
  expect(reply.json.error.message).toContain(field);
});

test('a record is found by its id and by its request id', async () => {
  const { server } = await busyServer();
  const id = 'client/id:7';
  await server.send(
    'POST',
    '/v1/chat/completions',
    { model: 'beta', messages: [], stream: true },
    { 'x-request-id': id },
  );
  const { records } = await list(server, '');
  const [row] = records;
  expect(row).toMatchObject({ request_id: id, model: 'beta', endpoint_name: 'good' });
  const detail = (await server.get(`/api/dashboard/request-responses/${row?.id}`)).json;
  expect(detail).toEqual({ ...row, decision: expect.schemaMatching(shapes.decision) });
  expect((await server.get(`/api/dashboard/request-responses/${encodeURIComponent(id)}`)).json).toEqual(
    detail,
  );
  const unknown = await server.get('/api/dashboard/request-responses/nothing');
  expect(unknown.status).toBe(404);
  expect(unknown.json).toEqual(expect.schemaMatching(shapes.apiError));
});

test('a record says when it was accepted and when it was completed', async () => {
  const { good, server } = await busyServer();
  const before = Date.now();
  good.faults.next.push({ kind: 'slow_body', ms: 150 });
  await server.chat('beta', { stream: true });
  const [row] = (await list(server, '')).records;
  const accepted = Date.parse(row?.timestamp ?? '');
  const completed = Date.parse(row?.completed_at ?? '');
  expect(accepted).toBeGreaterThanOrEqual(before);
  expect(completed - accepted).toBeGreaterThanOrEqual(140);
  expect(row?.duration_ms).toBeGreaterThanOrEqual(140);
  expect(row?.ttft_ms).toBeGreaterThanOrEqual(140);
  expect(row?.ttft_ms).toBeLessThanOrEqual(row?.duration_ms ?? 0);
  expect(row?.attempts[0]?.duration_ms).toBeLessThanOrEqual(row?.duration_ms ?? 0);
});

test('the daily stats are ascending days with requests, the last is today', async () => {
  const { server, id, awayId } = await busyServer();
  const today = (await server.get(`/api/endpoints/${id}/today-stats`)).json;
  expect(today).toEqual(expect.schemaMatching(shapes.dailyStat));
  expect(today).toMatchObject({ total_requests: 3, successful_requests: 2, failed_requests: 1 });
  expect((await server.get(`/api/endpoints/${id}/daily-stats`)).json).toEqual([today]);
  expect((await server.get(`/api/endpoints/${id}/daily-stats?days=1`)).json).toEqual([today]);
  expect((await server.get(`/api/endpoints/${awayId}/daily-stats?days=365`)).json).toEqual([]);
  expect((await server.get(`/api/endpoints/${awayId}/today-stats`)).json).toMatchObject({
    date: today.date,
    total_requests: 0,
  });
  for (const days of ['0', '366', 'x', '-1']) {
    const reply = await server.get(`/api/endpoints/${id}/daily-stats?days=${days}`);
    expect([days, reply.status]).toEqual([days, 400]);
    expect(reply.json.error.message).toContain('days');
  }
});

test('the rates of an endpoint are one entry per model and kind that gave a sample', async () => {
  const { server, id } = await busyServer();
  await server.send('POST', '/v1/responses', { model: 'beta', input: 'x' });
  await server.send('POST', '/v1/embeddings', { model: 'beta', input: 'x' });
  const rates = (await server.get(`/api/endpoints/${id}/model-tps`)).json;
  expect(rates).toEqual(expect.schemaMatching(shapes.modelTps.array()));
  expect(rates.map((rate: Record<string, unknown>) => `${rate.model_id} ${rate.api_kind}`).sort()).toEqual([
    'beta:latest chat_completions',
    'beta:latest responses',
    'org/alpha chat_completions',
  ]);
  const { endpoint_tps } = (await server.get('/api/dashboard/overview')).json;
  const own = endpoint_tps.find((one: { endpoint_id: string }) => one.endpoint_id === id);
  expect(own).toMatchObject({ model_count: 2, total_output_tokens: 15, total_requests: 3 });
  const ms = rates.reduce(
    (all: number, rate: Record<string, number>) =>
      all + (rate.request_count ?? 0) * (rate.average_duration_ms ?? 0),
    0,
  );
  expect(own.aggregate_tps).toBeCloseTo(15_000 / ms, 6);
});

// The event stream.

test('the event stream begins with the overview and then tells what changes', async () => {
  const { server, id } = await busyServer();
  const reply = await rawRequest(server.url, '/api/dashboard/events');
  expect(reply.headers['content-type']).toContain('text/event-stream');
  await until(() => framesOf(reply).length > 0);
  const [first] = framesOf(reply);
  expect(first?.event).toBe('snapshot');
  expect(first?.data).toEqual(expect.schemaMatching(shapes.overview));
  expect(first?.data.stats.total_requests).toBe(3);

  await server.chat('beta', { stream: true });
  const { records } = await list(server, 'limit=1');
  const wanted = ['endpoint', 'tps', 'stats', 'request'];
  await until(() => wanted.every((event) => framesOf(reply).some((frame) => frame.event === event)));
  const frames = framesOf(reply);
  const last = (event: string) => frames.findLast((frame) => frame.event === event)?.data;
  expect(last('endpoint')).toEqual(expect.schemaMatching(shapes.dashboardEndpoint));
  expect(last('endpoint')).toMatchObject({ id, total_requests: 4 });
  expect(last('tps')).toEqual(expect.schemaMatching(shapes.tpsFrame));
  expect(last('tps')).toMatchObject({ endpoint_id: id, model_id: 'beta:latest', request_count: 2 });
  expect(last('stats')).toEqual(expect.schemaMatching(shapes.stats));
  expect(last('stats').total_requests).toBe(4);
  expect(last('request')).toEqual({ records, omitted: 0 });
  const ids = frames.map((frame) => frame.id);
  expect(ids.every((one) => one !== '')).toBe(true);
  expect(new Set(ids).size).toBe(ids.length);
});

test('what is pushed adds up to the overview, and an endpoint that goes is told as well', async () => {
  const { server, id, awayId } = await busyServer();
  const reply = await rawRequest(server.url, '/api/dashboard/events');
  await until(() => framesOf(reply).length > 0);
  const last = (event: string) => framesOf(reply).findLast((frame) => frame.event === event)?.data;
  for (const stream of [true, false]) await server.chat('org/alpha', { stream });
  await server.send('POST', '/v1/responses', { model: 'beta', input: 'x' });
  await server.send('POST', `/api/endpoints/${id}/drain`);
  await until(() => last('endpoint')?.status === 'draining' && last('stats')?.total_requests === 6);
  const overview = (await server.get('/api/dashboard/overview')).json;
  const of = (one: { id?: string; endpoint_id?: string }) => one.id === id || one.endpoint_id === id;
  await until(() => last('endpoint_tps')?.total_requests === 5);
  expect(last('endpoint_tps')).toEqual(overview.endpoint_tps.find(of));
  expect(last('endpoint')).toEqual(overview.endpoints.find(of));
  expect(last('stats')).toEqual(overview.stats);
  await until(async () => {
    const now = (await server.get('/api/dashboard/request-history')).json;
    return JSON.stringify(last('history')) === JSON.stringify(now);
  });
  await server.send('DELETE', `/api/endpoints/${awayId}`);
  await until(() => last('removed')?.endpoint_id === awayId);
  await until(() => last('stats').total_runtimes === 2);
});

test('a burst is told in frames of at most 50 records, the rest as a number', async () => {
  const { server } = await busyServer();
  const reply = await rawRequest(server.url, '/api/dashboard/events');
  await until(() => framesOf(reply).length > 0);
  await Promise.all(Array.from({ length: 90 }, () => server.chat('beta')));
  const told = () => framesOf(reply).filter(({ event }) => event === 'request');
  const sum = () => told().reduce((all, { data }) => all + data.records.length + data.omitted, 0);
  await until(() => sum() >= 90);
  expect(sum()).toBe(90);
  for (const { data } of told()) expect(data.records.length).toBeLessThanOrEqual(50);
});

test('each reader of the event stream gets a snapshot of its own', async () => {
  const { server } = await busyServer();
  for (let i = 0; i < 3; i += 1) {
    const reply = await rawRequest(server.url, '/api/dashboard/events');
    await until(() => framesOf(reply).length > 0);
    expect(framesOf(reply)[0]).toMatchObject({ event: 'snapshot' });
    if (i === 1) reply.leave();
  }
});

// Actors.

function flat(actor: shapes.Actor): shapes.Actor[] {
  return [actor, ...actor.children.flatMap(flat)];
}

test('the tree holds every actor once, an endpoint’s under its id, without a key', async () => {
  const { server, id, refusingId, awayId } = await busyServer();
  const reply = await server.get('/api/dashboard/actors');
  expect(Object.keys(reply.json)).toEqual(['root']);
  expect(reply.json.root).toEqual(expect.schemaMatching(shapes.actor));
  expect(reply.text).not.toMatch(/secret-one|secret-two/);
  const all = flat(reply.json.root);
  const ids = all.map((actor) => actor.id);
  expect(new Set(ids).size).toBe(ids.length);
  for (const wanted of ['root', 'ledger', 'history', 'ticker', 'endpoints']) expect(ids).toContain(wanted);
  for (const one of [id, refusingId, awayId]) {
    expect(ids.filter((name) => name.includes(one)).length).toBeGreaterThanOrEqual(2);
  }
  expect(ids).toContain(`tps:${id}:org/alpha:chat_completions`);
  for (const actor of all) {
    expect(actor).toMatchObject({ status: 'active', restarts: 0, last_error: null });
    expect(Buffer.byteLength(JSON.stringify(actor.context))).toBeLessThanOrEqual(2048);
  }
  const stateOf = (one: string) => all.find((actor) => actor.id === `endpoint:${one}`)?.state;
  expect([stateOf(id), stateOf(refusingId), stateOf(awayId)]).toEqual([
    'online, open, closed',
    'error, open, closed',
    'offline, open, closed',
  ]);
});

test('each actor is found by its percent-encoded id, with its changes of state', async () => {
  const { good, server, id } = await busyServer();
  const { root } = (await server.get('/api/dashboard/actors')).json;
  for (const actor of flat(root)) {
    const reply = await server.get(`/api/dashboard/actors/${encodeURIComponent(actor.id)}`);
    expect([actor.id, reply.status]).toEqual([actor.id, 200]);
    expect(reply.json).toEqual(expect.schemaMatching(shapes.actorDetail));
    expect([reply.json.id, reply.json.kind]).toEqual([actor.id, actor.kind]);
  }
  good.faults.models = { kind: 'status', status: 500 };
  await server.send('POST', `/api/endpoints/${id}/test`);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  const detail = (await server.get(`/api/dashboard/actors/${encodeURIComponent(`endpoint:${id}`)}`)).json;
  expect(detail.state).toBe('error, draining, closed');
  const moves = detail.transitions.map(({ from, to }: { from: string; to: string }) => [from, to]);
  expect(moves).toContainEqual(['online, open, closed', 'error, open, closed']);
  expect(moves).toContainEqual(['error, open, closed', 'error, draining, closed']);
  expect((await server.get('/api/dashboard/actors/nobody')).status).toBe(404);
});

test('an actor keeps its newest hundred changes', async () => {
  const { server, id } = await busyServer();
  for (let i = 0; i < 60; i += 1) {
    await server.send('POST', `/api/endpoints/${id}/drain`);
    await server.send('POST', `/api/endpoints/${id}/resume`);
  }
  const { transitions } = (await server.get(`/api/dashboard/actors/endpoint:${id}`)).json;
  expect(transitions).toHaveLength(100);
});

test('contexts stay small and keep keys out, whatever an endpoint is called and says', async () => {
  const server = await startLocal({ env: QUIET });
  const name = '推'.repeat(200);
  const box = await engine({ models: ['模'.repeat(300)] });
  await server.register(name, box.url, { api_key: 'secret-three', headers: { 'x-auth': 'secret-four' } });
  await server.chat('模'.repeat(300), { stream: true });
  const reply = await server.get('/api/dashboard/actors');
  expect(reply.text).not.toMatch(/secret-three|secret-four/);
  for (const actor of flat(reply.json.root)) {
    expect(Buffer.byteLength(JSON.stringify(actor.context))).toBeLessThanOrEqual(2048);
  }
});

test('every statechart is there as data and as a drawing with all of its states', async () => {
  const server = await startLocal({ env: QUIET });
  const machines = (await server.get('/api/dashboard/machines')).json;
  expect(machines).toEqual(expect.schemaMatching(shapes.machines));
  const ids = machines.map(({ id }: { id: string }) => id).sort();
  expect(ids).toEqual(['box', 'endpoint', 'endpoints', 'ledger', 'root', 'ticker']);
  const endpoint = machines.find(({ id }: { id: string }) => id === 'endpoint');
  expect(endpoint.mermaid).toMatch(/^stateDiagram-v2\n/);
  for (const state of ['pending', 'online', 'error', 'offline', 'open', 'draining']) {
    expect(endpoint.mermaid).toContain(`"${state}"`);
  }
  expect(Object.keys(endpoint.definition.states)).toEqual(['health', 'admission', 'circuit']);
});

test('what is not there is a 404, a wrong method a 405 that says what works', async () => {
  const server = await startLocal({ env: QUIET });
  const unknown = await server.get('/api/dashboard/nothing');
  expect(unknown.status).toBe(404);
  expect(unknown.json).toEqual(expect.schemaMatching(shapes.apiError));
  const wrong = await server.send('POST', '/api/dashboard/stats', {});
  expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'GET']);
  expect(wrong.json).toEqual(expect.schemaMatching(shapes.apiError));
});
