import type { Database, Statement } from 'sqlite';
import type { Block } from '../../actors/blocks.js';
import type { HealthState } from '../../actors/books.js';
import type { EngineModel } from '../../engines/engine.js';
import { lastAttempt, type RequestRecord } from '../../machines/records.js';
import { ADD_HISTOGRAMS, histogramValues } from './histogram-table.js';
import { ADD_RESPONSES, responseValues } from './response-table.js';

/** The statements of one batch, prepared once for the writer handle. */
export interface BatchWriter {
  /** One transaction: all of the block and its cursor, or nothing. A block that is there already is left alone. */
  apply(block: Block): Promise<void>;
  finalize(): Promise<void>;
}

export async function batchWriter(db: Database): Promise<BatchWriter> {
  const statements: Statement[] = [];
  const prepare = async (sql: string) => {
    const statement = await db.prepare(sql);
    statements.push(statement);
    return statement;
  };
  const begin = await prepare('BEGIN IMMEDIATE');
  const commit = await prepare('COMMIT');
  const readCursor = await prepare('SELECT seq FROM ledger_cursors WHERE run = ?');
  const writeCursor = await prepare(
    'INSERT INTO ledger_cursors (run, seq) VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET seq = excluded.seq',
  );
  const rows = await prepare(INSERT_ROWS);
  const responses = await prepare(ADD_RESPONSES);
  const counters = await prepare(ADD_COUNTERS);
  const daily = await prepare(ADD_DAILY);
  const minutes = await prepare(ADD_MINUTES);
  const usage = await prepare(ADD_USAGE);
  const histograms = await prepare(ADD_HISTOGRAMS);
  const health = await prepare(SET_HEALTH);
  const dropModels = await prepare(DROP_MODELS);
  const models = await prepare(INSERT_MODELS);

  async function write(block: Block): Promise<void> {
    const cursor = await readCursor.get<{ seq: number }>(block.run);
    await readCursor.reset();
    if (cursor !== undefined && cursor.seq >= block.lastSeq) return;
    if (block.rows.length > 0) await rows.run(JSON.stringify(block.rows.map(rowValues)));
    const stored = responseValues(block.rows);
    if (stored.length > 0) await responses.run(JSON.stringify(stored));
    const { delta } = block;
    if (delta.counters.size > 0) {
      await counters.run(JSON.stringify([...delta.counters].map(([id, c]) => [id, c.success, c.failed])));
    }
    if (delta.daily.size > 0) await daily.run(JSON.stringify([...delta.daily.values()]));
    if (delta.minutes.size > 0) await minutes.run(JSON.stringify([...delta.minutes.values()]));
    if (delta.usage.size > 0) await usage.run(JSON.stringify([...delta.usage.values()]));
    if (delta.histograms.size > 0) {
      await histograms.run(JSON.stringify([...delta.histograms.values()].map(histogramValues)));
    }
    if (block.health.size > 0) {
      await health.run(JSON.stringify([...block.health].map(([id, h]) => healthValues(id, h))));
    }
    if (block.models.size > 0) {
      await dropModels.run(JSON.stringify([...block.models.keys()]));
      await models.run(JSON.stringify([...block.models].flatMap(([id, list]) => modelValues(id, list))));
    }
    await writeCursor.run(block.run, block.lastSeq);
  }

  return {
    async apply(block) {
      await begin.run();
      try {
        await write(block);
        await commit.run();
      } catch (error) {
        await db.exec('ROLLBACK').catch(() => {});
        throw error;
      }
    },
    async finalize() {
      for (const statement of statements) await statement.finalize().catch(() => {});
    },
  };
}

function rowValues(row: RequestRecord): unknown[] {
  return [
    row.id,
    row.requestId,
    row.kind,
    row.requestType,
    row.model,
    lastAttempt(row)?.endpointId ?? null,
    row.clientIp,
    row.acceptedAt,
    row.completedAt,
    row.durationMs,
    row.ttftMs,
    row.outcome,
    row.timeline,
    row.error,
    row.statusCode,
    row.tokensEstimated ? 1 : 0,
    // SQLite gives them back as the texts that the columns hold.
    row.attempts,
    row.decision,
    row.keyId,
    row.userId,
  ];
}

function healthValues(id: string, health: HealthState): unknown[] {
  const { engineType, latencyMs, lastSeen, lastError, errorCount } = health;
  return [id, health.health, engineType, latencyMs, lastSeen, lastError, errorCount];
}

function modelValues(id: string, models: EngineModel[]): unknown[][] {
  return models.map(({ modelId, capabilities, maxTokens }, position) => [
    id,
    modelId,
    position,
    capabilities === null ? null : JSON.stringify(capabilities),
    maxTokens,
  ]);
}

