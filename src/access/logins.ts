import type { Clock } from '../clock.js';
import { ApiError } from '../http/errors.js';
import type { AccessStore, Session, User } from '../persistence/access-store.js';
import { StoreError } from '../persistence/store.js';
import type { Changes } from './changes.js';
import type { Directory } from './directory.js';
import { FailureWindow } from './failure-window.js';
import { busy, type Passwords, unlessBusy } from './passwords.js';
import type { Actor, Principal } from './principal.js';
import { digestOf, newSessionToken } from './tokens.js';

export const SESSION_SECS = 86_400;
const LOGIN_FAILURES = 10;
/** Over all accounts; far above what people behind one address mistype. */
const ADDRESS_FAILURES = 100;
/** Log-ins of one account from one address that wait for their turn. */
const MOST_WAITING = 20;

export interface LoginsDeps {
  store: AccessStore;
  directory: Directory;
  passwords: Passwords;
  changes: Changes;
  clock: Clock;
  log: { warn(details: object, message: string): void };
}

export interface NewSession {
  /** Told once. */
  token: string;
  user: User;
}

/** Logging in and out, and the own password; whoever guesses is slowed down. */
export class Logins {
  readonly #deps: LoginsDeps;
  readonly #failures = new FailureWindow(LOGIN_FAILURES);
  readonly #addressFailures = new FailureWindow(ADDRESS_FAILURES);
  /** Log-ins of one account from one address, one after the other: each sees how the one before ended. */
  readonly #turns = new Map<string, { last: Promise<unknown>; waiting: number }>();

  constructor(deps: LoginsDeps) {
    this.#deps = deps;
  }

  /** `place`: what attempts are counted by besides the account, the address or its network. */
  async logIn(username: string, password: string, place: string, actor: Actor): Promise<NewSession> {
    // A name of any length is one entry of one size.
    const account = `${digestOf(username)}\n${place}`;
    this.#refuseGuessing(account, place);
    return this.#inTurn(account, async () => {
      this.#refuseGuessing(account, place);
      const { directory, changes, clock } = this.#deps;
      const user = directory.userNamed(username);
      const isRight = await this.#verify(password, user?.passwordHash ?? null);
      // What changed while it was being verified holds.
      const still = user === undefined ? undefined : directory.user(user.id);
      if (!isRight || still === undefined || still.passwordHash !== user?.passwordHash) {
        this.#failures.note(account, clock.mono());
        this.#addressFailures.note(place, clock.mono());
        // A name that is nobody's may be a password in the wrong field.
        const name = user?.username ?? 'unknown';
        await changes.tell({ ...actor, name, type: 'user' }, 'auth.login_failed', name, {});
        throw new ApiError('invalid_credentials', 'the user name or the password is wrong');
      }
      this.#failures.forget(account);
      return this.#openSession(still, actor, 'auth.login');
    });
  }

  async logOut({ tokenHash, name }: Principal, actor: Actor): Promise<void> {
    if (tokenHash === null) return;
    const { directory, store, changes } = this.#deps;
    // Over at once, whatever the store says.
    directory.removeSession(tokenHash);
    await changes.write(() => store.removeSession(tokenHash, changes.entry(actor, 'auth.logout', name, {})));
  }

  /** Every session of the user ends; the answer holds a new one. */
  async changePassword(
    principal: Principal,
    current: string,
    wanted: string,
    actor: Actor,
  ): Promise<NewSession> {
    const { directory, store, changes, clock, passwords } = this.#deps;
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
      const passwordHash = await unlessBusy(() => passwords.hash(wanted));
      return changes.inTurn(async () => {
        const changed: User = { ...user, passwordHash, mustChangePassword: false };
        await changes.write(() =>
          store.putUser(changed, true, changes.entry(actor, 'auth.password_changed', user.username, {})),
        );
        directory.putUser(changed, true);
        return this.#openSession(changed, actor, 'auth.login');
      });
    });
  }

  /** Forgets sessions that are over. */
  async sweep(): Promise<void> {
    const { directory, store, clock } = this.#deps;
    const now = clock.now();
    if (directory.dropSessions(now) > 0) await store.dropSessions(now);
  }

  async #openSession(user: User, actor: Actor, action: string): Promise<NewSession> {
    const { directory, store, changes, clock, log } = this.#deps;
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
      await store.addSession(session, changes.entry(who, action, user.username, {}));
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
    return unlessBusy(() => this.#deps.passwords.verify(password, stored));
  }
}
