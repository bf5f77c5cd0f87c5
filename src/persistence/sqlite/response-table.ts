import type { Database } from 'sqlite';
import { lastAttempt, type RequestRecord, type StoredResponse } from '../../machines/records.js';

/** The newest that a start reads; those before them are likely forgotten by their endpoints, too. */
const SEED_LIMIT = 20_000;

/** What the statement below takes of each record that has a response: its id, where it is stored, and since when. */
export function responseValues(rows: readonly RequestRecord[]): unknown[][] {
  return rows.flatMap((row) => {
    const endpointId = lastAttempt(row)?.endpointId;
    if (endpointId === undefined || row.responseId == null) return [];
    return [[row.responseId, endpointId, row.completedAt]];
  });
}

export const ADD_RESPONSES = `
  INSERT INTO stored_responses (id, endpoint_id, completed_at)
  SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?) WHERE true
  ON CONFLICT (id) DO UPDATE SET endpoint_id = excluded.endpoint_id, completed_at = excluded.completed_at`;

/** Oldest first. */
export async function readResponses(db: Database): Promise<StoredResponse[]> {
  const rows = await db.all<StoredResponse[]>(
    'SELECT id, endpoint_id AS endpointId FROM stored_responses ORDER BY completed_at DESC LIMIT ?',
    SEED_LIMIT,
  );
  return rows.reverse();
}

/** Those of an endpoint that is gone. */
export async function forgetResponses(writer: Database, endpointId: string): Promise<void> {
  await writer.run('DELETE FROM stored_responses WHERE endpoint_id = ?', endpointId);
}

export async function expireResponses(writer: Database, before: number, limit: number): Promise<number> {
  const result = await writer.run(
    `DELETE FROM stored_responses WHERE rowid IN
       (SELECT rowid FROM stored_responses WHERE completed_at < ? ORDER BY completed_at LIMIT ?)`,
    before,
    limit,
  );
  return result.changes ?? 0;
}
