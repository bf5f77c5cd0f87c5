import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createActor, fromPromise } from 'xstate';
import { newEndpointSeed } from '../src/actors/books.js';
import { withFastPath } from '../src/actors/fast-path.js';
import {
  afterFailure,
  afterSuccess,
  afterTime,
  type Circuit,
  type CircuitState,
  failureRate,
  freshFailureRate,
  NEW_CIRCUIT,
  worse,
} from '../src/machines/circuit.js';
import {
  afterEvidence,
  type EndpointContext,
  type EndpointEvent,
  type EvidenceEvent,
  endpointMachine,
  nothingLearned,
} from '../src/machines/endpoint.js';

const STATES: CircuitState[] = ['closed', 'open', 'half_open'];
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

type Step = { do: 'success' | 'failure' | 'time'; gap: number; chance: number };

/** Outcomes in words: S a success, F a failure, T the clock is looked at. Some make windows without three F in a row. */
const words = fc.oneof(
  fc.constantFrom('S', 'F', 'T', 'FF', 'FFF', 'FFS', 'FFSFFSFFSF', 'SF', 'SSSSSSSSSS', 'FFSS', 'TS', 'TF'),
  fc.array(fc.constantFrom('S', 'F', 'T'), { maxLength: 4 }).map((list) => list.join('')),
);
const gap = fc.oneof(fc.constant(0), fc.nat(50), fc.nat(1500), fc.nat(40_000));
const steps: fc.Arbitrary<Step[]> = fc.array(words, { maxLength: 25, size: 'max' }).chain((list) => {
  const text = list.join('');
  const per = { minLength: text.length, maxLength: text.length, size: 'max' } as const;
  return fc.tuple(fc.array(gap, per), fc.array(chance, per)).map(([gaps, chances]) =>
    [...text].map((letter, i) => ({
      do: letter === 'S' ? 'success' : letter === 'F' ? 'failure' : 'time',
      gap: gaps[i] as number,
      chance: chances[i] as number,
    })),
  );
});

/** The plain model: the outcomes as a list, and why it opened. */
class Model {
  state: CircuitState = 'closed';
  known: ('S' | 'F')[] = [];
  opened = 0;
  /** Exact, and the range it may lie in. */
  retryAt = 0;
  range: [number, number] = [0, 0];
  failedAt: number | null = null;
  why: 'streak' | 'share' | 'trial' | null = null;

  success(): void {
    if (this.state === 'half_open') Object.assign(this, new Model());
    else if (this.state === 'open') Object.assign(this, { state: 'half_open', retryAt: 0 });
    else this.#know('S');
  }

  failure(now: number, chance: number): void {
    this.#know('F');
    this.failedAt = now;
    if (this.state === 'open') return;
    const failed = this.known.filter((one) => one === 'F').length;
    this.why =
      this.state === 'half_open'
        ? 'trial'
        : this.known.slice(-3).join('') === 'FFF'
          ? 'streak'
          : this.known.length >= 10 && 2 * failed > this.known.length
            ? 'share'
            : null;
    if (this.why === null) return;
    const pause = Math.min(30_000, [1000, 2000, 4000, 8000, 16_000, 30_000][this.opened] ?? 30_000);
    this.state = 'open';
    this.opened += 1;
    this.retryAt = now + pause * (0.8 + 0.4 * chance);
    this.range = [now + 0.8 * pause, now + 1.2 * pause];
  }

  time(now: number): void {
    if (this.state === 'open' && now >= this.retryAt) Object.assign(this, { state: 'half_open', retryAt: 0 });
  }

  get streak(): number {
    return this.known.length - 1 - this.known.lastIndexOf('S');
  }

  #know(outcome: 'S' | 'F'): void {
    this.known = [...this.known, outcome].slice(-20);
  }
}

/** Plays the steps on the circuit and on the model; `each` looks after every step. */
function play(
  list: Step[],
  each: (seen: { before: Circuit; after: Circuit; step: Step; now: number; model: Model }) => void,
): Circuit {
  const model = new Model();
  let circuit = NEW_CIRCUIT;
  let now = 0;
  for (const step of list) {
    now += step.gap;
    const before = circuit;
    const kept = { ...before };
    if (step.do === 'success') {
      circuit = afterSuccess(before);
      model.success();
    } else if (step.do === 'failure') {
      circuit = afterFailure(before, now, step.chance);
      model.failure(now, step.chance);
    } else {
      circuit = afterTime(before, now);
      model.time(now);
    }
    expect(before).toEqual(kept);
    each({ before, after: circuit, step, now, model });
  }
  return circuit;
}

