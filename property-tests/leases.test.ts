import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Lease, LeaseTable } from '../src/actors/leases.js';

const IDS = ['a', 'b', 'c'];
const MODELS = ['m', 'n'];
const id = fc.constantFrom(...IDS);
const model = fc.constantFrom(...MODELS);

interface Opening {
  id: string;
  modelId: string;
  trial: boolean;
  allowanceMs: number;
  /** It ends in the abort, or in the move, itself; others later or never. */
  closes: boolean;
  /** Where a request that is moved goes on, in the same step; null: it waits, or is over. */
  elsewhere: string | null;
}

type Step = { gap: number } & (
  | ({ do: 'open' } & Opening)
  // `lag`: bytes are noted by a clock that runs in ticks.
  | { do: 'answered'; back: number }
  | { do: 'touch'; back: number; lag: number }
  | { do: 'close'; back: number }
  | { do: 'abort'; id: string }
  | { do: 'move'; id: string; modelId: string | undefined }
  | { do: 'rename'; from: string; to: string }
);

/** `back` counts from the newest lease, closed or not. Time does not stand still: no two requests are sent at once. */
const gap = fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 400 }));
const back = fc.nat(8);
const opening = fc.record({
  do: fc.constant('open' as const),
  gap,
  id,
  modelId: model,
  trial: fc.boolean(),
  allowanceMs: fc.oneof(fc.nat(20), fc.nat(300)),
  closes: fc.boolean(),
  elsewhere: fc.option(id),
});
const others = [
  { weight: 3, arbitrary: fc.record({ do: fc.constant('answered' as const), gap, back }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('touch' as const), gap, back, lag: fc.nat(40) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('close' as const), gap, back }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('abort' as const), gap, id }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('move' as const),
      gap,
      id,
      modelId: fc.option(model, { nil: undefined }),
    }),
  },
] satisfies fc.WeightedArbitrary<Step>[];
/** A provisional endpoint becomes a stored one, which nobody had asked yet or somebody had. */
const renaming = fc
  .record({ do: fc.constant('rename' as const), gap, from: id, to: id })
  .filter(({ from, to }) => from !== to);
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof({ weight: 5, arbitrary: opening }, ...(others as fc.WeightedArbitrary<Step>[]), {
    weight: 1,
    arbitrary: renaming,
  }),
  { maxLength: 60, size: 'max' },
);

interface Known extends Opening {
  /** Its place in the order of opening. */
  n: number;
  lease: Lease;
  at: string;
  open: boolean;
  waits: boolean;
  sentAt: number;
}

/** The table, and beside it a plain list of all leases there ever were and of all bytes by endpoint. */
class World {
  readonly table = new LeaseTable(() => 0);
  readonly leases: Known[] = [];
  bytes: { at: string; time: number }[] = [];
  /** Who was aborted and moved by the step that runs. */
  aborted: Known[] = [];
  moved: { one: Known; reason: string }[] = [];
  now = 0;

  play(list: Step[], each: (step: Step) => void): void {
    for (const step of list) {
      this.now += step.gap;
      this.#run(step);
      each(step);
    }
  }

  at(endpointId: string): Known[] {
    return this.leases.filter((one) => one.open && one.at === endpointId);
  }

  isHung(endpointId: string, now: number): boolean {
    const [oldest] = this.at(endpointId)
      .filter(({ waits }) => waits)
      .sort((a, b) => a.sentAt - b.sentAt);
    if (oldest === undefined) return false;
    const times = this.bytes.filter(({ at }) => at === endpointId).map(({ time }) => time);
    return now - Math.max(oldest.sentAt, ...times) > oldest.allowanceMs;
  }

  close(one: Known): void {
    one.lease.close();
    one.open = false;
    one.waits = false;
    // What an endpoint had sent is forgotten with its last request.
    if (this.at(one.at).length === 0) this.bytes = this.bytes.filter(({ at }) => at !== one.at);
  }

  #run(step: Step): void {
    this.aborted = [];
    this.moved = [];
    switch (step.do) {
      case 'open':
        this.#open(step);
        break;
      case 'answered': {
        const one = this.leases.at(-1 - step.back);
        if (one?.open !== true || !one.waits) break;
        one.lease.answered(this.now);
        one.waits = false;
        this.bytes.push({ at: one.at, time: this.now });
        break;
      }
      case 'touch': {
        const one = this.leases.at(-1 - step.back);
        if (one?.open !== true || one.waits) break;
        one.lease.touch(this.now - step.lag);
        this.bytes.push({ at: one.at, time: this.now - step.lag });
        break;
      }
      case 'close': {
        const one = this.leases.at(-1 - step.back);
        if (one !== undefined) this.close(one);
        break;
      }
      case 'abort':
        this.table.abortAll(step.id);
        break;
      case 'move':
        this.table.moveWaiting(step.id, 'it is ill', step.modelId);
        break;
      case 'rename':
        this.table.rename(step.from, step.to);
        for (const one of this.leases) if (one.at === step.from) one.at = step.to;
        for (const one of this.bytes) if (one.at === step.from) one.at = step.to;
    }
  }

  #open(how: Opening): void {
    const { id: endpointId, modelId, trial, allowanceMs } = how;
    const one: Known = {
      ...how,
      n: this.leases.length,
      lease: undefined as unknown as Lease,
      at: endpointId,
      open: true,
      waits: true,
      sentAt: this.now,
    };
    this.leases.push(one);
    one.lease = this.table.open({
      endpointId,
      modelId,
      trial,
      sentAt: this.now,
      allowanceMs,
      expectedMs: null,
      stream: true,
      abort: () => {
        this.aborted.push(one);
        if (one.closes) this.close(one);
      },
      move: (reason) => {
        this.moved.push({ one, reason });
        if (!one.closes) return;
        this.close(one);
        // Its next lease is taken before the next of the others is moved.
        this.now += 1;
        if (one.elsewhere !== null) this.#open({ ...how, id: one.elsewhere, elsewhere: null });
      },
    });
  }
}

