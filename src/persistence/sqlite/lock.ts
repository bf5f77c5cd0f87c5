import { type Database, open } from 'sqlite';
import sqlite3 from 'sqlite3';

export interface DataDirLock {
  release(): Promise<void>;
}

/**
 * Holds the data directory for this process: an exclusive transaction on a file of its own, which the kernel
 * frees at death. Answers null if another process has it.
 */
export async function lockDataDir(file: string): Promise<DataDirLock | null> {
  const db: Database = await open({ filename: file, driver: sqlite3.Database });
  try {
    await db.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    await db.close().catch(() => {});
    if ((error as { code?: string }).code === 'SQLITE_BUSY') return null;
    throw error;
  }
  return {
    async release() {
      await db.exec('ROLLBACK').catch(() => {});
      await db.close();
    },
  };
}
