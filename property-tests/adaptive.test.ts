import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Catalogue } from '../src/actors/catalogue.js';
import { Chooser, type Wanted } from '../src/actors/chooser.js';
import { Explorations } from '../src/actors/explorations.js';
import { Pins } from '../src/actors/pins.js';
import { Turns } from '../src/actors/turns.js';
import type { Candidate } from '../src/machines/candidate.js';
import { choose, PLAINLY } from '../src/machines/choose.js';
import { NO_DEMAND } from '../src/machines/demand.js';
import { isMeasured, NEW_SPEED } from '../src/machines/speed.js';
import { type Box, boxOf, chance, learned } from './support/boxes.js';
import { PLAIN } from './support/candidates.js';
import { fleets, possible } from './support/fleets.js';

const ADAPTIVE = { ...PLAINLY, policy: 'adaptive' as const };
const EVERYWHERE = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48];
/** With so many in flight everything was met before. */
const MET = 48;
/** So many have told how fast it writes. */
const ANSWERS = 256;
const seed = fc.integer();
const alone = fc.integer({ min: 200, max: 5000 });
const growth = fc.double({ min: 0, max: 1, noNaN: true });

/** So many requests come and none is answered: who gets each of them. */
function held(all: Candidate[], policy: 'adaptive' | 'least-busy', requests: number, random: () => number) {
  const order: number[] = [];
  for (let i = 0; i < requests; i += 1) {
    const { chosen } = choose(all, NO_DEMAND, { ...PLAINLY, policy, random });
    const place = all.indexOf(chosen as Candidate);
    (all[place] as Candidate).active += 1;
    order.push(place);
  }
  return order;
}

test('more load never makes an endpoint the choice where it was not before', () => {
  const policy = fc.constantFrom('adaptive' as const, 'least-busy' as const);
  let lost = 0;
  fc.assert(
    fc.property(fleets(policy), fc.nat(5), fc.integer({ min: 1, max: 20 }), (fleet, place, more) => {
      const one = fleet.all[place];
      if (one === undefined) return;
      const before = possible(fleet);
      const all = fleet.all.with(place, { ...one, active: one.active + more });
      const after = possible({ ...fleet, all });
      if (!before.has(one.endpointId)) expect([...after]).not.toContain(one.endpointId);
      else if (!after.has(one.endpointId)) lost += 1;
    }),
    { numRuns: 3000 },
  );
  // It does make it lose.
  expect(lost).toBeGreaterThan(30);
});

test('of boxes that slow down as they fill, each holds a share by its weight', () => {
  const weights = fc.array(fc.constantFrom<number>(0.5, 1, 2, 3), { minLength: 2, maxLength: 5 });
  const policy = fc.constantFrom('adaptive' as const, 'least-busy' as const);
  fc.assert(
    fc.property(policy, weights, alone, seed, (name, list, aloneMs, from) => {
      const speed = learned(boxOf(aloneMs, 1), EVERYWHERE);
      const all = list.map((weight, i): Candidate => ({ ...PLAIN, endpointId: `e${i}`, weight, speed }));
      held(all, name, 200, chance(from));
      const sum = list.reduce((a, b) => a + b);
      for (const { active, weight } of all) {
        expect(Math.abs(active - (200 * weight) / sum)).toBeLessThanOrEqual(list.length + 1);
      }
    }),
  );
});

test('of equal boxes of weight 1 and 3 the heavier holds three times as many, and no more than it can take', () => {
  const some = fc.double({ min: 0.1, max: 1, noNaN: true });
  fc.assert(
    fc.property(some, alone, seed, (more, aloneMs, from) => {
      const speed = learned(boxOf(aloneMs, more), EVERYWHERE);
      const all = [1, 3].map((weight, i) => ({ ...PLAIN, endpointId: `e${i}`, weight, speed }));
      held(all, 'adaptive', 200, chance(from));
      const [light, heavy] = all.map(({ active }) => active) as [number, number];
      expect(heavy).toBeGreaterThanOrEqual(3 * light - 3);
      // The light one is asked once the heavy one would take 3 × 1.3 times as long.
      expect(heavy).toBeLessThanOrEqual(3.9 * light + 2.9 / more + 4);
    }),
  );
});

