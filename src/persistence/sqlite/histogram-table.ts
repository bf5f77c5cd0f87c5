import type { Database } from 'sqlite';
import type { Tally } from '../../machines/histogram.js';
import type { HourHistogram, Metric, ModelHistogram } from '../../machines/hour-histograms.js';

/** Endpoints × models × metrics that a start reads at most. */
const SEED_LIMIT = 200_000;

/** What the statement below takes of each histogram: its key, and its buckets in a list. */
export function histogramValues({ endpointId, modelId, hour, metric, histogram }: HourHistogram): unknown[] {
  return [endpointId, modelId, hour, metric, tuples(histogram)];
}

/** Adds to the hour and, in the same step, to hour 0, which is over all hours. */
export const ADD_HISTOGRAMS = `
  INSERT INTO endpoint_histograms (endpoint_id, model_id, hour, metric, bucket, count, sum)
  SELECT one.value ->> 0, one.value ->> 1, iif(place.is_hour, one.value ->> 2, 0), one.value ->> 3,
    tally.value ->> 0, tally.value ->> 1, tally.value ->> 2
  FROM jsonb_each(?) AS one, jsonb_each(one.value, '$[4]') AS tally,
    (SELECT false AS is_hour UNION ALL SELECT true) AS place
  WHERE EXISTS (SELECT 1 FROM endpoints WHERE id = one.value ->> 0)
  ON CONFLICT (endpoint_id, model_id, hour, metric, bucket) DO UPDATE SET
    count = count + excluded.count,
    sum = sum + excluded.sum`;

interface HistogramRow {
  endpoint_id: string;
  model_id: string;
  metric: Metric;
  tallies: string;
}

/** Over all hours. */
export async function readHistograms(db: Database): Promise<ModelHistogram[]> {
  const rows = await db.all<HistogramRow[]>(
    `SELECT endpoint_id, model_id, metric, json_group_array(json_array(bucket, count, sum)) AS tallies
     FROM endpoint_histograms WHERE hour = 0 GROUP BY endpoint_id, model_id, metric LIMIT ?`,
    SEED_LIMIT,
  );
  return rows.map(({ endpoint_id, model_id, metric, tallies }) => ({
    endpointId: endpoint_id,
    modelId: model_id,
    metric,
    histogram: new Map(
      (JSON.parse(tallies) as Tuple[]).map(([bucket, count, sum]) => [bucket, { count, sum }]),
    ),
  }));
}

/** What is deleted stays in hour 0. */
export async function expireHistograms(writer: Database, before: number, limit: number): Promise<number> {
  const result = await writer.run(
    `DELETE FROM endpoint_histograms WHERE rowid IN
       (SELECT rowid FROM endpoint_histograms WHERE hour > 0 AND hour < ? ORDER BY hour LIMIT ?)`,
    before,
    limit,
  );
  return result.changes ?? 0;
}

type Tuple = [bucket: number, count: number, sum: number];

function tuples(histogram: Map<number, Tally>): Tuple[] {
  return [...histogram].map(([bucket, { count, sum }]) => [bucket, count, sum]);
}
