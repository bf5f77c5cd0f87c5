import type { Database } from 'sqlite';
import { CHAIN_START, chainHash } from '../../access/audit-chain.js';
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
  const record: AuditRecord = { ...entry, id: (head?.id ?? 0) + 1 };
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
    JSON.stringify(record.detail),
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
      const isNext = row.id === id + 1 && row.hash === hashOf(before, row);
      if (!isNext) return { valid: false, checked: id, firstBad: id + 1 };
      before = row.hash;
      id = row.id;
    }
    if (rows.length < PAGE_ROWS) break;
  }
  const head = await db.get<Head>('SELECT id, hash FROM audit_head');
  const isWhole = head === undefined ? id === 0 : head.id === id && head.hash === before;
  if (isWhole) return { valid: true, checked: id, firstBad: null };
  return { valid: false, checked: id, firstBad: (head?.id ?? 0) > id ? id + 1 : Math.max(1, id) };
}

function hashOf(before: string, row: AuditRow): string | null {
  try {
    return chainHash(before, recordOf(row));
  } catch {
    // A detail that is no JSON any more was changed.
    return null;
  }
}

function recordOf(row: AuditRow): AuditRecord {
  return {
    id: row.id,
    at: row.at,
    actor: row.actor,
    actorType: row.actor_type,
    action: row.action,
    target: row.target,
    clientIp: row.client_ip,
    detail: JSON.parse(row.detail) as object,
  };
}
