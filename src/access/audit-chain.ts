import { createHash } from 'node:crypto';
import type { AuditRecord } from '../persistence/access-store.js';

/** A line with its detail as a text. */
export type ChainLine = Omit<AuditRecord, 'detail'> & { detail: string };

/** What the first line of the audit log follows. */
export const CHAIN_START = '0'.repeat(64);

/**
 * The hash of a line: SHA-256 over the hash of the line before and every field, the detail as it is written, so that none
 * can change unseen.
 */
export function chainHash(before: string, line: ChainLine): string {
  const { id, at, actor, actorType, action, target, clientIp, detail } = line;
  const text = JSON.stringify([before, id, at, actor, actorType, action, target, clientIp, detail]);
  return createHash('sha256').update(text).digest('hex');
}
