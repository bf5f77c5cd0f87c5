import type { Database } from 'sqlite';
import type { Health, ModelSums } from '../../actors/books.js';
import type { EngineModel, EngineType } from '../../engines/engine.js';
import type { DecisionRecord } from '../../machines/decision.js';
import type { ApiKind, AttemptRecord, Outcome, RequestRecord } from '../../machines/records.js';
import type { Slot } from '../../machines/ring.js';
import type { OwnerUsage, Usage } from '../../machines/usage.js';
import type { DailyStat, RequestFilter, RequestList, RequestPage, StoredEndpoint } from '../store.js';
import { readSettings, type SettingColumns } from './endpoint-settings.js';

/** A start reads at most so many rows of one kind; far above what 500 endpoints have. */
const SEED_LIMIT = 200_000;
/** A list looks at most at so many of the newest rows that its index gives it. */
const SCAN_LIMIT = 200_000;
const COUNT_LIMIT = 10_000;

export async function readCursor(db: Database, run: string): Promise<number> {
  const row = await db.get<{ seq: number }>('SELECT seq FROM ledger_cursors WHERE run = ?', run);
  return row?.seq ?? 0;
}

interface EndpointRow extends SettingColumns {
  id: string;
  name: string;
  base_url: string;
  api_key: string | null;
  headers: string;
  health_interval_ms: number | null;
  inference_timeout_secs: number;
  notes: string | null;
  max_concurrency: number | null;
  secrets: string | null;
  weight: number;
  priority: number;
  max_context: number | null;
  tls_ca: string | null;
  registered_at: number;
  draining: number;
  health: Health;
  engine_type: EngineType | null;
  latency_ms: number | null;
  last_seen: number | null;
  last_error: string | null;
  error_count: number;
  successful_requests: number;
  failed_requests: number;
}

export async function readEndpoints(db: Database): Promise<StoredEndpoint[]> {
  const rows = await db.all<EndpointRow[]>(
    'SELECT * FROM endpoints ORDER BY registered_at, rowid LIMIT ?',
    SEED_LIMIT,
  );
  return rows.map(endpointOf);
}

function endpointOf(row: EndpointRow): StoredEndpoint {
  const { settings, unreadable } = readSettings(row);
  return {
    config: {
      ...settings,
      id: row.id,
      name: row.name,
      baseUrl: row.base_url,
      healthIntervalMs: row.health_interval_ms,
      inferenceTimeoutSecs: row.inference_timeout_secs,
      notes: row.notes,
      maxConcurrency: row.max_concurrency,
      weight: row.weight ?? 1,
      priority: row.priority ?? 0,
      maxContext: row.max_context ?? null,
      // A file of an earlier version that cannot be written has no such columns.
      tlsCa: row.tls_ca ?? null,
      registeredAt: row.registered_at,
    },
    unreadable,
    sealed: row.secrets ?? null,
    clear:
      row.api_key === null && row.headers === '{}'
        ? null
        : { apiKey: row.api_key, headers: JSON.parse(row.headers) as Record<string, string> },
    seed: {
      health: row.health,
      engineType: row.engine_type,
      latencyMs: row.latency_ms,
      lastSeen: row.last_seen,
      lastError: row.last_error,
      errorCount: row.error_count,
      success: row.successful_requests,
      failed: row.failed_requests,
      draining: row.draining === 1,
      models: [],
    },
  };
}

interface ModelRow {
  endpoint_id: string;
  model_id: string;
  capabilities: string | null;
  max_tokens: number | null;
}

export async function readModels(db: Database): Promise<Map<string, EngineModel[]>> {
  const rows = await db.all<ModelRow[]>(
    `SELECT endpoint_id, model_id, capabilities, max_tokens FROM endpoint_models
     ORDER BY endpoint_id, position LIMIT ?`,
    SEED_LIMIT,
  );
  const models = new Map<string, EngineModel[]>();
  for (const row of rows) {
    const list = models.get(row.endpoint_id) ?? [];
    list.push({
      modelId: row.model_id,
      capabilities: row.capabilities === null ? null : (JSON.parse(row.capabilities) as string[]),
      maxTokens: row.max_tokens,
    });
    models.set(row.endpoint_id, list);
  }
  return models;
}

const SUM_COLUMNS = [
  'successful_requests',
  'failed_requests',
  'input_tokens',
  'output_tokens',
  'samples',
  'sample_tokens',
  'sample_ms',
];

