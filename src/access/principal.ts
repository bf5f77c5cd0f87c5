import type { Permission, Role } from './permissions.js';
import type { RateLimit } from './rate-limits.js';

/** Stands where a user's id is asked for and nobody is behind it: the key of the environment, the command line. */
export const NOBODY = '00000000-0000-0000-0000-000000000000';

/** Somebody who was let in. */
export interface Principal {
  kind: 'api_key' | 'session' | 'anonymous';
  /** As the audit log names it. */
  name: string;
  role: Role;
  permissions: ReadonlySet<Permission>;
  /** The user it speaks for; `NOBODY` for the key of the environment. */
  userId: string;
  /** Of a key. */
  keyId: string | null;
  /** Of a session. */
  tokenHash: string | null;
  /** Globs of the models it may use; null: all. */
  models: readonly string[] | null;
  /** Null: none. */
  rateLimit: RateLimit | null;
  /** Its place in the queue: 0 is first, larger is later. */
  priority: number;
}

/** Who does something, as the audit log has it. */
export interface Actor {
  name: string;
  type: 'user' | 'api_key' | 'system';
  /** Null where nothing came over the network. */
  address: string | null;
  /** Throws if by now that may not be done any more: a body, or a turn, may be long in coming. */
  recheck: () => void;
}

/** What the server does by itself. */
export const SYSTEM: Actor = { name: 'troupe', type: 'system', address: null, recheck: () => {} };

export function actorOf(principal: Principal, address: string | null, recheck: () => void): Actor {
  const type = principal.kind === 'session' ? 'user' : principal.kind === 'api_key' ? 'api_key' : 'system';
  return { name: principal.name, type, address, recheck };
}
