import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import { salvage } from '../src/persistence/sqlite/repair.js';
import { engine, type LocalServer, newDataDir, spawnServer, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '60000' };
const MODELS = ['llama3:8b', 'llama3:70b', 'qwen3/coder', 'embed'];
const SETTINGS = {
  models_allow: ['llama3*', 'embed'],
  models_deny: ['*:70b'],
  model_settings: { 'llama3:8b': { weight: 2.5, priority: 1, max_concurrency: 4 }, embed: {} },
};
const NONE = { models_allow: null, models_deny: null, model_settings: {} };

async function one(settings: Record<string, unknown> = {}, models = MODELS) {
  const box = await engine({ models });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url, settings);
  const path = `/api/endpoints/${id}`;
  return { ...server, box, id, path, put: (change: unknown) => server.send('PUT', path, change) };
}

async function listed(server: Pick<LocalServer, 'get'>): Promise<string[]> {
  const { data } = (await server.get('/v1/models')).json;
  return data.map(({ id }: { id: string }) => id);
}

/** Which models were asked for, in order. */
function asked({ requests }: SimulatedEngine): string[] {
  return requests.filter(({ method }) => method === 'POST').map(({ body }) => JSON.parse(body).model);
}

async function chats(server: LocalServer, model: string, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) expect((await server.chat(model)).status).toBe(200);
}

test('what is offered, and how, is set, shown, kept over a restart and cleared', async () => {
  const first = await one(SETTINGS);
  const made = (await first.get(first.path)).json;
  expect(made).toEqual(expect.schemaMatching(shapes.endpointWithModels));
  expect(made).toMatchObject(SETTINGS);
  expect((await first.put({ notes: 'rack 4' })).json).toMatchObject(SETTINGS);
  await first.server.stop();

  const second = await startLocal({ dataDir: first.dataDir, env: QUIET });
  const list = (await second.get('/api/endpoints')).json;
  expect(list).toEqual(expect.schemaMatching(shapes.endpointList));
  expect(list.endpoints).toMatchObject([SETTINGS]);
  const overview = (await second.get('/api/dashboard/overview')).json;
  expect(overview).toEqual(expect.schemaMatching(shapes.overview));
  expect(await listed(second)).toEqual(['embed', 'llama3:8b']);
  expect((await second.chat('llama3:70b')).status).toBe(404);

  const nulls = { models_allow: null, models_deny: null, model_settings: null };
  const cleared = await second.send('PUT', first.path, nulls);
  expect([cleared.status, cleared.json]).toEqual([200, expect.objectContaining(NONE)]);
  expect(await listed(second)).toEqual([...MODELS].sort());
});

test.each([
  [{}, MODELS],
  [{ models_allow: ['llama3*'] }, ['llama3:8b', 'llama3:70b']],
  [{ models_allow: ['llama3:?b', 'qwen3/*'] }, ['llama3:8b', 'qwen3/coder']],
  [{ models_allow: [] }, []],
  [{ models_deny: ['*70b', 'embed'] }, ['llama3:8b', 'qwen3/coder']],
  [{ models_deny: [] }, MODELS],
  [{ models_deny: ['*'] }, []],
  [{ models_allow: ['llama3*'], models_deny: ['llama3:70b'] }, ['llama3:8b']],
  [{ models_allow: ['LLAMA3*'] }, []],
])('with %j just %j is offered', async (settings, offered) => {
  const server = await one(settings);
  expect(await listed(server)).toEqual([...offered].sort());
  const { models } = (await server.get(`${server.path}/models`)).json;
  expect(models).toEqual(expect.schemaMatching(shapes.endpointModel.array()));
  expect(models.map((model: Record<string, unknown>) => [model.model_id, model.offered])).toEqual(
    MODELS.map((model) => [model, offered.includes(model)]),
  );
  for (const model of MODELS) {
    const reply = await server.chat(model);
    if (offered.includes(model)) expect(reply.status).toBe(200);
    else expect([reply.status, reply.json.error.code]).toEqual([404, 'model_not_found']);
    expect((await server.get(`/v1/models/${model}`)).status).toBe(reply.status);
  }
  expect(asked(server.box)).toEqual(MODELS.filter((model) => offered.includes(model)));
});

