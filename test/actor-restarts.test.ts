import { expect, test } from 'vitest';
import { settle } from '../src/actors/settle.js';
import { openStream } from './support/clients.js';
import { throwing } from './support/faults.js';
import { finished, startHouse } from './support/house.js';
import { engine, type LocalServer, startLocal, until } from './support/server.js';
import type { Actor } from './support/shapes.js';

const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };

const path = (id: string) => `/api/dashboard/actors/${encodeURIComponent(id)}`;
const restart = (server: LocalServer, id: string) => server.send('POST', `${path(id)}/restart`);
const shown = async (server: LocalServer, id: string) => (await server.get(path(id))).json;

/** The numbers that no restart may change. */
async function numbers(server: LocalServer) {
  const { endpoints, stats, history } = (await server.get('/api/dashboard/overview')).json;
  const [{ total_requests, successful_requests, failed_requests, active_requests }] = endpoints;
  const timeline = history.reduce(
    (all: number[], { success, error }: { success: number; error: number }) => [
      (all[0] ?? 0) + success,
      (all[1] ?? 0) + error,
    ],
    [0, 0],
  );
  return {
    endpoint: { total_requests, successful_requests, failed_requests, active_requests },
    sums: [stats.total_requests, stats.requests_60m, stats.total_tokens, stats.average_response_time_ms],
    timeline,
  };
}

test('every actor that may be restarted begins anew with its exact numbers, while streams run on', async () => {
  const box = await engine({ models: ['org/alpha'], outputTokens: 5 });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  for (let i = 0; i < 4; i += 1) await server.chat('org/alpha', { stream: i % 2 === 0 });
  box.faults.next.push({ kind: 'status', status: 500 });
  await server.chat('org/alpha');
  box.faults.always = { kind: 'stall', afterTokens: 1 };
  const streams = [await openStream(server.url, 'org/alpha'), await openStream(server.url, 'org/alpha')];
  const before = await numbers(server);
  expect(before.endpoint).toMatchObject({ total_requests: 5, failed_requests: 1, active_requests: 2 });

  const tps = `tps:${id}:org/alpha:chat_completions`;
  for (const actorId of [`endpoint:${id}`, tps, `box:${id}`, 'history', 'queue']) {
    // More often than crashes are forgiven.
    for (let times = 1; times <= 7; times += 1) {
      const reply = await restart(server, actorId);
      expect([actorId, reply.status, reply.text]).toEqual([actorId, 202, '']);
      expect(await numbers(server)).toEqual(before);
      expect(await shown(server, actorId)).toMatchObject({
        status: 'active',
        restarts: times,
        last_error: null,
      });
    }
    const { transitions } = await shown(server, actorId);
    const asked = transitions.filter(({ event }: { event: string }) => event === 'restart asked for');
    expect([actorId, asked.length]).toEqual([actorId, 7]);
  }
  const endpoint = (await server.get(`/api/endpoints/${id}`)).json;
  expect(endpoint).toMatchObject({ status: 'online', latency_ms: expect.any(Number) });
  const rates = (await server.get(`/api/endpoints/${id}/model-tps`)).json;
  expect(rates).toMatchObject([{ model_id: 'org/alpha', request_count: 4, total_output_tokens: 20 }]);

  box.release();
  for (const stream of streams) {
    expect(await stream.whole).toBe(true);
    expect(stream.text()).toContain('[DONE]');
  }
  const after = await numbers(server);
  expect(after.endpoint).toMatchObject({ total_requests: 7, successful_requests: 6, active_requests: 0 });
  expect(after.timeline).toEqual([6, 1]);

  const { items } = (await server.get('/api/dashboard/audit-logs?action=actor.restarted&per_page=100')).json;
  expect(items).toHaveLength(35);
  expect(new Set(items.map(({ target }: { target: string }) => target))).toEqual(
    new Set([`endpoint:${id}`, tps, `box:${id}`, 'history', 'queue']),
  );
  expect(items[0]).toMatchObject({ actor_type: 'api_key', detail: {} });
});

