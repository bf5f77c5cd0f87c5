import type { Permission, Role } from '../access/permissions.js';
import type { RateLimit } from '../access/rate-limits.js';

/** Somebody who can log in; times are wall clock, ms. */
export interface User {
  id: string;
  username: string;
  role: Role;
  passwordHash: string;
  mustChangePassword: boolean;
  createdAt: number;
  lastLogin: number | null;
}

/** A key of a program. The key itself is nowhere: only its SHA-256. */
export interface ApiKey {
  id: string;
  name: string;
  /** Its first characters, to know it by. */
  keyPrefix: string;
  keyHash: string;
  /** The id of the user it belongs to. */
  createdBy: string;
  createdAt: number;
  expiresAt: number | null;
  permissions: Permission[];
  /** Globs of the models it may use; null: all. */
  models: string[] | null;
  rateLimit: RateLimit;
  /** Its place in the queue: 0 is first, larger is later. */
  priority: number;
}

export interface Session {
  tokenHash: string;
  userId: string;
  createdAt: number;
  expiresAt: number;
}

/** One line of the audit log before it has its place in the chain. */
export interface AuditEntry {
  at: number;
  actor: string;
  actorType: 'user' | 'api_key' | 'system';
  action: string;
  target: string | null;
  clientIp: string | null;
  /** What was and what is, secrets masked. */
  detail: object;
}

export interface AuditRecord extends AuditEntry {
  id: number;
}

export interface AuditFilter {
  actor?: string;
  action?: string;
  /** Wall clock, ms, inclusive. */
  timeFrom?: number;
  timeTo?: number;
}

export interface AuditVerdict {
  valid: boolean;
  checked: number;
  /** The id of the first line that is not what was written, or that is missing. */
  firstBad: number | null;
}

/** What requests with one key, or in sessions of one user, add up to in a month. */
export interface MonthlyUsage {
  ownerId: string;
  /** `YYYY-MM`, server-local. */
  month: string;
  requests: number;
  errors: number;
  inputTokens: number;
  outputTokens: number;
}

/** A name for an id that may be gone: of a revoked key or a removed user. */
export interface Owner {
  ownerId: string;
  kind: 'key' | 'user';
  name: string;
  keyPrefix: string | null;
}

/**
 * Users, keys, sessions and the audit log. Each change is one transaction with its line in the audit log: both are
 * there, or neither.
 */
export interface AccessStore {
  seedUsers(): Promise<User[]>;
  /** Without the revoked ones. */
  seedKeys(): Promise<ApiKey[]>;
  /** Those that are not over yet. */
  seedSessions(now: number): Promise<Session[]>;

  /** New or changed. `endSessions`: those of that user end with it. */
  putUser(user: User, endSessions: boolean, audit: AuditEntry): Promise<void>;
  /** The user, the sessions; the user's keys are revoked. */
  removeUser(id: string, now: number, audit: AuditEntry): Promise<void>;
  /** New or changed. */
  putKey(key: ApiKey, audit: AuditEntry): Promise<void>;
  revokeKey(id: string, now: number, audit: AuditEntry): Promise<void>;
  addSession(session: Session, audit: AuditEntry): Promise<void>;
  removeSession(tokenHash: string, audit: AuditEntry): Promise<void>;
  /** Forgets sessions that are over. */
  dropSessions(now: number): Promise<void>;

  note(audit: AuditEntry): Promise<void>;
  /** Newest first. */
  audits(
    filter: AuditFilter,
    limit: number,
    offset: number,
  ): Promise<{ items: AuditRecord[]; total: number }>;
  verifyAudits(): Promise<AuditVerdict>;

  /** Months in [from, to], `YYYY-MM`, ascending. */
  monthlyUsage(from: string, to: string): Promise<MonthlyUsage[]>;
  /** Revoked keys and present users among them. */
  owners(): Promise<Owner[]>;
}
