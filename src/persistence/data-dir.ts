import { constants } from 'node:fs';
import { access, mkdir, open, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type DataDirLock, lockDataDir } from './sqlite/lock.js';
import { MIGRATIONS } from './sqlite/migrations.js';
import { StoreError } from './store.js';

/** The files in a data dir. */
export interface DataDir {
  path: string;
  database: string;
  lock: string;
  unsaved: string;
  /** What secrets are sealed under. */
  secretKey: string;
}

export function dataDirAt(path: string): DataDir {
  return {
    path,
    database: join(path, 'troupe.db'),
    lock: join(path, 'troupe.lock'),
    unsaved: join(path, 'troupe.unsaved.ndjson'),
    secretKey: join(path, 'secret.key'),
  };
}

/**
 * Makes the directory if it is missing and takes it for this process. Null: it can be read but not written, so
 * nobody can write it beside us. Throws `StoreError` `unusable` or `newer`.
 */
export async function takeDataDir(dir: DataDir): Promise<DataDirLock | null> {
  await make(dir.path).catch((error: NodeJS.ErrnoException) => {
    throw new StoreError('unusable', `the data dir ${dir.path} cannot be made: ${error.code}`, {
      cause: error,
    });
  });
  await refuseUnreadable(dir);
  await refuseNewer(dir.database);
  if (!(await can(dir.path, constants.W_OK))) return null;
  try {
    const lock = await lockDataDir(dir.lock);
    if (lock !== null) return lock;
  } catch (error) {
    throw new StoreError('unusable', `the data dir ${dir.path} cannot be locked`, { cause: error });
  }
  throw new StoreError('unusable', `the data dir ${dir.path} is held by another Troupe`);
}

/** The same questions without changing anything. */
export async function checkDataDir(dir: DataDir): Promise<void> {
  const parent = await existing(dir.path);
  if (parent !== dir.path) {
    if (!(await stat(parent)).isDirectory()) {
      throw new StoreError('unusable', `the data dir ${dir.path} cannot be made: ${parent} is no directory`);
    }
    if (await can(parent, constants.W_OK)) return;
    throw new StoreError('unusable', `the data dir ${dir.path} cannot be made: ${parent} cannot be written`);
  }
  await refuseUnreadable(dir);
  await refuseNewer(dir.database);
  if (!(await can(dir.path, constants.W_OK)) || !(await can(dir.lock, constants.F_OK))) return;
  const lock = await lockDataDir(dir.lock);
  if (lock === null) throw new StoreError('unusable', `the data dir ${dir.path} is held by another Troupe`);
  await lock.release();
}

async function refuseUnreadable(dir: DataDir): Promise<void> {
  const info = await stat(dir.path);
  if (!info.isDirectory()) throw new StoreError('unusable', `the data dir ${dir.path} is not a directory`);
  if (!(await can(dir.path, constants.R_OK | constants.X_OK))) {
    throw new StoreError('unusable', `the data dir ${dir.path} cannot be read`);
  }
  const database = await stat(dir.database).catch(() => null);
  if (database !== null && !database.isFile()) {
    throw new StoreError('unusable', `${dir.database} is not a file`);
  }
}

/** SQLite keeps `user_version` in its header: a newer file is refused before anything opens it. */
async function refuseNewer(file: string): Promise<void> {
  const handle = await open(file, 'r').catch(() => null);
  if (handle === null) return;
  try {
    const header = Buffer.alloc(64);
    const { bytesRead } = await handle.read(header, 0, 64, 0);
    if (bytesRead < 64 || !header.toString('latin1').startsWith('SQLite format 3')) return;
    if (header.readUInt32BE(60) <= MIGRATIONS.length) return;
    throw new StoreError('newer', `${file} was written by a newer version of Troupe`);
  } finally {
    await handle.close();
  }
}

/** One by one: below `/proc` the `recursive` of Node tries for ever, and holds the process up. */
async function make(path: string): Promise<void> {
  const parent = dirname(path);
  if (parent !== path && !(await can(parent, constants.F_OK))) await make(parent);
  await mkdir(path, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

async function existing(path: string): Promise<string> {
  if (await can(path, constants.F_OK)) return path;
  const parent = dirname(path);
  return parent === path ? path : existing(parent);
}

function can(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}
