import { rename, stat } from 'node:fs/promises';
import type { Database } from 'sqlite';
import { openAtRest, openReadWrite } from './handle.js';
import { migrate } from './migrations.js';

/** Parents before children: foreign keys are on. */
const TABLES = [
  'endpoints',
  'endpoint_models',
  'endpoint_daily_stats',
  'endpoint_histograms',
  'users',
  'api_keys',
  'sessions',
  'audit_log',
  'audit_head',
  'usage_daily',
  'requests',
  'stored_responses',
  'request_minutes',
  'request_hours',
  'ledger_cursors',
];
const PAGE_ROWS = 500;

/** Puts a file that cannot be used out of the way, `-wal` and `-shm` with it. Nothing is ever deleted. */
export async function setAside(file: string, now: number): Promise<string> {
  const stamp = new Date(now).toISOString().replaceAll(':', '-').replaceAll('.', '-');
  const aside = await freeName(`${file}.corrupt-${stamp}`);
  for (const suffix of ['', '-wal', '-shm']) {
    await rename(`${file}${suffix}`, `${aside}${suffix}`).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }
  return aside;
}

/** True if every page of the database reads as it should. */
export async function isSound(db: Database): Promise<boolean> {
  try {
    const row = await db.get<{ quick_check: string }>('PRAGMA quick_check(1)');
    return row?.quick_check === 'ok';
  } catch {
    return false;
  }
}

/** Copies every readable row of a damaged file to a new one at `to`; says what came over and what did not. */
export async function salvage(from: string, to: string): Promise<string> {
  const source = await openAtRest(from);
  const target = await openReadWrite(to);
  const told: string[] = [];
  try {
    await migrate(target);
    for (const table of TABLES) {
      const { copied, lost } = await copyTable(source, target, table);
      told.push(`${table}: ${copied} rows kept${lost === '' ? '' : `, ${lost} lost`}`);
    }
  } finally {
    await source.close().catch(() => {});
    await target.close();
  }
  return told.join('; ');
}

/** The objects of a version's schema that `db` lacks are made; tables among them are named. */
export async function makeMissing(db: Database, version: number): Promise<string[]> {
  const model = await openReadWrite(':memory:');
  try {
    await migrate(model, version);
    const wanted = await model.all<{ type: string; name: string; sql: string }[]>(
      'SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid LIMIT 500',
    );
    const there = await db.all<{ name: string }[]>('SELECT name FROM sqlite_master LIMIT 5000');
    const names = new Set(there.map(({ name }) => name));
    const missing = wanted.filter(({ name }) => !names.has(name));
    for (const { sql } of missing) await db.exec(sql);
    return missing.filter(({ type }) => type === 'table').map(({ name }) => name);
  } finally {
    await model.close();
  }
}

async function copyTable(
  source: Database,
  target: Database,
  table: string,
): Promise<{ copied: number; lost: string }> {
  const info = await target.all<{ name: string }[]>(`PRAGMA table_info(${table})`);
  // A file of an earlier version lacks the newer columns.
  const known = await source.all<{ name: string }[]>(`PRAGMA table_info(${table})`).catch(() => info);
  const there = new Set(known.map(({ name }) => name));
  const columns = info.map(({ name }) => name).filter((name) => there.size === 0 || there.has(name));
  const insert = `INSERT OR IGNORE INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`;
  let copied = 0;
  let lost = 0;
  let from = Number.MIN_SAFE_INTEGER;
  let size = PAGE_ROWS;
  for (;;) {
    const rows = await readRows(source, table, columns, from, size);
    if (rows === undefined) {
      if (size > 1) {
        size = Math.max(1, Math.floor(size / 8));
        continue;
      }
      const next = await nextReadable(source, table, from);
      if (next === undefined) return { copied, lost: 'the rest' };
      lost += next - from;
      from = next;
      size = PAGE_ROWS;
      continue;
    }
    if (rows.length === 0) return { copied, lost: lost === 0 ? '' : `at most ${lost}` };
    copied += await insertRows(target, insert, columns, rows);
    from = (rows[rows.length - 1]?.rowid as number) + 1;
    size = PAGE_ROWS;
  }
}

type Row = Record<string, unknown> & { rowid: number };

async function readRows(db: Database, table: string, columns: string[], from: number, limit: number) {
  const sql = `SELECT rowid AS rowid, ${columns.join(', ')} FROM ${table} NOT INDEXED WHERE rowid >= ? ORDER BY rowid LIMIT ?`;
  try {
    return await db.all<Row[]>(sql, from, limit);
  } catch {
    return undefined;
  }
}

/** The first row id after a damaged stretch: steps that double until one reads, then halving between. */
async function nextReadable(db: Database, table: string, from: number): Promise<number | undefined> {
  const start = Math.max(from, 0);
  const reads = async (id: number) => (await readRows(db, table, ['rowid AS id'], id, 1)) !== undefined;
  let step = 1;
  while (!(await reads(start + step))) {
    step *= 2;
    if (step > 2 ** 40) return undefined;
  }
  let bad = start + Math.floor(step / 2);
  let good = start + step;
  while (good - bad > 1) {
    const middle = Math.floor((good + bad) / 2);
    if (await reads(middle)) good = middle;
    else bad = middle;
  }
  return good;
}

async function insertRows(target: Database, sql: string, columns: string[], rows: Row[]): Promise<number> {
  let copied = 0;
  await target.exec('BEGIN');
  for (const row of rows) {
    try {
      const result = await target.run(
        sql,
        columns.map((column) => row[column]),
      );
      copied += result.changes ?? 0;
    } catch {
      // A row whose bytes came over wrong does not fit the strict table: it counts as lost.
    }
  }
  await target.exec('COMMIT');
  return copied;
}

async function freeName(wanted: string): Promise<string> {
  for (let i = 0; ; i += 1) {
    const name = i === 0 ? wanted : `${wanted}-${i}`;
    const taken = await stat(name).then(
      () => true,
      () => false,
    );
    if (!taken) return name;
  }
}

export async function tablesOf(db: Database): Promise<string[]> {
  const found = await db.all<{ name: string }[]>(
    `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name LIMIT 500`,
  );
  return found.map(({ name }) => name);
}
