import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import { diskSpaceOf } from '../src/actors/disk-space.js';
import {
  type EndpointHealth,
  type HouseHealth,
  type Problem,
  problemsOfEndpoint,
  problemsOfHouse,
} from '../src/actors/problems.js';
import { NEW_CIRCUIT } from '../src/machines/circuit.js';
import { newChild } from '../src/machines/supervision.js';
import { framesOf, rawRequest } from './support/clients.js';
import { throwing } from './support/faults.js';
import { START } from './support/house.js';
import { engine, type LocalServer, pause, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };
const MIB = 1024 * 1024;
const roomy = async () => ({ free: 100 * 1024 * MIB, total: 200 * 1024 * MIB });

async function problems(server: LocalServer): Promise<Problem[]> {
  const found = (await server.get('/api/dashboard/overview')).json.problems;
  expect(found).toEqual(expect.schemaMatching(shapes.problems));
  return found;
}

const codes = async (server: LocalServer) => (await problems(server)).map(({ code }) => code);

/** A server with room for its data, and a stream of its problems. */
async function watched(options: Parameters<typeof startLocal>[0] = {}) {
  const server = await startLocal({ env: QUIET, ...options, seams: { space: roomy, ...options?.seams } });
  const stream = await rawRequest(server.url, '/api/dashboard/events');
  await until(() => framesOf(stream).length > 0);
  const told = (): Problem[] | undefined =>
    framesOf(stream).findLast(({ event }) => event === 'problems')?.data;
  return { server, stream, told };
}

test('a house without endpoints says so, and one where all is well has no problem', async () => {
  const { server, stream, told } = await watched();
  expect(framesOf(stream)[0]?.data.problems.map(({ code }: Problem) => code)).toEqual(['no_endpoints']);
  await server.register('box', (await engine()).url);
  await until(() => told()?.length === 0);
  expect(await problems(server)).toEqual([]);
});

test('an endpoint that fails is a warning, one that is gone an error with its last error, until it is back', async () => {
  const { server, told } = await watched();
  const box = await engine();
  const { id } = await server.register('box', box.url);
  const fault = { kind: 'status', status: 500 } as const;
  box.faults.models = fault;
  await server.send('POST', `/api/endpoints/${id}/test`);
  const endpoint = { endpoint_id: id, endpoint_name: 'box', detail: 'answered 500 to GET /v1/models' };
  const since = expect.stringMatching(/Z$/);
  expect(await problems(server)).toEqual([
    { code: 'endpoint_error', severity: 'warning', ...endpoint, since },
  ]);
  await server.send('POST', `/api/endpoints/${id}/test`);
  const [offline] = await problems(server);
  expect(offline).toEqual({ code: 'endpoint_offline', severity: 'error', ...endpoint, since });
  await until(() => told()?.[0]?.code === 'endpoint_offline');
  await pause(20);
  await server.send('POST', `/api/endpoints/${id}/test`);
  // It is offline since then, however often that is seen.
  expect(await problems(server)).toEqual([offline]);
  // An operator who drains it knows.
  await server.send('POST', `/api/endpoints/${id}/drain`);
  expect(await problems(server)).toEqual([]);
  await server.send('POST', `/api/endpoints/${id}/resume`);
  expect(await codes(server)).toEqual(['endpoint_offline']);
  box.faults.models = null;
  await server.send('POST', `/api/endpoints/${id}/test`);
  await until(() => told()?.length === 0);
});

test('a circuit that opens is told with its endpoint, and with the model whose it is', async () => {
  const { server, told } = await watched();
  const box = await engine({ models: ['org/alpha', 'beta'] });
  const { id } = await server.register('box', box.url);
  for (let i = 0; i < 3; i += 1) {
    box.faults.next.push({ kind: 'status', status: 500 });
    await server.chat('org/alpha');
  }
  await until(() => told()?.some(({ code }) => code === 'circuit_open') === true);
  const warning = { code: 'circuit_open', severity: 'warning', endpoint_id: id, endpoint_name: 'box' };
  expect(await problems(server)).toEqual([{ ...warning, detail: 'org/alpha', since: null }]);
  box.faults.always = { kind: 'reset' };
  for (let i = 0; i < 3; i += 1) await server.chat('beta');
  await until(async () => (await problems(server)).some(({ detail }) => detail === null));
  const own = (await problems(server)).find(({ detail }) => detail === null);
  expect(own).toEqual({ ...warning, detail: null, since: expect.stringMatching(/Z$/) });
});

