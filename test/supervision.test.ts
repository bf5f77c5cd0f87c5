import { afterEach, expect, test, vi } from 'vitest';
import { settle } from '../src/actors/settle.js';
import type { ActorView } from '../src/actors/tree.js';
import type { CheckResult } from '../src/engines/check.js';
import { choose } from '../src/machines/choose.js';
import { doingNothing, throwing, throwingCount } from './support/faults.js';
import { finished, HEALTHY, type HouseOptions, startHouse } from './support/house.js';
import { type Api, engine, type LocalServer, pause, startLocal, until } from './support/server.js';

const MINUTE = 60_000;
const TICK = 'xstate.after.tickEvery.ticker.ticking';

test('a crashed actor is restarted after 50 ms, then 100, 200 and 400', async () => {
  const { actor, timers, crash } = await crashingHouse();
  for (const ms of [50, 100, 200, 400]) {
    crash();
    timers.increment(ms - 1);
    expect(actor('endpoint:one')).toBeUndefined();
    timers.increment(1);
    expect(actor('endpoint:one')?.getSnapshot().status).toBe('active');
  }
});

test('after a quiet minute the pause before a restart begins anew', async () => {
  const { actor, timers, crash } = await crashingHouse();
  for (let i = 0; i < 12; i += 1) {
    crash();
    timers.increment(49);
    expect(actor('endpoint:one')).toBeUndefined();
    timers.increment(1);
    expect(actor('endpoint:one')?.getSnapshot().status).toBe('active');
    timers.increment(MINUTE);
  }
});

test('the dashboard shows a crash, its error, the restart and what happened when', async () => {
  let boom = true;
  const box = await engine();
  const server = await startLocal({
    seams: { tamper: { endpoint: (logic) => throwingCount(logic, () => boom) } },
  });
  const { id } = await server.register('box', box.url);
  const name = encodeURIComponent(`endpoint:${id}`);
  await server.chat('sim-small');
  boom = false;
  await until(async () => (await server.get(`/api/dashboard/actors/${name}`)).json.status === 'active');
  const shown = (await server.get(`/api/dashboard/actors/${name}`)).json;
  expect(shown).toMatchObject({
    id: `endpoint:${id}`,
    kind: 'endpoint',
    state: 'online, open, closed',
    restarts: 1,
    last_error: 'boom in count',
    context: { endpoint_id: id, successful_requests: 1 },
  });
  const steps = shown.transitions.map(({ event, from, to }: Record<string, string>) => [event, from, to]);
  expect(steps).toContainEqual(['crashed', 'online, open, closed', null]);
  expect(steps).toContainEqual(['restarted', null, 'online, open, closed']);
  expect(shown.transitions.every(({ at }: { at: string }) => /^\d{4}-.*Z$/.test(at))).toBe(true);
});

test('an endpoint in back-off keeps its status and numbers everywhere, and stays routable', async () => {
  const { house, books, views, tree, clock, actor, timers, crash } = await crashingHouse();
  settle(house.system, books, finished('one', clock.now(), true));
  const before = views.overview() as { endpoints: object[]; stats: object };
  crash();
  expect(actor('endpoint:one')).toBeUndefined();
  const during = views.overview() as { endpoints: object[]; stats: object };
  expect(during.endpoints).toEqual(before.endpoints);
  expect(during.stats).toEqual(before.stats);
  expect(views.endpointModels('one')).toHaveLength(1);
  expect(tree.actor('endpoint:one')).toMatchObject({ status: 'restarting', last_error: 'boom before drain' });
  expect(house.catalogue.candidates('m', 0).map(({ endpointId, status }) => [endpointId, status])).toEqual([
    ['one', 'online'],
    ['two', 'online'],
  ]);
  timers.increment(50);
  expect((views.overview() as { endpoints: object[] }).endpoints).toEqual(before.endpoints);
});

