import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Candidate, loadOf } from '../src/machines/candidate.js';
import { type Choice, choose as chooseFor, judge, PLAINLY } from '../src/machines/choose.js';
import { NO_DEMAND } from '../src/machines/demand.js';
import { forecastOf, type Outlook } from '../src/machines/outlook.js';
import { totalMs } from '../src/machines/speed.js';
import { PLAIN } from './support/candidates.js';
import { type Fleet, fleets, holds, isOut as isExcluded, waitAt } from './support/fleets.js';

const choose = (all: Candidate[], random: () => number, tried: ReadonlySet<string> = new Set()) =>
  chooseFor(all, NO_DEMAND, { ...PLAINLY, random, tried });

const STATUSES = ['pending', 'online', 'offline', 'error', 'draining', 'quarantined'] as const;

const candidates: fc.Arbitrary<Candidate[]> = fc
  .array(fc.record({ status: fc.constantFrom(...STATUSES), active: fc.nat(4) }), { maxLength: 12 })
  .map((list) => list.map((one, i) => ({ ...PLAIN, ...one, endpointId: `e${i}` })));
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const chances = fc.array(chance, { minLength: 20, maxLength: 20 });

const drawing = (list: number[]) => {
  let drawn = 0;
  return () => list[drawn++ % list.length] as number;
};

test('it takes one of the least busy online ones; one in error only where nobody is online; else nobody', () => {
  fc.assert(
    fc.property(candidates, chances, (all, list) => {
      const { chosen } = choose(all, drawing(list));
      const online = all.filter(({ status }) => status === 'online');
      const able = online.length > 0 ? online : all.filter(({ status }) => status === 'error');
      if (able.length === 0) expect(chosen).toBeUndefined();
      else {
        expect(able).toContain(chosen);
        expect(chosen?.active).toBe(Math.min(...able.map(({ active }) => active)));
      }
    }),
  );
});

test('the order of the list decides nothing about who can be taken', () => {
  fc.assert(
    fc.property(candidates, chances, (all, list) => {
      const { chosen } = choose(all, drawing(list));
      const { chosen: other } = choose([...all].reverse(), drawing(list));
      expect([other?.status, other?.active]).toEqual([chosen?.status, chosen?.active]);
    }),
  );
});

test('ties are fair: each of n equals is taken about once in n times', () => {
  const ROUNDS = 20_000;
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 8 }), fc.integer({ min: 1, max: 2 ** 31 - 1 }), (ties, seed) => {
      const all = Array.from({ length: ties }, (_, i) => ({ ...PLAIN, endpointId: `e${i}`, active: 1 }));
      const random = seeded(seed);
      const taken = new Map<string, number>();
      for (let i = 0; i < ROUNDS; i += 1) {
        const id = choose(all, random).chosen?.endpointId as string;
        taken.set(id, (taken.get(id) ?? 0) + 1);
      }
      const fair = ROUNDS / ties;
      // Seven standard deviations.
      const off = 7 * Math.sqrt(fair * (1 - 1 / ties));
      for (const { endpointId } of all)
        expect(Math.abs((taken.get(endpointId) ?? 0) - fair)).toBeLessThan(off);
    }),
    { numRuns: 15 },
  );
});

const rarely = fc.nat(3).map((n) => n === 0);