test('an endpoint in quarantine and one whose key is lost are errors', async () => {
  let boom = false;
  const box = await engine({ apiKey: 'right' });
  const first = await startLocal({ env: QUIET, seams: { space: roomy } });
  const { id } = await first.register('box', box.url, { api_key: 'right' });
  await first.server.stop();
  const server = await startLocal({
    dataDir: first.dataDir,
    env: { ...QUIET, TROUPE_SECRET_KEY: 'another one than before, and long enough' },
    seams: {
      space: roomy,
      tamper: { endpoint: (logic) => throwing(logic, 'checked', () => boom, 'before') },
    },
  });
  await until(async () => (await codes(server)).includes('endpoint_key_lost'));
  boom = true;
  await until(
    async () => {
      await server.send('POST', `/api/endpoints/${id}/test`);
      return (await codes(server)).includes('endpoint_quarantined');
    },
    20_000,
    'the quarantine',
  );
  expect(await problems(server)).toMatchObject([
    { code: 'endpoint_key_lost', severity: 'error', endpoint_id: id },
    {
      code: 'endpoint_quarantined',
      severity: 'error',
      endpoint_id: id,
      detail: 'boom before checked',
      since: expect.any(String),
    },
  ]);
});

test('a locked store, and records that wait for it, are problems until it is free', async () => {
  const { server, told } = await watched();
  await server.register('box', (await engine()).url);
  const other = await open({ filename: join(server.dataDir, 'troupe.db'), driver: sqlite3.Database });
  await other.run('BEGIN IMMEDIATE');
  await server.chat('sim-small');
  await until(async () => (await codes(server)).includes('store_trouble'), 20_000, 'the trouble');
  const [trouble] = await problems(server);
  expect(trouble).toMatchObject({ severity: 'error', detail: 'the database is locked by another process' });
  expect(JSON.stringify(trouble)).not.toContain(server.dataDir);
  await until(async () => (await codes(server)).includes('ledger_behind'), 20_000, 'the wait');
  // It has been tried again meanwhile.
  expect((await problems(server)).find(({ code }) => code === 'store_trouble')?.since).toBe(trouble?.since);
  expect(trouble?.since).not.toBeNull();
  await until(() => told()?.length === 2);
  await other.run('ROLLBACK');
  await other.close();
  await until(() => told()?.length === 0, 20_000, 'the end of the trouble');
}, 60_000);

test('a parked history is a warning with its last error', async () => {
  let boom = true;
  const { server } = await watched({
    seams: { tamper: { history: (logic) => throwing(logic, 'finished', () => boom, 'before') } },
  });
  await server.register('box', (await engine()).url);
  await until(
    async () => {
      await server.chat('sim-small');
      return (await codes(server)).includes('history_parked');
    },
    20_000,
    'five crashes',
  );
  boom = false;
  expect(await problems(server)).toEqual([
    {
      code: 'history_parked',
      severity: 'warning',
      endpoint_id: null,
      endpoint_name: null,
      detail: 'boom before finished',
      since: expect.stringMatching(/Z$/),
    },
  ]);
  await server.send('POST', '/api/dashboard/actors/history/restart');
  expect(await problems(server)).toEqual([]);
});

test('little room for the data is told as soon as it is seen', async () => {
  const { server, told } = await watched({
    seams: { space: async () => ({ free: 30 * MIB, total: 100 * MIB }) },
  });
  await server.register('box', (await engine()).url);
  await until(() => told()?.[0]?.code === 'disk_low');
  expect(told()).toEqual([
    {
      code: 'disk_low',
      severity: 'error',
      endpoint_id: null,
      endpoint_name: null,
      detail: '30 MiB are free for the data',
      since: null,
    },
  ]);
});

// The rules alone.

const WELL: HouseHealth = {
  now: START,
  children: {},
  unseeded: [],
  isDraining: false,
  hasEndpoints: true,
  storeTrouble: null,
  waiting: { rows: 0, oldest: null, withoutDetail: 0 },
  disk: null,
};

