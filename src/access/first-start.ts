import type { AccessStore } from '../persistence/access-store.js';
import { StoreError } from '../persistence/store.js';
import type { Accounts, KeyInput } from './accounts.js';
import type { Directory } from './directory.js';
import { PERMISSIONS } from './permissions.js';
import { SYSTEM } from './principal.js';
import { NO_LIMITS } from './rate-limits.js';

export interface FirstStartDeps {
  accounts: Accounts;
  directory: Directory;
  store: AccessStore;
  /** Users, keys and sessions could be read. */
  isSeeded: boolean;
  username: string;
  /** Null: one is made. */
  password: string | null;
  log: { warn(details: object, message: string): void };
}

/** What is told once, on the first start. */
export interface FirstStart {
  username: string;
  /** Null: it is the one from the environment. */
  password: string | null;
  /** Null: it could not be made. */
  key: string | null;
}

/**
 * On a new data dir: an admin and an API key. A store that had users, or says that it lost them, is not new: letting
 * somebody in takes `TROUPE_API_KEY` or `admin reset-password` then.
 */
export async function firstStart(deps: FirstStartDeps): Promise<FirstStart | null> {
  const { accounts, directory, store, log, username, password } = deps;
  if (directory.users().length > 0) return null;
  try {
    if (!deps.isSeeded || !(await isNew(store))) {
      log.warn(
        {},
        'there is no readable user: only TROUPE_API_KEY enters; `admin reset-password` makes an admin',
      );
      return null;
    }
    const made = await accounts.createUser({ username, role: 'admin', password }, SYSTEM);
    const told = { username, password: password === null ? made.password : null };
    // Without it the admin is there all the same, and must be told.
    const key = await accounts.createKey(made.user.id, new Set(PERMISSIONS), FIRST_KEY, SYSTEM).then(
      ({ secret }) => secret,
      () => null,
    );
    return { ...told, key };
  } catch (error) {
    log.warn({ reason: (error as Error).message }, 'no admin could be made: only TROUPE_API_KEY enters');
    if (error instanceof StoreError || (error as { status?: number }).status === 503) return null;
    throw error;
  }
}

const FIRST_KEY: KeyInput = {
  name: 'first key',
  expiresAt: null,
  permissions: [...PERMISSIONS],
  models: null,
  rateLimit: NO_LIMITS,
  priority: 0,
};

async function isNew(store: AccessStore): Promise<boolean> {
  const had = await store.audits({ action: 'user.created' }, 1, 0);
  const lost = await store.audits({ action: 'store.users_lost' }, 1, 0);
  return had.total + lost.total === 0;
}

/** For the terminal. */
export function firstStartText({ username, password, key }: FirstStart, url: string): string {
  const secret = password === null ? 'the one in TROUPE_ADMIN_PASSWORD' : `${password}   (to be changed)`;
  const example = key === null ? '' : `\n  curl ${url}/v1/models -H 'Authorization: Bearer ${key}'\n`;
  return `
First start: an admin and an API key were made. They are not shown again.

  user      ${username}
  password  ${secret}
  API key   ${key ?? 'could not be made: log in and make one'}
${example}
`;
}