/** Everything that the chooser looks at; small numbers, so that ties, full ones and trials are common. */
const anyone: fc.Arbitrary<Omit<Candidate, 'endpointId' | 'modelId'>> = fc.record({
  status: fc.oneof(
    { weight: 6, arbitrary: fc.constant('online' as const) },
    { weight: 3, arbitrary: fc.constant('error' as const) },
    { weight: 1, arbitrary: fc.constantFrom(...STATUSES) },
  ),
  active: fc.nat(3),
  room: fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.nat(2)),
  foreign: fc.constant(0),
  // Weights, priorities, rates and turns have laws of their own, in policies.test.ts.
  weight: fc.constant(1),
  priority: fc.constant(0),
  maxContext: fc.constant(null),
  tps: fc.constant(null),
  turn: fc.constant(0),
  speed: fc.constant(PLAIN.speed),
  glance: fc.constant(PLAIN.glance),
  cold: fc.constant(false),
  displaces: fc.constant(false),
  loadingMs: fc.constant(0),
  overdueMs: fc.constant(0),
  circuit: fc.oneof(
    { weight: 3, arbitrary: fc.constant('closed' as const) },
    { weight: 2, arbitrary: fc.constantFrom('open' as const, 'half_open' as const) },
  ),
  onTrial: rarely,
  freshFailureRate: fc.constantFrom(0, 0, 0.2, 1),
  failureRate: fc.constantFrom(0, 0.1, 0.5, 1),
  proven: fc.boolean(),
  restMs: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(500) }),
  restIsAsked: fc.boolean(),
  hung: rarely,
});

interface Case {
  all: Candidate[];
  tried: Set<string>;
}

/** Half of the runs give all the same health, so that those who differ in nothing else meet. */
const cases: fc.Arbitrary<Case> = fc
  .tuple(
    fc.array(fc.tuple(anyone, rarely), { maxLength: 6, size: 'max' }),
    fc.oneof(
      { weight: 1, arbitrary: fc.constant({}) },
      { weight: 1, arbitrary: fc.constantFrom<Partial<Candidate>>(...shared()) },
    ),
    fc.boolean(),
  )
  .map(([list, same, isRetry]) => ({
    all: list.map(([one], i) => ({ endpointId: `e${i}`, modelId: 'm', ...one, ...same })),
    tried: new Set(list.flatMap(([, tried], i) => (tried && isRetry ? [`e${i}`] : []))),
  }));

function shared(): Partial<Candidate>[] {
  const well = { status: 'online', restMs: 0 } as const;
  return [
    { ...well, circuit: 'closed', hung: false },
    { ...well, circuit: 'open' },
    { ...well, circuit: 'half_open' },
    { circuit: 'half_open', onTrial: false, restMs: 0 },
    { ...well, circuit: 'closed', hung: true },
    { status: 'online', restMs: 100, restIsAsked: false },
    { status: 'error', circuit: 'closed', restMs: 0 },
  ];
}

/** What the request may not go to, whoever else there is. */
function isOut(one: Candidate, tried: ReadonlySet<string>): boolean {
  const { endpointId, status, restMs, restIsAsked } = one;
  if (tried.has(endpointId) || !['online', 'error'].includes(status)) return true;
  return restMs > 0 && (restIsAsked || tried.size > 0);
}

function isFull({ room }: Candidate): boolean {
  return room <= 0;
}

/** A half-open one that may have its trial now. */
function isTrial(one: Candidate): boolean {
  return isUntried(one) && !isFull(one) && one.restMs === 0;
}

const isUntried = ({ circuit, onTrial }: Candidate) => circuit === 'half_open' && !onTrial;

/** Neither behind a circuit nor better left alone. */
const serves = ({ circuit, restMs }: Candidate) => circuit === 'closed' && restMs === 0;
const rests = ({ circuit, restMs }: Candidate) => circuit === 'closed' && restMs > 0;
const isHealthy = (one: Candidate) => serves(one) && !one.hung && one.status === 'online';

/** Those that are best in the order healthy, hung, in error, hung and in error, resting, behind a circuit: full ones too. */
function bestOf(able: Candidate[]): Candidate[] {
  const closed = able.filter(serves);
  const tiers = (['online', 'error'] as const).flatMap((wanted) =>
    [false, true].map((isHung) => closed.filter(({ status, hung }) => status === wanted && hung === isHung)),
  );
  const rank = ({ status, hung }: Candidate) => (status === 'error' ? 2 : 0) + (hung ? 1 : 0);
  const all = able.filter(rests);
  const resting = all.filter((one) => all.every((other) => rank(one) <= rank(other)));
  const behind = able.filter((one) => one.circuit !== 'closed' && !isTrial(one));
  return [...tiers, resting, behind].find((tier) => tier.length > 0) ?? [];
}