test('a circuit is where a plain list of its outcomes says: three failures in a row, more than half of ten to twenty, a failed trial', () => {
  const ways = { streak: 0, share: 0, trial: 0 };
  let closed = 0;
  fc.assert(
    fc.property(steps, (list) => {
      play(list, ({ before, after, model, now }) => {
        expect(STATES).toContain(after.state);
        expect(after.state).toBe(model.state);
        expect(after.opened).toBe(model.opened);
        expect(after.seen).toBe(model.known.length);
        // Longer ones are told in full, but the window forgets what they began with.
        expect(Math.min(20, after.streak)).toBe(model.streak);
        const failed = model.known.filter((one) => one === 'F').length;
        expect(failureRate(after)).toBe(model.known.length === 0 ? 0 : failed / model.known.length);
        if (after.state !== 'open') expect(after.retryAt).toBe(0);
        else {
          expect(after.retryAt).toBe(model.retryAt);
          if (before.state !== 'open') {
            expect(after.retryAt).toBeGreaterThanOrEqual(model.range[0]);
            expect(after.retryAt).toBeLessThanOrEqual(model.range[1]);
            expect(after.retryAt).toBeGreaterThan(now);
            ways[model.why as 'streak' | 'share' | 'trial'] += 1;
          }
        }
        if (before.state === 'half_open' && after.state === 'closed') closed += 1;
      });
    }),
    { numRuns: 300 },
  );
  for (const count of [...Object.values(ways), closed]) expect(count).toBeGreaterThan(20);
});

test('it moves only closed to open, open to half-open, and half-open to closed by a success or back to open', () => {
  const moves = new Set<string>();
  fc.assert(
    fc.property(steps, (list) => {
      play(list, ({ before, after, step }) => {
        if (before.state !== after.state) moves.add(`${before.state} ${step.do} ${after.state}`);
      });
    }),
    { numRuns: 300 },
  );
  expect([...moves].sort()).toEqual([
    'closed failure open',
    'half_open failure open',
    'half_open success closed',
    'open success half_open',
    'open time half_open',
  ]);
});

test('the clock moves nothing but an open circuit whose pause is over, and that at its very end', () => {
  fc.assert(
    fc.property(steps, fc.nat(100_000), (list, later) => {
      const circuit = play(list, () => {});
      if (circuit.state !== 'open') {
        expect(afterTime(circuit, later)).toBe(circuit);
        return;
      }
      const { retryAt } = circuit;
      const early = retryAt * (1 - Number.EPSILON);
      for (const at of [0, early]) if (at < retryAt) expect(afterTime(circuit, at)).toBe(circuit);
      for (const at of [retryAt, retryAt + later]) {
        expect(afterTime(circuit, at)).toEqual({ ...circuit, state: 'half_open', retryAt: 0 });
      }
    }),
  );
});

test('a pause doubles with each failed trial from one second to thirty, and is spread by a fifth to both sides', () => {
  fc.assert(
    fc.property(fc.array(chance, { minLength: 1, maxLength: 40, size: 'max' }), (chances) => {
      let circuit: Circuit = { ...NEW_CIRCUIT, streak: 2, seen: 2, window: 3 };
      let now = 0;
      for (const [i, one] of chances.entries()) {
        circuit = afterFailure(circuit, now, one);
        expect(circuit).toMatchObject({ state: 'open', opened: i + 1 });
        const middle = i < 5 ? 1000 * 2 ** i : 30_000;
        expect(circuit.retryAt - now).toBeGreaterThanOrEqual(0.8 * middle - 1e-6);
        expect(circuit.retryAt - now).toBeLessThan(1.2 * middle + 1e-6);
        // The chances spread it: 0 is the shortest, the middle is 0.5.
        expect(circuit.retryAt - now).toBeCloseTo(middle + (one - 0.5) * 0.4 * middle, 5);
        now = circuit.retryAt;
        circuit = afterTime(circuit, now);
        expect(circuit.state).toBe('half_open');
      }
      const closed = afterSuccess(circuit);
      expect(closed).toEqual(NEW_CIRCUIT);
      // It has forgotten how often it had opened.
      const again = [0, 0, 0].reduce((one) => afterFailure(one, now, 0.5), closed);
      expect(again).toMatchObject({ state: 'open', opened: 1, retryAt: now + 1000 });
    }),
  );
});