test('of boxes that all take the same time nobody has two more than another', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 8 }), alone, growth, seed, (count, aloneMs, more, from) => {
      const speed = learned(boxOf(aloneMs, more), EVERYWHERE);
      const all = Array.from({ length: count }, (_, i) => ({ ...PLAIN, endpointId: `e${i}`, speed }));
      held(all, 'adaptive', 100, chance(from));
      const load = all.map(({ active }) => active);
      expect(Math.max(...load) - Math.min(...load)).toBeLessThanOrEqual(1);
    }),
  );
});

test('a box that is more than a third slower is asked only once the faster ones have been slowed by about as much', () => {
  fc.assert(
    fc.property(
      alone,
      growth,
      fc.double({ min: 1.4, max: 8, noNaN: true }),
      seed,
      (aloneMs, more, by, from) => {
        const fast = boxOf(aloneMs, more);
        const boxes = [fast, boxOf(by * aloneMs, more)];
        const all = boxes.map((box, i) => ({
          ...PLAIN,
          endpointId: `e${i}`,
          speed: { ...learned(box, EVERYWHERE), answers: ANSWERS },
        }));
        const random = chance(from);
        for (let i = 0; i < MET; i += 1) {
          const [place] = held(all, 'adaptive', 1, random);
          const [quick, slow] = all.map(({ active }) => active) as [number, number];
          const slowed = 1 + more * quick;
          const needs = by * (1 + more * (slow - 1));
          // Of what the others there add to the waiting the more makes no difference the more of them there are.
          const equal = (1.3 + 5 / ANSWERS) * slowed + (quick / (quick + 8)) * (slowed - 1);
          if (place === 1) expect(needs).toBeLessThanOrEqual(equal * (1 + 1e-9));
        }
      },
    ),
  );
});

const steady = (aloneMs: number) => boxOf(aloneMs, 0);
/** One that answers a request after the other: all its time is the wait for the first byte. */
const inTurn = (aloneMs: number): Box => ({
  ...steady(aloneMs),
  waitMs: (ahead) => aloneMs * (1 + ahead),
  tokenMs: () => 1e-6,
});

/** Whether a box that is so much slower, with nobody there, may get what the other one would answer sooner. */
function shares(by: number, aloneMs: number, answers: number, active: number, boxFor = steady): boolean {
  const boxes = () =>
    [1, by].map((factor, i) => ({
      ...PLAIN,
      endpointId: `e${i}`,
      speed: { ...learned(boxFor(factor * aloneMs), EVERYWHERE), answers },
      active: i === 0 ? active : 0,
    }));
  return [0, 0.3, 0.6, 0.99].some((random) => held(boxes(), 'adaptive', 1, () => random).includes(1));
}

test('a box that is busy and was measured but once shares with one that is a little slower, and no more once it is known', () => {
  fc.assert(
    fc.property(alone, fc.double({ min: 1.4, max: 2, noNaN: true }), (aloneMs, by) => {
      expect(shares(by, aloneMs, 1, 1)).toBe(true);
      expect(shares(by, aloneMs, ANSWERS, 1)).toBe(false);
    }),
  );
});

test('behind two dozen others a box shares with one that takes nearly twice that wait, behind two it does not', () => {
  fc.assert(
    fc.property(alone, fc.double({ min: 1.7, max: 1.9, noNaN: true }), (aloneMs, longer) => {
      expect(shares(longer * 25, aloneMs, ANSWERS, 24, inTurn)).toBe(true);
      expect(shares(longer * 3, aloneMs, ANSWERS, 2, inTurn)).toBe(false);
    }),
  );
});

test('while nobody has anything to do the faster one is asked, however few answers it gave', () => {
  fc.assert(
    fc.property(
      alone,
      fc.double({ min: 1.4, max: 8, noNaN: true }),
      fc.integer({ min: 1, max: 256 }),
      (...all) => {
        const [aloneMs, by, answers] = all;
        expect(shares(by, aloneMs, answers, 0)).toBe(false);
      },
    ),
  );
});