/** Runs a law on many cases, and says of how many it had something to say. */
function law(check: (seen: Case & { able: Candidate[]; choice: Choice }) => boolean, numRuns = 2000): void {
  let told = 0;
  fc.assert(
    fc.property(cases, chances, ({ all, tried }, list) => {
      const before = structuredClone(all);
      const choice = choose(all, drawing(list), tried);
      expect(all).toEqual(before);
      const able = all.filter((one) => !isOut(one, tried));
      if (check({ all, tried, able, choice })) told += 1;
    }),
    { numRuns },
  );
  expect(told).toBeGreaterThan(numRuns / 100);
}

test('nobody is chosen who was tried, rests, drains, is quarantined, offline or pending, or has no room', () => {
  law(({ able, choice: { chosen } }) => {
    if (chosen === undefined) return false;
    expect(able).toContain(chosen);
    expect(isFull(chosen)).toBe(false);
    return true;
  });
});

test('a half-open circuit gets one trial at a time, at once for a new request, and never where one in error would jump an online one', () => {
  law(({ able, tried, choice: { chosen, trial } }) => {
    expect(trial).toBe(chosen !== undefined && isUntried(chosen));
    if (trial && chosen?.status === 'error') {
      expect(able.filter((one) => one.status === 'online' && serves(one))).toEqual([]);
    }
    // Beside a trial that runs somebody is sent to a half-open one only as the last resort.
    if (chosen?.circuit === 'half_open' && !trial) {
      expect(able.filter((one) => serves(one) || isTrial(one))).toEqual([]);
    }
    const waiting = able.some((one) => isTrial(one) && one.status === 'online');
    if (waiting && tried.size === 0) expect(trial).toBe(true);
    return waiting || trial;
  });
});

test('of two half-open ones the online one has its trial before the one in error', () => {
  law(({ able, choice: { chosen, trial } }) => {
    const online = able.some((one) => isTrial(one) && one.status === 'online');
    if (!trial || !online) return false;
    expect(chosen?.status).toBe('online');
    return true;
  });
});

test('a retry is no trial where anybody else serves', () => {
  law(({ able, tried, choice: { chosen, trial } }) => {
    if (tried.size === 0 || !able.some(serves)) return false;
    expect(trial).toBe(false);
    expect(chosen === undefined || serves(chosen)).toBe(true);
    return true;
  });
});

test('where a healthy one has room, a healthy one is chosen or a trial', () => {
  law(({ able, choice: { chosen, trial } }) => {
    if (!able.some((one) => isHealthy(one) && !isFull(one))) return false;
    expect(chosen).toBeDefined();
    expect(trial || isHealthy(chosen as Candidate)).toBe(true);
    return true;
  });
});

test('a hung one is chosen only where nobody better is', () => {
  law(({ able, choice: { chosen, trial } }) => {
    if (chosen === undefined || trial || !serves(chosen) || !chosen.hung) return false;
    expect(able.filter(isHealthy)).toEqual([]);
    const better = able.filter((one) => serves(one) && !one.hung);
    expect(better.filter(({ status }) => status === chosen.status)).toEqual([]);
    return true;
  });
});

test('one that rests is chosen only where nobody serves, and never if it said how long, or somebody else was asked', () => {
  law(({ able, tried, choice: { chosen } }) => {
    if (chosen === undefined || chosen.restMs === 0) return false;
    expect(able.filter((one) => serves(one) || isTrial(one))).toEqual([]);
    expect([chosen.restIsAsked, tried.size]).toEqual([false, 0]);
    return true;
  });
});

test('one in error is chosen only where no online one serves', () => {
  law(({ able, choice: { chosen, trial } }) => {
    if (chosen?.status !== 'error' || (!serves(chosen) && !trial)) return false;
    expect(able.filter((one) => one.status === 'online' && serves(one))).toEqual([]);
    return true;
  });
});