test('a glob with the tag latest also means a model that is listed without a tag, and its short name goes with it', async () => {
  const server = await one({ models_deny: ['plain:latest', 'tagged:latest'] }, [
    'plain',
    'tagged:latest',
    'x',
  ]);
  expect(await listed(server)).toEqual(['x']);
  for (const model of ['plain', 'tagged', 'tagged:latest']) {
    expect((await server.chat(model)).status).toBe(404);
  }
});

test('a change of what is offered holds from the next request on', async () => {
  const server = await one();
  await chats(server, 'embed', 1);
  await server.put({ models_deny: ['embed'] });
  expect((await server.chat('embed')).status).toBe(404);
  await server.put({ models_deny: null, models_allow: ['emb*'] });
  await chats(server, 'embed', 1);
  expect((await server.chat('llama3:8b')).status).toBe(404);
  expect(await listed(server)).toEqual(['embed']);
});

test('a model that one endpoint does not offer goes to the others alone, also when these fail', async () => {
  const [left, right] = [await engine({ models: ['m'] }), await engine({ models: ['m'] })];
  const server = await startLocal({ env: QUIET, args: ['--policy', 'round-robin'] });
  await server.register('left', left.url, { models_deny: ['m'] });
  const { id } = await server.register('right', right.url);
  await chats(server, 'm', 3);
  expect([asked(left).length, asked(right).length]).toEqual([0, 3]);
  const body = { model: 'm', messages: [{ role: 'user', content: 'Hello' }] };
  const told = (await server.send('POST', '/api/dashboard/explain', body)).json;
  expect(told.candidates.map(({ endpoint_id }: Record<string, unknown>) => endpoint_id)).toEqual([id]);
  right.faults.next.push({ kind: 'status', status: 500 });
  expect((await server.chat('m')).status).toBe(500);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  const away = await server.chat('m');
  expect([away.status, away.json.error.code]).toEqual([503, 'no_endpoint_available']);
  expect(asked(left)).toEqual([]);
});

test('an endpoint can be tried out with a model that it does not offer', async () => {
  const server = await one({ models_allow: ['embed'] });
  const body = { model: 'llama3:8b', messages: [{ role: 'user', content: 'Hello' }] };
  expect((await server.send('POST', `${server.path}/chat/completions`, body)).status).toBe(200);
  expect(asked(server.box)).toEqual(['llama3:8b']);
});

test('in turn a model goes to each endpoint as often as its own weight there says', async () => {
  const boxes = [await engine({ models: ['a', 'b'] }), await engine({ models: ['a', 'b'] })];
  const server = await startLocal({ env: QUIET, args: ['--policy', 'round-robin'] });
  for (const [i, { url }] of boxes.entries()) {
    await server.register(`box ${i}`, url, i === 0 ? { model_settings: { a: { weight: 3 } } } : {});
  }
  await chats(server, 'a', 8);
  await chats(server, 'b', 8);
  const counts = boxes.map((box) => ['a', 'b'].map((m) => asked(box).filter((one) => one === m).length));
  expect(counts).toEqual([
    [6, 4],
    [2, 4],
  ]);
});

test('the priority of a model comes before that of its endpoint, the lower as well as the higher', async () => {
  const boxes = [await engine({ models: ['a', 'b'] }), await engine({ models: ['a', 'b'] })];
  const server = await startLocal({ env: QUIET });
  await server.register('box 0', boxes[0]?.url ?? '', { model_settings: { a: { priority: 2 } } });
  const { id } = await server.register('box 1', boxes[1]?.url ?? '', { priority: 1 });
  await chats(server, 'a', 2);
  await chats(server, 'b', 2);
  expect(boxes.map(asked)).toEqual([
    ['b', 'b'],
    ['a', 'a'],
  ]);
  await server.send('PUT', `/api/endpoints/${id}`, { priority: 5 });
  await chats(server, 'a', 1);
  expect(boxes.map((box) => asked(box).length)).toEqual([3, 2]);
  await server.send('PUT', `/api/endpoints/${id}`, { model_settings: { a: { priority: 1 } } });
  await chats(server, 'a', 1);
  expect(boxes.map((box) => asked(box).length)).toEqual([3, 3]);
});