test('its share of failures is weighed from five outcomes on, for ten seconds after the last failure', () => {
  let weighed = 0;
  fc.assert(
    fc.property(steps, fc.oneof(fc.nat(20_000), fc.constantFrom(9999, 10_000)), (list, later) => {
      play(list, ({ after, model, now }) => {
        const { known, failedAt } = model;
        const at = now + later;
        const isFresh = known.length >= 5 && failedAt !== null && at - failedAt < 10_000;
        const failed = known.filter((one) => one === 'F').length;
        expect(freshFailureRate(after, at)).toBe(isFresh ? failed / known.length : 0);
        if (isFresh && failed > 0) weighed += 1;
      });
    }),
  );
  expect(weighed).toBeGreaterThan(100);
});

test('failures while it is open do not make the pause longer', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(100_000), chance), { maxLength: 30 }), (late) => {
      const open = [0, 0, 0].reduce((one) => afterFailure(one, 0, 0.5), NEW_CIRCUIT);
      const after = late.reduce((one, [at, spread]) => afterFailure(one, at, spread), open);
      expect(after).toMatchObject({ state: 'open', opened: 1, retryAt: open.retryAt });
    }),
  );
});

test('successes alone keep it closed and cost nothing once the window is full of them', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 3000 }), (count) => {
      let circuit = NEW_CIRCUIT;
      for (let i = 0; i < count; i += 1) {
        const before = circuit;
        circuit = afterSuccess(circuit);
        expect(circuit.state).toBe('closed');
        expect(circuit === before).toBe(i >= 20);
      }
      expect([circuit.seen, failureRate(circuit)]).toEqual([Math.min(20, count), 0]);
    }),
    { numRuns: 20 },
  );
});

test('with a success between any two failures it never opens, however many there are', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom('SF', 'SF', 'SF', 'S'), { maxLength: 60, size: 'max' }), (list) => {
      let circuit = NEW_CIRCUIT;
      for (const letter of list.join('')) {
        circuit = letter === 'S' ? afterSuccess(circuit) : afterFailure(circuit, 0, 0);
        expect(circuit.state).toBe('closed');
      }
    }),
  );
});

test('the worse of two states is open before half-open before closed', () => {
  const rank = ['closed', 'half_open', 'open'];
  const state = fc.constantFrom(...STATES);
  fc.assert(
    fc.property(state, state, (a, b) => {
      expect(rank.indexOf(worse(a, b))).toBe(Math.max(rank.indexOf(a), rank.indexOf(b)));
    }),
  );
});

// Engines choose these names: some are those of every object.
const modelId = fc.constantFrom('m', 'n:latest', '__proto__', 'constructor');
const sample = fc.record({
  promptBytes: fc.oneof(fc.nat(2000), fc.nat(300_000)),
  stream: fc.boolean(),
  cold: fc.boolean(),
  firstByteMs: fc.double({ min: 0, max: 60_000, noNaN: true }),
  durationMs: fc.double({ min: 0, max: 90_000, noNaN: true }),
  cachedBytes: fc.nat(2000),
  ahead: fc.nat(80),
  beside: fc.double({ min: 0, max: 80, noNaN: true }),
  outputTokens: fc.option(fc.nat(500)),
  mono: fc.constant(0),
});
const what = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom('transport' as const, 'answer' as const) },
  { weight: 2, arbitrary: fc.constant('success' as const) },
  { weight: 1, arbitrary: fc.constant('rest' as const) },
);
/** Its `mono` is made of the gaps when it is played. */
interface Timed {
  gap: number;
  event: EndpointEvent;
}