test('where nobody else serves one that rests is chosen before any that is behind a circuit', () => {
  law(({ able, choice: { chosen } }) => {
    if (able.some((one) => serves(one) || isTrial(one))) return false;
    if (!able.some(rests)) return false;
    expect(chosen === undefined || rests(chosen)).toBe(true);
    if (chosen?.status === 'error') {
      expect(able.filter((one) => rests(one) && one.status === 'online')).toEqual([]);
    }
    return able.some((one) => one.circuit !== 'closed');
  });
});

test('where all are behind open circuits the one with room and the least share of failures is chosen', () => {
  law(({ able, choice: { chosen, trial } }) => {
    const roomy = able.filter((one) => !isFull(one));
    const behind = able.every(
      (one) => one.circuit === 'open' || (one.circuit === 'half_open' && (one.onTrial || one.restMs > 0)),
    );
    if (roomy.length === 0 || !behind) return false;
    expect(trial).toBe(chosen !== undefined && isUntried(chosen));
    expect(roomy).toContain(chosen);
    expect(chosen?.failureRate).toBe(Math.min(...roomy.map(({ failureRate }) => failureRate)));
    return true;
  });
});

test('it is full exactly where nobody is chosen though one of the best would do if it had room', () => {
  let full = 0;
  let none = 0;
  law(({ able, tried, choice }) => {
    const best = bestOf(able);
    const trials = able.filter(isTrial);
    // What has room is chosen, but a trial for a retry.
    const servable = best.some((one) => !isFull(one));
    const triable = trials.length > 0 && (tried.size === 0 || best.every((one) => !serves(one)));
    if (servable) expect(choice.chosen).toBeDefined();
    expect(choice.full).toBe(choice.chosen === undefined && best.length > 0);
    if (choice.full) {
      expect(best.every(isFull)).toBe(true);
      const freed = able.map((one) => (one === best[0] ? { ...one, active: 0, room: 1 } : one));
      expect(choose(freed, () => 0, tried).chosen).toBeDefined();
      full += 1;
    }
    if (choice.chosen === undefined && !choice.full) {
      expect(best).toEqual([]);
      expect(triable).toBe(false);
      none += 1;
    }
    return true;
  });
  expect(full).toBeGreaterThan(20);
  expect(none).toBeGreaterThan(20);
});

test('whoever could not be chosen has a reason that is true, and whoever could be, or is, has none', () => {
  const seen = new Set<string>();
  law(({ all, tried, able, choice }) => {
    const { chosen } = choice;
    const judged = judge(choice);
    expect(judged.map(({ candidate }) => candidate)).toEqual(all);
    const best = bestOf(able);
    for (const { candidate, reason } of judged) {
      const could = candidate === chosen || (best.includes(candidate) && !isFull(candidate));
      expect(reason === null).toBe(could);
      if (reason !== null) expect([reason, isTrue(reason, candidate, tried)]).toEqual([reason, true]);
      seen.add(String(reason));
    }
    return true;
  });
  expect([...seen].sort()).toEqual(
    ['null', 'at_capacity', 'circuit_open', 'draining', 'error', 'hung', 'offline', 'on_trial', 'pending']
      .concat('quarantined', 'resting', 'tried')
      .sort(),
  );
});

test('what only one can go on from goes there as if nobody else were, or nowhere, and the others are told to lack it', () => {
  let told = 0;
  fc.assert(
    fc.property(cases, chances, fc.nat(5), ({ all, tried }, list, i) => {
      const one = all[i];
      if (one === undefined) return;
      const keeper = one.endpointId;
      const ask = (of: Candidate[]) =>
        chooseFor(of, NO_DEMAND, { ...PLAINLY, random: drawing(list), tried, keeper });
      const choice = ask(all);
      const alone = ask([one]);
      expect([choice.chosen, choice.full, choice.trial]).toEqual([alone.chosen, alone.full, alone.trial]);
      for (const { candidate, reason } of judge(choice)) {
        if (candidate === one) expect(reason).not.toBe('lacks_response');
        else if (!isOut(candidate, tried)) expect(reason).toBe('lacks_response');
        else expect([reason, isTrue(String(reason), candidate, tried)]).toEqual([reason, true]);
      }
      if (choice.chosen !== undefined && all.length > 1) told += 1;
    }),
    { numRuns: 2000 },
  );
  expect(told).toBeGreaterThan(100);
});

