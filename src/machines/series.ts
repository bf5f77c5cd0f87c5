import { MINUTE_MS } from '../clock.js';
import type { MinuteSums } from './sums.js';
import { hasTag } from './tags.js';
import { fitsPattern } from './wildcard.js';

/** Steps are of whole minutes, and past two days of whole hours: finer is not kept. */
export const RANGES = {
  '1h': { stepSecs: 60, steps: 60 },
  '24h': { stepSecs: 300, steps: 288 },
  '7d': { stepSecs: 3600, steps: 168 },
  '30d': { stepSecs: 7200, steps: 360 },
} as const;
export type Range = keyof typeof RANGES;

/** What clients got in one step, and what its means are made of. */
export interface StepSums {
  success: number;
  error: number;
  inputTokens: number;
  outputTokens: number;
  /** Rows with outcome success, and the sum of their durations. */
  measured: number;
  measuredMs: number;
  /** Those of them that tell the time to their first token. */
  ttftCount: number;
  ttftMs: number;
  /** Tokens and duration of the answers that gave a TPS sample. */
  sampleTokens: number;
  sampleMs: number;
}

export const METRICS = {
  requests: ({ success, error }) => success + error,
  errors: ({ error }) => error,
  latency: ({ measured, measuredMs }) => ratio(measuredMs, measured),
  ttft: ({ ttftCount, ttftMs }) => ratio(ttftMs, ttftCount),
  tps: ({ sampleTokens, sampleMs }) => ratio(1000 * sampleTokens, sampleMs),
  tokens: ({ inputTokens, outputTokens }) => inputTokens + outputTokens,
} satisfies Record<string, (sums: StepSums) => number | null>;
export type SeriesMetric = keyof typeof METRICS;

export interface SeriesFilter {
  endpointId?: string;
  /** As the endpoint lists it: exact, where a name without a tag also means `NAME:latest`, or with `*`. */
  model?: string;
}

/** By the start of the step, in steps since the epoch. */
export type Steps = Map<number, StepSums>;

function noStep(): StepSums {
  return {
    success: 0,
    error: 0,
    inputTokens: 0,
    outputTokens: 0,
    measured: 0,
    measuredMs: 0,
    ttftCount: 0,
    ttftMs: 0,
    sampleTokens: 0,
    sampleMs: 0,
  };
}

/** The step a range begins with at a wall-clock time, and that of the time itself, which is its last. */
export function spanOf(range: Range, now: number): { first: number; last: number } {
  const { stepSecs, steps } = RANGES[range];
  const last = Math.floor(now / 1000 / stepSecs);
  return { first: last - steps + 1, last };
}

/** Adds what fits the filter, in place. */
export function addMinutes(
  steps: Steps,
  range: Range,
  filter: SeriesFilter,
  minutes: Iterable<MinuteSums>,
): void {
  const stepMinutes = (RANGES[range].stepSecs * 1000) / MINUTE_MS;
  for (const row of minutes) {
    if (!fits(row, filter)) continue;
    const step = Math.floor(row.minute / stepMinutes);
    const sums = steps.get(step) ?? noStep();
    for (const key of KEYS) sums[key] += row[key];
    steps.set(step, sums);
  }
}

/** Oldest first, without a gap. */
export function pointsOf(
  steps: Steps,
  range: Range,
  metric: SeriesMetric,
  now: number,
): [secs: number, value: number | null][] {
  const { first, last } = spanOf(range, now);
  const { stepSecs } = RANGES[range];
  const nothing = noStep();
  return Array.from({ length: last - first + 1 }, (_, i) => [
    (first + i) * stepSecs,
    METRICS[metric](steps.get(first + i) ?? nothing),
  ]);
}

const KEYS = Object.keys(noStep()) as (keyof StepSums)[];

function fits({ endpointId, modelId }: MinuteSums, filter: SeriesFilter): boolean {
  if (filter.endpointId !== undefined && filter.endpointId !== endpointId) return false;
  return filter.model === undefined || fitsPattern(filter.model, modelId) || modelId === latest(filter.model);
}

/** The other name of a model that is asked for without a tag; a pattern has none. */
export function latest(model: string): string | undefined {
  return model.includes('*') || hasTag(model) ? undefined : `${model}:latest`;
}

function ratio(sum: number, count: number): number | null {
  return count === 0 ? null : sum / count;
}
