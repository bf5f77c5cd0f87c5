import { lastAttempt, type RequestRecord } from '../machines/records.js';
import { fitsPattern } from '../machines/wildcard.js';
import type { RequestFilter } from '../persistence/store.js';
import { oneOf, time } from './query.js';

/** Which requests are asked for. */
export function requestFilterOf(query: URLSearchParams): RequestFilter {
  const filter: RequestFilter = {};
  const model = query.get('model');
  const endpointId = query.get('endpoint_id');
  const keyId = query.get('key_id');
  const status = oneOf(query, 'status', ['success', 'error'] as const);
  const startTime = time(query, 'start_time');
  const endTime = time(query, 'end_time');
  if (model !== null && model !== '') filter.model = model;
  if (endpointId !== null && endpointId !== '') filter.endpointId = endpointId;
  if (status !== undefined) filter.status = status;
  if (keyId !== null && keyId !== '') filter.keyId = keyId;
  if (startTime !== undefined) filter.startTime = startTime;
  if (endTime !== undefined) filter.endTime = endTime;
  return filter;
}

/** The filter for rows that are still in memory. */
export function fitsFilter(row: RequestRecord, filter: RequestFilter): boolean {
  const { model, endpointId, status, keyId, startTime, endTime } = filter;
  if (keyId !== undefined && row.keyId !== keyId) return false;
  if (model !== undefined && !fitsPattern(model, row.model)) return false;
  if (endpointId !== undefined && lastAttempt(row)?.endpointId !== endpointId) return false;
  if (status !== undefined && (status === 'error') !== (row.error !== null)) return false;
  return row.completedAt >= (startTime ?? 0) && row.completedAt <= (endTime ?? Number.MAX_SAFE_INTEGER);
}
