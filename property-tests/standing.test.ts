import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Lease, type LeaseOptions, LeaseTable } from '../src/actors/leases.js';

const IDS = ['a', 'b', 'c'];
const MODELS = ['m', 'n'];
const id = fc.constantFrom(...IDS);
const gap = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 500 }));
/** Counts from the newest lease, closed or not. */
const back = fc.nat(8);

type Step = { gap: number } & (
  | { do: 'open'; id: string; modelId: string; stream: boolean; expectedMs: number | null }
  | { do: 'answered' | 'touch' | 'close'; back: number }
  | { do: 'forget'; id: string }
  | { do: 'rename'; from: string; to: string }
);

const renaming = fc
  .record({ do: fc.constant('rename' as const), gap, from: id, to: id })
  .filter(({ from, to }) => from !== to);
const stepOf = (renames: boolean): fc.Arbitrary<Step> =>
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant('open' as const),
        gap,
        id,
        modelId: fc.constantFrom(...MODELS),
        stream: fc.boolean(),
        expectedMs: fc.option(fc.nat(300)),
      }),
    },
    {
      weight: 9,
      arbitrary: fc.record({
        do: fc.constantFrom('answered' as const, 'touch' as const, 'close' as const),
        gap,
        back,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('forget' as const), gap, id }) },
    ...(renames ? [{ weight: 1, arbitrary: renaming }] : []),
  );
const steps = (renames: boolean) => fc.array(stepOf(renames), { maxLength: 60, size: 'max' });

interface Known {
  options: LeaseOptions;
  lease: Lease;
  at: string;
  ahead: number;
  openedAt: number;
  answeredAt: number | null;
  closedAt: number | null;
}

/** The table, and beside it a plain list of all leases there ever were. */
class World {
  now = 0;
  readonly table = new LeaseTable(() => this.now);
  readonly leases: Known[] = [];

  play(list: Step[], each: () => void): void {
    for (const step of list) {
      this.now += step.gap;
      this.#run(step);
      each();
    }
  }

  at(endpointId: string): Known[] {
    return this.leases.filter(({ at, closedAt }) => at === endpointId && closedAt === null);
  }

  /** Those without a byte, in the order in which they were sent. */
  waitingAt(endpointId: string): Known[] {
    return this.at(endpointId)
      .filter(({ answeredAt }) => answeredAt === null)
      .sort((a, b) => a.openedAt - b.openedAt);
  }

  /** How many others there were on average since a stream's first byte, or since it was sent, moment by moment. */
  beside(one: Known): number {
    const since = one.options.stream && one.answeredAt !== null ? one.answeredAt : one.openedAt;
    if (this.now === since) return one.ahead;
    const together = this.leases
      .filter((other) => other !== one && other.at === one.at)
      .map(({ openedAt, closedAt }) =>
        Math.max(0, Math.min(closedAt ?? this.now, this.now) - Math.max(openedAt, since)),
      );
    return together.reduce((sum, ms) => sum + ms, 0) / (this.now - since);
  }

  #run(step: Step): void {
    if (step.do === 'open') this.#open(step);
    else if (step.do === 'forget') this.table.forget(step.id);
    else if (step.do === 'rename') {
      this.table.rename(step.from, step.to);
      for (const one of this.leases) if (one.at === step.from && one.closedAt === null) one.at = step.to;
    } else this.#move(step.do, this.leases.at(-1 - step.back));
  }

  #move(what: 'answered' | 'touch' | 'close', one: Known | undefined): void {
    if (one === undefined) return;
    if (what === 'close') {
      one.lease.close();
      one.closedAt ??= this.now;
    } else if (one.closedAt === null && what === 'answered') {
      one.lease.answered(this.now);
      one.answeredAt ??= this.now;
    } else if (one.closedAt === null && one.answeredAt !== null) one.lease.touch(this.now);
  }

  #open({ id: endpointId, modelId, stream, expectedMs }: Step & { do: 'open' }): void {
    const ahead = this.at(endpointId).length;
    const options: LeaseOptions = {
      endpointId,
      modelId,
      trial: false,
      stream,
      sentAt: this.now,
      allowanceMs: 1e9,
      expectedMs,
      abort: () => {},
      move: () => {},
    };
    const lease = this.table.open(options);
    this.leases.push({
      options,
      lease,
      at: endpointId,
      ahead,
      openedAt: this.now,
      answeredAt: null,
      closedAt: null,
    });
    expect(lease.ahead).toBe(ahead);
  }
}