test('any order of opening, closing twice, answering, aborting, moving and renaming counts right and returns to zero', () => {
  let trials = 0;
  fc.assert(
    fc.property(steps, (list) => {
      const world = new World();
      const { table } = world;
      world.play(list, () => {
        expect(table.total).toBe(world.leases.filter(({ open }) => open).length);
        for (const name of IDS) {
          expect(table.count(name)).toBe(world.at(name).length);
          expect(table.standing(name).trials > 0).toBe(world.at(name).some(({ trial }) => trial));
          if (table.standing(name).trials > 0) trials += 1;
        }
      });
      for (let round = 0; round < 2; round += 1) for (const one of world.leases) world.close(one);
      expect(table.total).toBe(0);
      const left = IDS.map((name) => [
        table.count(name),
        table.standing(name).trials > 0,
        table.isHung(name, 1e9),
      ]);
      expect(left).toEqual(IDS.map(() => [0, false, false]));
    }),
    { numRuns: 300 },
  );
  expect(trials).toBeGreaterThan(20);
});

test('an abort reaches all of an endpoint, a move exactly those without a byte, of one model where one is named', () => {
  let moved = 0;
  let spared = 0;
  fc.assert(
    fc.property(steps, (list) => {
      const world = new World();
      let before: Known[] = [];
      world.play(list, (step) => {
        const there = before.filter(({ open, at }) => open && 'id' in step && at === step.id);
        const waiting = there.filter(
          ({ waits, modelId }) =>
            waits && step.do === 'move' && (step.modelId === undefined || step.modelId === modelId),
        );
        // Renamed ones may stand in another order.
        const order = (of: Known[]) => of.map(({ n }) => n).sort((a, b) => a - b);
        expect(order(world.aborted)).toEqual(step.do === 'abort' ? order(there) : []);
        const reached = order(world.moved.map(({ one }) => one));
        expect(reached).toEqual(order(waiting));
        for (const { reason } of world.moved) expect(reason).toBe('it is ill');
        moved += reached.length;
        if (step.do === 'move') spared += there.length - reached.length;
        before = world.leases.map((one) => ({ ...one }));
      });
    }),
    { numRuns: 300 },
  );
  expect(moved).toBeGreaterThan(50);
  expect(spared).toBeGreaterThan(50);
});

/** Checks at some times around each step whether each endpoint is hung; answers how often one was. */
function expectHungAsTold(list: Step[]): number {
  const world = new World();
  let hung = 0;
  world.play(list, () => {
    const looks = IDS.flatMap((name) =>
      [0, 1, 15, 300, 1e6].map((later) => ({ name, at: world.now + later })),
    );
    const told = looks.map(({ name, at }) => ({ name, at, hung: world.table.isHung(name, at) }));
    expect(told).toEqual(looks.map(({ name, at }) => ({ name, at, hung: world.isHung(name, at) })));
    hung += told.filter((one) => one.hung).length;
  });
  return hung;
}

test('an endpoint is hung exactly while it has sent nothing for longer than its oldest request without a byte may wait', () => {
  let hung = 0;
  fc.assert(
    fc.property(steps, (list) => {
      const still = list.filter((step) => step.do !== 'rename');
      // A byte is noted when it comes.
      hung += expectHungAsTold(still.map((step) => (step.do === 'touch' ? { ...step, lag: 0 } : step)));
    }),
  );
  expect(hung).toBeGreaterThan(100);
});

test('a byte that is noted by a clock a little behind takes nothing back', () => {
  const few = fc.nat(2);
  const soon = fc.integer({ min: 1, max: 9 });
  const busy: fc.Arbitrary<Step[]> = fc.array(
    fc.oneof(
      opening.map((one) => ({ ...one, id: 'a', gap: 1 })),
      fc.record({ do: fc.constant('answered' as const), gap: soon, back: few }),
      fc.record({ do: fc.constant('touch' as const), gap: soon, back: few, lag: fc.nat(40) }),
    ),
    { maxLength: 20, size: 'max' },
  );
  let hung = 0;
  fc.assert(
    fc.property(busy, (list) => {
      hung += expectHungAsTold(list);
    }),
    { numRuns: 500 },
  );
  expect(hung).toBeGreaterThan(100);
});

test('it is hung or not the same under its stored id, the bytes that come after the renaming included', () => {
  fc.assert(
    fc.property(steps, (list) => {
      expectHungAsTold(list.map((step) => (step.do === 'touch' ? { ...step, lag: 0 } : step)));
    }),
  );
});
