import type { RequestRow } from '../api/shapes.js';

/** What of the history is wanted; an empty text is anything. */
export interface RequestFilter {
  model: string;
  endpoint: string;
  key: string;
  status: '' | 'success' | 'error';
  /** So far back, one of `SPANS`; from when on is asked anew with every load. */
  span: string;
}

export const SPANS: Record<string, number> = {
  '15 min': 15 * 60_000,
  '1 h': 3_600_000,
  '24 h': 86_400_000,
  '7 d': 7 * 86_400_000,
};

/** The same filter as the query of the server's routes. */
export function filterQuery(
  { model, endpoint, key, status, span }: RequestFilter,
  now: number,
): URLSearchParams {
  const query = new URLSearchParams();
  const since = SPANS[span];
  if (model !== '') query.set('model', model);
  if (endpoint !== '') query.set('endpoint_id', endpoint);
  if (key !== '') query.set('key_id', key);
  if (status !== '') query.set('status', status);
  if (since !== undefined) query.set('start_time', new Date(now - since).toISOString());
  return query;
}

/** Whether a request that has just ended belongs to what is shown. */
export function fits(row: RequestRow, { model, endpoint, key, status }: RequestFilter): boolean {
  return (
    (model === '' || wildcard(model).test(row.model)) &&
    (endpoint === '' || row.endpoint_id === endpoint) &&
    (key === '' || row.key_id === key) &&
    (status === '' || row.status.type === status)
  );
}

function wildcard(pattern: string): RegExp {
  const parts = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 's');
}