export async function readSums(db: Database, today: string): Promise<ModelSums[]> {
  const totals = SUM_COLUMNS.map((column) => `sum(${column}) AS ${column}`).join(', ');
  const todays = SUM_COLUMNS.map(
    (column) => `sum(CASE WHEN date = ?1 THEN ${column} ELSE 0 END) AS today_${column}`,
  ).join(', ');
  const rows = await db.all<Record<string, string | number>[]>(
    `SELECT endpoint_id, model_id, api_kind, ${totals}, ${todays} FROM endpoint_daily_stats
     GROUP BY endpoint_id, model_id, api_kind LIMIT ?2`,
    today,
    SEED_LIMIT,
  );
  return rows.map((row) => ({
    endpointId: String(row.endpoint_id),
    modelId: String(row.model_id),
    kind: String(row.api_kind) as ApiKind,
    total: sumsOf(row, ''),
    date: today,
    today: sumsOf(row, 'today_'),
  }));
}

/** What every owner has used, as of a day. */
export async function readUsage(db: Database, today: string): Promise<OwnerUsage[]> {
  const sums = (prefix: string, when: string) =>
    USAGE_COLUMNS.map(
      (column) => `sum(CASE WHEN ${when} THEN ${column} ELSE 0 END) AS ${prefix}${column}`,
    ).join(', ');
  const rows = await db.all<Record<string, string | number>[]>(
    `SELECT owner_id, max(last_used_at) AS last_used_at, ${sums('', 'true')}, ${sums('today_', 'date = ?1')},
       ${sums('month_', 'substr(date, 1, 7) = substr(?1, 1, 7)')}
     FROM usage_daily GROUP BY owner_id LIMIT ?2`,
    today,
    SEED_LIMIT,
  );
  return rows.map((row) => ({
    ownerId: String(row.owner_id),
    date: today,
    total: usageOf(row, ''),
    today: usageOf(row, 'today_'),
    month: usageOf(row, 'month_'),
    lastUsedAt: Number(row.last_used_at),
  }));
}

const USAGE_COLUMNS = ['requests', 'errors', 'input_tokens', 'output_tokens'];

function usageOf(row: Record<string, string | number>, prefix: string): Usage {
  const value = (column: string) => Number(row[prefix + column] ?? 0);
  return {
    requests: value('requests'),
    errors: value('errors'),
    inputTokens: value('input_tokens'),
    outputTokens: value('output_tokens'),
  };
}

export async function readMinutes(db: Database, from: number, to: number): Promise<Slot[]> {
  return db.all<Slot[]>(
    `SELECT minute, sum(success) AS success, sum(error) AS error, sum(measured) AS measured,
       sum(measured_ms) AS measuredMs
     FROM request_minutes WHERE minute BETWEEN ? AND ? GROUP BY minute LIMIT 1000`,
    from,
    to,
  );
}

export async function readDailyStats(
  db: Database,
  endpointId: string,
  from: string,
  before: string,
): Promise<DailyStat[]> {
  return db.all<DailyStat[]>(
    `SELECT date, sum(successful_requests) AS success, sum(failed_requests) AS failed FROM endpoint_daily_stats
     WHERE endpoint_id = ? AND date >= ? AND date < ? GROUP BY date ORDER BY date LIMIT 366`,
    endpointId,
    from,
    before,
  );
}

export interface RequestRow {
  id: string;
  request_id: string;
  api_kind: ApiKind;
  request_type: string;
  model: string;
  client_ip: string | null;
  key_id: string | null;
  user_id: string | null;
  accepted_at: number;
  completed_at: number;
  duration_ms: number;
  ttft_ms: number | null;
  outcome: Outcome;
  timeline: RequestRecord['timeline'];
  error: string | null;
  status_code: number;
  tokens_estimated: number;
  attempts: string;
  decision: string | null;
}

export async function readRequests(db: Database, page: RequestPage): Promise<RequestList> {
  const { where, values } = conditions(page);
  // The inner select follows one index, newest first, over a bounded stretch; the outer one filters what that
  // gives and keeps its order, so a page stops reading as soon as it is full.
  const scanned = `SELECT * FROM requests ${indexFor(page)} WHERE ${scanConditions(page)}
    ORDER BY completed_at DESC, seq DESC LIMIT ${SCAN_LIMIT}`;
  const count = await db.get<{ found: number }>(
    `SELECT count(*) AS found FROM (SELECT 1 FROM (${scanned}) WHERE ${where} LIMIT ${COUNT_LIMIT + 1})`,
    ...scanValues(page),
    ...values,
  );
  const after = page.before === undefined ? undefined : await placeOf(db, page.before);
  if (page.before !== undefined && after === undefined) return { records: [], total: 0, capped: false };
  const place = after === undefined ? '' : 'AND (completed_at < ? OR seq < ?)';
  const endTime = Math.min(
    page.endTime ?? Number.MAX_SAFE_INTEGER,
    after?.completed_at ?? Number.MAX_SAFE_INTEGER,
  );
  const rows = await db.all<RequestRow[]>(
    `SELECT * FROM (${scanned}) WHERE ${where} ${place} LIMIT ? OFFSET ?`,
    ...scanValues({ ...page, endTime }),
    ...values,
    ...(after === undefined ? [] : [after.completed_at, after.seq]),
    page.limit,
    page.offset,
  );
  const found = count?.found ?? 0;
  return {
    records: rows.map(recordOf),
    total: Math.min(found, COUNT_LIMIT),
    capped: found > COUNT_LIMIT,
  };
}

