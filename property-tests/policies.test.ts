import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Turns } from '../src/actors/turns.js';
import { type Candidate, loadOf } from '../src/machines/candidate.js';
import { choose as chooseFor, judge, PLAINLY } from '../src/machines/choose.js';
import { NO_DEMAND } from '../src/machines/demand.js';
import { outlookOf } from '../src/machines/outlook.js';
import { POLICIES, type PolicyName } from '../src/machines/policies.js';
import { PLAIN } from './support/candidates.js';
import { type Fleet, fleets, holds, isOut, waitAt } from './support/fleets.js';

const NAMES = Object.keys(POLICIES) as PolicyName[];
const policy = fc.constantFrom(...NAMES);
const seed = fc.integer();
const some = fc
  .array(
    fc.record({
      status: fc.constantFrom('online' as const, 'online' as const, 'error' as const, 'draining' as const),
      active: fc.nat(4),
      room: fc.constantFrom(Number.POSITIVE_INFINITY, 2, 0),
      weight: fc.constantFrom(0.5, 1, 1, 3),
      priority: fc.nat(2),
      tps: fc.constantFrom(null, 10, 40, 90),
      turn: fc.nat(5),
      freshFailureRate: fc.constantFrom(0, 0, 0.5),
      hung: fc.constantFrom(false, false, true),
    }),
    { maxLength: 8 },
  )
  .map((list): Candidate[] => list.map((one, i) => ({ ...PLAIN, ...one, endpointId: `e${i}` })));

