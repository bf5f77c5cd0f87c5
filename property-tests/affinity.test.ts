import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Catalogue } from '../src/actors/catalogue.js';
import { Chooser, type Wanted } from '../src/actors/chooser.js';
import { Explorations } from '../src/actors/explorations.js';
import { Pins } from '../src/actors/pins.js';
import { Turns } from '../src/actors/turns.js';
import { type Candidate, loadOf, worthOf } from '../src/machines/candidate.js';
import { choose, PLAINLY } from '../src/machines/choose.js';
import { NO_DEMAND } from '../src/machines/demand.js';
import { chance } from './support/boxes.js';
import { PLAIN } from './support/candidates.js';

const AFFINITY = { ...PLAINLY, policy: 'affinity' as const };

/** Some that serve and some that do not; in half of the runs all are well, and of the same weight. */
const ill = fc
  .array(
    fc.record({
      status: fc.constantFrom(
        'online' as const,
        'online' as const,
        'online' as const,
        'error' as const,
        'draining' as const,
      ),
      active: fc.nat(6),
      weight: fc.constantFrom(0.5, 1, 1, 3),
      room: fc.constantFrom(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 1, 0),
      circuit: fc.constantFrom('closed' as const, 'closed' as const, 'closed' as const, 'open' as const),
      hung: fc.constantFrom(false, false, false, true),
      restMs: fc.constantFrom(0, 0, 0, 100),
      freshFailureRate: fc.constantFrom(0, 0, 0, 0.5),
    }),
    { minLength: 1, maxLength: 6 },
  )
  .map((list): Candidate[] => list.map((one, i) => ({ ...PLAIN, ...one, endpointId: `e${i}` })));
const well = fc
  .array(fc.nat(9), { minLength: 1, maxLength: 6 })
  .map((list): Candidate[] => list.map((active, i) => ({ ...PLAIN, active, endpointId: `e${i}` })));
const some = fc.oneof(ill, well);

const isWell = ({ status, restMs, circuit, hung }: Candidate) =>
  status === 'online' && restMs === 0 && circuit === 'closed' && !hung;

const pinnedTo = (endpointId: string) => ({ ...NO_DEMAND, pin: { endpointId, bytes: 10 } });

test('a conversation stays where it was exactly while that is well, has room and is loaded 1.25 times the mean at most', () => {
  const seen = { stays: 0, overloaded: 0, ill: 0 };
  fc.assert(
    fc.property(some, fc.nat(5), fc.double({ min: 0, max: 0.999, noNaN: true }), (all, place, draw) => {
      const pinned = all[place % all.length] as Candidate;
      const able = all.filter((one) => isWell(one) && one.room > 0);
      if (able.length === 0) return;
      const { chosen } = choose(all, pinnedTo(pinned.endpointId), { ...AFFINITY, random: () => draw });
      // What each has in flight for what it is worth.
      const busyness = (one: Candidate) => one.active / worthOf(one);
      const mean = able.reduce((sum, one) => sum + busyness(one), 0) / able.length;
      if (able.includes(pinned) && busyness(pinned) <= 1.25 * mean) {
        expect(chosen).toBe(pinned);
        seen.stays += 1;
        return;
      }
      expect(able).toContain(chosen);
      expect(loadOf(chosen as Candidate)).toBe(Math.min(...able.map(loadOf)));
      if (!able.includes(pinned)) seen.ill += 1;
      else if (all.every((one) => worthOf(one) === worthOf(pinned))) {
        expect(chosen).not.toBe(pinned);
        seen.overloaded += 1;
      }
    }),
    { numRuns: 2000 },
  );
  for (const times of Object.values(seen)) expect(times).toBeGreaterThan(100);
});

test('one that drains, is offline, rests, is hung, tripped or full gives way even if nobody has less to do', () => {
  const ills: Partial<Candidate>[] = [
    { status: 'draining' },
    { status: 'offline' },
    { status: 'error' },
    { restMs: 1 },
    { hung: true },
    { circuit: 'open' },
    { room: 0 },
    { maxContext: 1 },
  ];
  const busy = { ...PLAIN, endpointId: 'other', active: 50 };
  for (const ill of ills) {
    const all = [{ ...PLAIN, endpointId: 'pinned', ...ill }, busy];
    const { chosen } = choose(all, { ...pinnedTo('pinned'), promptBytes: 100, textBytes: 100 }, AFFINITY);
    expect([ill, chosen?.endpointId]).toEqual([ill, 'other']);
  }
});

test('a retry does not go back to where the conversation was', () => {
  const all = ['pinned', 'other'].map((endpointId) => ({ ...PLAIN, endpointId }));
  const tried = new Set(['pinned']);
  expect(choose(all, pinnedTo('pinned'), { ...AFFINITY, tried }).chosen?.endpointId).toBe('other');
});

const BOXES = ['a', 'b', 'c'];
const MODELS = ['m', 'n'];
const TEXTS = ['x', 'xy', 'xyz', 'z', 'zy'];