export async function readRequest(db: Database, id: string): Promise<RequestRecord | undefined> {
  const row = await db.get<RequestRow>(
    `SELECT * FROM requests WHERE id = ?1
     UNION ALL SELECT * FROM requests WHERE request_id = ?1 ORDER BY completed_at DESC LIMIT 1`,
    id,
  );
  return row === undefined ? undefined : recordOf(row);
}

function sumsOf(row: Record<string, string | number>, prefix: string) {
  const value = (column: string) => Number(row[prefix + column] ?? 0);
  return {
    success: value('successful_requests'),
    failed: value('failed_requests'),
    inputTokens: value('input_tokens'),
    outputTokens: value('output_tokens'),
    samples: value('samples'),
    sampleTokens: value('sample_tokens'),
    sampleMs: value('sample_ms'),
  };
}

/** The filter that an index answers; the rest is looked at row by row. */
export function indexFor(filter: RequestFilter): string {
  if (filter.endpointId !== undefined) return 'INDEXED BY requests_by_endpoint';
  if (isExact(filter.model)) return 'INDEXED BY requests_by_model';
  if (filter.status === 'error') return 'INDEXED BY requests_failed';
  return 'INDEXED BY requests_by_time';
}

export function scanConditions(filter: RequestFilter): string {
  const parts = ['completed_at BETWEEN ? AND ?'];
  if (filter.endpointId !== undefined) parts.push('endpoint_id = ?');
  else if (isExact(filter.model)) parts.push('model = ?');
  else if (filter.status === 'error') parts.push('error IS NOT NULL');
  return parts.join(' AND ');
}

export function scanValues(filter: RequestFilter): (string | number)[] {
  const values: (string | number)[] = [filter.startTime ?? 0, filter.endTime ?? Number.MAX_SAFE_INTEGER];
  if (filter.endpointId !== undefined) values.push(filter.endpointId);
  else if (filter.model !== undefined && isExact(filter.model)) values.push(filter.model);
  return values;
}

export function conditions(filter: RequestFilter): { where: string; values: string[] } {
  const parts = ['true'];
  const values: string[] = [];
  if (filter.model !== undefined) {
    parts.push(isExact(filter.model) ? 'model = ?' : 'model GLOB ?');
    values.push(isExact(filter.model) ? filter.model : globOf(filter.model));
  }
  if (filter.status !== undefined)
    parts.push(filter.status === 'error' ? 'error IS NOT NULL' : 'error IS NULL');
  if (filter.keyId !== undefined) {
    parts.push('key_id = ?');
    values.push(filter.keyId);
  }
  return { where: parts.join(' AND '), values };
}

export function isExact(model: string | undefined): boolean {
  return model !== undefined && !model.includes('*');
}

/** `*` alone is a wildcard for the caller; GLOB's other signs stand for themselves. */
export function globOf(pattern: string): string {
  return pattern.replace(/[[?]/g, '[$&]');
}

async function placeOf(db: Database, id: string) {
  return db.get<{ completed_at: number; seq: number }>(
    'SELECT completed_at, seq FROM requests WHERE id = ?',
    id,
  );
}

export function recordOf(row: RequestRow): RequestRecord {
  return {
    id: row.id,
    requestId: row.request_id,
    kind: row.api_kind,
    requestType: row.request_type,
    model: row.model,
    clientIp: row.client_ip,
    keyId: row.key_id ?? null,
    userId: row.user_id ?? null,
    acceptedAt: row.accepted_at,
    completedAt: row.completed_at,
    durationMs: row.duration_ms,
    ttftMs: row.ttft_ms,
    outcome: row.outcome,
    timeline: row.timeline,
    error: row.error,
    statusCode: row.status_code,
    tokensEstimated: row.tokens_estimated === 1,
    // A row of an earlier version knows of no prediction.
    attempts: (JSON.parse(row.attempts) as AttemptRecord[]).map((attempt) => ({
      ...attempt,
      predictedMs: attempt.predictedMs ?? null,
    })),
    decision: row.decision === null ? null : (JSON.parse(row.decision) as DecisionRecord),
  };
}
