import type { Database } from 'sqlite';
import { CHAIN_START, type ChainLine, chainHash } from '../../access/audit-chain.js';
import type { AuditEntry, AuditFilter, AuditRecord, AuditVerdict } from '../access-store.js';

/** Lines that are read at a time while the chain is verified. */
const PAGE_ROWS = 500;

interface AuditRow {
  id: number;
  at: number;
  actor: string;
  actor_type: AuditEntry['actorType'];
  action: string;
  target: string | null;
  client_ip: string | null;
  detail: string;
  hash: string;
}

/** The next line of the chain; within the transaction of what it tells of. */
export async function appendAudit(db: Database, entry: AuditEntry): Promise<void> {
  const head = await db.get<Head>('SELECT id, hash FROM audit_head');
  const last = head ?? (await db.get<Head>('SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1'));
  if (head === undefined && last !== undefined) {
    // Damage took it, or somebody: the log goes on and says so.
    const lost = { actor: 'troupe', actorType: 'system', action: 'audit.head_lost', target: null } as const;
    await appendAfter(db, last, { ...lost, at: entry.at, clientIp: null, detail: {} });
    await appendAudit(db, entry);
    return;
  }
  await appendAfter(db, last, entry);
}

interface Head {
  id: number;
  hash: string;
}

async function appendAfter(db: Database, head: Head | undefined, entry: AuditEntry): Promise<void> {
  const record: ChainLine = { ...entry, id: (head?.id ?? 0) + 1, detail: JSON.stringify(entry.detail) };
  const hash = chainHash(head?.hash ?? CHAIN_START, record);
  await db.run(
    `INSERT INTO audit_log (id, at, actor, actor_type, action, target, client_ip, detail, hash)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    record.id,
    record.at,
    record.actor,
    record.actorType,
    record.action,
    record.target,
    record.clientIp,
    record.detail,
    hash,
  );
  await db.run(
    `INSERT INTO audit_head (one, id, hash) VALUES (1, ?, ?)
     ON CONFLICT (one) DO UPDATE SET id = excluded.id, hash = excluded.hash`,
    record.id,
    hash,
  );
}

export async function readAudits(
  db: Database,
  filter: AuditFilter,
  limit: number,
  offset: number,
): Promise<{ items: AuditRecord[]; total: number }> {
  const parts = ['at BETWEEN ? AND ?'];
  const values: (string | number)[] = [filter.timeFrom ?? 0, filter.timeTo ?? Number.MAX_SAFE_INTEGER];
  if (filter.actor !== undefined) {
    parts.push('actor = ?');
    values.push(filter.actor);
  }
  if (filter.action !== undefined) {
    parts.push('action = ?');
    values.push(filter.action);
  }
  const where = parts.join(' AND ');
  const count = await db.get<{ total: number }>(
    `SELECT count(*) AS total FROM audit_log WHERE ${where}`,
    values,
  );
  const rows = await db.all<AuditRow[]>(
    `SELECT * FROM audit_log WHERE ${where} ORDER BY id DESC LIMIT ? OFFSET ?`,
    ...values,
    limit,
    offset,
  );
  return { items: rows.map(recordOf), total: count?.total ?? 0 };
}

/** Walks the whole chain as it is at this moment, a page at a time; the head says where it must end. */
export async function verifyAudits(db: Database): Promise<AuditVerdict> {
  await db.exec('BEGIN');
  try {
    return await walk(db);
  } finally {
    await db.exec('COMMIT').catch(() => {});
  }
}

async function walk(db: Database): Promise<AuditVerdict> {
  let before = CHAIN_START;
  let id = 0;
  for (;;) {
    const rows = await db.all<AuditRow[]>(
      'SELECT * FROM audit_log WHERE id > ? ORDER BY id LIMIT ?',
      id,
      PAGE_ROWS,
    );
    for (const row of rows) {
      const isNext = row.id === id + 1 && row.hash === chainHash(before, lineOf(row));
      if (!isNext) return { valid: false, checked: id, firstBad: id + 1 };
      before = row.hash;
      id = row.id;
    }
    if (rows.length < PAGE_ROWS) break;
  }
  const head = await db.get<Head>('SELECT id, hash FROM audit_head');
  if (head !== undefined && head.id > id) return { valid: false, checked: id, firstBad: id + 1 };
  // The first line is number 1: nothing was ever written before it.
  const foreign = await db.get<{ id: number }>('SELECT id FROM audit_log WHERE id < 1 ORDER BY id LIMIT 1');
  if (foreign !== undefined) return { valid: false, checked: id, firstBad: foreign.id };
  const isWhole = head === undefined ? id === 0 : head.id === id && head.hash === before;
  return isWhole
    ? { valid: true, checked: id, firstBad: null }
    : { valid: false, checked: id, firstBad: Math.max(1, id) };
}

function lineOf(row: AuditRow): ChainLine {
  return {
    id: row.id,
    at: row.at,
    actor: row.actor,
    actorType: row.actor_type,
    action: row.action,
    target: row.target,
    clientIp: row.client_ip,
    detail: row.detail,
  };
}

function recordOf(row: AuditRow): AuditRecord {
  return { ...lineOf(row), detail: detailOf(row.detail) };
}

/** One that somebody has changed must not hide the other lines. */
function detailOf(text: string): object {
  try {
    return JSON.parse(text) as object;
  } catch {
    return { unreadable: text };
  }
}