test('what happened while an actor was away is in its seed', async () => {
  const { house, books, roster, clock, actor, timers, crash } = await crashingHouse();
  crash();
  for (const failed of [false, true, false])
    settle(house.system, books, finished('one', clock.now(), failed));
  house.report('one', HEALTHY);
  books.setDraining('one', true);
  expect(roster.facts('one')).toMatchObject({ success: 2, failed: 1, draining: true });
  timers.increment(50);
  expect(actor('endpoint:one')?.getSnapshot().context).toMatchObject({
    success: 2,
    failed: 1,
    draining: true,
  });
  expect(house.roster.status('one')).toBe('draining');
  expect(actor('tps:one:m:chat_completions')?.getSnapshot().context).toMatchObject({ samples: 2, ema: 50 });
});

test('a probe that runs while its endpoint crashes is ended and tells the next actor nothing', async () => {
  const probes: { signal: AbortSignal; answer: (result: CheckResult) => void }[] = [];
  const { actor, timers, pass, crash } = await crashingHouse((_config, _engine, signal) => {
    return new Promise((answer) => {
      if (_config.id === 'one' && signal !== undefined) probes.push({ signal, answer });
    });
  });
  pass(100);
  expect(probes).toHaveLength(1);
  crash();
  expect(probes[0]?.signal.aborted).toBe(true);
  timers.increment(50);
  pass(100);
  expect(probes).toHaveLength(2);
  probes[0]?.answer({ ok: false, reason: 'timeout', error: 'late' });
  await pause(5);
  const snapshot = actor('endpoint:one')?.getSnapshot();
  expect(snapshot.context).toMatchObject({ checking: true, errorCount: 0 });
  expect(snapshot.children['probe:one']?.getSnapshot().status).toBe('active');
  probes[1]?.answer({ ...(HEALTHY as object), latencyMs: 33 } as CheckResult);
  await pause(5);
  expect(actor('endpoint:one')?.getSnapshot().context).toMatchObject({ checking: false, latencyMs: 33 });
});

test.each(['box', 'endpoints'] as const)(
  'a crashed %s ends the actors below it before it starts anew',
  async (kind) => {
    let boom = false;
    const { actor, timers, live, pass } = await startHouse({
      endpoints: ['one'],
      tamper: {
        [kind]: (logic: object) =>
          throwing(logic, kind === 'box' ? 'sample' : 'revive', () => boom, 'before'),
      },
      check: () => new Promise(() => {}),
    });
    pass(100);
    const before = [...live].map(({ id }) => id).sort();
    expect(before).toContain('probe:one');
    const old = ['box:one', 'endpoint:one'].map(actor);
    boom = true;
    actor(kind === 'box' ? 'box:one' : kind)?.send({ type: kind === 'box' ? 'sample' : 'revive', id: '' });
    boom = false;
    expect([...live].map(({ id }) => id).filter((id) => /endpoint:|probe:|box:/.test(id))).toEqual([]);
    timers.increment(100);
    pass(200);
    expect([...live].map(({ id }) => id).sort()).toEqual(before);
    expect(['box:one', 'endpoint:one'].map(actor)).not.toContain(old[0]);
  },
);

test.each([
  ['endpoint', 'endpoint:one', 'drain'],
  ['box', 'box:one', 'sample'],
] as const)(
  'five crashes of one %s within a minute are quarantine, and it is tried after 10, 20, 40 and 60 minutes',
  async (kind, name, event) => {
    let boom = false;
    const { house, actor, books, views, tree, timers, clock, pass } = await startHouse({
      endpoints: ['one', 'two'],
      tamper: { [kind]: (logic: object) => throwing(logic, event, () => boom, 'before') },
    });
    const crash = () => {
      boom = true;
      actor(name)?.send({ type: event, tracker: {} });
      boom = false;
    };
    const { roster } = house;
    const status = () => roster.status('one');
    const fiveCrashes = () => {
      for (let i = 0; i < 5; i += 1) {
        expect(status()).toBe('online');
        crash();
        pass(1700);
      }
    };
    for (const minutes of [10, 20, 40, 60, 60]) {
      fiveCrashes();
      expect(status()).toBe('quarantined');
      expect(actor('box:one')).toBeUndefined();
      expect(tree.actor('box:one')?.status).toBe('quarantined');
      const active = [...Array(4)].map(() => choose(house.catalogue.candidates('m', 0)).chosen?.endpointId);
      expect(active).toEqual(['two', 'two', 'two', 'two']);
      settle(house.system, books, finished('one', clock.now()));
      timers.increment(minutes * MINUTE - 5000);
      expect(status()).toBe('quarantined');
      timers.increment(5000);
      expect(status()).toBe('online');
      expect(actor('endpoint:one')?.getSnapshot().context.success).toBe(roster.facts('one').success);
    }
    expect(roster.facts('one')).toMatchObject({ success: 5, failed: 0 });
    expect(views.stats()).toMatchObject({ total_requests: 5, total_runtimes: 2 });
    expect(roster.entry('two')?.status).toBe('running');
  },
);

