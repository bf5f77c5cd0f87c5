import { DDSketch } from '@datadog/sketches-js';

/** How many values fell into a bucket, and their sum in whole thousandths, which comes out the same in any order. */
export interface Tally {
  count: number;
  sum: number;
}

/** By bucket. All have the same buckets, so any two can be added. */
export type Histogram = Map<number, Tally>;

export interface Percentiles {
  p50: number;
  p95: number;
  p99: number;
}

/** Stored buckets mean this: it cannot be changed without changing them. */
export const RELATIVE_ACCURACY = 0.02;
/** Values outside count as the nearest one inside: 0 has no bucket. */
const LEAST = 0.001;
const MOST = 1e9;

const { mapping } = new DDSketch({ relativeAccuracy: RELATIVE_ACCURACY });

export function bucketOf(value: number): number {
  return mapping.key(inRange(value));
}

/** Adds a value so many times, in place. */
export function addValue(to: Histogram, value: number, times = 1): void {
  // Such a row would be refused by the store, and its batch with it, for ever.
  if (!Number.isFinite(value)) return;
  const held = inRange(value);
  tally(to, mapping.key(held), times, Math.round(held * times * 1000));
}

/** Adds `from` to `to`, in place. */
export function addHistogram(to: Histogram, from: Histogram): void {
  for (const [bucket, { count, sum }] of from) tally(to, bucket, count, sum);
}

/** All buckets together. */
export function totalOf(histogram: Histogram): Tally {
  const total = { count: 0, sum: 0 };
  for (const { count, sum } of histogram.values()) {
    total.count += count;
    total.sum += sum;
  }
  return total;
}

/** Each within the relative accuracy of a value that was added; null without any. */
export function percentilesOf(histogram: Histogram): Percentiles | null {
  if (histogram.size === 0) return null;
  const sketch = new DDSketch({ relativeAccuracy: RELATIVE_ACCURACY });
  for (const [bucket, { count }] of histogram) sketch.accept(mapping.value(bucket), count);
  return {
    p50: sketch.getValueAtQuantile(0.5),
    p95: sketch.getValueAtQuantile(0.95),
    p99: sketch.getValueAtQuantile(0.99),
  };
}

function inRange(value: number): number {
  return Math.min(Math.max(value, LEAST), MOST);
}

function tally(to: Histogram, bucket: number, count: number, sum: number): void {
  const there = to.get(bucket);
  if (there === undefined) to.set(bucket, { count, sum });
  else {
    there.count += count;
    there.sum += sum;
  }
}
