import type { Clock } from '../clock.js';
import { ApiError } from '../http/errors.js';
import type { AccessStore, ApiKey, User } from '../persistence/access-store.js';
import type { Changes } from './changes.js';
import type { Directory } from './directory.js';
import { generatePassword, type Passwords, unlessBusy } from './passwords.js';
import type { Permission, Role } from './permissions.js';
import type { Actor } from './principal.js';
import type { RateLimit } from './rate-limits.js';
import { digestOf, newApiKey } from './tokens.js';
import { toldKey } from './told.js';

const PREFIX_CHARS = 10;

export interface AccountsDeps {
  store: AccessStore;
  directory: Directory;
  passwords: Passwords;
  changes: Changes;
  clock: Clock;
  newId: () => string;
}

export interface KeyInput {
  name: string;
  expiresAt: number | null;
  permissions: Permission[];
  models: string[] | null;
  rateLimit: RateLimit;
  priority: number;
}

/** Users and their keys. */
export class Accounts {
  readonly #deps: AccountsDeps;

  constructor(deps: AccountsDeps) {
    this.#deps = deps;
  }

  async createUser(
    input: { username: string; role: Role; password: string | null },
    actor: Actor,
  ): Promise<{ user: User; password: string }> {
    const { directory, store, changes, clock, newId, passwords } = this.#deps;
    this.#refuseTaken(input.username, '');
    const password = input.password ?? generatePassword();
    const passwordHash = await unlessBusy(() => passwords.hash(password));
    return changes.inTurn(actor, async () => {
      this.#refuseTaken(input.username, '');
      const user: User = {
        id: newId(),
        username: input.username,
        role: input.role,
        passwordHash,
        mustChangePassword: input.password === null,
        createdAt: clock.now(),
        lastLogin: null,
      };
      const detail = { after: { username: user.username, role: user.role } };
      await changes.write(() =>
        store.putUser(user, false, changes.entry(actor, 'user.created', user.username, detail)),
      );
      directory.putUser(user, false);
      return { user, password };
    });
  }

  /** `resetPassword`: a new one is made, told once, and to be changed. A changed role or password ends the sessions. */
  async updateUser(
    id: string,
    change: { username?: string | undefined; role?: Role | undefined; resetPassword: boolean },
    actor: Actor,
  ): Promise<{ user: User; password: string | null }> {
    const { directory, store, changes, passwords } = this.#deps;
    this.#user(id);
    const password = change.resetPassword ? generatePassword() : null;
    const passwordHash = password === null ? null : await unlessBusy(() => passwords.hash(password));
    return changes.inTurn(actor, async () => {
      const before = this.#user(id);
      const user: User = {
        ...before,
        username: change.username ?? before.username,
        role: change.role ?? before.role,
        passwordHash: passwordHash ?? before.passwordHash,
        mustChangePassword: passwordHash === null ? before.mustChangePassword : true,
      };
      this.#refuseTaken(user.username, id);
      if (user.role !== 'admin') this.#keepAnAdmin(before);
      const endSessions = user.role !== before.role || passwordHash !== null;
      const detail = {
        before: { username: before.username, role: before.role },
        after: { username: user.username, role: user.role },
        ...(passwordHash === null ? {} : { password: 'reset' }),
      };
      await changes.write(() =>
        store.putUser(user, endSessions, changes.entry(actor, 'user.changed', before.username, detail)),
      );
      directory.putUser(user, endSessions);
      return { user, password };
    });
  }

  /** The sessions of the user end, and the keys of the user are revoked. */
  removeUser(id: string, actor: Actor): Promise<void> {
    const { directory, store, changes, clock } = this.#deps;
    return changes.inTurn(actor, async () => {
      const user = this.#user(id);
      this.#keepAnAdmin(user);
      const keys = directory
        .keys()
        .filter(({ createdBy }) => createdBy === id)
        .map(({ name, keyPrefix }) => ({ name, key_prefix: keyPrefix }));
      const detail = { before: { username: user.username, role: user.role }, revoked_keys: keys };
      await changes.write(() =>
        store.removeUser(id, clock.now(), changes.entry(actor, 'user.removed', user.username, detail)),
      );
      directory.removeUser(id);
    });
  }

