import fc from 'fast-check';
import { expect, test } from 'vitest';
import { backoffMs } from '../src/machines/backoff.js';
import {
  type ChildRecord,
  CRASH_WINDOW_MS,
  crashedTooOften,
  errorText,
  MOST_CRASHES,
  newChild,
  noteCrash,
  noteRestart,
} from '../src/machines/supervision.js';

// Four gaps of 15 s are exactly the window.
const gap = fc.oneof(fc.nat(30_000), fc.constantFrom(14_999, 15_000, CRASH_WINDOW_MS));
const times = fc.array(gap, { maxLength: 150 }).map((gaps) => {
  let mono = 0;
  return gaps.map((gap) => {
    mono += gap;
    return mono;
  });
});

test('five crashes are too many exactly when they lie within one minute, whatever came before', () => {
  fc.assert(
    fc.property(times, fc.nat(2 * CRASH_WINDOW_MS), (crashes, later) => {
      let child = newChild('box');
      for (const [i, mono] of crashes.entries()) {
        child = noteCrash(child, 'boom', mono, mono);
        const recent = crashes.slice(0, i + 1).filter((at) => mono - at < CRASH_WINDOW_MS);
        expect(crashedTooOften(child, mono)).toBe(recent.length >= MOST_CRASHES);
        // Only the last minute is remembered.
        expect(child.crashes).toEqual(recent);
      }
      const now = (crashes[crashes.length - 1] ?? 0) + later;
      const still = crashes.filter((at) => now - at < CRASH_WINDOW_MS);
      expect(crashedTooOften(child, now)).toBe(still.length >= MOST_CRASHES);
    }),
  );
});

test('a record counts its restarts, tells the newest error and keeps a hundred changes in order', () => {
  fc.assert(
    fc.property(times, (crashes) => {
      const child = crashes.reduce<ChildRecord>(
        (record, mono, i) => noteRestart(noteCrash(record, `boom ${i}`, mono, mono), mono),
        newChild('tps'),
      );
      expect(child.restarts).toBe(crashes.length);
      expect(child.status).toBe('active');
      expect(child.lastError).toBe(crashes.length === 0 ? null : `boom ${crashes.length - 1}`);
      expect(child.transitions).toHaveLength(Math.min(100, 2 * crashes.length));
      const at = child.transitions.map((one) => one.at);
      expect(at).toEqual([...at].sort((a, b) => a - b));
    }),
  );
});

test('a pause doubles from the first to the longest and never leaves that range', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10_000 }),
      fc.integer({ min: 1, max: 1000 }),
      fc.nat(100_000),
      (attempt, first, more) => {
        const most = first + more;
        const ms = backoffMs(attempt, first, most);
        expect(ms).toBeGreaterThanOrEqual(first);
        expect(ms).toBeLessThanOrEqual(most);
        expect(backoffMs(1, first, most)).toBe(first);
        if (ms < most) expect(backoffMs(attempt + 1, first, most)).toBe(Math.min(most, 2 * ms));
        else expect(backoffMs(attempt + 1, first, most)).toBe(most);
      },
    ),
  );
});

test('whatever is thrown becomes one short line', () => {
  const thrown = fc.oneof(
    fc.string(),
    fc.string().map((text) => new Error(text)),
    fc.integer(),
    fc.constant(undefined),
    fc.constant(null),
  );
  fc.assert(
    fc.property(thrown, (error) => {
      const text = errorText(error);
      expect(text).not.toContain('\n');
      expect(text.length).toBeLessThanOrEqual(200);
    }),
  );
});