test('five crashes in more than a minute are none too many', async () => {
  const { roster, pass, crash } = await crashingHouse();
  for (let i = 0; i < 12; i += 1) {
    crash();
    pass(15_100);
    expect(roster.entry('one')?.status).toBe('running');
  }
});

test('an endpoint that is removed in back-off or in quarantine does not come back', async () => {
  const { house, actor, books, timers, pass, crash } = await crashingHouse();
  crash();
  books.forget('one');
  actor('endpoints')?.send({ type: 'remove', id: 'one' });
  timers.increment(60 * MINUTE);
  pass(200);
  expect(actor('endpoint:one')).toBeUndefined();
  expect(house.catalogue.candidates('m', 0).map(({ endpointId }) => endpointId)).toEqual(['two']);
});

test('an endpoint that is removed or comes while its supervisor is away is known by who is asked', async () => {
  let boom = false;
  const { house, actor, books, tree, timers } = await startHouse({
    endpoints: ['one', 'two'],
    tamper: { endpoints: (logic) => throwing(logic, 'revive', () => boom, 'before') },
  });
  expect(house.catalogue.candidates('m', 0)).toHaveLength(2);
  boom = true;
  actor('endpoints')?.send({ type: 'revive', id: '' });
  boom = false;
  expect(tree.root().children.find(({ id }) => id === 'endpoints')).toMatchObject({
    status: 'restarting',
    children: [{ id: 'box:one' }, { id: 'box:two' }],
  });
  // As whoever removes it does.
  books.forget('one');
  house.catalogue.touch();
  expect(house.catalogue.candidates('m', 0).map(({ endpointId }) => endpointId)).toEqual(['two']);
  const config = { ...(books.config('two') as object), id: 'three', baseUrl: 'http://three' };
  books.seedEndpoint(config as never, books.endpoint('two') as never);
  timers.increment(50);
  expect(house.catalogue.candidates('m', 0).map(({ endpointId }) => endpointId)).toEqual(['two', 'three']);
  expect(actor('endpoint:three')?.getSnapshot().status).toBe('active');
  expect(actor('endpoint:one')).toBeUndefined();
});

test('a quarantined endpoint takes no request, its running one is counted, the others serve', async () => {
  const { server, id, slow, quarantine } = await quarantined();
  const running = server.chat('slow', { stream: true });
  await until(() => slow.active === 1);
  await quarantine();
  const refused = await server.chat('slow');
  expect([refused.status, refused.json.error.code]).toEqual([503, 'no_endpoint_available']);
  expect((await server.chat('sim-small')).status).toBe(200);
  const checks = slow.requests.filter(({ method }) => method === 'GET').length;
  const { text } = await running;
  expect(text).toContain('[DONE]');
  const shown = (await server.get(`/api/endpoints/${id}`)).json;
  expect(shown.status).toBe('quarantined');
  const [one] = (await server.get('/api/dashboard/endpoints')).json.filter(
    (each: { id: string }) => each.id === id,
  );
  expect(one).toMatchObject({ total_requests: 6, successful_requests: 6, active_requests: 0 });
  expect((await server.get(`/api/endpoints/${id}/today-stats`)).json.total_requests).toBe(6);
  expect((await server.get('/api/dashboard/stats')).json).toMatchObject({
    offline_runtimes: 1,
    online_runtimes: 1,
  });
  await pause(500);
  expect(slow.requests.filter(({ method }) => method === 'GET')).toHaveLength(checks);
});

