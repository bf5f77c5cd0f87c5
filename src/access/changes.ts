import type { Clock } from '../clock.js';
import { ApiError } from '../http/errors.js';
import type { AccessStore, AuditEntry } from '../persistence/access-store.js';
import { StoreError } from '../persistence/store.js';
import type { Actor } from './principal.js';

export interface ChangesDeps {
  store: AccessStore;
  clock: Clock;
  log: { warn(details: object, message: string): void };
}

/** How somebody changes something: one after the other, and written with a line in the audit log first. */
export class Changes {
  readonly #deps: ChangesDeps;
  #last: Promise<unknown> = Promise.resolve();

  constructor(deps: ChangesDeps) {
    this.#deps = deps;
  }

  /** One change at a time, so that each sees what the one before left: its actor may have been stopped by it. */
  inTurn<T>(actor: Actor, change: () => Promise<T>): Promise<T> {
    const result = this.#last.then(() => {
      actor.recheck();
      return change();
    });
    this.#last = result.catch(() => {});
    return result;
  }

  /** Throws an `ApiError` if nothing was changed. `taken`: what a name that is there already means. */
  async write(change: () => Promise<void>, taken = 'another user has that name'): Promise<void> {
    try {
      await change();
    } catch (error) {
      if (error instanceof StoreError && error.code === 'conflict') {
        throw new ApiError('name_taken', taken, { cause: error });
      }
      throw new ApiError('store_unavailable', `nothing was changed: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** What happened without a change; a store that is away loses it. */
  async tell(actor: Actor, action: string, target: string, detail: object): Promise<void> {
    const { store, log } = this.#deps;
    await store.note(this.entry(actor, action, target, detail)).catch((error: Error) => {
      log.warn({ action, reason: error.message }, 'a line of the audit log could not be written');
    });
  }

  entry(actor: Actor, action: string, target: string, detail: object): AuditEntry {
    return auditEntry(this.#deps.clock.now(), actor, action, target, detail);
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
