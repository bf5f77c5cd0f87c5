import { hourOf } from '../clock.js';
import { addHistogram, addValue, type Histogram } from './histogram.js';
import type { RequestRecord } from './records.js';

/**
 * What is measured of whole answers: ms to the first token of a stream, ms between its tokens, ms of the attempt, and
 * by how many percent of that its prediction was wrong.
 */
export type Metric = 'ttft' | 'inter_token' | 'duration' | 'prediction_error';

/** Of one endpoint × model × metric, over all hours. */
export interface ModelHistogram {
  endpointId: string;
  modelId: string;
  metric: Metric;
  histogram: Histogram;
}

export interface HourHistogram extends ModelHistogram {
  /** Hours since the epoch, UTC. */
  hour: number;
}

export function hourKey({ hour, metric, endpointId, modelId }: Omit<HourHistogram, 'histogram'>): string {
  return `${hour}\n${metric}\n${endpointId}\n${modelId}`;
}

/** Folds what the attempts of one finished request measured, in place. */
export function foldSamples(hours: Map<string, HourHistogram>, record: RequestRecord): void {
  const hour = hourOf(record.completedAt);
  for (const { samples, endpointId, modelId, durationMs, predictedMs } of record.attempts) {
    if (samples === undefined) continue;
    const of = (metric: Metric) => histogramAt(hours, { hour, metric, endpointId, modelId });
    addValue(of('duration'), durationMs);
    if (predictedMs !== null) {
      addValue(of('prediction_error'), (Math.abs(predictedMs - durationMs) / durationMs) * 100);
    }
    if (samples.firstTokenMs !== null) addValue(of('ttft'), samples.firstTokenMs);
    if (samples.gaps !== null) addHistogram(of('inter_token'), samples.gaps);
  }
}

/** Adds an hour to the same hour, in place. */
export function addHour(hours: Map<string, HourHistogram>, from: HourHistogram): void {
  addHistogram(histogramAt(hours, from), from.histogram);
}

function histogramAt(
  hours: Map<string, HourHistogram>,
  { hour, metric, endpointId, modelId }: Omit<HourHistogram, 'histogram'>,
): Histogram {
  const key = hourKey({ hour, metric, endpointId, modelId });
  let there = hours.get(key);
  if (there === undefined) {
    there = { hour, metric, endpointId, modelId, histogram: new Map() };
    hours.set(key, there);
  }
  return there.histogram;
}
