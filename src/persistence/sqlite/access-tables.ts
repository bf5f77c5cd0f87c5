import type { Database } from 'sqlite';
import type { Permission, Role } from '../../access/permissions.js';
import type { RateLimit } from '../../access/rate-limits.js';
import type { ApiKey, MonthlyUsage, Owner, Session, User } from '../access-store.js';

/** Far above what a house of boxes has. */
const SEED_LIMIT = 200_000;

interface UserRow {
  id: string;
  username: string;
  role: Role;
  password_hash: string;
  must_change_password: number;
  created_at: number;
  last_login: number | null;
}

export async function readUsers(db: Database): Promise<User[]> {
  const rows = await db.all<UserRow[]>('SELECT * FROM users ORDER BY created_at, rowid LIMIT ?', SEED_LIMIT);
  return rows.map((row) => ({
    id: row.id,
    username: row.username,
    role: row.role,
    passwordHash: row.password_hash,
    mustChangePassword: row.must_change_password === 1,
    createdAt: row.created_at,
    lastLogin: row.last_login,
  }));
}

export async function putUser(db: Database, user: User): Promise<void> {
  await db.run(
    `INSERT INTO users (id, username, role, password_hash, must_change_password, created_at, last_login)
     VALUES (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET username = excluded.username, role = excluded.role,
       password_hash = excluded.password_hash, must_change_password = excluded.must_change_password`,
    user.id,
    user.username,
    user.role,
    user.passwordHash,
    user.mustChangePassword ? 1 : 0,
    user.createdAt,
    user.lastLogin,
  );
}

/** The sessions go with the user; the keys stay as revoked ones, so that what they used keeps a name. */
export async function removeUser(db: Database, id: string, now: number): Promise<void> {
  await db.run('UPDATE api_keys SET revoked_at = ? WHERE created_by = ? AND revoked_at IS NULL', now, id);
  await db.run('DELETE FROM users WHERE id = ?', id);
}

interface KeyRow {
  id: string;
  name: string;
  key_prefix: string;
  key_hash: string;
  created_by: string;
  created_at: number;
  expires_at: number | null;
  permissions: string;
  models: string | null;
  rate_limit: string;
  priority: number;
}

export async function readKeys(db: Database): Promise<ApiKey[]> {
  const rows = await db.all<KeyRow[]>(
    'SELECT * FROM api_keys WHERE revoked_at IS NULL ORDER BY created_at, rowid LIMIT ?',
    SEED_LIMIT,
  );
  return rows.map((row) => ({
    id: row.id,
    name: row.name,
    keyPrefix: row.key_prefix,
    keyHash: row.key_hash,
    createdBy: row.created_by,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    permissions: JSON.parse(row.permissions) as Permission[],
    models: row.models === null ? null : (JSON.parse(row.models) as string[]),
    rateLimit: JSON.parse(row.rate_limit) as RateLimit,
    priority: row.priority,
  }));
}

export async function putKey(db: Database, key: ApiKey): Promise<void> {
  await db.run(
    `INSERT INTO api_keys (id, name, key_prefix, key_hash, created_by, created_at, expires_at, permissions, models,
       rate_limit, priority) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET name = excluded.name, expires_at = excluded.expires_at,
       permissions = excluded.permissions, models = excluded.models, rate_limit = excluded.rate_limit,
       priority = excluded.priority`,
    key.id,
    key.name,
    key.keyPrefix,
    key.keyHash,
    key.createdBy,
    key.createdAt,
    key.expiresAt,
    JSON.stringify(key.permissions),
    key.models === null ? null : JSON.stringify(key.models),
    JSON.stringify(key.rateLimit),
    key.priority,
  );
}

export async function revokeKey(db: Database, id: string, now: number): Promise<void> {
  await db.run('UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL', now, id);
}

export async function readSessions(db: Database, now: number): Promise<Session[]> {
  const rows = await db.all<
    { token_hash: string; user_id: string; created_at: number; expires_at: number }[]
  >('SELECT * FROM sessions WHERE expires_at > ? ORDER BY created_at LIMIT ?', now, SEED_LIMIT);
  return rows.map((row) => ({
    tokenHash: row.token_hash,
    userId: row.user_id,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
  }));
}

/** A log-in: the session, and when its user was last here. */
export async function addSession(db: Database, session: Session): Promise<void> {
  const { tokenHash, userId, createdAt, expiresAt } = session;
  await db.run(
    'INSERT INTO sessions (token_hash, user_id, created_at, expires_at) VALUES (?, ?, ?, ?)',
    tokenHash,
    userId,
    createdAt,
    expiresAt,
  );
  await db.run('UPDATE users SET last_login = ? WHERE id = ?', createdAt, userId);
}

export async function readMonthlyUsage(db: Database, from: string, to: string): Promise<MonthlyUsage[]> {
  return db.all<MonthlyUsage[]>(
    `SELECT owner_id AS ownerId, substr(date, 1, 7) AS month, sum(requests) AS requests, sum(errors) AS errors,
       sum(input_tokens) AS inputTokens, sum(output_tokens) AS outputTokens
     FROM usage_daily WHERE date >= ? AND date <= ?
     GROUP BY owner_id, month ORDER BY month, owner_id LIMIT ?`,
    `${from}-01`,
    `${to}-31`,
    SEED_LIMIT,
  );
}

export async function readOwners(db: Database): Promise<Owner[]> {
  return db.all<Owner[]>(
    `SELECT id AS ownerId, 'key' AS kind, name, key_prefix AS keyPrefix FROM api_keys
     UNION ALL SELECT id, 'user', username, NULL FROM users LIMIT ?`,
    SEED_LIMIT,
  );
}
