import { expect, test } from 'vitest';
import type { Problem } from '../src/actors/problems.js';
import { troubleLogOf } from '../src/actors/trouble-log.js';
import type { EndpointStatus } from '../src/machines/candidate.js';
import { engine, spawnServer, until } from './support/server.js';

const a = { endpoint_id: '1', endpoint_name: 'a' };
const b = { endpoint_id: '2', endpoint_name: 'b' };

function problem(code: string, more: Partial<Problem> = {}): Problem {
  const none = { endpoint_id: null, endpoint_name: null, detail: null, since: null };
  return { code, severity: 'warning', ...none, ...more };
}

/** What is wrong at one look, and how the endpoints are then that are not online. */
type Look = Problem[] | { found: Problem[]; status: EndpointStatus | null };

/** Looks once for each, and says which lines that gave. */
function linesOf(...looks: Look[]): string[][] {
  let now: Problem[] = [];
  let status: EndpointStatus | null = 'online';
  let lines: string[] = [];
  const line = (level: string) => (details: object, message: string) => {
    const { endpoint, detail } = details as { endpoint?: string; detail?: string };
    lines.push([level, endpoint, detail, message].filter((part) => part !== undefined).join(' | '));
  };
  const look = troubleLogOf({
    problems: () => now,
    statusOf: () => status,
    log: { info: line('info'), warn: line('warn'), error: line('error') },
  });
  return looks.map((one) => {
    now = 'found' in one ? one.found : one;
    status = 'found' in one ? one.status : 'online';
    lines = [];
    look();
    return lines;
  });
}

test('a problem is told once when it begins and once when it is over, however long it lasts', () => {
  const store = problem('store_trouble', { severity: 'error', detail: 'the database is locked' });
  const words = 'the store takes no records now: they wait in memory';
  expect(linesOf([], [store], [store], [{ ...store, detail: 'the disk is full' }], [], [])).toEqual([
    [],
    [`error | the database is locked | ${words}`],
    [],
    [],
    [`info | the disk is full | over: ${words}`],
    [],
  ]);
});

test('an endpoint that goes from failing to offline is not told to be over in between', () => {
  const failing = problem('endpoint_error', { ...a, detail: 'refused' });
  const offline = problem('endpoint_offline', { ...a, severity: 'error', detail: 'refused' });
  expect(linesOf([failing], [offline], [])).toEqual([
    ['warn | a | refused | an endpoint failed its last check'],
    ['error | a | refused | an endpoint is offline'],
    ['info | a | refused | over: an endpoint is offline'],
  ]);
});

test('endpoints, and the circuits of their models, are told apart', () => {
  const way = problem('circuit_open', a);
  const model = problem('circuit_open', { ...a, detail: 'llama' });
  const other = problem('circuit_open', b);
  const words = 'requests to an endpoint fail: its circuit is open';
  expect(linesOf([way, model, other], [way, other])).toEqual([
    [`warn | a | ${words}`, `warn | a | llama | ${words}`, `warn | b | ${words}`],
    [`info | a | llama | over: ${words}`],
  ]);
});

test('of an endpoint that was drained or removed nobody says that its trouble is over', () => {
  const offline = problem('endpoint_offline', a);
  const words = 'an endpoint is offline';
  expect(linesOf([offline], { found: [], status: 'draining' }, [offline])).toEqual([
    [`warn | a | ${words}`],
    [`info | a | the endpoint is drained: ${words}`],
    [`warn | a | ${words}`],
  ]);
  expect(linesOf([offline], { found: [], status: null }).at(-1)).toEqual([
    `info | a | the endpoint was removed: ${words}`,
  ]);
});

test('a circuit is over when it has closed, not when its endpoint cannot be reached', () => {
  const circuit = problem('circuit_open', a);
  const offline = problem('endpoint_offline', a);
  const down: Look = { found: [offline], status: 'offline' };
  const words = 'requests to an endpoint fail: its circuit is open';
  expect(linesOf([circuit], down, down, [circuit], [])).toEqual([
    [`warn | a | ${words}`],
    ['warn | a | an endpoint is offline'],
    [],
    ['info | a | over: an endpoint is offline'],
    [`info | a | over: ${words}`],
  ]);
});

test('an actor that is parked is told by its code, and what is told elsewhere is not told again', () => {
  const parked = problem('history_parked', { detail: 'boom' });
  const told = [parked, problem('no_endpoints'), problem('unseeded'), problem('shutting_down')];
  expect(linesOf(told)).toEqual([['warn | boom | an actor is parked: it crashed five times in a minute']]);
});

test('the log of a server says that an endpoint went and came back, and that the server stopped', async () => {
  const box = await engine();
  const server = await spawnServer({ args: ['--endpoint', `box=${box.url}`] });
  const told = (problem: string, over: boolean) =>
    server.logLines().find((line) => line.problem === problem && line.msg.startsWith('over: ') === over);
  await until(async () => (await server.get('/api/endpoints')).json.endpoints[0]?.status === 'online');
  box.faults.models = { kind: 'status', status: 500 };
  await until(() => told('endpoint_offline', false) !== undefined, 8000, 'a line about the endpoint');
  expect(told('endpoint_offline', false)).toMatchObject({ level: 50, endpoint: 'box' });
  box.faults.models = null;
  await until(() => told('endpoint_offline', true) !== undefined, 8000, 'a line that it is over');
  expect(told('endpoint_offline', true)).toMatchObject({ level: 30, endpoint: 'box' });

  expect(await server.end()).toBe(0);
  expect(server.logLines().at(-1)).toMatchObject({ level: 30, exit_code: 0, msg: 'stopped' });
});

test('the log tells of requests that were refused before anybody was asked, which have no row', async () => {
  const box = await engine();
  const server = await spawnServer({ args: ['--endpoint', `box=${box.url}`] });
  await until(async () => (await server.get('/api/endpoints')).json.endpoints[0]?.status === 'online');
  expect((await server.chat('no-such-model')).status).toBe(404);
  expect((await server.send('POST', '/v1/embeddings', { input: 'x' })).status).toBe(400);
  expect((await server.chat('x'.repeat(100_000))).status).toBe(404);
  expect((await server.chat('sim-small')).status).toBe(200);
  expect(await server.end()).toBe(0);
  const told = (msg: string) => server.logLines().filter((line) => line.msg === msg);
  expect(told('refused')).toMatchObject([
    { type: 'chat', model: 'no-such-model', status: 404, code: 'model_not_found', error: expect.any(String) },
    { type: 'embeddings', model: null, status: 400, code: 'invalid_request', error: expect.any(String) },
    { type: 'chat', model: 'x'.repeat(300), status: 404, code: 'model_not_found' },
  ]);
  expect(told('request')).toMatchObject([{ model: 'sim-small', status: 200 }]);
});