/** Measured boxes of any speed, and at a random place one that has never answered; nobody has anything to do. */
const newcomer = fc
  .record({
    times: fc.array(alone, { minLength: 1, maxLength: 7 }),
    more: growth,
    place: fc.nat(7),
    from: seed,
  })
  .map(({ times, more, place, from }) => {
    const at = Math.min(place, times.length);
    const speeds = times.map((aloneMs) => learned(boxOf(aloneMs, more), EVERYWHERE));
    const all = speeds
      .toSpliced(at, 0, NEW_SPEED)
      .map((speed, i): Candidate => ({ ...PLAIN, endpointId: `e${i}`, speed }));
    const quickest =
      all[times.indexOf(Math.min(...times)) + (times.indexOf(Math.min(...times)) < at ? 0 : 1)];
    return { all, at, more, quickest: quickest as Candidate, from };
  });

test('while nothing is answered, one of n boxes that was never measured gets one of the first n requests', () => {
  fc.assert(
    fc.property(newcomer, ({ all, at, from }) => {
      expect(held(all, 'adaptive', all.length, chance(from))).toContain(at);
    }),
  );
});

test('where each is answered before the next comes, it gets one of the first twenty for each box', () => {
  fc.assert(
    fc.property(newcomer, ({ all, at, from }) => {
      const random = chance(from);
      const asked = Array.from({ length: 20 * all.length }, () => {
        const { chosen } = choose(all, NO_DEMAND, { ...ADAPTIVE, random });
        return all.indexOf(chosen as Candidate);
      });
      // At random, one of as many as there are boxes: that it is missed so often has a chance of 2 in a thousand million.
      expect(asked).toContain(at);
    }),
    { numRuns: 200 },
  );
});

test('until it has answered it holds no more than the fastest of the others has been slowed by its load, and a third', () => {
  let most = 0;
  fc.assert(
    fc.property(newcomer, ({ all, at, more, quickest, from }) => {
      const random = chance(from);
      for (let i = 0; i < MET; i += 1) {
        const [place] = held(all, 'adaptive', 1, random);
        if (place !== at) continue;
        const slowed = 1 + more * quickest.active;
        const { active } = all[at] as Candidate;
        expect(active).toBeLessThanOrEqual(Math.max(1, 1.3 * slowed) * (1 + 1e-9));
        most = Math.max(most, active);
      }
    }),
  );
  expect(most).toBeGreaterThan(1);
});

test('beside boxes that take no longer when they are busy, a box that was never measured gets one at a time', () => {
  fc.assert(
    fc.property(alone, fc.integer({ min: 1, max: 5 }), seed, (aloneMs, count, from) => {
      const speed = learned(boxOf(aloneMs, 0), EVERYWHERE);
      const all: Candidate[] = Array.from({ length: count }, (_, i) => ({
        ...PLAIN,
        endpointId: `e${i}`,
        speed,
      }));
      all.push({ ...PLAIN, endpointId: 'new' });
      const order = held(all, 'adaptive', MET, chance(from));
      expect(order.filter((place) => place === count)).toEqual([count]);
    }),
  );
});

const MODELS = ['m', 'n'];
const STALE_MS = 30_000;

interface World {
  now: number;
  boxes: Map<string, Candidate[]>;
  chooser: Chooser;
}

function world(policy: 'adaptive' | 'least-busy', random: () => number): World {
  const made: World = { now: 0, boxes: new Map(), chooser: undefined as unknown as Chooser };
  for (const model of MODELS) {
    const boxes = ['a', 'b', 'c'].map((endpointId, i) => ({
      ...PLAIN,
      endpointId,
      modelId: model,
      speed: learned(boxOf(100 * 4 ** i, 0), [0], 0),
    }));
    made.boxes.set(model, boxes);
  }
  made.chooser = new Chooser({
    catalogue: { candidates: (model: string) => made.boxes.get(model) ?? [] } as unknown as Catalogue,
    turns: new Turns(),
    pins: new Pins(),
    responses: new Pins(),
    explorations: new Explorations(),
    policy,
    overflowMs: 0,
    random,
    mono: () => made.now,
    ahead: () => 0,
  });
  return made;
}