/** A reproducible chance. */
function chance(from: number): () => number {
  let state = from >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const hasRoom = ({ room }: Candidate) => room > 0;

/** Nobody is waited for: whoever has no room sends the request on. */
const choose = (all: Candidate[], random: () => number, tried: ReadonlySet<string>, policy: PolicyName) =>
  chooseFor(all, NO_DEMAND, { ...PLAINLY, random, tried, policy });
const pick = (name: PolicyName, able: Candidate[], random: () => number) =>
  POLICIES[name](able, random, outlookOf(able, NO_DEMAND));
const healthOf = ({ status, hung }: Candidate) => (status === 'error' ? 2 : 0) + (hung ? 1 : 0);

test('under every policy somebody who can serve is chosen if there is one, of the best health and the first priority', () => {
  fc.assert(
    fc.property(policy, some, seed, (name, all, from) => {
      const { chosen, full } = choose(all, chance(from), new Set(), name);
      const able = all.filter(({ status }) => status === 'online' || status === 'error');
      const best = Math.min(...able.map(healthOf));
      const peers = able.filter((one) => healthOf(one) === best);
      const free = peers.filter(hasRoom);
      const first = Math.min(...free.map(({ priority }) => priority));
      if (free.length === 0) expect([chosen, full]).toEqual([undefined, peers.length > 0]);
      else expect(free.filter(({ priority }) => priority === first)).toContain(chosen);
    }),
  );
});

test('why somebody was not chosen is told of everybody who could not be, under every policy', () => {
  fc.assert(
    fc.property(policy, some, seed, (name, all, from) => {
      const choice = choose(all, chance(from), new Set(), name);
      const { chosen } = choice;
      const judged = judge(choice);
      for (const { candidate, reason } of judged) {
        if (candidate === chosen) expect(reason).toBeNull();
        if (reason === null) expect(candidate.priority).toBe(chosen?.priority ?? candidate.priority);
        if (reason === 'later_priority') expect(candidate.priority).toBeGreaterThan(chosen?.priority ?? -1);
      }
    }),
  );
});

test('least busy takes the least load for its weight, and one of two at random is never the busier', () => {
  fc.assert(
    fc.property(some, seed, (all, from) => {
      const able = all.filter(hasRoom);
      const least = pick('least-busy', able, chance(from));
      if (least !== undefined) expect(loadOf(least)).toBe(Math.min(...able.map(loadOf)));
      const ofTwo = pick('power-of-two', able, chance(from));
      const busiest = Math.max(...able.map(loadOf));
      const others = able.filter((one) => one !== ofTwo);
      if (ofTwo !== undefined && others.length > 0 && loadOf(ofTwo) === busiest) {
        expect(others.some((one) => loadOf(one) === busiest)).toBe(true);
      }
    }),
  );
});

test('fastest takes an unmeasured one first, then the most tokens per second for its weight', () => {
  fc.assert(
    fc.property(some, seed, (all, from) => {
      const chosen = pick('fastest', all, chance(from));
      if (chosen === undefined) return;
      const isUnknown = all.some(({ tps }) => tps === null);
      if (isUnknown) expect(chosen.tps).toBeNull();
      else {
        const worth = ({ tps, weight }: Candidate) => (tps ?? 0) * weight;
        expect(worth(chosen)).toBe(Math.max(...all.map(worth)));
      }
    }),
  );
});

test('in turn, and at random, everybody gets a share by weight in the long run', () => {
  const weights = fc.array(fc.constantFrom(0.5, 1, 2, 3), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(fc.constantFrom<PolicyName>('round-robin', 'weighted'), weights, seed, (name, list, from) => {
      const ROUNDS = 6000;
      const turns = new Turns();
      const random = chance(from);
      const counts = list.map(() => 0);
      for (let i = 0; i < ROUNDS; i += 1) {
        const all = list.map((weight, at) => {
          const endpointId = String(at);
          return { ...PLAIN, endpointId, weight, turn: turns.of('m', endpointId) };
        });
        const { chosen } = choose(all, random, new Set(), name);
        const place = Number(chosen?.endpointId);
        counts[place] = (counts[place] ?? 0) + 1;
        turns.note('m', String(place), chosen?.weight ?? 1);
      }
      const sum = list.reduce((a, b) => a + b, 0);
      for (const [place, weight] of list.entries()) {
        const fair = (ROUNDS * weight) / sum;
        // A lottery strays by seven standard deviations at most, a round by one turn of each.
        const most = name === 'weighted' ? 7 * Math.sqrt(fair) + 1 : list.length + 1;
        expect(Math.abs((counts[place] ?? 0) - fair)).toBeLessThanOrEqual(most);
      }
    }),
    { numRuns: 20 },
  );
});

test('who comes back to the round does not catch up on the turns that were missed', () => {
  const turns = new Turns();
  for (const id of ['a', 'b']) turns.note('m', id, 1);
  for (let i = 0; i < 1000; i += 1) turns.note('m', 'a', 1);
  const ahead = turns.of('m', 'a') - turns.of('m', 'b');
  expect(ahead).toBeLessThanOrEqual(1);
  turns.forget('a');
  turns.forget('b');
  expect(turns.of('m', 'a')).toBe(0);
});

test('whatever is known of speeds and contexts, no policy takes one that cannot serve, has no room, or is worse off than others', () => {
  let served = 0;
  fc.assert(
    fc.property(fleets(policy), seed, ({ all, demand, choosing }, from) => {
      const { chosen, trial, full } = chooseFor(all, demand, { ...choosing, random: chance(from) });
      const able = all.filter((one) => !isOut(one, choosing));
      if (chosen === undefined) {
        expect(full || able.every(({ circuit }) => circuit === 'half_open')).toBe(true);
        return;
      }
      served += 1;
      expect(able).toContain(chosen);
      expect(chosen.room).toBeGreaterThan(0);
      expect(trial).toBe(chosen.circuit === 'half_open' && !chosen.onTrial);
      if (trial) return;
      const closed = able.filter(({ circuit }) => circuit === 'closed');
      if (chosen.circuit !== 'closed') expect(closed).toEqual([]);
      else if (chosen.maxContext === null) {
        const better = closed.filter((one) => one.maxContext === null && healthOf(one) < healthOf(chosen));
        expect(better).toEqual([]);
      }
    }),
    { numRuns: 3000 },
  );
  expect(served).toBeGreaterThan(1500);
});

/** Whether what is said of one that was not taken is so. */
function isTrue(reason: string, one: Candidate, { all, demand, choosing }: Fleet): boolean {
  const others = all.filter((other) => other !== one && !isOut(other, choosing));
  switch (reason) {
    case 'tried':
      return choosing.tried.has(one.endpointId);
    case 'resting':
      return one.restMs > 0;
    case 'circuit_open':
      return one.circuit !== 'closed';
    case 'on_trial':
      return one.circuit !== 'closed' && one.onTrial;
    case 'hung':
      return one.hung;
    case 'context_too_small':
      return !holds(one, demand);
    case 'at_capacity':
      return one.room <= 0;
    case 'overloaded':
      return waitAt(one, outlookOf(all, demand)) > choosing.overflowMs && others.some(isLater(one));
    case 'later_priority':
      return others.some((other) => other.priority < one.priority);
    default:
      return one.status === reason;
  }
}

const isLater =
  ({ priority }: Candidate) =>
  (other: Candidate) =>
    other.priority > priority;

test('what is told of whoever was not taken is true, whatever is known of speeds and contexts', () => {
  const seen = new Map<string, number>();
  fc.assert(
    fc.property(fleets(policy), seed, (fleet, from) => {
      const choice = chooseFor(fleet.all, fleet.demand, { ...fleet.choosing, random: chance(from) });
      for (const { candidate, reason } of judge(choice)) {
        if (candidate === choice.chosen) expect(reason).toBeNull();
        if (reason === null) continue;
        expect([reason, isTrue(reason, candidate, fleet)]).toEqual([reason, true]);
        seen.set(reason, (seen.get(reason) ?? 0) + 1);
      }
    }),
    { numRuns: 4000 },
  );
  expect([...seen.keys()].sort()).toEqual(
    [
      'at_capacity',
      'circuit_open',
      'context_too_small',
      'draining',
      'error',
      'hung',
      'later_priority',
      'offline',
    ]
      .concat('on_trial', 'overloaded', 'pending', 'quarantined', 'resting', 'tried')
      .sort(),
  );
});

test('whoever is told no reason could have been chosen: by chance, in proportion to its weight, each of them is', () => {
  let several = 0;
  fc.assert(
    fc.property(fleets(fc.constant<PolicyName>('weighted')), ({ all, demand, choosing }) => {
      const of = (draw: number) =>
        chooseFor(all, demand, { ...choosing, mayExplore: false, random: () => draw });
      const choice = of(0);
      const { chosen, trial } = choice;
      const couldBe = judge(choice).flatMap(({ candidate, reason }) => (reason === null ? [candidate] : []));
      if (chosen === undefined) expect(couldBe).toEqual([]);
      // A trial is nobody's chance, and the last resort is not taken by chance.
      if (chosen === undefined || trial || chosen.circuit !== 'closed') return;
      // The least weight is a 36th of the most that six can have.
      const taken = new Set(Array.from({ length: 73 }, (_, i) => of(i / 73).chosen));
      expect(couldBe.filter((one) => !taken.has(one))).toEqual([]);
      expect(taken.size).toBe(couldBe.length);
      if (couldBe.length > 1) several += 1;
    }),
    { numRuns: 1000 },
  );
  expect(several).toBeGreaterThan(50);
});