const INSERT_ROWS = `
  INSERT INTO requests (id, request_id, api_kind, request_type, model, endpoint_id, client_ip, accepted_at,
    completed_at, duration_ms, ttft_ms, outcome, timeline, error, status_code, tokens_estimated, attempts,
    decision, key_id, user_id)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14, value ->> 15,
    value ->> 16, value ->> 17, value ->> 18, value ->> 19
  FROM jsonb_each(?)`;

const ADD_COUNTERS = `
  UPDATE endpoints SET successful_requests = successful_requests + step.success,
    failed_requests = failed_requests + step.failed
  FROM (SELECT value ->> 0 AS id, value ->> 1 AS success, value ->> 2 AS failed FROM jsonb_each(?)) AS step
  WHERE endpoints.id = step.id`;

const ADD_DAILY = `
  INSERT INTO endpoint_daily_stats (endpoint_id, date, model_id, api_kind, successful_requests, failed_requests,
    input_tokens, output_tokens, samples, sample_tokens, sample_ms)
  SELECT value ->> 'endpointId', value ->> 'date', value ->> 'modelId', value ->> 'kind', value ->> 'success',
    value ->> 'failed', value ->> 'inputTokens', value ->> 'outputTokens', value ->> 'samples',
    value ->> 'sampleTokens', value ->> 'sampleMs'
  FROM jsonb_each(?)
  WHERE EXISTS (SELECT 1 FROM endpoints WHERE id = value ->> 'endpointId')
  ON CONFLICT (endpoint_id, date, model_id, api_kind) DO UPDATE SET
    successful_requests = successful_requests + excluded.successful_requests,
    failed_requests = failed_requests + excluded.failed_requests,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    samples = samples + excluded.samples,
    sample_tokens = sample_tokens + excluded.sample_tokens,
    sample_ms = sample_ms + excluded.sample_ms`;

const ADD_MINUTES = `
  INSERT INTO request_minutes (minute, endpoint_id, model_id, api_kind, success, error, input_tokens,
    output_tokens, measured, measured_ms, ttft_count, ttft_ms, sample_tokens, sample_ms)
  SELECT value ->> 'minute', value ->> 'endpointId', value ->> 'modelId', value ->> 'kind', value ->> 'success',
    value ->> 'error', value ->> 'inputTokens', value ->> 'outputTokens', value ->> 'measured',
    value ->> 'measuredMs', value ->> 'ttftCount', value ->> 'ttftMs', value ->> 'sampleTokens', value ->> 'sampleMs'
  FROM jsonb_each(?) WHERE true
  ON CONFLICT (minute, endpoint_id, model_id, api_kind) DO UPDATE SET
    success = success + excluded.success,
    error = error + excluded.error,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    measured = measured + excluded.measured,
    measured_ms = measured_ms + excluded.measured_ms,
    ttft_count = ttft_count + excluded.ttft_count,
    ttft_ms = ttft_ms + excluded.ttft_ms,
    sample_tokens = sample_tokens + excluded.sample_tokens,
    sample_ms = sample_ms + excluded.sample_ms`;

const ADD_USAGE = `
  INSERT INTO usage_daily (owner_id, date, requests, errors, input_tokens, output_tokens, last_used_at)
  SELECT value ->> 'ownerId', value ->> 'date', value ->> 'requests', value ->> 'errors', value ->> 'inputTokens',
    value ->> 'outputTokens', value ->> 'lastUsedAt'
  FROM jsonb_each(?) WHERE true
  ON CONFLICT (owner_id, date) DO UPDATE SET
    requests = requests + excluded.requests,
    errors = errors + excluded.errors,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    last_used_at = max(last_used_at, excluded.last_used_at)`;

const SET_HEALTH = `
  UPDATE endpoints SET health = h.health, engine_type = h.engine_type, latency_ms = h.latency_ms,
    last_seen = h.last_seen, last_error = h.last_error, error_count = h.error_count
  FROM (SELECT value ->> 0 AS id, value ->> 1 AS health, value ->> 2 AS engine_type, value ->> 3 AS latency_ms,
    value ->> 4 AS last_seen, value ->> 5 AS last_error, value ->> 6 AS error_count FROM jsonb_each(?)) AS h
  WHERE endpoints.id = h.id`;

const DROP_MODELS = 'DELETE FROM endpoint_models WHERE endpoint_id IN (SELECT value FROM jsonb_each(?))';

const INSERT_MODELS = `
  INSERT INTO endpoint_models (endpoint_id, model_id, position, capabilities, max_tokens)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM jsonb_each(?)
  WHERE EXISTS (SELECT 1 FROM endpoints WHERE id = value ->> 0)`;