test('a quarantine ends by resume, by a change, by a later try of its own, and by a restart', async () => {
  shorten(10 * MINUTE, 1000);
  const { server, id, quarantine, status } = await quarantined();
  const ends = async (how: () => Promise<unknown>) => {
    await quarantine();
    await how();
    await until(async () => (await status()) === 'online', 5000, 'the end of the quarantine');
    expect((await server.chat('slow', { max_tokens: 1 })).status).toBe(200);
  };
  await ends(async () => expect((await server.send('POST', `/api/endpoints/${id}/resume`)).status).toBe(200));
  await ends(async () =>
    expect((await server.send('PUT', `/api/endpoints/${id}`, { notes: 'x' })).status).toBe(200),
  );
  await ends(async () => {});
  shorten(10 * MINUTE, 10 * MINUTE);
  await quarantine();
  await server.server.stop();
  const again = await startLocal({ dataDir: server.dataDir });
  expect((await again.get(`/api/endpoints/${id}`)).json.status).toBe('online');
  const total = (await again.get('/api/dashboard/stats')).json.total_requests;
  expect(total).toBe(4 * 5 + 3);
});

afterEach(() => {
  vi.restoreAllMocks();
});

test.each([
  ['history', 'finished'],
  ['ledger', 'appended'],
] as const)('a %s that crashed five times is left alone for a minute, each time', async (kind, event) => {
  const { house, actor, timers } = await startHouse({
    tamper: { [kind]: (logic: object) => throwing(logic, event, () => true, 'before') },
  });
  const status = () => house.root.getSnapshot().context.children[kind]?.status;
  for (let round = 0; round < 3; round += 1) {
    for (let i = 0; i < 5; i += 1) {
      expect(status()).toBe('active');
      actor(kind)?.send({ type: event });
      timers.increment(i < 4 ? 1000 : 0);
    }
    expect(status()).toBe('parked');
    timers.increment(MINUTE - 1);
    expect([status(), actor(kind)]).toEqual(['parked', undefined]);
    timers.increment(1);
  }
  expect(house.root.getSnapshot().status).toBe('active');
});

test('a parked history is said to be degraded, its numbers stay exact, and it comes back', async () => {
  shorten(MINUTE, 1500);
  let boom = true;
  const box = await engine();
  const server = await startLocal({
    seams: { tamper: { history: (logic) => throwing(logic, 'finished', () => boom, 'before') } },
  });
  await server.register('box', box.url);
  const parked = await crashUntilParked(server, 'history');
  boom = false;
  expect((await server.get('/ready')).json).toEqual({ status: 'ready', seeded: true, degraded: true });
  await server.chat('sim-small');
  const timeline = async () => (await server.get('/api/dashboard/stats')).json.requests_60m.success;
  expect(await timeline()).toBe(parked + 1);
  await until(async () => (await named(server, 'history'))?.status === 'active', 5000, 'the revival');
  expect(await timeline()).toBe(parked + 1);
  await server.chat('sim-small');
  expect(await timeline()).toBe(parked + 2);
  expect((await server.get('/ready')).json.degraded).toBe(false);
});

test('a parked ledger is said to be degraded, its records wait, and all are written when it is back', async () => {
  shorten(MINUTE, 1500);
  let boom = true;
  const box = await engine();
  const server = await startLocal({
    seams: { tamper: { ledger: (logic) => throwing(logic, 'appended', () => boom, 'before') } },
  });
  await server.register('box', box.url).catch(() => {});
  const parked = await crashUntilParked(server, 'ledger');
  boom = false;
  expect((await server.get('/ready')).json.degraded).toBe(true);
  for (let i = 0; i < 3; i += 1) expect((await server.chat('sim-small')).status).toBe(200);
  const rows = async () => (await server.get('/api/dashboard/request-responses')).json.total_count;
  expect(await rows()).toBe(parked + 3);
  expect((await server.get('/api/dashboard/stats')).json.total_requests).toBe(parked + 3);
  await until(async () => (await named(server, 'ledger'))?.status === 'active', 5000, 'the revival');
  await until(async () => (await waiting(server)) === 0, 5000, 'the records in the store');
  expect((await server.get('/ready')).json.degraded).toBe(false);
  expect(await rows()).toBe(parked + 3);
  await server.server.stop();
  const again = await startLocal({ dataDir: server.dataDir });
  expect((await again.get('/api/dashboard/stats')).json.total_requests).toBe(parked + 3);
  expect((await again.get('/api/dashboard/request-responses')).json.total_count).toBe(parked + 3);
});

