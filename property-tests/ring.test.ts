import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createActor } from 'xstate';
import { withReducer } from '../src/actors/fast-path.js';
import { addFinished, historyLogic } from '../src/machines/history.js';
import {
  addToRing,
  emptyRing,
  RING_MINUTES,
  type Ring,
  readRing,
  ringOf,
  type Slot,
} from '../src/machines/ring.js';

const START = 29_000_000;

interface Event {
  minute: number;
  success: boolean;
}

function slotOf({ minute, success }: Event): Slot {
  return {
    minute,
    success: success ? 1 : 0,
    error: success ? 0 : 1,
    measured: success ? 1 : 0,
    measuredMs: success ? 5 : 0,
  };
}

function ringWith(events: Event[]): Ring {
  return events.reduce((ring, event) => addToRing(ring, slotOf(event)), emptyRing());
}

function totals(slots: readonly Slot[]) {
  const sum = (pick: (slot: Slot) => number) => slots.reduce((all, slot) => all + pick(slot), 0);
  return {
    success: sum(({ success }) => success),
    error: sum(({ error }) => error),
    measured: sum(({ measured }) => measured),
    measuredMs: sum(({ measuredMs }) => measuredMs),
  };
}

const forward = fc
  .array(fc.record({ step: fc.oneof(fc.constant(0), fc.nat(3), fc.nat(200)), success: fc.boolean() }), {
    maxLength: 80,
  })
  .map((list) => {
    let minute = START;
    return list.map(({ step, success }) => {
      minute += step;
      return { minute, success };
    });
  });
const anyClock = fc.array(
  fc.record({ minute: fc.integer({ min: START - 300, max: START + 300 }), success: fc.boolean() }),
  { maxLength: 80 },
);

test('with a clock that never goes back the totals are the events of the last 60 minutes', () => {
  fc.assert(
    fc.property(forward, fc.nat(90), (events, later) => {
      const now = (events[events.length - 1]?.minute ?? START) + later;
      const shown = events.filter(({ minute }) => minute > now - RING_MINUTES);
      expect(totals(readRing(ringWith(events), now))).toEqual(totals(shown.map(slotOf)));
    }),
  );
});

test('with any clock there are 60 points in order, none negative, and never more than all events', () => {
  fc.assert(
    fc.property(anyClock, fc.integer({ min: START - 400, max: START + 400 }), (events, now) => {
      const slots = readRing(ringWith(events), now);
      expect(slots.map(({ minute }) => minute)).toEqual(
        Array.from({ length: RING_MINUTES }, (_, i) => now - RING_MINUTES + 1 + i),
      );
      for (const slot of slots) {
        const there = totals(events.filter(({ minute }) => minute === slot.minute).map(slotOf));
        expect(slot.success).toBeGreaterThanOrEqual(0);
        expect(slot.error).toBeGreaterThanOrEqual(0);
        expect(slot.success).toBeLessThanOrEqual(there.success);
        expect(slot.error).toBeLessThanOrEqual(there.error);
        expect(slot.measuredMs).toBe(slot.measured * 5);
      }
    }),
  );
});

test('a ring made of its own slots reads the same', () => {
  fc.assert(
    fc.property(forward, (events) => {
      const now = events[events.length - 1]?.minute ?? START;
      const slots = readRing(ringWith(events), now);
      expect(readRing(ringOf(slots), now)).toEqual(slots);
    }),
  );
});

test('a timeline that takes its minutes the fast way is at every step what its store makes of it', () => {
  const slot = fc
    .record({ minute: fc.integer({ min: START, max: START + 200 }), success: fc.boolean() })
    .map(slotOf);
  const started = (logic: typeof historyLogic) =>
    createActor(logic, { input: { ring: emptyRing() } }).start();
  fc.assert(
    fc.property(fc.array(slot, { minLength: 1, maxLength: 30 }), (slots) => {
      const plain = started(historyLogic);
      const fast = started(withReducer(historyLogic, 'finished', addFinished));
      for (const one of slots) {
        plain.send({ type: 'finished', slot: one });
        fast.send({ type: 'finished', slot: one });
        expect(fast.getSnapshot()).toEqual(plain.getSnapshot());
      }
      fast.send({ type: 'reseed', ring: emptyRing() });
      expect(fast.getSnapshot().context.ring).toEqual(emptyRing());
    }),
  );
});
