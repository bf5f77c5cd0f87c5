import fc from 'fast-check';
import { addValue, type Histogram } from '../../src/machines/histogram.js';
import type { Metric } from '../../src/machines/hour-histograms.js';
import type { ApiKind, AttemptRecord, RequestRecord } from '../../src/machines/records.js';

/** Noon of a day in the local zone, so that a run of minutes stays within it. */
export const NOON = new Date(2026, 0, 15, 12).getTime();
export const ENDPOINTS = ['e1', 'e2', 'e3'];
export const KINDS: ApiKind[] = ['chat_completions', 'completions', 'embeddings'];
export const OWNERS = ['k1', 'k2'];
export const MODELS = ['m', 'n:latest'];

const attempt: fc.Arbitrary<AttemptRecord> = fc
  .record({
    endpointId: fc.constantFrom(...ENDPOINTS),
    modelId: fc.constantFrom(...MODELS),
    counted: fc.constantFrom('success' as const, 'failure' as const, 'none' as const),
    durationMs: fc.integer({ min: 1, max: 60_000 }),
    predictedMs: fc.option(fc.integer({ min: 1, max: 60_000 })),
    firstTokenMs: fc.option(fc.double({ min: 0, max: 60_000, noNaN: true })),
    gaps: fc.array(fc.double({ min: 0, max: 1000, noNaN: true }), { maxLength: 8 }),
    isWhole: fc.boolean(),
    inputTokens: fc.option(fc.nat(1000)),
    outputTokens: fc.option(fc.nat(1000)),
    statusCode: fc.option(fc.constantFrom(200, 500)),
  })
  .map(({ firstTokenMs, gaps, isWhole, ...one }) => ({
    ...one,
    endpointName: one.endpointId,
    error: one.counted === 'failure' ? 'it broke' : null,
    sampled: one.counted === 'success' && (one.outputTokens ?? 0) > 0,
    samples:
      isWhole && one.counted === 'success'
        ? { firstTokenMs, gaps: gaps.length === 0 ? null : histogramOf(gaps) }
        : undefined,
  }));

export function histogramOf(values: number[]): Histogram {
  const histogram: Histogram = new Map();
  for (const value of values) addValue(histogram, value);
  return histogram;
}

/** Finished requests in the order of their completion, some seconds apart. Ids are given by place. */
export function records(maxLength = 40, mostApartMs = 90_000): fc.Arbitrary<RequestRecord[]> {
  const one = fc.record({
    apart: fc.nat(mostApartMs),
    kind: fc.constantFrom(...KINDS),
    durationMs: fc.integer({ min: 1, max: 60_000 }),
    outcome: fc.constantFrom('success' as const, 'failure' as const, 'cancelled' as const),
    timeline: fc.constantFrom('success' as const, 'error' as const, 'none' as const),
    attempts: fc.array(attempt, { maxLength: 3 }),
    keyId: fc.option(fc.constantFrom(...OWNERS)),
  });
  return fc.array(one, { maxLength }).map((list) => {
    let at = NOON;
    return list.map(({ apart, ...rest }, i) => {
      at += apart;
      return {
        ...rest,
        id: `r${i}`,
        requestId: `r${i}`,
        requestType: 'chat',
        model: 'm',
        clientIp: null,
        userId: null,
        acceptedAt: at - rest.durationMs,
        completedAt: at,
        ttftMs: null,
        error: rest.outcome === 'failure' ? 'it broke' : null,
        statusCode: 200,
        tokensEstimated: false,
        decision: null,
      };
    });
  });
}

/** The counters, plainly: one step per counted attempt. */
export function countersOf(list: RequestRecord[], endpointId: string): { success: number; failed: number } {
  const counted = list.flatMap(({ attempts }) => attempts).filter((one) => one.endpointId === endpointId);
  return {
    success: counted.filter((one) => one.counted === 'success').length,
    failed: counted.filter((one) => one.counted === 'failure').length,
  };
}

/** The timeline, plainly: minute → what clients got in it. */
export function minutesOf(
  list: RequestRecord[],
): Map<number, [success: number, error: number, ms: number, measured: number]> {
  const minutes = new Map<number, [number, number, number, number]>();
  for (const { completedAt, timeline, outcome, durationMs } of list) {
    if (timeline === 'none') continue;
    const minute = Math.floor(completedAt / 60_000);
    const [success, error, ms, measured] = minutes.get(minute) ?? [0, 0, 0, 0];
    const isMeasured = outcome === 'success';
    minutes.set(minute, [
      success + (timeline === 'success' ? 1 : 0),
      error + (timeline === 'error' ? 1 : 0),
      ms + (isMeasured ? durationMs : 0),
      measured + (isMeasured ? 1 : 0),
    ]);
  }
  return minutes;
}

/** The sums of one endpoint × model × kind, plainly: requests, tokens and samples. */
export function sumsOf(list: RequestRecord[], endpointId: string, modelId: string, kind: ApiKind) {
  const sums = {
    success: 0,
    failed: 0,
    inputTokens: 0,
    outputTokens: 0,
    samples: 0,
    sampleTokens: 0,
    sampleMs: 0,
  };
  for (const record of list) {
    if (record.kind !== kind) continue;
    for (const one of record.attempts) {
      if (one.endpointId !== endpointId || one.modelId !== modelId || one.counted === 'none') continue;
      if (one.counted === 'success') sums.success += 1;
      else sums.failed += 1;
      sums.inputTokens += one.inputTokens ?? 0;
      sums.outputTokens += one.outputTokens ?? 0;
      if (!one.sampled) continue;
      sums.samples += 1;
      sums.sampleTokens += one.outputTokens ?? 0;
      sums.sampleMs += one.durationMs;
    }
  }
  return sums;
}

/** The histograms of one endpoint × model, plainly: by metric, by bucket, how many and their sum. */
export function histogramsOf(list: RequestRecord[], endpointId: string, modelId: string) {
  const found: Partial<Record<Metric, Record<number, [count: number, sum: number]>>> = {};
  const add = (metric: Metric, histogram: Histogram | null) => {
    if (histogram === null) return;
    found[metric] ??= {};
    for (const [bucket, { count, sum }] of histogram) {
      const [counted, summed] = found[metric][bucket] ?? [0, 0];
      found[metric][bucket] = [counted + count, summed + sum];
    }
  };
  for (const one of list.flatMap(({ attempts }) => attempts)) {
    if (one.endpointId !== endpointId || one.modelId !== modelId || one.samples === undefined) continue;
    const { durationMs, predictedMs, samples } = one;
    add('duration', histogramOf([durationMs]));
    if (predictedMs !== null) {
      add('prediction_error', histogramOf([(Math.abs(predictedMs - durationMs) / durationMs) * 100]));
    }
    if (samples.firstTokenMs !== null) add('ttft', histogramOf([samples.firstTokenMs]));
    add('inter_token', samples.gaps);
  }
  return found;
}

/** Read histograms in the same plain shape. */
export function plain(metrics: Map<Metric, Histogram> | undefined) {
  return Object.fromEntries(
    [...(metrics ?? [])].map(([metric, histogram]) => [
      metric,
      Object.fromEntries([...histogram].map(([bucket, { count, sum }]) => [bucket, [count, sum]])),
    ]),
  );
}