test.each([
  ['of the model', { model_settings: { a: { max_concurrency: 1 } } }, 'b'],
  ['of the endpoint', { max_concurrency: 1, model_settings: { a: { max_concurrency: 5 } } }, null],
])('past the limit %s a request waits, whatever the other limit is', async (_whose, settings, other) => {
  const server = await one(settings, ['a', 'b']);
  server.box.faults.next.push({ kind: 'hang' });
  const held = server.chat('a');
  await until(() => server.box.active === 1);
  const second = server.chat('a');
  await until(async () => (await server.get('/api/dashboard/stats')).json.queued_requests === 1);
  if (other !== null) await chats(server, other, 2);
  expect(asked(server.box)).toEqual(other === null ? ['a'] : ['a', other, other]);
  server.box.release();
  expect([(await held).status, (await second).status]).toEqual([200, 200]);
});

test('a higher limit of a model lets in who waits for it', async () => {
  const server = await one({ model_settings: { a: { max_concurrency: 1 } } }, ['a']);
  server.box.faults.next.push({ kind: 'hang' });
  const held = server.chat('a');
  await until(() => server.box.active === 1);
  const second = server.chat('a');
  await until(async () => (await server.get('/api/dashboard/stats')).json.queued_requests === 1);
  await server.put({ model_settings: { a: { max_concurrency: 2 } } });
  expect((await second).status).toBe(200);
  server.box.release();
  expect((await held).status).toBe(200);
});

test.each(['constructor', '__proto__', 'toString'])('a model may be called %s', async (name) => {
  const settings = JSON.parse(`{ "${name}": { "weight": 2, "max_concurrency": 1 } }`);
  const first = await one({ models_allow: [name] }, [name, 'other', 'hasOwnProperty']);
  await chats(first, name, 1);
  expect((await first.put({ model_settings: settings })).json.model_settings).toEqual(settings);
  await chats(first, name, 1);
  await first.server.stop();
  const server = await startLocal({ dataDir: first.dataDir, env: QUIET });
  expect((await server.get(first.path)).text).toContain(JSON.stringify(settings));
  await chats(server, name, 1);
  expect(await listed(server)).toEqual([name]);
});

test.each([
  ['models_allow', 'a text', 'llama3'],
  ['models_allow', 'an object', { 0: 'a' }],
  ['models_allow', 'a number in it', [1]],
  ['models_allow', 'null in it', [null]],
  ['models_allow', 'an empty glob', ['']],
  ['models_deny', 'a glob of 201 characters', ['x'.repeat(201)]],
  ['models_deny', '201 globs', Array.from({ length: 201 }, () => 'x')],
  ['model_settings', 'a list', []],
  ['model_settings', 'a text', 'a'],
  ['model_settings', 'null in it', { a: null }],
  ['model_settings', 'weight 0', { a: { weight: 0 } }],
  ['model_settings', 'weight null', { a: { weight: null } }],
  ['model_settings', 'weight 1001', { a: { weight: 1001 } }],
  ['model_settings', 'priority -1', { a: { priority: -1 } }],
  ['model_settings', 'priority 1.5', { a: { priority: 1.5 } }],
  ['model_settings', 'max_concurrency 0', { a: { max_concurrency: 0 } }],
  ['model_settings', 'another field', { a: { max_context: 1 } }],
  ['model_settings', '201 models', Object.fromEntries(Array.from({ length: 201 }, (_, i) => [i, {}]))],
  ['model_settings', 'weight 0 of __proto__', JSON.parse('{"__proto__":{"weight":0}}')],
])('%s with %s is refused by its name, and nothing changes', async (field, _what, value) => {
  const server = await one(SETTINGS);
  const change = { [field]: value };
  for (const reply of [
    await server.send('POST', '/api/endpoints', { name: 'x', base_url: 'http://127.0.0.1:1', ...change }),
    await server.put(change),
  ]) {
    expect(reply.status).toBe(400);
    expect(reply.json.error.message).toMatch(new RegExp(`^${field}`));
  }
  expect((await server.get('/api/endpoints')).json.endpoints).toMatchObject([SETTINGS]);
});

