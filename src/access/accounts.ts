import type { Clock } from '../clock.js';
import { ApiError } from '../http/errors.js';
import type { AccessStore, ApiKey, AuditEntry, Session, User } from '../persistence/access-store.js';
import { StoreError } from '../persistence/store.js';
import type { Directory } from './directory.js';
import { FailureWindow } from './failure-window.js';
import { generatePassword, type Passwords, TooBusy } from './passwords.js';
import type { Permission, Role } from './permissions.js';
import type { Actor, Principal } from './principal.js';
import type { RateLimit } from './rate-limits.js';
import { digestOf, newApiKey, newSessionToken } from './tokens.js';
import { toldKey } from './told.js';

export const SESSION_SECS = 86_400;
const LOGIN_FAILURES = 10;
/** Over all accounts; far above what people behind one address mistype. */
const ADDRESS_FAILURES = 100;
/** Log-ins of one account from one address that wait for their turn. */
const MOST_WAITING = 20;
const PREFIX_CHARS = 10;

export interface AccountsDeps {
  store: AccessStore;
  directory: Directory;
  passwords: Passwords;
  clock: Clock;
  newId: () => string;
  log: { warn(details: object, message: string): void };
}

export interface NewSession {
  /** Told once. */
  token: string;
  user: User;
}

export interface KeyInput {
  name: string;
  expiresAt: number | null;
  permissions: Permission[];
  models: string[] | null;
  rateLimit: RateLimit;
  priority: number;
}

/** Changes to users, keys and sessions: each is written with its line in the audit log first, and holds from then on. */
export class Accounts {
  readonly #deps: AccountsDeps;
  readonly #failures = new FailureWindow(LOGIN_FAILURES);
  readonly #addressFailures = new FailureWindow(ADDRESS_FAILURES);
  /** Log-ins of one account from one address, one after the other: each sees how the one before ended. */
  readonly #turns = new Map<string, { last: Promise<unknown>; waiting: number }>();
  #changes: Promise<unknown> = Promise.resolve();

  constructor(deps: AccountsDeps) {
    this.#deps = deps;
  }