test.each(['endpoints', 'ticker'] as const)(
  '%s that crash five times in a minute end the server, which loses nothing',
  async (kind) => {
    let boom = false;
    const fast = await engine();
    const slow = await engine({ models: ['slow'], tokensPerSecond: 20, outputTokens: 40 });
    const server = await startLocal({
      env: { TROUPE_HEALTH_INTERVAL_MS: '60000' },
      seams: {
        tamper: {
          endpoints: (logic) => throwing(logic, 'child.moved', () => boom && kind === 'endpoints', 'before'),
          ticker: (logic) => throwing(logic, TICK, () => boom && kind === 'ticker', 'before'),
        },
      },
    });
    await server.register('fast', fast.url);
    const { id } = await server.register('slow', slow.url);
    for (let i = 0; i < 4; i += 1) await server.chat('sim-small');
    const running = server.chat('slow', { stream: true });
    await until(() => slow.active === 1);
    boom = true;
    let way = 'drain';
    const nudge = setInterval(() => {
      // Each drain and resume moves the endpoint, which its supervisor is told of.
      server.send('POST', `/api/endpoints/${id}/${way}`).catch(() => {});
      way = way === 'drain' ? 'resume' : 'drain';
    }, 50);
    try {
      await until(async () => (await server.get('/ready')).json.status === 'draining', 10_000, 'the end');
    } finally {
      clearInterval(nudge);
    }
    const refused = await server.chat('sim-small');
    expect([refused.status, refused.json.error.code]).toEqual([503, 'shutting_down']);
    const { status, text } = await running;
    expect([status, text.includes('[DONE]')]).toEqual([200, true]);
    expect(await server.server.failed).toBe(1);
    const again = await startLocal({ dataDir: server.dataDir });
    expect((await again.get('/api/dashboard/stats')).json).toMatchObject({
      total_requests: 5,
      successful_requests: 5,
      total_active_requests: 0,
      // The refused one was nobody's attempt, but an error to its client.
      requests_60m: { success: 5, error: 1 },
    });
    expect((await again.get('/api/dashboard/request-responses')).json.total_count).toBe(6);
  },
);

test.each([
  ['endpoints', 'revive'],
  ['ticker', TICK],
] as const)('when %s give up nobody of the house is left', async (kind, event) => {
  const { house, actor, live, pending, timers } = await startHouse({
    endpoints: ['one', 'two'],
    tamper: { [kind]: (logic: object) => throwing(logic, event, () => true, 'before') },
    check: () => new Promise(() => {}),
  });
  for (let crashes = 0; crashes < 5; crashes += 1) {
    expect(house.root.getSnapshot().status).toBe('active');
    actor('endpoint:one')?.send({ type: 'check.due' });
    expect(live.size).toBeGreaterThan(5);
    if (kind === 'endpoints') actor(kind)?.send({ type: event, id: '' });
    else timers.increment(100);
    timers.increment(400);
  }
  expect(house.root.getSnapshot().status).toBe('error');
  expect([...live].map(({ id }) => id)).toEqual([]);
  expect(pending()).toBe(0);
});