  /** The key itself is told once. `ownerId`: the user it belongs to; `grantable`: what may be given to it. */
  createKey(
    ownerId: string,
    grantable: ReadonlySet<Permission>,
    input: KeyInput,
    actor: Actor,
  ): Promise<{ key: ApiKey; secret: string }> {
    const { directory, store, changes, clock, newId } = this.#deps;
    return changes.inTurn(actor, async () => {
      refuseUngrantable(grantable, input.permissions);
      const secret = newApiKey();
      const key: ApiKey = {
        id: newId(),
        ...input,
        keyPrefix: secret.slice(0, PREFIX_CHARS),
        keyHash: digestOf(secret),
        createdBy: ownerId,
        createdAt: clock.now(),
      };
      await changes.write(() =>
        store.putKey(key, changes.entry(actor, 'api_key.created', targetOf(key), { after: toldKey(key) })),
      );
      directory.putKey(key);
      return { key, secret };
    });
  }

  /** `owner`: null for whoever may change all keys. */
  updateKey(
    id: string,
    owner: string | null,
    grantable: ReadonlySet<Permission>,
    change: Partial<KeyInput>,
    actor: Actor,
  ): Promise<ApiKey> {
    const { directory, store, changes } = this.#deps;
    return changes.inTurn(actor, async () => {
      const before = this.#key(id, owner);
      if (change.permissions !== undefined) refuseUngrantable(grantable, change.permissions);
      const key: ApiKey = { ...before, ...change };
      const detail = { before: toldKey(before), after: toldKey(key) };
      await changes.write(() =>
        store.putKey(key, changes.entry(actor, 'api_key.changed', targetOf(key), detail)),
      );
      directory.putKey(key);
      return key;
    });
  }

  revokeKey(id: string, owner: string | null, actor: Actor): Promise<ApiKey> {
    const { directory, store, changes, clock } = this.#deps;
    return changes.inTurn(actor, async () => {
      const key = this.#key(id, owner);
      await changes.write(() =>
        store.revokeKey(
          id,
          clock.now(),
          changes.entry(actor, 'api_key.revoked', targetOf(key), { before: toldKey(key) }),
        ),
      );
      directory.removeKey(id);
      return key;
    });
  }

  #user(id: string): User {
    const user = this.#deps.directory.user(id);
    if (user === undefined) throw new ApiError('not_found', `no user has the id ${id}`);
    return user;
  }

  #key(id: string, owner: string | null): ApiKey {
    const key = this.#deps.directory.key(id);
    if (key === undefined || (owner !== null && key.createdBy !== owner)) {
      throw new ApiError('not_found', `no API key has the id ${id}`);
    }
    return key;
  }

  #refuseTaken(username: string, id: string): void {
    const other = this.#deps.directory.userNamed(username);
    if (other !== undefined && other.id !== id) {
      throw new ApiError('name_taken', `another user is called ${username}`);
    }
  }

  #keepAnAdmin(user: User): void {
    const admins = this.#deps.directory.users().filter(({ role }) => role === 'admin');
    if (user.role === 'admin' && admins.length === 1) {
      throw new ApiError('last_admin', `${user.username} is the last admin: make another one first`);
    }
  }
}

function refuseUngrantable(grantable: ReadonlySet<Permission>, permissions: Permission[]): void {
  const beyond = permissions.filter((permission) => !grantable.has(permission));
  if (beyond.length === 0) return;
  throw new ApiError('forbidden', `permissions: ${beyond.join(', ')} cannot be given by you`, {
    param: 'permissions',
  });
}

function targetOf({ name, keyPrefix }: ApiKey): string {
  return `${name} (${keyPrefix}…)`;
}