function isTrue(reason: string, one: Candidate, tried: ReadonlySet<string>): boolean {
  switch (reason) {
    case 'tried':
      return tried.has(one.endpointId);
    case 'resting':
      return one.restMs > 0;
    case 'circuit_open':
      return one.circuit !== 'closed';
    case 'on_trial':
      return one.circuit !== 'closed' && one.onTrial;
    case 'hung':
      return one.hung;
    case 'at_capacity':
      return isFull(one);
    default:
      return one.status === reason;
  }
}

test('nobody who has just failed often is preferred to one that is as busy and has not', () => {
  law(({ able, choice: { chosen, trial } }) => {
    if (chosen === undefined || trial || !serves(chosen)) return false;
    const peers = bestOf(able).filter((one) => !isFull(one));
    if (peers.length < 2) return false;
    expect(
      chosen.freshFailureRate > 0 &&
        peers.some((one) => one.active <= chosen.active && one.freshFailureRate === 0),
    ).toBe(false);
    expect(loadOf(chosen)).toBe(Math.min(...peers.map(loadOf)));
    return true;
  });
});

test('what fails counts as busier the more it fails, ten times at most, and at its word where nothing failed', () => {
  const rate = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(fc.nat(1000), rate, rate, (active, a, b) => {
      const load = (freshFailureRate: number, more = 0) =>
        loadOf({ ...PLAIN, active: active + more, freshFailureRate });
      const [less, more] = [Math.min(a, b), Math.max(a, b)];
      expect(load(0)).toBe(active);
      expect(load(less)).toBeLessThanOrEqual(load(more));
      expect(load(a, 1)).toBeGreaterThan(load(a));
      // As many requests as it had to be sent for each that it answers, itself included.
      expect(load(1) + 1).toBeCloseTo(10 * (active + 1), 6);
      if (a <= 0.9) expect((load(a) + 1) * (1 - a)).toBeCloseTo(active + 1, 6);
    }),
  );
});

const anyPolicy = fc.constantFrom('adaptive' as const, 'least-busy' as const, 'affinity' as const);

/** How long a request waits for one priority: in line where there is room, else for room. */
function waitFor(group: Candidate[], outlook: Outlook, { choosing }: Fleet): number {
  const roomy = group.filter((one) => !isFull(one));
  if (roomy.length > 0) return Math.min(...roomy.map((one) => waitAt(one, outlook)));
  const turns = choosing.ahead + 1;
  const waits = group.map((one) => {
    // One of those there will have gone.
    const told = forecastOf({ ...one, active: Math.max(0, one.active - 1) }, outlook);
    // Nothing is known of when it will have room.
    return told === null ? Number.POSITIVE_INFINITY : (turns * totalMs(told)) / Math.max(1, one.active);
  });
  return choosing.waitedMs + Math.min(...waits);
}

/** Of those that are equally well, by priority: who there is, whether one has room, and for how long one waits. */
function tiersOf(fleet: Fleet, { outlook }: Choice) {
  const able = fleet.all.filter((one) => !isExcluded(one, fleet.choosing));
  const priorities = [...new Set(able.map(({ priority }) => priority))].sort((a, b) => a - b);
  return priorities.map((priority) => {
    const group = able.filter((one) => one.priority === priority);
    const hasRoom = group.some((one) => !isFull(one));
    return { priority, hasRoom, wait: waitFor(group, outlook, fleet) };
  });
}

/** Fleets in which nothing but priority, room and what is known of speeds decides who may serve; half with a full first. */
const inTiers = fc.tuple(fleets(anyPolicy), fc.boolean()).map(([fleet, isBusy]): Fleet => {
  const all = fleet.all.map((one): Candidate => {
    const status = one.status === 'error' ? 'online' : one.status;
    const room = isBusy && one.priority === 0 ? 0 : one.room;
    return { ...one, status, room, circuit: 'closed', hung: false, maxContext: null };
  });
  return { ...fleet, all };
});

