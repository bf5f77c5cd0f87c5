import { createHash } from 'node:crypto';
import type { AuditRecord } from '../persistence/access-store.js';

/** What the first line of the audit log follows. */
export const CHAIN_START = '0'.repeat(64);

/** The hash of a line: SHA-256 over the hash of the line before and every field, so that none can change unseen. */
export function chainHash(before: string, record: AuditRecord): string {
  const { id, at, actor, actorType, action, target, clientIp, detail } = record;
  const text = JSON.stringify([before, id, at, actor, actorType, action, target, clientIp, detail]);
  return createHash('sha256').update(text).digest('hex');
}