test('there is no second copy: without its actor at work a number stands still', async () => {
  const numbers = async (tamper: object) => {
    const { house, books, views, clock, store } = await startHouse({ endpoints: ['one'], tamper });
    for (const failed of [false, false, true])
      settle(house.system, books, finished('one', clock.now(), failed));
    await pause(60);
    const [one] = views.dashboardEndpoints();
    const { success, error } = views.stats().requests_60m as { success: number; error: number };
    const [tps] = views.modelTps('one');
    return {
      counters: [one?.successful_requests, one?.failed_requests],
      timeline: [success, error],
      samples: tps?.request_count,
      rows: store.rows.length,
      waiting: books.pending.rows,
    };
  };
  const whole = { counters: [2, 1], timeline: [2, 1], samples: 2, rows: 3, waiting: 0 };
  expect(await numbers({})).toEqual(whole);
  expect(await numbers(doingNothing('endpoint', 'attempt.settled'))).toEqual({ ...whole, counters: [0, 0] });
  // The first sample is in the seed with which the tracker is spawned.
  expect(await numbers(doingNothing('tps', 'sample'))).toEqual({ ...whole, samples: 1 });
  expect(await numbers(doingNothing('history', 'finished'))).toEqual({ ...whole, timeline: [0, 0] });
  expect(await numbers(doingNothing('ledger', 'appended'))).toEqual({ ...whole, rows: 0, waiting: 3 });
});

/** A house of two endpoints, the first of which crashes on demand. */
async function crashingHouse(check?: HouseOptions['check']) {
  let boom = false;
  const running = await startHouse({
    endpoints: ['one', 'two'],
    tamper: { endpoint: (logic) => throwing(logic, 'drain', () => boom, 'before') },
    ...(check === undefined ? {} : { check }),
  });
  const crash = () => {
    boom = true;
    running.actor('endpoint:one')?.send({ type: 'drain' });
    boom = false;
  };
  return { ...running, roster: running.house.roster, crash };
}

/** A server with two boxes, the slow one of which can be made to crash into quarantine. */
async function quarantined() {
  const fast = await engine();
  const slow = await engine({ models: ['slow'], tokensPerSecond: 20, outputTokens: 60 });
  let victim = '';
  let boom = false;
  const server = await startLocal({
    seams: {
      tamper: {
        endpoint: (logic) => {
          const { transition } = logic;
          return Object.create(logic, {
            transition: {
              value: (...[snapshot, event, scope]: Parameters<typeof transition>) => {
                if (boom && event.type === 'attempt.settled' && snapshot.context.id === victim)
                  throw new Error('boom');
                return transition.call(logic, snapshot, event, scope);
              },
            },
          });
        },
      },
    },
  });
  await server.register('fast', fast.url);
  const { id } = await server.register('slow', slow.url);
  victim = id;
  const status = async () => (await server.get(`/api/endpoints/${id}`)).json.status;
  const quarantine = async () => {
    boom = true;
    for (let i = 0; i < 5; i += 1) {
      expect((await server.chat('slow', { max_tokens: 1 })).status).toBe(200);
      await until(async () => (await named(server, `endpoint:${id}`))?.status !== 'restarting');
    }
    boom = false;
    expect(await status()).toBe('quarantined');
  };
  return { server, id, slow, status, quarantine };
}

/** Requests until the actor is parked; answers how many it took. */
async function crashUntilParked(server: LocalServer, name: string): Promise<number> {
  let sent = 0;
  while ((await named(server, name))?.status !== 'parked') {
    expect((await server.chat('sim-small')).status).toBe(200);
    sent += 1;
    await until(async () => (await named(server, name))?.status !== 'restarting');
    // A ledger that is writing is not told of more.
    await pause(60);
  }
  return sent;
}

async function named(server: Api, id: string): Promise<ActorView | undefined> {
  const { status, json } = await server.get(`/api/dashboard/actors/${encodeURIComponent(id)}`);
  return status === 200 ? json : undefined;
}

async function waiting(server: Api): Promise<unknown> {
  const ledger = await named(server, 'ledger');
  return (ledger?.context as { pending_rows?: number } | undefined)?.pending_rows;
}

/** Lets a long pause of the supervisors pass quickly. */
function shorten(ms: number, to: number): void {
  vi.restoreAllMocks();
  const real = globalThis.setTimeout;
  vi.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, delay?: number, ...rest: []) =>
    real(run, delay === ms ? to : delay, ...rest)) as typeof setTimeout);
}