test('what cannot be restarted is a 409 that says so, what is not there a 404', async () => {
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', (await engine()).url);
  for (const actorId of ['root', 'endpoints', 'ticker', 'ledger']) {
    const reply = await restart(server, actorId);
    expect([actorId, reply.status, reply.json.error.code]).toEqual([actorId, 409, 'not_restartable']);
    expect(reply.json.error.message).toContain(actorId);
  }
  for (const actorId of [
    'nobody',
    'endpoint:nobody',
    `tps:${id}:m:chat_completions`,
    'constructor',
    'box:',
  ]) {
    expect([actorId, (await restart(server, actorId)).status]).toEqual([actorId, 404]);
  }
  const { items } = (await server.get('/api/dashboard/audit-logs?action=actor.restarted')).json;
  expect(items).toEqual([]);
});

test('a running probe cannot be restarted', async () => {
  const box = await engine();
  const server = await startLocal();
  const { id } = await server.register('box', box.url);
  box.faults.models = { kind: 'hang' };
  await until(async () => (await shown(server, `endpoint:${id}`)).children.length === 1);
  expect((await restart(server, `probe:${id}`)).json.error.code).toBe('not_restartable');
});

test('a viewer may not restart anything', async () => {
  const server = await startLocal({ env: QUIET });
  const { generated_password } = (
    await server.send('POST', '/api/users', { username: 'looker', role: 'viewer' })
  ).json;
  const login = { username: 'looker', password: generated_password };
  const { token } = (await server.send('POST', '/api/auth/login', login, { cookie: '' })).json;
  const bearer = { authorization: `Bearer ${token}` };
  expect((await server.send('POST', `${path('history')}/restart`, undefined, bearer)).status).toBe(403);
  expect((await shown(server, 'history')).restarts).toBe(0);
});

test('a quarantined actor is resumed, not restarted', async () => {
  let boom = false;
  const box = await engine();
  const server = await startLocal({
    env: QUIET,
    seams: { tamper: { endpoint: (logic) => throwing(logic, 'attempt.settled', () => boom, 'before') } },
  });
  const { id } = await server.register('box', box.url);
  boom = true;
  for (let i = 0; i < 5; i += 1) {
    await server.chat('sim-small');
    await until(async () => (await shown(server, `endpoint:${id}`)).status !== 'restarting');
  }
  boom = false;
  for (const actorId of [`endpoint:${id}`, `box:${id}`]) {
    const { status, json } = await restart(server, actorId);
    expect([status, json.error.code]).toEqual([409, 'quarantined']);
    expect(json.error.message).toContain('resume');
  }
});

test('restarts that somebody asks for do not count as crashes', async () => {
  let boom = false;
  const { house, actor, timers } = await startHouse({
    endpoints: ['one'],
    tamper: { endpoint: (logic) => throwing(logic, 'drain', () => boom, 'before') },
  });
  const renew = () => actor('box:one')?.send({ type: 'renew', actorId: 'endpoint:one' });
  for (let i = 0; i < 4; i += 1) {
    boom = true;
    actor('endpoint:one')?.send({ type: 'drain' });
    boom = false;
    timers.increment(1000);
    for (let times = 0; times < 5; times += 1) renew();
  }
  expect(house.roster.entry('one')?.status).toBe('running');
  expect(house.roster.entry('one')?.actors['endpoint:one']).toMatchObject({ restarts: 24, status: 'active' });
});

test('an actor in back-off comes back at once, and its own restart finds it there', async () => {
  let boom = false;
  const { house, books, clock, actor, timers, pending, live } = await startHouse({
    endpoints: ['one', 'two'],
    tamper: { endpoint: (logic) => throwing(logic, 'drain', () => boom, 'before') },
  });
  settle(house.system, books, finished('one', clock.now()));
  const still = { pending: pending(), live: live.size };
  boom = true;
  actor('endpoint:one')?.send({ type: 'drain' });
  boom = false;
  settle(house.system, books, finished('one', clock.now(), true));
  expect(actor('endpoint:one')).toBeUndefined();
  actor('box:one')?.send({ type: 'renew', actorId: 'endpoint:one' });
  const back = actor('endpoint:one');
  expect(back?.getSnapshot().context).toMatchObject({ success: 1, failed: 1 });
  expect(actor('box:one')?.getSnapshot().value).toBe('steady');
  expect({ pending: pending(), live: live.size }).toEqual(still);
  timers.increment(60_000);
  expect(actor('endpoint:one')).toBe(back);
});

