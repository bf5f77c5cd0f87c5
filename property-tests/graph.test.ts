import { expect, test } from 'vitest';
import {
  type AnyMachineSnapshot,
  type AnyStateMachine,
  type AnyStateNode,
  createActor,
  type InspectionEvent,
} from 'xstate';
import { getShortestPaths } from 'xstate/graph';
import { newEndpointSeed } from '../src/actors/books.js';
import { settle } from '../src/actors/settle.js';
import type { CheckResult } from '../src/engines/check.js';
import { type EndpointEvent, type EndpointInput, endpointMachine } from '../src/machines/endpoint.js';
import { throwing } from '../test/support/faults.js';
import { configOf, finished, HEALTHY, MemoryStore, startHouse } from '../test/support/house.js';
import { pause, until } from '../test/support/server.js';

interface Taken {
  source: AnyStateNode;
  eventType: string;
}

const standalone = endpointMachine.provide({ actions: { announce: () => {} } });
const failure = (reason: 'timeout' | 'key_refused'): CheckResult => ({ ok: false, reason, error: 'no' });
const checked = (result: CheckResult, version = 1): EndpointEvent => ({
  type: 'checked',
  version,
  result,
  probe: true,
  inFlight: 0,
  at: 1,
  nextCheckAt: 1,
});
function evidence(what: 'success' | 'transport' | 'answer' | 'rest'): EndpointEvent {
  return { type: 'evidence', modelId: 'm', what, mono: 1, chance: 0, restMs: 1, sample: null };
}
const EVENTS: EndpointEvent[] = [
  checked(HEALTHY),
  checked(failure('timeout')),
  checked(failure('key_refused')),
  checked(HEALTHY, 0),
  { type: 'check.due' },
  { type: 'check.defer', nextCheckAt: 5 },
  { type: 'attempt.settled', success: true },
  evidence('success'),
  evidence('transport'),
  evidence('answer'),
  evidence('rest'),
  { type: 'circuit.due', mono: 1e9 },
  { type: 'circuit.due', mono: 0 },
  { type: 'drain' },
  { type: 'resume' },
  { type: 'target.changed', version: 1, newUrl: true },
  { type: 'target.changed', version: 1, newUrl: false },
  { type: 'reseed', success: 1, failed: 1 },
];
const inputOf = (seed: object = {}): EndpointInput => ({
  id: 'one',
  seed: { ...newEndpointSeed(), ...seed },
  nextCheckAt: 0,
  version: 1,
});

test('an endpoint can reach each of its states, and from each every event leads to a declared one', () => {
  const paths = getShortestPaths(standalone, {
    events: EVENTS,
    input: inputOf(),
    // Counters and times would make the graph endless; three failures in a row are what opens the circuit.
    serializeState: ({ value, context }) => JSON.stringify([value, Math.min(3, context.circuit.streak)]),
    limit: 10_000,
  });
  const reached = [...new Set(paths.map(({ state }) => JSON.stringify(state.value)))].sort();
  const declared = ['pending', 'online', 'error', 'offline'].flatMap((health) =>
    ['closed', 'open', 'half_open'].flatMap((circuit) =>
      ['open', 'draining'].map((admission) => JSON.stringify({ health, admission, circuit })),
    ),
  );
  expect(reached).toEqual(declared.sort());
  for (const { steps } of paths) {
    for (const event of EVENTS) {
      const endpoint = createActor(standalone, { input: inputOf() }).start();
      for (const step of steps) endpoint.send(step.event as EndpointEvent);
      endpoint.send(event);
      expect(declared).toContain(JSON.stringify(endpoint.getSnapshot().value));
      endpoint.stop();
    }
  }
});

test('every transition of every statechart is taken by somebody', async () => {
  const taken = new Set<string>();
  const inspect = (event: InspectionEvent) => {
    if (event.type !== '@xstate.microstep') return;
    for (const one of (event as unknown as { _transitions: Taken[] })._transitions) taken.add(keyOf(one));
  };
  endpointsAlone(inspect);
  const { machines } = (await troubledLife(inspect)).house;
  await settledLife(inspect);
  for (const [name, machine] of Object.entries(machines)) {
    const missing = transitionsOf(machine).filter((key) => !taken.has(key));
    expect(missing, `transitions of ${name} that nobody took`).toEqual([]);
    expect(transitionsOf(machine).length).toBeGreaterThan(0);
  }
});

/** Each event in each state of the endpoint's chart, from each seed. */
function endpointsAlone(inspect: (event: InspectionEvent) => void): void {
  for (const health of ['pending', 'online', 'error', 'offline'] as const) {
    for (const draining of [true, false]) {
      for (const event of EVENTS) {
        const endpoint = createActor(standalone, { input: inputOf({ health, draining }), inspect }).start();
        expect((endpoint.getSnapshot() as AnyMachineSnapshot).value).toEqual({
          health,
          circuit: 'closed',
          admission: draining ? 'draining' : 'open',
        });
        endpoint.send(event);
        endpoint.stop();
      }
    }
  }
  circuitsAlone(inspect);
}

