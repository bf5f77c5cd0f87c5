import type { ApiKey, Session, User } from '../persistence/access-store.js';
import { PERMISSIONS, type Permission, permissionsOf, type Role } from './permissions.js';
import { NOBODY, type Principal } from './principal.js';
import { isUnlimited } from './rate-limits.js';
import { digestOf } from './tokens.js';

/** What a viewer's own key may do besides what a viewer may: be used for inference. */
const FOR_EVERY_KEY: readonly Permission[] = ['openai.inference'];

/**
 * Users, keys and sessions as they are read on every request: from memory, by the digest of what was sent, so that a
 * look-up takes the same time for every key and works while the store is away. Changes come in after they are written.
 */
export class Directory {
  readonly #environment: { hash: string; principal: Principal } | null;
  readonly #users = new Map<string, User>();
  readonly #keys = new Map<string, ApiKey>();
  readonly #keyIds = new Map<string, string>();
  readonly #sessions = new Map<string, Session>();
  /** By digest; made anew when anything changes. Apart, as a key is no session token. */
  readonly #ofKeys: Principals = new Map();
  readonly #ofSessions: Principals = new Map();

  /** `environmentKey`: a key of any text that has every permission; null: there is none. */
  constructor(environmentKey: string | null) {
    this.#environment =
      environmentKey === null ? null : { hash: digestOf(environmentKey), principal: environmentPrincipal() };
  }

  seedUsers(users: Iterable<User>): void {
    this.#users.clear();
    for (const user of users) this.#users.set(user.id, user);
    this.#forgetPrincipals();
  }

  seedKeys(keys: Iterable<ApiKey>): void {
    this.#keys.clear();
    this.#keyIds.clear();
    for (const key of keys) this.putKey(key);
  }

  seedSessions(sessions: Iterable<Session>): void {
    for (const session of sessions) this.#sessions.set(session.tokenHash, session);
  }

