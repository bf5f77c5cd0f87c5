import { addHistogram, type Histogram } from '../machines/histogram.js';
import type { Metric, ModelHistogram } from '../machines/hour-histograms.js';

/** By model, then by metric. */
export type HistogramsByModel = Map<string, Map<Metric, Histogram>>;

/** The stored histograms of every endpoint, over all hours. */
export class ModelHistograms {
  readonly #endpoints = new Map<string, HistogramsByModel>();

  seed(rows: Iterable<ModelHistogram>): void {
    this.#endpoints.clear();
    for (const row of rows) this.add(row);
  }

  add(row: ModelHistogram): void {
    let models = this.#endpoints.get(row.endpointId);
    if (models === undefined) {
      models = new Map();
      this.#endpoints.set(row.endpointId, models);
    }
    addMetric(models, row.modelId, row.metric, row.histogram);
  }

  forget(endpointId: string): void {
    this.#endpoints.delete(endpointId);
  }

  /** Those of one endpoint, or of all together, as a copy. */
  read(endpointId?: string): HistogramsByModel {
    const read: HistogramsByModel = new Map();
    const endpoints =
      endpointId === undefined ? this.#endpoints.values() : [this.#endpoints.get(endpointId) ?? new Map()];
    for (const models of endpoints) {
      for (const [modelId, metrics] of models) {
        for (const [metric, histogram] of metrics) addMetric(read, modelId, metric, histogram);
      }
    }
    return read;
  }
}

/** Adds a histogram to that of the same model and metric, in place. */
export function addMetric(to: HistogramsByModel, modelId: string, metric: Metric, from: Histogram): void {
  let metrics = to.get(modelId);
  if (metrics === undefined) {
    metrics = new Map();
    to.set(modelId, metrics);
  }
  let histogram = metrics.get(metric);
  if (histogram === undefined) {
    histogram = new Map();
    metrics.set(metric, histogram);
  }
  addHistogram(histogram, from);
}
