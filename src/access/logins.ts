import type { Clock } from '../clock.js';
import { ApiError } from '../http/errors.js';
import type { AccessStore, AuditEntry, Session, User } from '../persistence/access-store.js';
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
/** Log-ins from one address that are under way: it does not keep others from theirs. */
const MOST_WAITING = 10;

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
  /** Log-ins under way, by place. */
  readonly #waiting = new Map<string, number>();
  /** Failures that the audit log tells of already. */
  readonly #told = new FailureWindow(1);
  /** Log-outs that are not written yet. */
  readonly #loggedOut = new Map<string, AuditEntry>();

  constructor(deps: LoginsDeps) {
    this.#deps = deps;
  }

  /** `place`: what attempts are counted by besides the account, the address or its network. `isGone`: nobody waits. */
  async logIn(
    { username, password }: { username: string; password: string },
    place: string,
    actor: Actor,
    isGone: () => boolean,
  ): Promise<NewSession> {
    // A name of any length is one entry of one size.
    const account = `${digestOf(username)}\n${place}`;
    this.#refuseGuessing(account, place);
    return this.#inTurn(account, place, async () => {
      this.#refuseGuessing(account, place);
      const { directory, changes, clock, passwords } = this.#deps;
      const user = directory.userNamed(username);
      const stored = user?.passwordHash ?? null;
      const isRight = await unlessBusy(() => passwords.verify(password, stored, 'strangers', isGone));
      // What changed while it was being verified, or waits in front of this, holds.
      const session = !isRight
        ? null
        : await changes.inTurn(actor, async () => {
            const still = directory.user(user?.id ?? '');
            return still?.passwordHash === stored ? this.#openSession(still as User, actor) : null;
          });
      if (session === null) {
        this.#failures.note(account, clock.mono());
        this.#addressFailures.note(place, clock.mono());
        await this.#tellOfFailure(user, account, place, actor);
        throw new ApiError('invalid_credentials', 'the user name or the password is wrong');
      }
      this.#failures.forget(account);
      return session;
    });
  }

  /** One line a minute for each account and place: whoever guesses must not fill the log. */
  async #tellOfFailure(user: User | undefined, account: string, place: string, actor: Actor): Promise<void> {
    const { changes, clock } = this.#deps;
    const mono = clock.mono();
    const key = user === undefined ? place : account;
    if (this.#told.isOver(key, mono)) return;
    this.#told.note(key, mono);
    // A name that is nobody's may be a password in the wrong field.
    const name = user?.username ?? 'unknown';
    await changes.tell({ ...actor, name, type: 'user' }, 'auth.login_failed', name, {});
  }

  /** Over at once; with a store that is away it is written as soon as that is back. */
  async logOut({ tokenHash, name }: Principal, actor: Actor): Promise<void> {
    if (tokenHash === null) return;
    const { directory, changes } = this.#deps;
    directory.removeSession(tokenHash);
    this.#loggedOut.set(tokenHash, changes.entry(actor, 'auth.logout', name, {}));
    await this.#writeLogOuts();
  }

  async #writeLogOuts(): Promise<void> {
    const { store, log } = this.#deps;
    for (const [tokenHash, entry] of this.#loggedOut) {
      try {
        await store.removeSession(tokenHash, entry);
        this.#loggedOut.delete(tokenHash);
      } catch (error) {
        log.warn({ reason: (error as Error).message }, 'a log-out could not be stored yet');
        return;
      }
    }
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
    return this.#inTurn(account, account, async () => {
      this.#refuseGuessing(account, '');
      const user = directory.user(principal.userId);
      if (user === undefined) throw new ApiError('forbidden', 'only a user has a password to change');
      if (!(await unlessBusy(() => passwords.verify(current, user.passwordHash, 'known')))) {
        this.#failures.note(account, clock.mono());
        throw new ApiError('invalid_request', 'current_password: is not the password of this user', {
          param: 'current_password',
        });
      }
      const passwordHash = await unlessBusy(() => passwords.hash(wanted));
      return changes.inTurn(actor, async () => {
        const now = directory.user(user.id);
        if (now?.passwordHash !== user.passwordHash) {
          throw new ApiError('expired_credential', 'the password was changed by somebody else meanwhile');
        }
        const changed: User = { ...now, passwordHash, mustChangePassword: false };
        await changes.write(() =>
          store.putUser(changed, true, changes.entry(actor, 'auth.password_changed', user.username, {})),
        );
        directory.putUser(changed, true);
        return this.#openSession(changed, actor);
      });
    });
  }

  /** Forgets sessions that are over, and writes what could not be written. */
  async sweep(): Promise<void> {
    const { directory, store, clock } = this.#deps;
    const now = clock.now();
    await this.#writeLogOuts();
    if (directory.dropSessions(now) > 0) await store.dropSessions(now);
  }

  async #openSession(user: User, actor: Actor): Promise<NewSession> {
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
      await store.addSession(session, changes.entry(who, 'auth.login', user.username, {}));
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

  async #inTurn<T>(account: string, place: string, run: () => Promise<T>): Promise<T> {
    const turn = this.#turns.get(account) ?? { last: Promise.resolve(), waiting: 0 };
    const here = this.#waiting.get(place) ?? 0;
    if (here >= MOST_WAITING) throw busy();
    this.#waiting.set(place, here + 1);
    this.#turns.set(account, turn);
    turn.waiting += 1;
    const result = turn.last.then(run);
    turn.last = result.catch(() => {});
    try {
      return await result;
    } finally {
      turn.waiting -= 1;
      if (turn.waiting === 0) this.#turns.delete(account);
      const left = (this.#waiting.get(place) ?? 1) - 1;
      if (left === 0) this.#waiting.delete(place);
      else this.#waiting.set(place, left);
    }
  }
}