test('a later priority serves only where the earlier ones are down, or make a request wait for too long', () => {
  const seen = { first: 0, overflows: 0, shortest: 0, waits: 0, full: 0 };
  fc.assert(
    fc.property(inTiers, chance, (fleet, draw) => {
      const { overflowMs } = fleet.choosing;
      const choice = chooseFor(fleet.all, fleet.demand, { ...fleet.choosing, random: () => draw });
      const tiers = tiersOf(fleet, choice);
      const { chosen, full } = choice;
      if (tiers.length === 0) {
        expect([chosen, full]).toEqual([undefined, false]);
        return;
      }
      const soon = tiers.find(({ wait }) => wait <= overflowMs);
      if (tiers.every(({ hasRoom }) => !hasRoom)) {
        expect([chosen, full]).toEqual([undefined, true]);
        seen.full += 1;
      } else if (soon !== undefined && !soon.hasRoom) {
        // It is worth waiting.
        expect([chosen, full]).toEqual([undefined, true]);
        seen.waits += 1;
      } else if (soon !== undefined) {
        expect([chosen?.priority, full]).toEqual([soon.priority, false]);
        if (soon === tiers[0]) seen.first += 1;
        else seen.overflows += 1;
      } else {
        const least = Math.min(...tiers.filter(({ hasRoom }) => hasRoom).map(({ wait }) => wait));
        expect(tiers.find(({ priority }) => priority === chosen?.priority)).toMatchObject({
          hasRoom: true,
          wait: least,
        });
        seen.shortest += 1;
      }
    }),
    { numRuns: 4000 },
  );
  for (const times of Object.values(seen)) expect(times).toBeGreaterThan(50);
});

test('who has waited for long enough is served by whoever has room, and never goes back to waiting', () => {
  let given = 0;
  fc.assert(
    fc.property(inTiers, fc.nat(2000), ({ all, demand, choosing }, more) => {
      const after = (waitedMs: number) =>
        chooseFor(all, demand, { ...choosing, mayExplore: false, waitedMs });
      const [now, later, last] = [choosing.waitedMs, choosing.waitedMs + more, 1e9].map(after) as [
        Choice,
        Choice,
        Choice,
      ];
      if (now.chosen !== undefined) expect(later.chosen?.priority).toBe(now.chosen.priority);
      if (now.chosen === undefined && last.chosen !== undefined) given += 1;
      const roomy = all.some((one) => !isExcluded(one, choosing) && !isFull(one));
      expect(last.chosen !== undefined).toBe(roomy);
    }),
    { numRuns: 2000 },
  );
  expect(given).toBeGreaterThan(30);
});

test('an endpoint whose context is probably too small is asked only if no other can hold the prompt, and then the largest', () => {
  const seen = { fits: 0, avoided: 0, tooSmall: 0, full: 0, trials: 0 };
  fc.assert(
    fc.property(fleets(anyPolicy), chance, ({ all, demand, choosing }, draw) => {
      const { chosen, trial, full } = chooseFor(all, demand, { ...choosing, random: () => draw });
      if (trial && holds(chosen as Candidate, demand)) {
        seen.trials += 1;
        return;
      }
      const able = all.filter((one) => !isExcluded(one, choosing) && one.circuit === 'closed');
      if (able.length === 0) return;
      const fitting = able.filter((one) => holds(one, demand));
      if (fitting.length > 0) {
        if (chosen !== undefined) expect(fitting).toContain(chosen);
        else expect(full).toBe(true);
        seen.fits += 1;
        if (fitting.length < able.length) seen.avoided += 1;
        return;
      }
      const largest = Math.max(...able.map(({ maxContext }) => maxContext ?? 0));
      const best = able.filter(({ maxContext }) => maxContext === largest);
      if (chosen !== undefined) {
        expect(best).toContain(chosen);
        seen.tooSmall += 1;
      } else {
        expect(full).toBe(true);
        seen.full += 1;
      }
    }),
    { numRuns: 3000 },
  );
  for (const times of Object.values(seen)) expect(times).toBeGreaterThan(5);
});

/** Mulberry32. */
function seeded(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
