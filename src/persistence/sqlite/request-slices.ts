import type { Database } from 'sqlite';
import type { RequestFilter, RequestPlace, RequestSlice } from '../store.js';
import { conditions, indexFor, type RequestRow, recordOf, scanConditions, scanValues } from './reads.js';

const FIRST: RequestPlace = { completedAt: Number.MAX_SAFE_INTEGER, seq: Number.MAX_SAFE_INTEGER };
const LAST: RequestPlace = { completedAt: 0, seq: 0 };

/** The rows after a place, newest first: of the next so many of the filter's index those that fit. */
export async function readRequestSlice(
  db: Database,
  filter: RequestFilter,
  after: RequestPlace | null,
  limit: number,
): Promise<RequestSlice> {
  const from = after ?? FIRST;
  const edge = await db.get<RequestPlace>(
    `SELECT completed_at AS completedAt, seq FROM requests ${indexFor(filter)}
     WHERE ${scanConditions(filter)} AND (completed_at < ? OR seq < ?)
     ORDER BY completed_at DESC, seq DESC LIMIT 1 OFFSET ?`,
    ...scanValues(between(filter, LAST, from)),
    from.completedAt,
    from.seq,
    limit - 1,
  );
  const to = edge ?? LAST;
  const { where, values } = conditions(filter);
  const rows = await db.all<RequestRow[]>(
    `SELECT * FROM requests ${indexFor(filter)}
     WHERE ${scanConditions(filter)} AND (completed_at < ? OR seq < ?) AND (completed_at > ? OR seq >= ?) AND ${where}
     ORDER BY completed_at DESC, seq DESC LIMIT ?`,
    // The index is read from one place to the other only: of several bounds it takes the first.
    ...scanValues(between(filter, to, from)),
    from.completedAt,
    from.seq,
    to.completedAt,
    to.seq,
    ...values,
    limit,
  );
  return { records: rows.map((row) => recordOf({ ...row, decision: null })), next: edge ?? null };
}

function between(filter: RequestFilter, to: RequestPlace, from: RequestPlace): RequestFilter {
  return {
    ...filter,
    startTime: Math.max(filter.startTime ?? 0, to.completedAt),
    endTime: Math.min(filter.endTime ?? FIRST.completedAt, from.completedAt),
  };
}