/** Each event in each state of the circuit. */
function circuitsAlone(inspect: (event: InspectionEvent) => void): void {
  const opened = [evidence('transport'), evidence('transport'), evidence('transport')];
  for (const path of [[], opened, [...opened, { type: 'circuit.due', mono: 1e9 } as EndpointEvent]]) {
    for (const event of EVENTS) {
      const endpoint = createActor(standalone, { input: inputOf(), inspect }).start();
      for (const one of [...path, event]) endpoint.send(one);
      endpoint.stop();
    }
  }
}

/** A house whose store fails at first, whose actors crash, and which is changed, drained and stopped. */
async function troubledLife(inspect: (event: InspectionEvent) => void) {
  const booms = new Set<string>();
  const store = new MemoryStore(['one']);
  store.broken.add('seedSums');
  const running = await startHouse({
    store,
    inspect,
    tamper: {
      endpoint: (logic) => throwing(logic, 'drain', () => booms.has('endpoint'), 'before'),
      tps: (logic) => throwing(logic, 'sample', () => booms.has('tps'), 'before'),
      box: (logic) => throwing(logic, 'trackers', () => booms.has('box'), 'before'),
      history: (logic) => throwing(logic, 'finished', () => booms.has('history'), 'before'),
      ledger: (logic) => throwing(logic, 'appended', () => booms.has('ledger'), 'before'),
    },
  });
  const { house, books, clock, actor, pass, timers } = running;
  const state = (name: string) => JSON.stringify(actor(name)?.getSnapshot().value);
  const request = () => settle(house.system, books, finished('one', clock.now()));
  const reseeded = async (wanted: string) => {
    timers.increment(10_000);
    await until(() => JSON.stringify(house.root.getSnapshot().value) === wanted);
  };
  await reseeded('{"running":"unseeded"}');
  await pause(5);
  store.broken.clear();
  await reseeded('{"running":"whole"}');

  request();
  await until(() => state('ledger') === '"idle"' && books.pending.rows === 0);
  store.broken.add('apply').add('recover');
  request();
  await until(() => state('ledger') === '{"backing off":"waiting"}');
  timers.increment(200);
  await until(() => state('ledger') === '{"backing off":"waiting"}');
  store.broken.clear();
  timers.increment(5000);
  await until(() => books.pending.rows === 0 && state('ledger') === '"idle"');
  // Another record while the batch of the one before is on its way: the next batch follows at once.
  const { apply } = store;
  store.apply = async (block) => {
    if (store.rows.length < 4) request();
    await apply.call(store, block);
  };
  request();
  await until(() => books.pending.rows === 0 && state('ledger') === '"idle"');
  booms.add('ledger').add('history');
  request();
  booms.clear();
  pass(100);
  await until(() => state('ledger') === '"idle"');

  // Two children of a box down at once, then the box itself.
  booms.add('endpoint').add('tps');
  actor('endpoint:one')?.send({ type: 'drain' });
  request();
  booms.clear();
  pass(200);
  // The same, brought back by somebody; then each begins anew while it runs.
  const renew = (...actorIds: string[]) => {
    for (const actorId of actorIds) actor('box:one')?.send({ type: 'renew', actorId });
  };
  booms.add('endpoint').add('tps');
  actor('endpoint:one')?.send({ type: 'drain' });
  request();
  booms.clear();
  renew('endpoint:one', 'tps:one:m:chat_completions', 'endpoint:one');
  pass(200);
  actor('endpoints')?.send({ type: 'renew', id: 'one' });
  house.root.send({ type: 'renew', actorId: 'history' });
  pass(200);
  house.report('one', failure('timeout'));
  house.report('one', HEALTHY);
  booms.add('box');
  actor('box:one')?.send({ type: 'trackers', trackers: [] });
  booms.clear();
  // The third crash of this box's.
  pass(400);
  const endpoints = actor('endpoints');
  books.seedEndpoint(configOf('two'), newEndpointSeed());
  endpoints?.send({ type: 'register', config: configOf('two') });
  endpoints?.send({ type: 'configure', config: configOf('one'), version: 2, newUrl: true, newTarget: true });
  endpoints?.send({ type: 'remove', id: 'two' });
  house.root.send({ type: 'drain' });
  house.root.send({ type: 'stop' });
  expect(house.root.getSnapshot().status).toBe('done');
  return running;
}

/** A house that is seeded at once. */
async function settledLife(inspect: (event: InspectionEvent) => void): Promise<void> {
  const { house, pass } = await startHouse({ endpoints: ['one'], inspect });
  pass(300);
  expect(house.root.getSnapshot().value).toEqual({ running: 'whole' });
}

function transitionsOf(machine: AnyStateMachine): string[] {
  const keys: string[] = [];
  const walk = (node: AnyStateNode) => {
    for (const one of [...node.transitions.values(), node.always ?? []].flat()) keys.push(keyOf(one));
    for (const child of Object.values(node.states) as AnyStateNode[]) walk(child);
  };
  walk(machine.root);
  return [...new Set(keys)];
}

/** A transition by where it is written, so that a chart and its provided twin agree. */
function keyOf(one: Taken): string {
  const { source, eventType } = one;
  const siblings: Taken[] = source.transitions.get(eventType) ?? source.always ?? [];
  return `${source.id} on ${eventType || 'always'} #${siblings.indexOf(one)}`;
}
