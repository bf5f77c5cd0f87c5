import { stat } from 'node:fs/promises';
import { type Database, open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { StoreError, type StoreErrorCode } from '../store.js';

/** How long a statement waits for another process's lock before it fails with `busy`. */
const BUSY_TIMEOUT_MS = 1000;

const AUTOCHECKPOINT_PAGES = 20_000;

export async function openReadWrite(file: string): Promise<Database> {
  const db = await openHandle(file, sqlite3.OPEN_READWRITE | sqlite3.OPEN_CREATE);
  try {
    await db.exec('PRAGMA journal_mode = WAL');
    await db.exec('PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON');
    // What is deleted or replaced is overwritten: a secret does not live on in a free page.
    await db.exec('PRAGMA secure_delete = ON');
    // Every second a handle of its own does it; the writer only helps when that falls far behind.
    await db.exec(`PRAGMA wal_autocheckpoint = ${AUTOCHECKPOINT_PAGES}`);
    return db;
  } catch (error) {
    await db.close().catch(() => {});
    throw error;
  }
}

/** A reader beside the writer. */
export async function openReadOnly(file: string): Promise<Database> {
  return openHandle(file, sqlite3.OPEN_READONLY);
}

/**
 * A reader of a file that nobody writes, which leaves nothing beside it. With a `-wal` the file alone is not the
 * whole truth; without one it is opened as immutable, which needs no lock files.
 */
export async function openAtRest(file: string): Promise<Database> {
  const wal = await stat(`${file}-wal`).catch(() => null);
  if (wal !== null && wal.size > 0) return openReadOnly(file);
  const uri = `file:${encodeURI(file).replaceAll('?', '%3f').replaceAll('#', '%23')}?immutable=1`;
  return openHandle(uri, sqlite3.OPEN_READONLY | sqlite3.OPEN_URI);
}

/** A driver's error as one of ours, by its code and never by its text. */
export function storeError(error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const driverCode = (error as { code?: unknown }).code;
  const code = CODES[typeof driverCode === 'string' ? driverCode : ''] ?? 'failed';
  return new StoreError(code, WORDS[code] ?? 'the database failed', { cause: error });
}

const CODES: Record<string, StoreErrorCode> = {
  SQLITE_BUSY: 'busy',
  SQLITE_LOCKED: 'busy',
  SQLITE_FULL: 'full',
  SQLITE_READONLY: 'readonly',
  SQLITE_PERM: 'readonly',
  SQLITE_CORRUPT: 'corrupt',
  SQLITE_NOTADB: 'corrupt',
  SQLITE_MISUSE: 'closed',
  SQLITE_CONSTRAINT: 'conflict',
};

const WORDS: Partial<Record<StoreErrorCode, string>> = {
  busy: 'the database is locked by another process',
  full: 'the disk or the database is full',
  readonly: 'the database cannot be written',
  corrupt: 'the database file is damaged',
  closed: 'the database is closed',
  conflict: 'a row with that name or URL exists',
};

async function openHandle(filename: string, mode: number): Promise<Database> {
  const db = await open({ filename, driver: sqlite3.Database, mode });
  db.configure('busyTimeout', BUSY_TIMEOUT_MS);
  return db;
}
