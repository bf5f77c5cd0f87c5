import { localDate, minuteOf } from '../clock.js';
import { addHour, foldSamples, type HourHistogram } from './hour-histograms.js';
import { type ApiKind, lastAttempt, type RequestRecord } from './records.js';
import { addDailyUsage, type DailyUsage, foldUsage, noUsage } from './usage.js';

/** What the attempts of one endpoint × model × kind add up to. */
export interface Sums {
  success: number;
  failed: number;
  inputTokens: number;
  outputTokens: number;
  /** Attempts that gave a TPS sample, their output tokens and their duration. */
  samples: number;
  sampleTokens: number;
  sampleMs: number;
}

export interface Counters {
  success: number;
  failed: number;
}

export interface DailySums extends Sums {
  date: string;
  endpointId: string;
  modelId: string;
  kind: ApiKind;
}

/** Clients by the minute they were finished in, under the last endpoint tried ('' if none). */
export interface MinuteSums {
  minute: number;
  endpointId: string;
  modelId: string;
  kind: ApiKind;
  success: number;
  error: number;
  inputTokens: number;
  outputTokens: number;
  /** Rows with outcome success and the sum of their durations: the average response time. */
  measured: number;
  measuredMs: number;
  /** Those of them that tell the time to their first token, and the sum of it. */
  ttftCount: number;
  ttftMs: number;
  /** Output tokens and duration of the answers that gave a TPS sample. */
  sampleTokens: number;
  sampleMs: number;
}

/** What a run of records adds to every stored sum. Increments only, so order and grouping do not matter. */
export interface Delta {
  counters: Map<string, Counters>;
  daily: Map<string, DailySums>;
  minutes: Map<string, MinuteSums>;
  usage: Map<string, DailyUsage>;
  histograms: Map<string, HourHistogram>;
}

export function noSums(): Sums {
  return {
    success: 0,
    failed: 0,
    inputTokens: 0,
    outputTokens: 0,
    samples: 0,
    sampleTokens: 0,
    sampleMs: 0,
  };
}

export function emptyDelta(): Delta {
  return {
    counters: new Map(),
    daily: new Map(),
    minutes: new Map(),
    usage: new Map(),
    histograms: new Map(),
  };
}

/** Adds `from` to `to`, in place. */
export function addSums(to: Sums, from: Sums): void {
  to.success += from.success;
  to.failed += from.failed;
  to.inputTokens += from.inputTokens;
  to.outputTokens += from.outputTokens;
  to.samples += from.samples;
  to.sampleTokens += from.sampleTokens;
  to.sampleMs += from.sampleMs;
}

/** Folds one finished request into a delta, in place. */
export function foldRecord(delta: Delta, record: RequestRecord): void {
  foldAttempts(delta, record);
  foldMinute(delta, record);
  foldUsage(delta.usage, record);
  foldSamples(delta.histograms, record);
}

/** Adds a whole delta to another, in place. */
export function foldDelta(to: Delta, from: Delta): void {
  for (const [id, counters] of from.counters) {
    const sum = entry(to.counters, id, () => ({ success: 0, failed: 0 }));
    sum.success += counters.success;
    sum.failed += counters.failed;
  }
  for (const [key, row] of from.daily) {
    addSums(
      entry(to.daily, key, () => ({ ...row, ...noSums() })),
      row,
    );
  }
  for (const [key, row] of from.minutes) {
    addMinute(
      entry(to.minutes, key, () => ({ ...row, ...noMinute() })),
      row,
    );
  }
  for (const [key, day] of from.usage) {
    addDailyUsage(
      entry(to.usage, key, () => ({ ...day, ...noUsage() })),
      day,
    );
  }
  for (const hour of from.histograms.values()) addHour(to.histograms, hour);
}

function foldAttempts(delta: Delta, record: RequestRecord): void {
  const date = localDate(record.completedAt);
  for (const attempt of record.attempts) {
    if (attempt.counted === 'none') continue;
    const won = attempt.counted === 'success' ? 1 : 0;
    const counters = entry(delta.counters, attempt.endpointId, () => ({ success: 0, failed: 0 }));
    counters.success += won;
    counters.failed += 1 - won;
    const { endpointId, modelId } = attempt;
    const { kind } = record;
    const row = entry(delta.daily, `${date}\n${endpointId}\n${kind}\n${modelId}`, () => ({
      date,
      endpointId,
      modelId,
      kind,
      ...noSums(),
    }));
    row.success += won;
    row.failed += 1 - won;
    row.inputTokens += attempt.inputTokens ?? 0;
    row.outputTokens += attempt.outputTokens ?? 0;
    if (!attempt.sampled) continue;
    row.samples += 1;
    row.sampleTokens += attempt.outputTokens ?? 0;
    row.sampleMs += attempt.durationMs;
  }
}

function foldMinute(delta: Delta, record: RequestRecord): void {
  if (record.timeline === 'none') return;
  const last = lastAttempt(record);
  const minute = minuteOf(record.completedAt);
  const endpointId = last?.endpointId ?? '';
  const modelId = last?.modelId ?? record.model;
  const { kind } = record;
  const row = entry(delta.minutes, `${minute}\n${endpointId}\n${kind}\n${modelId}`, () => ({
    minute,
    endpointId,
    modelId,
    kind,
    ...noMinute(),
  }));
  if (record.timeline === 'success') row.success += 1;
  else row.error += 1;
  row.inputTokens += last?.inputTokens ?? 0;
  row.outputTokens += last?.outputTokens ?? 0;
  if (last?.sampled) {
    row.sampleTokens += last.outputTokens ?? 0;
    row.sampleMs += last.durationMs;
  }
  if (record.outcome !== 'success') return;
  row.measured += 1;
  row.measuredMs += record.durationMs;
  if (record.ttftMs === null) return;
  row.ttftCount += 1;
  row.ttftMs += record.ttftMs;
}

function noMinute() {
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

function addMinute(to: MinuteSums, from: MinuteSums): void {
  to.success += from.success;
  to.error += from.error;
  to.inputTokens += from.inputTokens;
  to.outputTokens += from.outputTokens;
  to.measured += from.measured;
  to.measuredMs += from.measuredMs;
  to.ttftCount += from.ttftCount;
  to.ttftMs += from.ttftMs;
  to.sampleTokens += from.sampleTokens;
  to.sampleMs += from.sampleMs;
}

function entry<V>(map: Map<string, V>, key: string, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
