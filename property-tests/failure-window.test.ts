import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FailureWindow } from '../src/access/failure-window.js';

const WINDOW = 1000;

/** A few keys, on a clock that never goes back and often stands at the edge of the window. */
const steps = fc.array(
  fc.record({
    do: fc.oneof(
      { weight: 6, arbitrary: fc.constant('note' as const) },
      { weight: 1, arbitrary: fc.constant('forget' as const) },
      { weight: 2, arbitrary: fc.constant('look' as const) },
    ),
    key: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    gap: fc.oneof(fc.constant(0), fc.nat(40), fc.constantFrom(WINDOW / 2, WINDOW - 1, WINDOW, WINDOW + 1)),
  }),
  { maxLength: 60, size: 'max' },
);

/** All failures there ever were, in order; of the keys that are remembered. */
class Naive {
  failures: { key: string; at: number }[] = [];
  readonly limit: number;
  readonly maxKeys: number;

  constructor(limit: number, maxKeys: number) {
    this.limit = limit;
    this.maxKeys = maxKeys;
  }

  get keys(): number {
    return new Set(this.failures.map(({ key }) => key)).size;
  }

  /** How many keys had to go for it. */
  note(key: string, now: number): number {
    this.failures.push({ key, at: now });
    this.sweep(now);
    const byNewest = [...new Set(this.failures.map((one) => one.key).reverse())];
    const gone = byNewest.slice(this.maxKeys);
    for (const each of gone) this.forget(each);
    return gone.length;
  }

  forget(key: string): void {
    this.failures = this.failures.filter((one) => one.key !== key);
  }

  sweep(now: number): void {
    this.failures = this.failures.filter(({ at }) => now - at < WINDOW);
  }

  isOver(key: string, now: number): boolean {
    return this.failures.filter((one) => one.key === key && now - one.at < WINDOW).length >= this.limit;
  }
}

test('a key is over exactly while as many failures as its limit lie within the window', () => {
  const seen = { over: 0, under: 0, evicted: 0 };
  fc.assert(
    fc.property(
      steps,
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 6 }),
      (list, limit, most) => {
        const window = new FailureWindow(limit, WINDOW, most);
        const naive = new Naive(limit, most);
        let now = 5;
        for (const { do: what, key, gap } of list) {
          now += gap;
          if (what === 'note') {
            window.note(key, now);
            if (naive.note(key, now) > 0) seen.evicted += 1;
            expect(window.size).toBe(naive.keys);
          } else if (what === 'forget') {
            window.forget(key);
            naive.forget(key);
          }
          for (const each of ['a', 'b', 'c', 'd', 'e']) {
            expect(window.isOver(each, now)).toBe(naive.isOver(each, now));
            if (naive.isOver(each, now)) seen.over += 1;
            else seen.under += 1;
          }
        }
      },
    ),
    { numRuns: 300 },
  );
  for (const times of Object.values(seen)) expect(times).toBeGreaterThan(100);
});

test('the wait it names is the least in whole seconds after which the key is no longer over', () => {
  let waited = 0;
  fc.assert(
    fc.property(
      fc.array(fc.nat(9000), { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 4 }),
      (gaps, limit) => {
        const window = new FailureWindow(limit);
        let now = 0;
        for (const gap of gaps) {
          now += gap;
          window.note('a', now);
        }
        const secs = window.retryAfterSecs('a', now);
        expect(secs).toBeGreaterThanOrEqual(1);
        expect(Number.isInteger(secs)).toBe(true);
        expect(window.isOver('a', now + secs * 1000)).toBe(false);
        if (secs === 1) return;
        expect(window.isOver('a', now + (secs - 1) * 1000)).toBe(true);
        waited += 1;
      },
    ),
  );
  expect(waited).toBeGreaterThan(20);
});

test('whoever goes through ever new keys fills no more than the most there may be', () => {
  const window = new FailureWindow(2, WINDOW, 100);
  for (let i = 0; i < 5000; i += 1) {
    window.note(`k${i}`, i / 1000);
    expect(window.size).toBe(Math.min(i + 1, 100));
  }
  window.note('k4899', 5);
  window.note('k4950', 5);
  // The first had gone and begins anew; the other was still known.
  expect(window.isOver('k4899', 5)).toBe(false);
  expect(window.isOver('k4950', 5)).toBe(true);
});

test('a failure of one key drops all keys whose window is over', () => {
  const window = new FailureWindow(2, WINDOW);
  for (let i = 0; i < 500; i += 1) window.note(`k${i}`, i);
  window.note('new', 499 + WINDOW - 1);
  expect(window.size).toBe(2);
  window.note('new', 499 + WINDOW);
  expect(window.size).toBe(1);
});

test('a limit below one is no limit and is refused', () => {
  expect(() => new FailureWindow(0)).toThrow(RangeError);
  expect(() => new FailureWindow(Number.NaN)).toThrow(RangeError);
  expect(() => new FailureWindow(1, WINDOW, 0)).toThrow(RangeError);
});
