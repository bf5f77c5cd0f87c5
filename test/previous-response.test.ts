import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, onTestFinished, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import { SqliteStore } from '../src/persistence/sqlite/sqlite-store.js';
import {
  type Api,
  engine,
  type LocalServer,
  newDataDir,
  spawnServer,
  startLocal,
  until,
} from './support/server.js';

const RESPONSES = '/v1/responses';
const MODEL = 'sim-small';

interface Box {
  id: string;
  name: string;
  box: SimulatedEngine;
}

interface House {
  server: LocalServer;
  boxes: Box[];
}

/** Endpoints that store their responses, each for itself. */
async function house(policy: string, count = 3): Promise<House> {
  const server = await startLocal({
    args: ['--policy', policy],
    env: { TROUPE_HEALTH_INTERVAL_MS: '60000' },
  });
  const boxes = [];
  for (let i = 0; i < count; i += 1) {
    const box = await engine({ models: [MODEL] });
    boxes.push({ ...(await server.register(`box ${i}`, box.url)), name: `box ${i}`, box });
  }
  return { server, boxes };
}

interface Answered {
  status: number;
  id: string;
  endpoint: string | null;
  requestId: string;
  json: { error?: { code: string; message: string } };
}

/** What was answered, to a stream or not, and by which endpoint. */
async function respond(server: Pick<Api, 'send'>, body: object = {}): Promise<Answered> {
  const reply = await server.send('POST', RESPONSES, { model: MODEL, input: 'Go on.', ...body });
  const id = /"id":"(resp_[^"]+)"/.exec(reply.text)?.[1] ?? '';
  const endpoint = reply.headers.get('x-troupe-endpoint');
  const requestId = reply.headers.get('x-request-id') as string;
  return { status: reply.status, id, endpoint, requestId, json: reply.json };
}

const homeOf = ({ boxes }: House, { endpoint }: Answered) =>
  boxes.find(({ name }) => name === endpoint) as Box;

test.each(['adaptive', 'round-robin', 'least-busy', 'power-of-two', 'weighted', 'fastest', 'affinity'])(
  'a request that goes on from a response goes where that is stored, by %s',
  async (policy) => {
    const { server } = await house(policy);
    for (const stream of [false, true, false, true]) {
      let last = await respond(server, { stream });
      const home = last.endpoint;
      expect(last.status).toBe(200);
      for (const turn of [1, 2, 3]) {
        // Others come in between.
        await respond(server);
        last = await respond(server, { stream: turn % 2 === 0, previous_response_id: last.id });
        expect([last.status, last.endpoint]).toEqual([200, home]);
      }
    }
  },
);

test('it waits for the one endpoint that has the response, and nobody waits behind it for the others', async () => {
  const all = await house('least-busy', 2);
  const { server } = all;
  const first = await respond(server);
  const home = homeOf(all, first);
  await server.send('PUT', `/api/endpoints/${home.id}`, { max_concurrency: 1 });
  home.box.faults.next.push({ kind: 'hang' });
  const busy = respond(server, { previous_response_id: first.id });
  await until(() => home.box.active === 1);
  const waits = respond(server, { previous_response_id: first.id });
  await until(async () => (await server.get('/api/dashboard/stats')).json.queued_requests === 1);
  for (let i = 0; i < 3; i += 1) {
    const { status, endpoint } = await respond(server);
    expect([status, endpoint === home.name]).toEqual([200, false]);
  }
  home.box.release();
  await busy;
  const { status, endpoint } = await waits;
  expect([status, endpoint]).toEqual([200, home.name]);
});

test('the decision says that the others do not have the response, and explain foresees it', async () => {
  const all = await house('round-robin');
  const { server } = all;
  const first = await respond(server);
  const body = { model: MODEL, messages: [], previous_response_id: first.id };
  const foreseen = (await server.send('POST', '/api/dashboard/explain', body)).json;
  expect(foreseen.choice).toBe(homeOf(all, first).id);
  const { requestId } = await respond(server, { previous_response_id: first.id });
  const { decision } = (await server.get(`/api/dashboard/request-responses/${requestId}`)).json;
  expect(decision.rejected).toEqual({ lacks_response: 2 });
});

test.each<[string, (house: House, home: Box) => unknown, number, string]>([
  [
    'drains',
    ({ server }, { id }) => server.send('POST', `/api/endpoints/${id}/drain`),
    503,
    'no_endpoint_available',
  ],
  ['refuses', (_, { box }) => box.faults.next.push({ kind: 'status', status: 429 }), 429, ''],
  ['is broken', (_, { box }) => box.faults.next.push({ kind: 'status', status: 500 }), 500, ''],
  ['is gone', (_, { box }) => box.stop(), 502, 'upstream_unreachable'],
  [
    'breaks off',
    (_, { box }) => box.faults.next.push({ kind: 'refuse' }, { kind: 'refuse' }),
    502,
    'upstream_broken',
  ],
])(
  'nobody else is asked while the endpoint %s: its own word is the last',
  async (_, befall, status, code) => {
    const all = await house('round-robin', 2);
    const first = await respond(all.server);
    const home = homeOf(all, first);
    const other = all.boxes.find((one) => one !== home) as Box;
    const asked = () => other.box.requests.filter(({ path }) => path === RESPONSES).length;
    const before = asked();
    await befall(all, home);
    const reply = await respond(all.server, { previous_response_id: first.id });
    expect(reply.status).toBe(status);
    if (code !== '') expect(reply.json.error?.code).toBe(code);
    expect(asked()).toBe(before);
    // Others are served all the same.
    for (let i = 0; i < 3; i += 1) expect((await respond(all.server)).status).toBe(200);
  },
);