type Step =
  | { do: 'ask'; model: string; times: number; gap: number; taken: boolean }
  | { do: 'retry'; model: string; tried: string }
  | { do: 'set'; model: string; place: number; change: Partial<Candidate> };

const model = fc.constantFrom(...MODELS);
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('ask' as const),
        model,
        times: fc.integer({ min: 1, max: 60 }),
        gap: fc.constantFrom(0, 10, 1000, 10_000),
        // Some only ask where it would go.
        taken: fc.constantFrom(true, true, true, false),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('retry' as const), model, tried: fc.constantFrom('a', 'b') }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('set' as const),
        model,
        place: fc.nat(2),
        change: fc.constantFrom<Partial<Candidate>>(
          { active: 0 },
          { active: 1 },
          { cold: true },
          { cold: false },
          { freshFailureRate: 0.3 },
          { freshFailureRate: 0 },
          { speed: NEW_SPEED },
          { speed: learned(boxOf(1000, 0), [0], 0) },
          { status: 'draining' },
          { status: 'online' },
          { room: 0 },
          { room: 1 },
        ),
      }),
    },
  ),
  { maxLength: 25, size: 'max' },
);

const wantedOf = (model: string): Wanted => ({
  ...NO_DEMAND,
  model,
  session: null,
  previous: null,
  user: null,
  prefixes: [],
});

test('at most one in fifty requests for a model goes where it goes only to measure, and never to one that is cold, busy, failing or freshly measured, nor on a retry', () => {
  let explored = 0;
  let kept = 0;
  fc.assert(
    fc.property(steps, seed, (list, from) => {
      const made = world('adaptive', chance(from));
      const counts = new Map(MODELS.map((name) => [name, { asked: 0, explored: 0, since: 0 }]));
      const ask = (name: string, tried: ReadonlySet<string>, isTaken: boolean) => {
        const choice = made.chooser.look(wantedOf(name), { tried });
        const { chosen, explores } = choice;
        const count = counts.get(name) as { asked: number; explored: number; since: number };
        const idle = (made.boxes.get(name) as Candidate[]).filter((one) => mayMeasure(one, made.now));
        if (explores) expect(idle).toContain(chosen);
        if (tried.size > 0) expect(explores).toBe(false);
        else if (count.since >= 49) {
          expect(explores).toBe(idle.length > 0);
          // The one that was left alone for longest.
          const oldest = Math.min(...idle.map(({ speed }) => speed.measuredAt));
          if (explores) expect(chosen?.speed.measuredAt).toBe(oldest);
        }
        if (!isTaken || chosen === undefined) return;
        made.chooser.taken(choice, wantedOf(name));
        if (tried.size > 0) return;
        count.asked += 1;
        count.since = explores ? 0 : count.since + 1;
        count.explored += explores ? 1 : 0;
        expect(50 * count.explored).toBeLessThanOrEqual(count.asked);
        if (!explores) return;
        explored += 1;
        chosen.speed = { ...chosen.speed, measuredAt: made.now };
      };
      for (const step of list) {
        if (step.do === 'set') {
          const box = (made.boxes.get(step.model) as Candidate[])[step.place] as Candidate;
          Object.assign(box, step.change);
        } else if (step.do === 'retry') ask(step.model, new Set([step.tried]), true);
        else {
          for (let i = 0; i < step.times; i += 1) {
            made.now += step.gap;
            ask(step.model, new Set(), step.taken);
          }
          if (!step.taken) kept += 1;
        }
      }
    }),
    { numRuns: 300 },
  );
  expect(Math.min(explored, kept)).toBeGreaterThan(100);
});

function mayMeasure(
  { active, cold, room, status, freshFailureRate, speed }: Candidate,
  now: number,
): boolean {
  const isOld = isMeasured(speed) && now - speed.measuredAt > STALE_MS;
  return isOld && active === 0 && !cold && room > 0 && status === 'online' && freshFailureRate === 0;
}

test('under another policy nobody goes anywhere only to measure', () => {
  const made = world('least-busy', chance(1));
  for (let i = 0; i < 500; i += 1) {
    made.now += 1000;
    const choice = made.chooser.look(wantedOf('m'));
    expect(choice.explores).toBe(false);
    made.chooser.taken(choice, wantedOf('m'));
  }
});