test('200 globs of 200 characters and 200 models are taken', async () => {
  const globs = Array.from({ length: 200 }, (_, i) => `${i}`.padEnd(200, 'x'));
  const model_settings = Object.fromEntries(globs.map((glob) => [glob, { priority: 1000 }]));
  const server = await one({ models_allow: [...globs.slice(1), '*'], models_deny: globs, model_settings });
  expect(await listed(server)).toEqual([...MODELS].sort());
});

test('the audit log says what was changed', async () => {
  const server = await one({ models_deny: ['embed'] });
  await server.put({
    models_deny: ['embed', 'qwen*'],
    model_settings: { embed: { weight: 2 } },
    models_allow: null,
  });
  const { items } = (await server.get('/api/dashboard/audit-logs?action=endpoint.changed')).json;
  expect(items).toMatchObject([{ target: 'box' }]);
  expect(items[0].detail).toEqual({
    before: { models_deny: ['embed'], model_settings: {} },
    after: { models_deny: ['embed', 'qwen*'], model_settings: { embed: { weight: 2 } } },
  });
  const verdict = (await server.send('POST', '/api/dashboard/audit-logs/verify')).json;
  expect(verdict).toMatchObject({ valid: true });
});

/** A stopped server's data dir in which a setting is stored as this text. */
async function storedAs(column: string, text: string) {
  const deadlines = { idle_ms: 77_000, models: { embed: { idle_ms: 5 } } };
  const { server, dataDir, path } = await one({ ...SETTINGS, deadlines });
  await server.stop();
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await db.run(`UPDATE endpoints SET ${column} = ?`, text);
  await db.close();
  return { dataDir, path, settings: { ...SETTINGS, deadlines } as Record<string, unknown> };
}

test.each([
  ['models_allow', '["llama3*'],
  ['models_deny', '{"a":1}'],
  ['models_deny', '[1]'],
  ['model_settings', '[]'],
  ['model_settings', '{"embed":{"weight":"much"}}'],
  ['deadlines', 'null'],
  ['deadlines', '{"models":{"embed":7}}'],
])('a stored %s of %s costs that setting alone', async (column, text) => {
  const { dataDir, path, settings } = await storedAs(column, text);
  const server = await startLocal({ dataDir, env: QUIET });
  expect((await server.get('/ready')).json).toMatchObject({ seeded: true });
  const { [column]: read, ...others } = (await server.get(path)).json;
  const { [column]: _stored, ...kept } = settings;
  expect(others).toMatchObject(kept);
  expect(read).toEqual(column.startsWith('models_') ? null : {});
  expect((await server.send('PUT', path, settings)).json).toMatchObject(settings);
});

test('a stored setting that cannot be read is a warning that names it and the endpoint', async () => {
  const { dataDir } = await storedAs('models_deny', '["embed');
  const server = await spawnServer({ dataDir, env: QUIET });
  expect(server.output()).toContain('the stored models_deny of box cannot be read');
});

test('what is saved from a damaged file keeps what was offered', async () => {
  const first = await one(SETTINGS);
  await first.server.stop();
  const to = join(newDataDir(), 'troupe.db');
  await mkdir(dirname(to), { recursive: true });
  await salvage(join(first.dataDir, 'troupe.db'), to);
  const server = await startLocal({ dataDir: dirname(to), env: QUIET });
  expect((await server.get('/api/endpoints')).json.endpoints).toMatchObject([SETTINGS]);
  expect(await listed(server)).toEqual(['embed', 'llama3:8b']);
});