  /** `place`: what attempts are counted by besides the account, the address or its network. */
  async logIn(username: string, password: string, place: string, actor: Actor): Promise<NewSession> {
    // A name of any length is one entry of one size.
    const account = `${digestOf(username)}\n${place}`;
    this.#refuseGuessing(account, place);
    return this.#inTurn(account, async () => {
      this.#refuseGuessing(account, place);
      const { directory, clock } = this.#deps;
      const user = directory.userNamed(username);
      const isRight = await this.#verify(password, user?.passwordHash ?? null);
      // What changed while it was being verified holds.
      const still = user === undefined ? undefined : directory.user(user.id);
      if (!isRight || still === undefined || still.passwordHash !== user?.passwordHash) {
        this.#failures.note(account, clock.mono());
        this.#addressFailures.note(place, clock.mono());
        // A name that is nobody's may be a password in the wrong field.
        const name = user?.username ?? 'unknown';
        await this.#tell({ ...actor, name, type: 'user' }, 'auth.login_failed', name, {});
        throw new ApiError('invalid_credentials', 'the user name or the password is wrong');
      }
      this.#failures.forget(account);
      return this.#openSession(still, actor, 'auth.login');
    });
  }

  async logOut({ tokenHash, name }: Principal, actor: Actor): Promise<void> {
    if (tokenHash === null) return;
    const { directory, store } = this.#deps;
    // Over at once, whatever the store says.
    directory.removeSession(tokenHash);
    await this.#write(() => store.removeSession(tokenHash, this.#entry(actor, 'auth.logout', name, {})));
  }

  /** Every session of the user ends; the answer holds a new one. */
  async changePassword(
    principal: Principal,
    current: string,
    wanted: string,
    actor: Actor,
  ): Promise<NewSession> {
    const { directory, store, clock, passwords } = this.#deps;
    const account = `change\n${principal.userId}`;
    return this.#inTurn(account, async () => {
      this.#refuseGuessing(account, '');
      const user = directory.user(principal.userId);
      if (user === undefined) throw new ApiError('forbidden', 'only a user has a password to change');
      if (!(await this.#verify(current, user.passwordHash))) {
        this.#failures.note(account, clock.mono());
        throw new ApiError('invalid_request', 'current_password: is not the password of this user', {
          param: 'current_password',
        });
      }
      const passwordHash = await this.#hash(() => passwords.hash(wanted));
      return this.#change(async () => {
        const changed: User = { ...this.#user(user.id), passwordHash, mustChangePassword: false };
        await this.#write(() =>
          store.putUser(changed, true, this.#entry(actor, 'auth.password_changed', user.username, {})),
        );
        directory.putUser(changed, true);
        return this.#openSession(changed, actor, 'auth.login');
      });
    });
  }

  async createUser(
    input: { username: string; role: Role; password: string | null },
    actor: Actor,
  ): Promise<{ user: User; password: string }> {
    const { directory, store, clock, newId, passwords } = this.#deps;
    this.#refuseTaken(input.username, '');
    const password = input.password ?? generatePassword();
    const passwordHash = await this.#hash(() => passwords.hash(password));
    return this.#change(async () => {
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
      await this.#write(() =>
        store.putUser(user, false, this.#entry(actor, 'user.created', user.username, detail)),
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
    const { directory, store, passwords } = this.#deps;
    this.#user(id);
    const password = change.resetPassword ? generatePassword() : null;
    const passwordHash = password === null ? null : await this.#hash(() => passwords.hash(password));
    return this.#change(async () => {
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
      await this.#write(() =>
        store.putUser(user, endSessions, this.#entry(actor, 'user.changed', before.username, detail)),
      );
      directory.putUser(user, endSessions);
      return { user, password };
    });
  }

  /** The sessions of the user end, and the keys of the user are revoked. */
  removeUser(id: string, actor: Actor): Promise<void> {
    const { directory, store, clock } = this.#deps;
    return this.#change(async () => {
      const user = this.#user(id);
      this.#keepAnAdmin(user);
      const keys = directory
        .keys()
        .filter(({ createdBy }) => createdBy === id)
        .map(({ name, keyPrefix }) => ({ name, key_prefix: keyPrefix }));
      const detail = { before: { username: user.username, role: user.role }, revoked_keys: keys };
      await this.#write(() =>
        store.removeUser(id, clock.now(), this.#entry(actor, 'user.removed', user.username, detail)),
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
    const { directory, store, clock, newId } = this.#deps;
    return this.#change(async () => {
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
      await this.#write(() =>
        store.putKey(key, this.#entry(actor, 'api_key.created', targetOf(key), { after: toldKey(key) })),
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
    const { directory, store } = this.#deps;
    return this.#change(async () => {
      const before = this.#key(id, owner);
      if (change.permissions !== undefined) refuseUngrantable(grantable, change.permissions);
      const key: ApiKey = { ...before, ...change };
      const detail = { before: toldKey(before), after: toldKey(key) };
      await this.#write(() =>
        store.putKey(key, this.#entry(actor, 'api_key.changed', targetOf(key), detail)),
      );
      directory.putKey(key);
      return key;
    });
  }

  revokeKey(id: string, owner: string | null, actor: Actor): Promise<ApiKey> {
    const { directory, store, clock } = this.#deps;
    return this.#change(async () => {
      const key = this.#key(id, owner);
      await this.#write(() =>
        store.revokeKey(
          id,
          clock.now(),
          this.#entry(actor, 'api_key.revoked', targetOf(key), { before: toldKey(key) }),
        ),
      );
      directory.removeKey(id);
      return key;
    });
  }

  /** Forgets sessions that are over. */
  async sweep(): Promise<void> {
    const { directory, store, clock } = this.#deps;
    const now = clock.now();
    if (directory.dropSessions(now) > 0) await store.dropSessions(now);
  }

  async #openSession(user: User, actor: Actor, action: string): Promise<NewSession> {
    const { directory, store, clock, log } = this.#deps;
    const token = newSessionToken();
    const createdAt = clock.now();
    const session: Session = {
      tokenHash: digestOf(token),
      userId: user.id,
      createdAt,
      expiresAt: createdAt + SESSION_SECS * 1000,
    };
    const who: Actor = { ...actor, name: user.username, type: 'user' };
    try {
      await store.addSession(session, this.#entry(who, action, user.username, {}));
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      // Somebody must be able to look at a server whose store is away.
      log.warn({ reason: error.message }, 'a session could not be stored: it ends with this process');
    }
    directory.addSession(session);
    return { token, user };
  }

  #refuseGuessing(account: string, place: string): void {
    const mono = this.#deps.clock.mono();
    const over = [
      { failures: this.#failures, key: account },
      { failures: this.#addressFailures, key: place },
    ].find(({ failures, key }) => failures.isOver(key, mono));
    if (over === undefined) return;
    const secs = over.failures.retryAfterSecs(over.key, mono);
    throw new ApiError('too_many_attempts', `too many failed attempts: try again in ${secs} s`, {
      headers: { 'retry-after': String(secs) },
    });
  }

  async #inTurn<T>(account: string, run: () => Promise<T>): Promise<T> {
    const turn = this.#turns.get(account) ?? { last: Promise.resolve(), waiting: 0 };
    if (turn.waiting >= MOST_WAITING) throw busy();
    this.#turns.set(account, turn);
    turn.waiting += 1;
    const result = turn.last.then(run);
    turn.last = result.catch(() => {});
    try {
      return await result;
    } finally {
      turn.waiting -= 1;
      if (turn.waiting === 0) this.#turns.delete(account);
    }
  }

  #verify(password: string, stored: string | null): Promise<boolean> {
    return this.#hash(() => this.#deps.passwords.verify(password, stored));
  }

  async #hash<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw error instanceof TooBusy ? busy() : error;
    }
  }

  /** One change at a time, so that each sees what the one before left. */
  #change<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#changes.then(change);
    this.#changes = result.catch(() => {});
    return result;
  }

  async #write(change: () => Promise<void>): Promise<void> {
    try {
      await change();
    } catch (error) {
      if (error instanceof StoreError && error.code === 'conflict') {
        throw new ApiError('name_taken', 'another user has that name', { cause: error });
      }
      throw new ApiError('store_unavailable', `nothing was changed: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** What happened without a change; a store that is away loses it. */
  async #tell(actor: Actor, action: string, target: string, detail: object): Promise<void> {
    const { store, log } = this.#deps;
    await store.note(this.#entry(actor, action, target, detail)).catch((error: Error) => {
      log.warn({ action, reason: error.message }, 'a line of the audit log could not be written');
    });
  }

  #entry(actor: Actor, action: string, target: string, detail: object): AuditEntry {
    return auditEntry(this.#deps.clock.now(), actor, action, target, detail);
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

export function auditEntry(
  at: number,
  { name, type, address }: Actor,
  action: string,
  target: string | null,
  detail: object,
): AuditEntry {
  return { at, actor: name, actorType: type, action, target, clientIp: address, detail };
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

function busy(): ApiError {
  return new ApiError('too_many_attempts', 'too many log-ins at once: try again in a moment', {
    headers: { 'retry-after': '1' },
  });
}
