import { expect, test } from 'vitest';
import { engine, type LocalServer, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const MODEL = 'sim-small';

async function three(args: string[] = [], more: Record<string, unknown>[] = [{}, {}, {}]) {
  const boxes = [await engine(), await engine(), await engine()];
  const server = await startLocal({ args, env: { TROUPE_HEALTH_INTERVAL_MS: '60000' } });
  const ids: string[] = [];
  for (const [i, box] of boxes.entries()) ids.push((await server.register(`box ${i}`, box.url, more[i])).id);
  const asked = () => boxes.map(({ requests }) => requests.filter(({ method }) => method === 'POST').length);
  return { server, ids, asked };
}

const chats = async (server: LocalServer, count: number) => {
  for (let i = 0; i < count; i += 1) expect((await server.chat(MODEL)).status).toBe(200);
};

test('weight, priority and the largest context are set, shown, cleared and kept over a restart', async () => {
  const box = await engine();
  const first = await startLocal();
  const made = await first.register('box', box.url, { weight: 2.5, priority: 1, max_context: 8192 });
  expect(made).toMatchObject({ weight: 2.5, priority: 1, max_context: 8192 });
  const { id } = made;
  await first.server.stop();
  const second = await startLocal({ dataDir: first.dataDir });
  const list = (await second.get('/api/endpoints')).json;
  expect(list).toEqual(expect.schemaMatching(shapes.endpointList));
  expect(list.endpoints).toMatchObject([{ weight: 2.5, priority: 1, max_context: 8192 }]);
  const cleared = await second.send('PUT', `/api/endpoints/${id}`, {
    weight: null,
    priority: null,
    max_context: null,
  });
  expect(cleared.json).toMatchObject({ weight: 1, priority: 0, max_context: null });
});

test.each([
  ['weight', 0],
  ['weight', -1],
  ['weight', 'much'],
  ['priority', -1],
  ['priority', 1.5],
  ['max_context', 0],
])('%s %j is refused by its name', async (field, value) => {
  const server = await startLocal();
  const reply = await server.send('POST', '/api/endpoints', {
    name: 'x',
    base_url: 'http://127.0.0.1:1',
    [field]: value,
  });
  expect([reply.status, reply.json.error.message]).toEqual([400, expect.stringContaining(field)]);
});

test('in turn each endpoint gets as many requests as its weight says', async () => {
  const { server, asked } = await three(['--policy', 'round-robin'], [{ weight: 2 }, {}, {}]);
  await chats(server, 12);
  expect(asked()).toEqual([6, 3, 3]);
});

test('the next priority serves only while the one before it cannot', async () => {
  const { server, ids, asked } = await three([], [{}, { priority: 1 }, { priority: 2 }]);
  await chats(server, 4);
  expect(asked()).toEqual([4, 0, 0]);
  await server.send('POST', `/api/endpoints/${ids[0]}/drain`);
  await chats(server, 3);
  expect(asked()).toEqual([4, 3, 0]);
  await server.send('POST', `/api/endpoints/${ids[0]}/resume`);
  await until(async () => (await server.get(`/api/endpoints/${ids[0]}`)).json.status === 'online');
  await chats(server, 2);
  expect(asked()).toEqual([6, 3, 0]);
});

test.each(['least-busy', 'power-of-two', 'fastest', 'weighted', 'round-robin'])(
  'under %s every request is served, and its row names the policy',
  async (policy) => {
    const { server, asked } = await three(['--policy', policy]);
    await chats(server, 9);
    expect(asked().reduce((sum, one) => sum + one)).toBe(9);
    const { records } = (await server.get('/api/dashboard/request-responses')).json;
    const { decision } = (await server.get(`/api/dashboard/request-responses/${records[0].id}`)).json;
    expect(decision.policy).toBe(policy);
  },
);

test('what is explained is what is done, and explaining sends nothing', async () => {
  const { server, ids, asked } = await three(['--policy', 'round-robin'], [{}, { priority: 1 }, {}]);
  const body = { model: MODEL, messages: [{ role: 'user', content: 'Hello' }] };
  await server.send('POST', `/api/endpoints/${ids[2]}/drain`);
  const told = await server.send('POST', '/api/dashboard/explain', body);
  expect(told.status).toBe(200);
  expect(told.json.choice).toBe(ids[0]);
  expect(told.json.candidates).toHaveLength(3);
  const reasons = Object.fromEntries(
    told.json.candidates.map(({ endpoint_name, reason }: Record<string, unknown>) => [endpoint_name, reason]),
  );
  expect(reasons).toEqual({ 'box 0': null, 'box 1': 'later_priority', 'box 2': 'draining' });
  expect(asked()).toEqual([0, 0, 0]);
  await chats(server, 1);
  expect(asked()).toEqual([1, 0, 0]);
  expect((await server.send('POST', '/api/dashboard/explain', { model: 'nobody' })).status).toBe(404);
  expect((await server.send('POST', '/api/dashboard/explain', { messages: [] })).status).toBe(400);
});
