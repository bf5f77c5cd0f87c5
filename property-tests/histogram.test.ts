import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TokenTimes } from '../src/http/token-times.js';
import {
  addHistogram,
  addValue,
  bucketOf,
  type Histogram,
  percentilesOf,
  RELATIVE_ACCURACY,
  totalOf,
} from '../src/machines/histogram.js';
import { histogramOf } from './support/records.js';

const value = fc.double({ min: 0, max: 1e7, noNaN: true });
const values = fc.array(value, { maxLength: 60 });

function merged(...histograms: Histogram[]): Histogram {
  const all: Histogram = new Map();
  for (const one of histograms) addHistogram(all, one);
  return all;
}

const sorted = (histogram: Histogram) => [...histogram].sort(([a], [b]) => a - b);

test('adding histograms is the same in any order and grouping, and the same as counting all values in one', () => {
  fc.assert(
    fc.property(values, values, values, (a, b, c) => {
      const [one, two, three] = [a, b, c].map(histogramOf) as [Histogram, Histogram, Histogram];
      const whole = sorted(histogramOf([...a, ...b, ...c]));
      expect(sorted(merged(merged(one, two), three))).toEqual(whole);
      expect(sorted(merged(one, merged(two, three)))).toEqual(whole);
      expect(sorted(merged(three, two, one))).toEqual(whole);
      expect(sorted(one)).toEqual(sorted(histogramOf(a)));
    }),
  );
});

test('a percentile is as near to a value that was added as the relative accuracy says', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.001, max: 1e7, noNaN: true }), { minLength: 1 }), (list) => {
      const found = percentilesOf(histogramOf(list));
      const inOrder = list.toSorted((a, b) => a - b);
      for (const [name, share] of [
        ['p50', 0.5],
        ['p95', 0.95],
        ['p99', 0.99],
      ] as const) {
        const exact = inOrder[Math.floor(share * (list.length - 1))] as number;
        const error = Math.abs((found?.[name] ?? 0) - exact) / exact;
        expect(error).toBeLessThanOrEqual(RELATIVE_ACCURACY + 1e-9);
      }
    }),
  );
});

test('the sum is that of the values to a thousandth each, and no value is left out', () => {
  fc.assert(
    fc.property(values, (list) => {
      const { count, sum } = totalOf(histogramOf(list));
      const exact = list.reduce((all, one) => all + one, 0);
      expect(count).toBe(list.length);
      expect(Number.isSafeInteger(sum)).toBe(true);
      expect(Math.abs(sum / 1000 - exact)).toBeLessThanOrEqual(0.001 * list.length + exact * 1e-9);
    }),
  );
});

test('a larger value is never in a smaller bucket', () => {
  fc.assert(
    fc.property(value, value, (a, b) => {
      expect(bucketOf(Math.max(a, b))).toBeGreaterThanOrEqual(bucketOf(Math.min(a, b)));
    }),
  );
});

test('a histogram of nothing has no percentiles, and what is no finite number is no value', () => {
  const histogram: Histogram = new Map();
  for (const odd of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
    addValue(histogram, odd);
  expect(percentilesOf(histogram)).toBeNull();
  expect(histogram.size).toBe(0);
});

test.each([0, -1, 1e-12, Number.MAX_VALUE])('the value %s has a bucket all the same', (extreme) => {
  const histogram = histogramOf([extreme]);
  for (const [bucket, { count, sum }] of histogram) {
    expect([Number.isSafeInteger(bucket), count, Number.isSafeInteger(sum)]).toEqual([true, 1, true]);
  }
  expect(percentilesOf(histogram)?.p50).toBeGreaterThan(0);
});

test('every token of a stream but those of its first chunk is one gap, and the gaps fill the time between', () => {
  const chunk = fc.record({
    tokens: fc.integer({ min: 1, max: 9 }),
    after: fc.integer({ min: 1, max: 500 }),
  });
  fc.assert(
    fc.property(fc.array(chunk, { minLength: 1, maxLength: 30 }), (chunks) => {
      const times = new TokenTimes();
      let tokens = 0;
      let now = 1000.25;
      for (const { tokens: more, after } of chunks) {
        tokens += more;
        now += after;
        times.note(tokens, now);
      }
      const [first, ...others] = chunks as [(typeof chunks)[0], ...typeof chunks];
      expect(times.firstAt).toBe(1000.25 + first.after);
      expect(times.tokens).toBe(tokens);
      if (others.length === 0) expect(times.gaps).toBeNull();
      else {
        expect(totalOf(times.gaps ?? new Map())).toEqual({
          count: tokens - first.tokens,
          sum: others.reduce((sum, { after }) => sum + after, 0) * 1000,
        });
      }
    }),
  );
});
