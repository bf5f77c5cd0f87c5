import type { Database } from 'sqlite';
import { latest, RANGES, type StepSums } from '../../machines/series.js';
import type { SeriesQuery, StoredSeries } from '../store.js';
import { globOf, isExact } from './reads.js';

type Row = { seq: number; step: number | null } & StepSums;

/** Sums and cursor in one statement, so of one moment. Steps of whole hours are in both tables. */
export async function readSeries(db: Database, query: SeriesQuery): Promise<StoredSeries> {
  const { stepSecs } = RANGES[query.range];
  const { where, values } = conditions(query);
  const parts = [stepsOf('request_minutes', 'minute', stepSecs / 60, query, where)];
  if (stepSecs >= 3600) parts.push(stepsOf('request_hours', 'hour', stepSecs / 3600, query, where));
  const rows = await db.all<Row[]>(
    `SELECT written.seq AS seq, found.*
     FROM (SELECT coalesce(max(seq), 0) AS seq FROM ledger_cursors WHERE run = ?) AS written
     LEFT JOIN (SELECT step, ${SUMS} FROM (${parts.join(' UNION ALL ')}) GROUP BY step) AS found`,
    query.run,
    ...parts.flatMap(() => values),
  );
  const steps = rows.flatMap(({ seq: _, step, ...sums }): [number, StepSums][] =>
    step === null ? [] : [[step, sums]],
  );
  return { seq: rows[0]?.seq ?? 0, steps: new Map(steps) };
}

/** One row a step at most: as many as the range has. */
function stepsOf(
  table: string,
  column: string,
  perStep: number,
  { first, last }: SeriesQuery,
  where: string,
): string {
  const sums = COLUMNS.map(([name]) => `sum(${name}) AS ${name}`).join(', ');
  return `SELECT ${column} / ${perStep} AS step, ${sums} FROM ${table}
    WHERE ${column} BETWEEN ${first * perStep} AND ${(last + 1) * perStep - 1} AND ${where} GROUP BY step`;
}

function conditions({ endpointId, model }: SeriesQuery): { where: string; values: string[] } {
  const parts = ['true'];
  const values: string[] = [];
  if (endpointId !== undefined) {
    parts.push('endpoint_id = ?');
    values.push(endpointId);
  }
  if (model !== undefined && isExact(model)) {
    parts.push('model_id IN (?, ?)');
    values.push(model, latest(model) ?? model);
  } else if (model !== undefined) {
    parts.push('model_id GLOB ?');
    values.push(globOf(model));
  }
  return { where: parts.join(' AND '), values };
}

const COLUMNS: [column: string, key: keyof StepSums][] = [
  ['success', 'success'],
  ['error', 'error'],
  ['input_tokens', 'inputTokens'],
  ['output_tokens', 'outputTokens'],
  ['measured', 'measured'],
  ['measured_ms', 'measuredMs'],
  ['ttft_count', 'ttftCount'],
  ['ttft_ms', 'ttftMs'],
  ['sample_tokens', 'sampleTokens'],
  ['sample_ms', 'sampleMs'],
];
const SUMS = COLUMNS.map(([column, key]) => `sum(${column}) AS ${key}`).join(', ');