function timed(ids: fc.Arbitrary<string>): fc.Arbitrary<Timed> {
  const evidence = fc
    .record({
      modelId: ids,
      what,
      chance,
      restMs: fc.option(fc.integer({ min: 1, max: 30_000 })),
      sample: fc.option(sample),
    })
    .map(
      (told): EvidenceEvent => ({
        ...told,
        type: 'evidence',
        mono: 0,
        sample: told.what === 'success' ? told.sample : null,
      }),
    );
  const event = fc.oneof<fc.WeightedArbitrary<EndpointEvent>[]>(
    { weight: 8, arbitrary: evidence },
    {
      weight: 2,
      arbitrary: fc.boolean().map((success) => ({ type: 'attempt.settled', success }) as const),
    },
    { weight: 2, arbitrary: fc.constant({ type: 'circuit.due', mono: 0 }) },
    {
      weight: 1,
      arbitrary: fc.constantFrom<EndpointEvent>(
        { type: 'target.changed', version: 1, newUrl: true },
        { type: 'drain' },
        { type: 'resume' },
      ),
    },
  );
  return fc.record({ gap, event });
}

/** An endpoint's actor of that logic, what it announced, and what it threw. */
function started(wrap: (machine: typeof endpointMachine) => typeof endpointMachine) {
  const announced: string[] = [];
  const machine = endpointMachine.provide({
    actors: { probe: fromPromise<void, { endpointId: string }>(() => new Promise(() => {})) },
    actions: { remember: () => {}, announce: ({ event }) => announced.push(event.type) },
  });
  const actor = createActor(wrap(machine), {
    input: { id: 'e1', seed: { ...newEndpointSeed(), health: 'online' }, nextCheckAt: 0, version: 0 },
  });
  const thrown: unknown[] = [];
  actor.subscribe({ error: (error) => thrown.push(error) });
  actor.start();
  const look = () => {
    const snapshot = actor.getSnapshot();
    const { status, value, context } = snapshot;
    return { status, value, context, members: Object.keys(snapshot).sort() };
  };
  return { actor, announced, thrown, look };
}

/** The same events to an actor of the plain chart and to one of the fast way. */
function sideBySide(list: Timed[], each: (circuit: CircuitState) => void): void {
  const plain = started((machine) => machine);
  const fast = started(withFastPath);
  let mono = 0;
  for (const one of list) {
    mono += one.gap;
    const event = 'mono' in one.event ? { ...one.event, mono } : one.event;
    plain.actor.send(event);
    fast.actor.send(event);
    expect(plain.thrown).toEqual([]);
    expect(fast.look()).toEqual(plain.look());
    expect(fast.announced).toEqual(plain.announced);
    const { value, context } = plain.look();
    // The chart's region and the circuit as data never part.
    expect((value as { circuit: string }).circuit).toBe(context.circuit.state);
    each(context.circuit.state);
  }
  expect(plain.thrown.concat(fast.thrown)).toEqual([]);
  plain.actor.stop();
  fast.actor.stop();
}

test('what is counted and learned the fast way is what the endpoint’s chart makes of it, whatever came before', () => {
  const reached = new Map<string, number>();
  fc.assert(
    fc.property(fc.array(timed(fc.constantFrom('m', 'n:latest')), { maxLength: 40, size: 'max' }), (list) => {
      sideBySide(list, (state) => reached.set(state, (reached.get(state) ?? 0) + 1));
    }),
    { numRuns: 200 },
  );
  for (const state of STATES) expect(reached.get(state)).toBeGreaterThan(20);
});

test('a model may be named like what every object has', () => {
  fc.assert(
    fc.property(fc.array(timed(modelId), { maxLength: 20, size: 'max' }), (list) => {
      sideBySide(list, () => {});
    }),
  );
});

test('a rest that was asked for lasts as long as it was asked for, whatever refusals without a time come meanwhile', () => {
  const start = { ...newEndpointSeed(), ...nothingLearned() } as unknown as EndpointContext;
  const rest = (mono: number, restMs: number | null): EvidenceEvent => {
    return { type: 'evidence', modelId: 'm', what: 'rest', mono, chance: 0.5, restMs, sample: null };
  };
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 30_000 }), fc.array(fc.nat(29_999)), (askedMs, times) => {
      const asked = { ...start, ...afterEvidence(start, rest(0, askedMs)) };
      let context = asked;
      for (const mono of times.sort((a, b) => a - b)) {
        if (mono >= askedMs) break;
        context = { ...context, ...afterEvidence(context, rest(mono, null)) };
        expect(context.resting).toEqual({ m: { until: askedMs, isAsked: true } });
      }
      const later = afterEvidence(context, rest(askedMs, null)).resting;
      expect(later).toEqual({ m: { until: askedMs + 1000, isAsked: false } });
    }),
  );
});