test.each<[string, Partial<HouseHealth>, string[]]>([
  ['nothing is wrong', {}, []],
  ['a record waits for a moment', { waiting: { rows: 1, oldest: START - 4000, withoutDetail: 0 } }, []],
  [
    'a record waits for long',
    { waiting: { rows: 1, oldest: START - 6000, withoutDetail: 0 } },
    ['ledger_behind'],
  ],
  ['very many come at once', { waiting: { rows: 5000, oldest: START - 100, withoutDetail: 0 } }, []],
  ['very many wait', { waiting: { rows: 5000, oldest: START - 2000, withoutDetail: 0 } }, ['ledger_behind']],
  ['rows were given up', { waiting: { rows: 0, oldest: null, withoutDetail: 3 } }, ['rows_folded']],
  ['a seed is missing', { unseeded: ['timeline', 'users'] }, ['unseeded']],
  ['it is ending', { isDraining: true }, ['shutting_down']],
  [
    'the ledger is parked',
    { children: { ledger: { ...newChild('ledger'), status: 'parked' } } },
    ['ledger_parked'],
  ],
  ['the ledger restarts', { children: { ledger: { ...newChild('ledger'), status: 'restarting' } } }, []],
  ['a large disk is nearly full', { disk: { free: 900 * MIB, total: 2_000_000 * MIB } }, ['disk_low']],
  ['a large disk has 2 GiB', { disk: { free: 2048 * MIB, total: 2_000_000 * MIB } }, []],
  ['a small disk is half full', { disk: { free: 900 * MIB, total: 1800 * MIB } }, []],
  ['a small disk is full', { disk: { free: 150 * MIB, total: 300 * MIB } }, ['disk_low']],
])('%s', (_what, health, found) => {
  expect(problemsOfHouse({ ...WELL, ...health }).map(({ code }) => code)).toEqual(found);
});

const BOX: EndpointHealth = {
  id: 'one',
  name: 'box',
  status: 'online',
  lastError: null,
  lastSeen: null,
  circuit: NEW_CIRCUIT,
  modelCircuits: {},
  keyIsLost: false,
  transitions: [],
  crash: null,
};

test('an endpoint that waits for its first check is no problem', () => {
  for (const status of ['pending', 'online', 'draining'] as const) {
    expect(problemsOfEndpoint({ ...BOX, status })).toEqual([]);
  }
});

test('trouble that is older than this start began after the endpoint was last seen', () => {
  for (const status of ['offline', 'error'] as const) {
    const since = (lastSeen: number | null) => problemsOfEndpoint({ ...BOX, status, lastSeen })[0]?.since;
    expect([since(START), since(null)]).toEqual([new Date(START).toISOString(), null]);
  }
});

test('since is when the state began that still is, through crashes in between', () => {
  const at = (ms: number, to: string | null, event = 'checked') => ({
    at: START + ms,
    event,
    from: null,
    to,
  });
  const transitions = [
    at(0, 'offline, open, closed'),
    at(10, 'online, open, closed'),
    at(20, 'offline, open, closed'),
    at(30, null, 'crashed'),
    at(40, 'offline, open, open'),
  ];
  const [offline] = problemsOfEndpoint({ ...BOX, status: 'offline', transitions });
  expect(offline?.since).toBe(new Date(START + 20).toISOString());
  expect(problemsOfEndpoint({ ...BOX, status: 'offline' })[0]?.since).toBeNull();
});

test('the space is looked at when somebody asks, never twice at a time, and forgotten when it cannot be told', async () => {
  let now = 0;
  let looks = 0;
  let answer: (space: { free: number; total: number } | Error) => void = () => {};
  const disk = diskSpaceOf(
    () => {
      looks += 1;
      return new Promise((resolve, reject) => {
        answer = (space) => (space instanceof Error ? reject(space) : resolve(space));
      });
    },
    () => now,
  );
  const ask = () => [disk.look(), disk.look()];
  expect([ask(), looks]).toEqual([[null, null], 1]);
  now = 100_000;
  expect([ask(), looks]).toEqual([[null, null], 1]);
  answer({ free: 1, total: 2 });
  await pause(1);
  expect(ask()[0]).toEqual({ free: 1, total: 2 });
  expect(looks).toBe(2);
  answer(new Error('no'));
  await pause(1);
  expect([ask()[0], looks]).toEqual([null, 2]);
  now += 30_000;
  ask();
  expect(looks).toBe(3);
});