type Step =
  | { do: 'ask'; model: string; session: string | null; user: string | null; text: string }
  | { do: 'drain' | 'resume' | 'forget'; box: string };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('ask' as const),
        model: fc.constantFrom(...MODELS),
        session: fc.constantFrom(null, null, 's', 't'),
        user: fc.constantFrom(null, 'u', 'v'),
        text: fc.constantFrom(...TEXTS),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constantFrom('drain' as const, 'resume' as const, 'forget' as const),
        box: fc.constantFrom(...BOXES),
      }),
    },
  ),
  { maxLength: 40, size: 'max' },
);

/** The beginnings of a text, shortest first: one for each of its letters. */
const prefixesOf = (text: string) =>
  [...text].map((_, i) => ({ key: text.slice(0, i + 1), bytes: 100 * (i + 1) }));

test.each(['affinity', 'adaptive'] as const)(
  'where %s looks for a request: the longest beginning, the session, the user, that was answered by one that serves',
  (policy) => {
    const seen = { followed: 0, free: 0, moved: 0 };
    fc.assert(
      fc.property(steps, fc.integer(), (list, from) => {
        const boxes = BOXES.map((endpointId): Candidate => ({ ...PLAIN, endpointId }));
        const chooser = new Chooser({
          catalogue: { candidates: () => boxes } as unknown as Catalogue,
          turns: new Turns(),
          pins: new Pins(),
          responses: new Pins(),
          explorations: new Explorations(),
          policy,
          overflowMs: 0,
          random: chance(from),
          mono: () => 0,
          ahead: () => 0,
        });
        /** Where each text and each session was last, plainly. */
        const was = new Map<string, { box: string; bytes: number }>();
        for (const step of list) {
          if (step.do !== 'ask') {
            const box = boxes.find(({ endpointId }) => endpointId === step.box) as Candidate;
            if (step.do === 'forget') {
              chooser.forget(step.box);
              for (const [key, { box: there }] of was) if (there === step.box) was.delete(key);
            } else box.status = step.do === 'drain' ? 'draining' : 'online';
            continue;
          }
          const { model, session, user, text } = step;
          const prefixes = prefixesOf(text);
          const wanted: Wanted = { ...NO_DEMAND, model, session, user, previous: null, prefixes };
          const keys = prefixes.map(({ key }) => `${key} ${model}`).reverse();
          for (const name of [session, user]) if (name !== null) keys.push(`${name} ${model}`);
          const known = keys.flatMap((key) => was.get(key) ?? []);
          const serving = boxes
            .filter(({ status }) => status === 'online')
            .map(({ endpointId }) => endpointId);
          const serves = ({ box }: { box: string }) => serving.includes(box);
          // Affinity takes the session at its word, wherever the same beginning was since.
          const named = policy === 'affinity' ? was.get(`${session} ${model}`) : undefined;
          const pin = known.find(
            (one) => serves(one) && (named === undefined || !serves(named) || one.box === named.box),
          );
          const choice = chooser.look(wanted);
          const chosen = choice.chosen?.endpointId;
          expect(choice.outlook.demand.pin).toEqual(
            pin === undefined ? null : { endpointId: pin.box, bytes: pin.bytes },
          );
          if (pin !== undefined && policy === 'affinity') expect(chosen).toBe(pin.box);
          if (known.length === 0) seen.free += 1;
          else if (pin === known[0]) seen.followed += 1;
          else seen.moved += 1;
          if (chosen === undefined) continue;
          chooser.taken(choice, wanted);
          for (const { key, bytes } of prefixes.slice(-2)) was.set(`${key} ${model}`, { box: chosen, bytes });
          for (const name of [session, user]) {
            if (name !== null) was.set(`${name} ${model}`, { box: chosen, bytes: 0 });
          }
        }
      }),
      { numRuns: 500 },
    );
    for (const times of Object.values(seen)) expect(times).toBeGreaterThan(100);
  },
);

test('looking where a request would go pins nothing', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const boxes = BOXES.map((endpointId): Candidate => ({ ...PLAIN, endpointId }));
      const pins = new Pins();
      const turns = new Turns();
      const chooser = new Chooser({
        catalogue: { candidates: () => boxes } as unknown as Catalogue,
        turns,
        pins,
        responses: new Pins(),
        explorations: new Explorations(),
        policy: 'affinity',
        overflowMs: 0,
        random: () => 0,
        mono: () => 0,
        ahead: () => 0,
      });
      for (const step of list) {
        if (step.do !== 'ask') continue;
        const { model, session, user, text } = step;
        chooser.look({ ...NO_DEMAND, model, session, user, previous: null, prefixes: prefixesOf(text) });
      }
      expect(pins.size).toBe(0);
      expect(turns.of('m', 'a')).toBe(0);
    }),
    { numRuns: 50 },
  );
});
