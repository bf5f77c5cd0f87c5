import type { AccessStore } from '../persistence/access-store.js';
import type { OpenReport } from '../persistence/store.js';
import { StoreError } from '../persistence/store.js';
import type { Accounts } from './accounts.js';
import { auditEntry } from './changes.js';
import type { Directory } from './directory.js';
import { PERMISSIONS } from './permissions.js';
import { SYSTEM } from './principal.js';

export interface FirstStartDeps {
  accounts: Accounts;
  directory: Directory;
  store: AccessStore;
  report: OpenReport | null;
  /** Users, keys and sessions could be read. */
  isSeeded: boolean;
  username: string;
  /** Null: one is made. */
  password: string | null;
  now: () => number;
  log: { warn(details: object, message: string): void };
}

/** What is told once, on the first start. */
export interface FirstStart {
  username: string;
  /** Null: it is the one from the environment. */
  password: string | null;
  key: string;
}

const LOST = 'store.users_lost';
const OWN_TABLES = ['users', 'audit_log'];

/**
 * On a new data dir: an admin and an API key. A store that had users and lost them is not new, now or later: letting
 * somebody in takes `TROUPE_API_KEY` or `admin reset-password` then.
 */
export async function firstStart(deps: FirstStartDeps): Promise<FirstStart | null> {
  const { accounts, directory, store, report, log, username, password } = deps;
  if (directory.users().length > 0) return null;
  try {
    const lost = report?.salvaged === true || OWN_TABLES.some((table) => report?.recreated.includes(table));
    if (lost) await store.note(auditEntry(deps.now(), SYSTEM, LOST, null, {}));
    if (lost || !deps.isSeeded || !(await isNew(store))) {
      log.warn(
        {},
        'there is no readable user: only TROUPE_API_KEY enters; `admin reset-password` makes an admin',
      );
      return null;
    }
    const made = await accounts.createUser({ username, role: 'admin', password }, SYSTEM);
    const { secret } = await accounts.createKey(
      made.user.id,
      new Set(PERMISSIONS),
      {
        name: 'first key',
        expiresAt: null,
        permissions: [...PERMISSIONS],
        models: null,
        rateLimit: {
          requestsPerMinute: null,
          tokensPerMinute: null,
          concurrent: null,
          tokensPerDay: null,
          tokensPerMonth: null,
        },
        priority: 0,
      },
      SYSTEM,
    );
    return { username, password: password === null ? made.password : null, key: secret };
  } catch (error) {
    log.warn({ reason: (error as Error).message }, 'no admin could be made: only TROUPE_API_KEY enters');
    if (error instanceof StoreError || (error as { status?: number }).status === 503) return null;
    throw error;
  }
}

async function isNew(store: AccessStore): Promise<boolean> {
  const had = await store.audits({ action: 'user.created' }, 1, 0);
  const lost = await store.audits({ action: LOST }, 1, 0);
  return had.total + lost.total === 0;
}

/** For the terminal. */
export function firstStartText({ username, password, key }: FirstStart, url: string): string {
  const secret = password === null ? 'the one in TROUPE_ADMIN_PASSWORD' : `${password}   (to be changed)`;
  return `
First start: an admin and an API key were made. They are not shown again.

  user      ${username}
  password  ${secret}
  API key   ${key}

  curl ${url}/v1/models -H 'Authorization: Bearer ${key}'

`;
}
