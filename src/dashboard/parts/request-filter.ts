import { fitsPattern } from '../../machines/wildcard.js';
import type { RequestRow } from '../api/shapes.js';

/** What of the history is wanted; an empty text is anything. */
export interface RequestFilter {
  model: string;
  endpoint: string;
  key: string;
  status: '' | 'success' | 'error';
  /** So far back, one of `SPANS`, or `custom`; from when on is asked anew with every load. */
  span: string;
  /** Of a custom span, as a field for date and time has them, in the reader's zone. */
  from: string;
  to: string;
}

export const SPANS: Record<string, number> = {
  '15 min': 15 * 60_000,
  '1 h': 3_600_000,
  '24 h': 86_400_000,
  '7 d': 7 * 86_400_000,
};

/** The same filter as the query of the server's routes. */
export function filterQuery(filter: RequestFilter, now: number): URLSearchParams {
  const { model, endpoint, key, status, span, from, to } = filter;
  const query = new URLSearchParams();
  const since = SPANS[span];
  if (model !== '') query.set('model', model);
  if (endpoint !== '') query.set('endpoint_id', endpoint);
  if (key !== '') query.set('key_id', key);
  if (status !== '') query.set('status', status);
  if (since !== undefined) query.set('start_time', new Date(now - since).toISOString());
  if (span === 'custom' && isTime(from)) query.set('start_time', new Date(from).toISOString());
  if (span === 'custom' && isTime(to)) query.set('end_time', new Date(to).toISOString());
  return query;
}

/** Whether a request that has just ended belongs to what is shown. */
export function fits(row: RequestRow, filter: RequestFilter): boolean {
  const { model, endpoint, key, status, span, from, to } = filter;
  const endedAt = Date.parse(row.completed_at);
  if (span === 'custom' && isTime(from) && endedAt < Date.parse(from)) return false;
  if (span === 'custom' && isTime(to) && endedAt > Date.parse(to)) return false;
  return (
    (model === '' || fitsPattern(model, row.model)) &&
    (endpoint === '' || row.endpoint_id === endpoint) &&
    (key === '' || row.key_id === key) &&
    (status === '' || row.status.type === status)
  );
}

function isTime(text: string): boolean {
  return !Number.isNaN(Date.parse(text));
}