  /** Whose key it is; `expired` if it was one. `now`: wall clock, ms. */
  byKey(text: string, now: number): Principal | 'unknown' | 'expired' {
    const hash = digestOf(text);
    if (hash === this.#environment?.hash) return this.#environment.principal;
    return found(this.#ofKeys, hash, now, () => this.#keyPrincipal(hash));
  }

  bySession(token: string, now: number): Principal | 'unknown' | 'expired' {
    return this.#bySessionHash(digestOf(token), now);
  }

  /** Somebody who was let in as they would be let in now; null: they would not. */
  current(principal: Principal, now: number): Principal | null {
    const { kind, keyId, tokenHash } = principal;
    if (kind === 'anonymous' || keyId === NOBODY) return principal;
    const hash = this.#keys.get(keyId ?? '')?.keyHash ?? '';
    const still =
      kind === 'session'
        ? this.#bySessionHash(tokenHash ?? '', now)
        : found(this.#ofKeys, hash, now, () => this.#keyPrincipal(hash));
    return typeof still === 'string' ? null : still;
  }

  get hasEnvironmentKey(): boolean {
    return this.#environment !== null;
  }

  users(): User[] {
    return [...this.#users.values()];
  }

  user(id: string): User | undefined {
    return this.#users.get(id);
  }

  userNamed(username: string): User | undefined {
    for (const user of this.#users.values()) if (user.username === username) return user;
    return undefined;
  }

  keys(): ApiKey[] {
    return [...this.#keys.values()];
  }

  key(id: string): ApiKey | undefined {
    return this.#keys.get(id);
  }

  /** What a key may do: what it was given, as far as its owner may give it. */
  effective(key: ApiKey): Permission[] {
    const role = this.#roleOf(key.createdBy);
    if (role === null) return [];
    const grantable = grantableBy(role);
    return key.permissions.filter((permission) => grantable.has(permission));
  }

  putUser(user: User, endSessions: boolean): void {
    this.#users.set(user.id, user);
    if (endSessions) this.#endSessionsOf(user.id);
    this.#forgetPrincipals();
  }

  removeUser(id: string): void {
    this.#users.delete(id);
    this.#endSessionsOf(id);
    for (const key of this.keys()) if (key.createdBy === id) this.removeKey(key.id);
    this.#forgetPrincipals();
  }

  putKey(key: ApiKey): void {
    this.#keys.set(key.id, key);
    this.#keyIds.set(key.keyHash, key.id);
    this.#forgetPrincipals();
  }

  removeKey(id: string): void {
    const key = this.#keys.get(id);
    if (key === undefined) return;
    this.#keys.delete(id);
    this.#keyIds.delete(key.keyHash);
    this.#forgetPrincipals();
  }

  addSession(session: Session): void {
    this.#sessions.set(session.tokenHash, session);
    const user = this.#users.get(session.userId);
    if (user !== undefined) this.#users.set(user.id, { ...user, lastLogin: session.createdAt });
  }

  removeSession(tokenHash: string): void {
    this.#sessions.delete(tokenHash);
    this.#ofSessions.delete(tokenHash);
  }

  /** Forgets sessions that are over; says how many. */
  dropSessions(now: number): number {
    const over = [...this.#sessions.values()].filter(({ expiresAt }) => expiresAt <= now);
    for (const { tokenHash } of over) this.removeSession(tokenHash);
    return over.length;
  }

  #bySessionHash(hash: string, now: number): Principal | 'unknown' | 'expired' {
    return found(this.#ofSessions, hash, now, () => this.#sessionPrincipal(hash));
  }

  #forgetPrincipals(): void {
    this.#ofKeys.clear();
    this.#ofSessions.clear();
  }

  #keyPrincipal(hash: string): { principal: Principal; expiresAt: number } | undefined {
    const key = this.#keys.get(this.#keyIds.get(hash) ?? '');
    if (key === undefined) return undefined;
    // Without a readable owner nobody vouches for it.
    const role = this.#roleOf(key.createdBy);
    if (role === null) return undefined;
    const principal: Principal = {
      kind: 'api_key',
      name: key.name,
      role,
      permissions: new Set(this.effective(key)),
      userId: key.createdBy,
      keyId: key.id,
      tokenHash: null,
      models: key.models,
      rateLimit: isUnlimited(key.rateLimit) ? null : key.rateLimit,
      priority: key.priority,
    };
    return { principal, expiresAt: key.expiresAt ?? Number.POSITIVE_INFINITY };
  }

  #sessionPrincipal(hash: string): { principal: Principal; expiresAt: number } | undefined {
    const session = this.#sessions.get(hash);
    const user = session === undefined ? undefined : this.#users.get(session.userId);
    if (session === undefined || user === undefined) return undefined;
    const principal: Principal = {
      kind: 'session',
      name: user.username,
      role: user.role,
      permissions: permissionsOf(user.role),
      userId: user.id,
      keyId: null,
      tokenHash: hash,
      models: null,
      rateLimit: null,
      priority: 0,
    };
    return { principal, expiresAt: session.expiresAt };
  }

  #roleOf(userId: string): Role | null {
    return userId === NOBODY ? 'admin' : (this.#users.get(userId)?.role ?? null);
  }

  #endSessionsOf(userId: string): void {
    for (const [hash, session] of this.#sessions) if (session.userId === userId) this.#sessions.delete(hash);
  }
}

type Principals = Map<string, { principal: Principal; expiresAt: number }>;

function found(
  known: Principals,
  hash: string,
  now: number,
  make: () => { principal: Principal; expiresAt: number } | undefined,
): Principal | 'unknown' | 'expired' {
  let one = known.get(hash);
  if (one === undefined) {
    one = make();
    if (one === undefined) return 'unknown';
    known.set(hash, one);
  }
  return one.expiresAt > now ? one.principal : 'expired';
}

/** What somebody of that role may give to a key. */
export function grantableBy(role: Role): ReadonlySet<Permission> {
  return role === 'admin' ? permissionsOf(role) : new Set([...permissionsOf(role), ...FOR_EVERY_KEY]);
}

function environmentPrincipal(): Principal {
  return {
    kind: 'api_key',
    name: 'TROUPE_API_KEY',
    role: 'admin',
    permissions: new Set(PERMISSIONS),
    userId: NOBODY,
    keyId: NOBODY,
    tokenHash: null,
    models: null,
    rateLimit: null,
    priority: 0,
  };
}

/** Everybody, where nobody is asked. */
export const ANONYMOUS: Principal = {
  kind: 'anonymous',
  name: 'anonymous',
  role: 'admin',
  permissions: new Set(PERMISSIONS),
  userId: NOBODY,
  keyId: null,
  tokenHash: null,
  models: null,
  rateLimit: null,
  priority: 0,
};