test('a box in back-off comes back at once with all that is in it, once', async () => {
  let boom = false;
  const { house, books, clock, actor, timers, live } = await startHouse({
    endpoints: ['one', 'two'],
    tamper: { box: (logic) => throwing(logic, 'sample', () => boom, 'before') },
  });
  settle(house.system, books, finished('one', clock.now()));
  const before = live.size;
  boom = true;
  actor('box:one')?.send({ type: 'sample' });
  boom = false;
  expect(actor('endpoint:one')).toBeUndefined();
  actor('endpoints')?.send({ type: 'renew', id: 'one' });
  const back = actor('box:one');
  expect(live.size).toBe(before);
  expect(actor('endpoint:one')?.getSnapshot().context).toMatchObject({ success: 1, failed: 0 });
  expect(house.roster.entry('one')).toMatchObject({
    status: 'running',
    actors: { 'box:one': { restarts: 1 } },
  });
  timers.increment(60_000);
  expect(actor('box:one')).toBe(back);
});

test('a thousand restarts of each kind leave nothing behind', async () => {
  const probes = new Set<AbortSignal>();
  const { house, books, clock, actor, pending, live, pass } = await startHouse({
    endpoints: ['one', 'two'],
    check: (_config, _engine, signal) =>
      new Promise(() => {
        if (signal === undefined) return;
        probes.add(signal);
        signal.addEventListener('abort', () => probes.delete(signal));
      }),
  });
  settle(house.system, books, finished('one', clock.now()));
  pass(200);
  const count = () => ({
    live: [...live].map(({ id }) => id).sort(),
    named: Object.keys(house.system.getAll()).sort(),
    timers: pending(),
    probes: probes.size,
  });
  const before = count();
  expect(before.probes).toBe(2);
  const tps = 'tps:one:m:chat_completions';
  for (let i = 0; i < 1000; i += 1) {
    actor('box:one')?.send({ type: 'renew', actorId: 'endpoint:one' });
    actor('box:one')?.send({ type: 'renew', actorId: tps });
    actor('endpoints')?.send({ type: 'renew', id: 'one' });
    house.root.send({ type: 'renew', actorId: 'history' });
    house.root.send({ type: 'renew', actorId: 'queue' });
    // What is nobody's, or not theirs to restart.
    actor('box:one')?.send({ type: 'renew', actorId: 'endpoint:two' });
    actor('endpoints')?.send({ type: 'renew', id: 'nobody' });
    house.root.send({ type: 'renew', actorId: 'ledger' });
  }
  pass(200);
  expect(count()).toEqual(before);
  expect(actor('endpoint:one')?.getSnapshot().context).toMatchObject({ success: 1, failed: 0 });
  expect(actor(tps)?.getSnapshot().context).toMatchObject({ samples: 1, ema: 50 });
});

test('a parked actor need not wait for its minute', async () => {
  let boom = true;
  const { house, books, clock, actor, timers } = await startHouse({
    tamper: { history: (logic) => throwing(logic, 'finished', () => boom, 'before') },
  });
  const record = () => house.root.getSnapshot().context.children.history;
  for (let i = 0; i < 5; i += 1) {
    actor('history')?.send({ type: 'finished' });
    timers.increment(1000);
  }
  expect(record()?.status).toBe('parked');
  boom = false;
  settle(house.system, books, finished('one', clock.now()));
  house.root.send({ type: 'renew', actorId: 'history' });
  expect(record()).toMatchObject({ status: 'active', restarts: 5 });
  const back = actor('history');
  const ring = back?.getSnapshot().context.ring as { success: number }[];
  expect(ring.filter(Boolean).map(({ success }) => success)).toEqual([1]);
  timers.increment(120_000);
  expect(actor('history')).toBe(back);
});

test('the tree shows a restarted box with its children as it was', async () => {
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', (await engine()).url);
  await server.chat('sim-small', { stream: true });
  const names = (actor: Actor): string[] => [actor.id, ...actor.children.flatMap(names)];
  const before = names(await shown(server, `box:${id}`)).filter((one) => !one.startsWith('probe:'));
  expect(before).toHaveLength(3);
  await restart(server, `box:${id}`);
  await until(async () => {
    const now = names(await shown(server, `box:${id}`)).filter((one) => !one.startsWith('probe:'));
    return String(now) === String(before);
  });
  expect((await server.chat('sim-small')).status).toBe(200);
});