test('one that drains is asked again once it does not, and one that has moved where it is now', async () => {
  const all = await house('round-robin', 2);
  const { server } = all;
  const first = await respond(server);
  const home = homeOf(all, first);
  await server.send('POST', `/api/endpoints/${home.id}/drain`);
  const refused = await respond(server, { previous_response_id: first.id });
  expect(refused.json.error?.message).toBe(
    'the endpoint that has the response to go on from cannot be asked now (1 draining)',
  );
  await server.send('POST', `/api/endpoints/${home.id}/resume`);
  expect((await respond(server, { previous_response_id: first.id })).endpoint).toBe(home.name);
  const base_url = home.box.url.replace('127.0.0.1', 'localhost');
  expect((await server.send('PUT', `/api/endpoints/${home.id}`, { base_url })).status).toBe(200);
  await until(async () => (await server.get(`/api/endpoints/${home.id}`)).json.status === 'online');
  for (let i = 0; i < 2; i += 1) {
    const { status, endpoint } = await respond(server, { previous_response_id: first.id });
    expect([status, endpoint]).toEqual([200, home.name]);
  }
});

test('a queue that is full of such requests turns nobody else away', async () => {
  const server = await startLocal({
    args: ['--policy', 'round-robin'],
    env: { TROUPE_HEALTH_INTERVAL_MS: '60000', TROUPE_QUEUE_MAX: '2' },
  });
  const boxes = [await engine({ models: [MODEL] }), await engine({ models: [MODEL] })];
  for (const [i, { url }] of boxes.entries()) {
    await server.register(`box ${i}`, url, { max_concurrency: 1 });
  }
  const first = await respond(server);
  const home = boxes[first.endpoint === 'box 0' ? 0 : 1] as SimulatedEngine;
  home.faults.next.push({ kind: 'hang' });
  const more = [1, 2, 3].map(() => respond(server, { previous_response_id: first.id }));
  await until(async () => (await server.get('/api/dashboard/stats')).json.queued_requests === 2);
  for (let i = 0; i < 3; i += 1) expect((await respond(server)).status).toBe(200);
  expect((await respond(server, { previous_response_id: first.id })).status).toBe(429);
  home.release();
  await Promise.all(more.map(async (one) => expect((await one).endpoint).toBe(first.endpoint)));
});

test('what is not to be stored is not remembered', async () => {
  const { server } = await house('round-robin', 2);
  for (const stream of [true, false]) {
    const { id, status } = await respond(server, { store: false, stream });
    expect([status, id]).toEqual([200, expect.stringMatching(/^resp_/)]);
  }
  const { id } = await respond(server, { store: true });
  await until(async () => (await countOf(server.dataDir)) === 1, 10_000, 'the batch');
  const db = await opened(server.dataDir);
  expect(await db.get('SELECT id FROM stored_responses')).toEqual({ id });
});

test('one that nobody is known to have goes to anybody, and so does one of an endpoint that was removed', async () => {
  const all = await house('round-robin', 2);
  const { server } = all;
  expect((await respond(server, { previous_response_id: 'resp_unknown' })).status).toBe(404);
  for (const previous of [7, null, '', {}, 'x'.repeat(600)]) {
    expect([200, 404]).toContain((await respond(server, { previous_response_id: previous })).status);
  }
  const first = await respond(server);
  const home = homeOf(all, first);
  await until(async () => (await countOf(server.dataDir)) > 0, 10_000, 'the batch');
  await server.send('DELETE', `/api/endpoints/${home.id}`);
  const db = await opened(server.dataDir);
  expect(await db.all('SELECT id FROM stored_responses WHERE endpoint_id = ?', home.id)).toEqual([]);
  expect((await respond(server, { previous_response_id: first.id })).status).toBe(404);
});

test.each(['SIGTERM', 'SIGKILL'] as const)('where responses are stored is known after %s', async (signal) => {
  const args = ['--policy', 'round-robin'];
  const first = await spawnServer({ args });
  for (const i of [0, 1, 2]) await first.register(`box ${i}`, (await engine({ models: [MODEL] })).url);
  const given = [];
  for (let i = 0; i < 9; i += 1) given.push(await respond(first, { stream: i % 2 === 0 }));
  await until(async () => (await countOf(first.dataDir)) === given.length, 10_000, 'the last batch');
  await first.end(signal);
  const second = await spawnServer({ args, dataDir: first.dataDir });
  for (const { id, endpoint } of given) {
    const next = await respond(second, { previous_response_id: id });
    expect([next.status, next.endpoint]).toEqual([200, endpoint]);
  }
});

async function opened(dataDir: string) {
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  onTestFinished(() => db.close().catch(() => {}));
  return db;
}

async function countOf(dataDir: string): Promise<number> {
  const db = await opened(dataDir);
  const row = await db.get<{ n: number }>('SELECT count(*) AS n FROM stored_responses');
  await db.close();
  return row?.n ?? 0;
}

test('what is older than request rows are kept is forgotten in slices, and a start reads the newest', async () => {
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const store = new SqliteStore(join(dataDir, 'troupe.db'), () => Date.now());
  await store.open();
  onTestFinished(() => store.close());
  const db = await opened(dataDir);
  await db.run(
    `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 20099)
     INSERT INTO stored_responses (id, endpoint_id, completed_at) SELECT 'resp_' || i, 'box', i FROM n`,
  );
  const seeds = await store.seedResponses();
  expect([seeds.length, seeds[0], seeds.at(-1)]).toEqual([
    20_000,
    { id: 'resp_100', endpointId: 'box' },
    { id: 'resp_20099', endpointId: 'box' },
  ]);
  const slices: number[] = [];
  do slices.push(await store.expireResponses(1200, 500));
  while (slices.at(-1) === 500);
  expect(slices).toEqual([500, 500, 200]);
  expect(await countOf(dataDir)).toBe(18_900);
});
