import { expect, test } from 'vitest';
import type { SimulatedEngine, SimulatedEngineOptions } from '../src/demo/simulated-engine.js';
import { engine, type LocalServer, type Reply, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const MODEL = 'sim-small';
const BODY = { model: MODEL, messages: [{ role: 'user', content: 'Hello' }] };

interface Fleet extends LocalServer {
  boxes: SimulatedEngine[];
  ids: string[];
  asked: () => number[];
}

async function fleet(options: SimulatedEngineOptions[], args: string[] = []): Promise<Fleet> {
  const boxes = await Promise.all(options.map((one) => engine(one)));
  const server = await startLocal({ args, env: { TROUPE_HEALTH_INTERVAL_MS: '60000' } });
  const ids: string[] = [];
  for (const [i, { url }] of boxes.entries()) ids.push((await server.register(`box ${i}`, url)).id);
  const asked = () => boxes.map(({ requests }) => requests.filter(({ method }) => method === 'POST').length);
  return { ...server, boxes, ids, asked };
}

interface Candidate {
  endpoint_id: string;
  eligible: boolean;
  reason: string | null;
  predicted_ms: number | null;
  parts: Record<string, number>;
}

async function explain(server: LocalServer, body: object = BODY) {
  const { status, json } = await server.send('POST', '/api/dashboard/explain', body);
  expect(status).toBe(200);
  const candidates: Candidate[] = json.candidates;
  const of = (id: string | undefined) => candidates.find((one) => one.endpoint_id === id) as Candidate;
  return { choice: json.choice as string | null, candidates, of };
}

/** Each endpoint answers some requests while the others drain. */
async function warm(server: Fleet): Promise<void> {
  const tell = (id: string, what: 'drain' | 'resume') => server.send('POST', `/api/endpoints/${id}/${what}`);
  const statusOf = async (id: string) => (await server.get(`/api/endpoints/${id}`)).json.status;
  for (const id of server.ids) {
    const others = server.ids.filter((one) => one !== id);
    for (const one of others) await tell(one, 'drain');
    for (let i = 0; i < 4; i += 1) expect((await server.chat(MODEL)).status).toBe(200);
    for (const one of others) await tell(one, 'resume');
    for (const one of others) await until(async () => (await statusOf(one)) === 'online', 5000, one);
  }
}

async function newest(server: LocalServer): Promise<Reply['json']> {
  const { records } = (await server.get('/api/dashboard/request-responses?limit=1')).json;
  return (await server.get(`/api/dashboard/request-responses/${records[0].id}`)).json;
}

const FAST = { firstTokenMs: 5 };
const SLOW = { firstTokenMs: 400 };

test('nothing is predicted of an endpoint that never answered, and nothing of it is in the row', async () => {
  const server = await fleet([FAST, FAST]);
  const { candidates } = await explain(server);
  expect(candidates.map(({ predicted_ms }) => predicted_ms)).toEqual([null, null]);
  for (const { parts } of candidates) expect(Object.keys(parts)).not.toContain('wait_ms');
  await server.chat(MODEL);
  const { attempts, decision } = await newest(server);
  expect(attempts[0].predicted_ms).toBeNull();
  expect(decision.candidates[0]).toMatchObject({ predicted_ms: null, eligible: true, reason: null });
  const [stat] = (await server.get('/api/dashboard/model-stats')).json;
  expect(stat.prediction_error).toBeNull();
});

test('what is explained adds up, and the next such request goes there with that prediction in its row', async () => {
  const server = await fleet([SLOW, FAST]);
  await warm(server);
  const told = await explain(server);
  for (const { predicted_ms, parts } of told.candidates) {
    const { wait_ms, load_ms, prefill_ms, decode_ms } = parts as Record<string, number>;
    const sum = (wait_ms as number) + (load_ms as number) + (prefill_ms as number) + (decode_ms as number);
    // Each of the four is rounded.
    expect(Math.abs(sum - (predicted_ms as number))).toBeLessThanOrEqual(2);
    expect(parts.output_tokens).toBe(12);
    for (const part of Object.values(parts)) expect(part).toEqual(expect.any(Number));
  }
  const [slow, fast] = server.ids;
  expect(told.of(slow).predicted_ms).toBeGreaterThan(400);
  expect(told.of(fast).predicted_ms).toBeLessThan(told.of(slow).predicted_ms as number);
  expect(told.choice).toBe(fast);

  const before = server.asked();
  await server.chat(MODEL);
  expect(server.asked()).toEqual([before[0], (before[1] as number) + 1]);
  const row = await newest(server);
  expect(row.decision).toEqual(expect.schemaMatching(shapes.decision));
  expect(row.attempts).toMatchObject([{ endpoint_id: fast, predicted_ms: told.of(fast).predicted_ms }]);
  expect(row.decision).toMatchObject({
    policy: 'adaptive',
    candidates: [
      { endpoint_id: fast, eligible: true, predicted_ms: told.of(fast).predicted_ms },
      { endpoint_id: slow, eligible: true, predicted_ms: told.of(slow).predicted_ms },
    ],
    rejected: {},
  });
});

test('explaining sends nothing, remembers no conversation, and says the same again', async () => {
  const server = await fleet([SLOW, FAST]);
  await warm(server);
  const fast = server.ids[1];
  const body = { ...BODY, messages: [{ role: 'user', content: 'A conversation of its own' }] };
  const before = server.asked();
  const first = await explain(server, body);
  for (let i = 0; i < 5; i += 1) expect((await explain(server, body)).candidates).toEqual(first.candidates);
  expect(server.asked()).toEqual(before);
  for (const { parts } of first.candidates) expect(parts).not.toHaveProperty('cached_bytes');
  await server.send('POST', '/v1/chat/completions', body);
  const { of } = await explain(server, body);
  expect(of(fast).parts.cached_bytes).toBeGreaterThan(0);
  expect(of(server.ids[0]).parts).not.toHaveProperty('cached_bytes');
});

test('explaining takes nobody’s turn', async () => {
  const server = await fleet([FAST, FAST], ['--policy', 'round-robin']);
  await server.chat(MODEL);
  const next = server.ids[server.asked().indexOf(0)];
  for (let i = 0; i < 3; i += 1) expect((await explain(server)).choice).toBe(next);
  await server.chat(MODEL);
  expect(server.asked()).toEqual([1, 1]);
});

test('how far predictions were off is shown with the model, by endpoint and over all', async () => {
  const server = await fleet([FAST]);
  for (let i = 0; i < 3; i += 1) await server.chat(MODEL);
  for (const path of ['/api/dashboard/model-stats', `/api/endpoints/${server.ids[0]}/model-stats`]) {
    const stats = (await server.get(path)).json;
    expect(stats).toEqual([expect.schemaMatching(shapes.modelStat)]);
    expect(stats[0].prediction_error).toMatchObject({ p50: expect.any(Number) });
  }
});

test('a request that waits elsewhere makes an endpoint no choice while another would answer sooner', async () => {
  const server = await fleet([FAST, { firstTokenMs: 200 }]);
  await warm(server);
  const [box] = server.boxes;
  box?.faults.next.push({ kind: 'hang' });
  const held = server.chat(MODEL, { user: 'held' });
  await until(() => box?.active === 1, 5000, 'the request that is held');
  // It is late by about what the other one needs.
  await until(async () => (await explain(server)).choice === server.ids[1], 5000, 'the other one');
  const { of } = await explain(server);
  expect(of(server.ids[0])).toMatchObject({ eligible: true, reason: null });
  expect(of(server.ids[0]).parts.wait_ms).toBeGreaterThan(50);
  await server.chat(MODEL);
  expect(box?.active).toBe(1);
  box?.release();
  expect((await held).status).toBe(200);
});

test('once both are measured, most of a burst goes to the endpoint that is ten times as fast', async () => {
  const server = await fleet([SLOW, { firstTokenMs: 40 }]);
  await warm(server);
  const before = server.asked();
  const replies = await Promise.all(Array.from({ length: 30 }, () => server.chat(MODEL)));
  expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]));
  const [slow, fast] = server.asked().map((count, i) => count - (before[i] as number)) as [number, number];
  expect(slow + fast).toBe(30);
  expect(fast).toBeGreaterThanOrEqual(20);
});