test('who was there before, and how many were beside it on average, is as a plain list of all that was in flight says', () => {
  let compared = 0;
  fc.assert(
    fc.property(steps(false), (list) => {
      const world = new World();
      world.play(list, () => {
        for (const one of world.leases) {
          if (one.closedAt !== null) continue;
          expect(one.lease.beside(world.now)).toBeCloseTo(world.beside(one), 6);
          compared += 1;
        }
      });
    }),
    { numRuns: 500 },
  );
  expect(compared).toBeGreaterThan(10_000);
});

test('the oldest without a byte, how long it is overdue and what is in flight of each model are as that list says', () => {
  const seen = { overdue: 0, nobody: 0, both: 0 };
  fc.assert(
    fc.property(steps(true), (list) => {
      const world = new World();
      const { table } = world;
      world.play(list, () => {
        for (const name of IDS) {
          const standing = table.standing(name);
          const there = world.at(name);
          const waiting = world.waitingAt(name);
          const [oldest] = waiting;
          expect(table.count(name)).toBe(there.length);
          expect([...standing.waiting].map(({ sentAt }) => sentAt)).toEqual(
            waiting.map(({ openedAt }) => openedAt),
          );
          expect(standing.oldest?.sentAt).toBe(oldest?.openedAt);
          const overdue = overdueAt(standing.oldest, world.now);
          expect(standing.overdueMs(world.now)).toBe(overdue);
          for (const modelId of MODELS) {
            const own = there.filter(({ options }) => options.modelId === modelId);
            expect(standing.activeOf(modelId)).toBe(own.length);
            const first = waiting.find(({ options }) => options.modelId === modelId);
            expect(standing.waitingSince(modelId)).toBe(first?.openedAt ?? null);
          }
          if (overdue > 0) seen.overdue += 1;
          if (oldest === undefined) seen.nobody += 1;
          if (MODELS.every((modelId) => standing.activeOf(modelId) > 0)) seen.both += 1;
        }
        expect(table.total).toBe(world.leases.filter(({ closedAt }) => closedAt === null).length);
      });
    }),
    { numRuns: 300 },
  );
  for (const times of Object.values(seen)) expect(times).toBeGreaterThan(500);
});

function overdueAt(oldest: LeaseOptions | undefined, now: number): number {
  if (oldest === undefined || oldest.expectedMs === null) return 0;
  return Math.max(0, now - oldest.sentAt - oldest.expectedMs);
}

test('a forgotten endpoint counts what is in flight there to its end, and whoever comes after that begins anew', () => {
  let now = 0;
  const table = new LeaseTable(() => now);
  const open = () =>
    table.open({
      endpointId: 'a',
      modelId: 'm',
      trial: true,
      stream: true,
      sentAt: now,
      allowanceMs: 1,
      expectedMs: null,
      abort: () => {},
      move: () => {},
    });
  const first = open();
  const before = table.standing('a');
  table.forget('a');
  now = 100;
  expect([table.count('a'), table.total, first.beside(now)]).toEqual([1, 1, 0]);
  first.close();
  first.close();
  expect([table.count('a'), table.total, before.active]).toEqual([0, 0, 0]);
  now = 200;
  const second = open();
  now = 300;
  expect(table.standing('a')).not.toBe(before);
  expect([second.ahead, second.beside(now), table.count('a')]).toEqual([0, 0, 1]);
});
