import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Actor, createActor, fromPromise } from 'xstate';
import { newEndpointSeed } from '../src/actors/books.js';
import type { CheckResult } from '../src/engines/check.js';
import { endpointMachine, endpointState } from '../src/machines/endpoint.js';

type Health = 'pending' | 'online' | 'error' | 'offline';

/** What the contract says of an endpoint, without a statechart. */
interface Model {
  health: Health;
  draining: boolean;
  success: number;
  failed: number;
  latencyMs: number | null;
  errorCount: number;
  lastSeen: number | null;
  version: number;
  clock: number;
}

interface Real {
  endpoint: Actor<typeof endpointMachine>;
  remembered: string[];
}

type Command = fc.Command<Model, Real>;

/** The table of the contract: what a result makes of a health. */
function healthAfter({ health, draining }: Model, result: CheckResult): Health {
  if (result.ok) return draining ? health : 'online';
  if (health === 'online') return 'error';
  if (result.reason === 'key_refused') return 'error';
  return 'offline';
}

function command(name: string, run: (model: Model, real: Real) => void): Command {
  return {
    check: () => true,
    toString: () => name,
    run(model, real) {
      const before = model.latencyMs;
      run(model, real);
      agree(model, real, before);
    },
  };
}

const check = (result: CheckResult, probe: boolean, stale: boolean) =>
  command(
    `check(${JSON.stringify(result)}, probe ${probe}, stale ${stale})`,
    (model, { endpoint, remembered }) => {
      model.clock += 1;
      const version = stale ? model.version - 1 : model.version;
      const said = remembered.length;
      endpoint.send({
        type: 'checked',
        version,
        result,
        probe,
        inFlight: 0,
        at: model.clock,
        nextCheckAt: model.clock + 10,
      });
      if (stale) {
        expect(remembered).toHaveLength(said);
        return;
      }
      model.health = healthAfter(model, result);
      if (result.ok) {
        Object.assign(model, { latencyMs: result.latencyMs, lastSeen: model.clock, errorCount: 0 });
      } else model.errorCount += 1;
      expect(remembered).toHaveLength(said + 1);
      // What the books get is the state after the result.
      expect(remembered[said]).toBe(model.health);
    },
  );

const settled = (success: boolean) =>
  command(`settled(${success})`, (model, { endpoint }) => {
    endpoint.send({ type: 'attempt.settled', success });
    if (success) model.success += 1;
    else model.failed += 1;
  });

const admission = (type: 'drain' | 'resume') =>
  command(type, (model, { endpoint }) => {
    endpoint.send({ type });
    model.draining = type === 'drain';
    if (type === 'resume') expect(endpoint.getSnapshot().value).toMatchObject({ admission: 'open' });
  });

const target = (newUrl: boolean) =>
  command(`target(new url ${newUrl})`, (model, { endpoint }) => {
    model.version += 1;
    endpoint.send({ type: 'target.changed', version: model.version, newUrl });
    if (newUrl) Object.assign(model, { health: 'pending', errorCount: 0 });
    const { checking, nextCheckAt, engineType } = endpoint.getSnapshot().context;
    expect([checking, nextCheckAt]).toEqual([false, 0]);
    if (newUrl) expect(engineType).toBeNull();
  });

const due = () =>
  command('due', (_model, { endpoint }) => {
    endpoint.send({ type: 'check.due' });
    expect(endpoint.getSnapshot().context.checking).toBe(true);
  });

const reseed = (success: number, failed: number) =>
  command(`reseed(${success}, ${failed})`, (model, { endpoint }) => {
    endpoint.send({ type: 'reseed', success, failed });
    Object.assign(model, { success, failed });
  });

function agree(model: Model, { endpoint }: Real, latencyBefore: number | null): void {
  const snapshot = endpoint.getSnapshot();
  const { context } = snapshot;
  expect(snapshot.status).toBe('active');
  expect(snapshot.value).toEqual({
    health: model.health,
    circuit: 'closed',
    admission: model.draining ? 'draining' : 'open',
  });
  expect(endpointState(context)).toBe(`${model.health}, ${model.draining ? 'draining' : 'open'}, closed`);
  const { health, draining, success, failed, latencyMs, errorCount, lastSeen, version } = model;
  expect(context).toMatchObject({
    health,
    draining,
    success,
    failed,
    latencyMs,
    errorCount,
    lastSeen,
    version,
  });
  if (latencyBefore !== null) expect(context.latencyMs).not.toBeNull();
  // One probe at most, and exactly while it checks.
  expect(Object.keys(snapshot.children)).toEqual(context.checking ? ['probe:e1'] : []);
}

const result: fc.Arbitrary<CheckResult> = fc.oneof(
  fc.record({
    ok: fc.constant(true as const),
    latencyMs: fc.nat(5000),
    engineType: fc.constantFrom('ollama' as const, 'vllm' as const),
    models: fc.array(
      fc.record({
        modelId: fc.constantFrom('a', 'b'),
        capabilities: fc.constant(null),
        maxTokens: fc.constant(null),
      }),
      { maxLength: 2 },
    ),
    loaded: fc.constant(null),
    load: fc.constant(null),
  }),
  fc.record({
    ok: fc.constant(false as const),
    reason: fc.constantFrom(
      'unreachable' as const,
      'timeout' as const,
      'key_refused' as const,
      'server_error' as const,
      'not_recognised' as const,
      'bad_answer' as const,
    ),
    error: fc.constant('no'),
  }),
);

const commands = fc.commands(
  [
    fc.tuple(result, fc.boolean()).map(([one, probe]) => check(one, probe, false)),
    fc.tuple(result, fc.boolean()).map(([one, probe]) => check(one, probe, true)),
    fc.boolean().map(settled),
    fc.constantFrom(...(['drain', 'resume'] as const)).map(admission),
    fc.boolean().map(target),
    fc.constant(due()),
    fc.tuple(fc.nat(99), fc.nat(99)).map(([success, failed]) => reseed(success, failed)),
  ],
  { maxCommands: 60 },
);
const start = fc.record({
  health: fc.constantFrom<Health>('pending', 'online', 'error', 'offline'),
  draining: fc.boolean(),
  success: fc.nat(99),
  failed: fc.nat(99),
  latencyMs: fc.option(fc.nat(5000)),
  errorCount: fc.nat(9),
  lastSeen: fc.option(fc.nat(99)),
});

test('an endpoint does what the contract says, whatever happens to it in whatever order', () => {
  fc.assert(
    fc.property(start, commands, (seed, steps) => {
      const remembered: string[] = [];
      const machine = endpointMachine.provide({
        actors: { probe: fromPromise<void, { endpointId: string }>(() => new Promise(() => {})) },
        actions: {
          remember: ({ context }) => {
            remembered.push(context.health);
          },
          announce: () => {},
        },
      });
      const endpoint = createActor(machine, {
        input: { id: 'e1', seed: { ...newEndpointSeed(), ...seed }, nextCheckAt: 0, version: 7 },
      }).start();
      const model: Model = { ...seed, version: 7, clock: 100 };
      agree(model, { endpoint, remembered }, seed.latencyMs);
      fc.modelRun(() => ({ model, real: { endpoint, remembered } }), steps);
      endpoint.stop();
    }),
    { numRuns: 300 },
  );
});
