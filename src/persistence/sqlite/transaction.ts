import type { Database } from 'sqlite';

/** All of it or nothing. The writer handle is used by one at a time. */
export async function transaction<T>(db: Database, run: () => Promise<T>): Promise<T> {
  await db.exec('BEGIN IMMEDIATE');
  try {
    const value = await run();
    await db.exec('COMMIT');
    return value;
  } catch (error) {
    await db.exec('ROLLBACK').catch(() => {});
    throw error;
  }
}
