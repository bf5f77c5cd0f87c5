import { type Histogram, type Percentiles, percentilesOf, totalOf } from '../machines/histogram.js';
import type { Metric } from '../machines/hour-histograms.js';
import { addSums, noSums, type Sums } from '../machines/sums.js';
import type { Books } from './books.js';
import type { ModelStatView } from './wire-shapes.js';

/** All-time numbers by model, of one endpoint or over all that exist. */
export function modelStats(books: Books, today: string, endpointId?: string): ModelStatView[] {
  const byModel = new Map<string, Sums>();
  for (const { modelId, total } of books.modelSums(today, endpointId)) {
    const sums = byModel.get(modelId) ?? noSums();
    addSums(sums, total);
    byModel.set(modelId, sums);
  }
  const histograms = books.histograms(endpointId);
  return [...byModel]
    .map(([modelId, sums]) => view(modelId, sums, histograms.get(modelId) ?? new Map()))
    .sort((a, b) => (a.model_id < b.model_id ? -1 : 1));
}

function view(modelId: string, sums: Sums, histograms: Map<Metric, Histogram>): ModelStatView {
  const percentiles = (metric: Metric) => rounded(percentilesOf(histograms.get(metric) ?? new Map()));
  return {
    model_id: modelId,
    total_requests: sums.success + sums.failed,
    successful_requests: sums.success,
    failed_requests: sums.failed,
    total_output_tokens: sums.sampleTokens,
    total_duration_ms: sums.sampleMs,
    ttft_ms: percentiles('ttft'),
    decode_tps: perSecond(histograms.get('inter_token') ?? new Map()),
    inter_token_ms: percentiles('inter_token'),
    duration_ms: percentiles('duration'),
    prediction_error: percentiles('prediction_error'),
  };
}

/** Tokens a second, from the ms between them. */
function perSecond(gaps: Histogram): number | null {
  const { count, sum } = totalOf(gaps);
  return sum === 0 ? null : twoPlaces((count * 1_000_000) / sum);
}

function rounded(percentiles: Percentiles | null): Percentiles | null {
  if (percentiles === null) return null;
  const { p50, p95, p99 } = percentiles;
  return { p50: twoPlaces(p50), p95: twoPlaces(p95), p99: twoPlaces(p99) };
}

function twoPlaces(value: number): number {
  return Math.round(value * 100) / 100;
}
