import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Accounts } from './access/accounts.js';
import { Changes } from './access/changes.js';
import { Directory } from './access/directory.js';
import { passwordsOf } from './access/passwords.js';
import { PERMISSIONS } from './access/permissions.js';
import { type Actor, NOBODY, SYSTEM } from './access/principal.js';
import { systemClock, timestamp } from './clock.js';
import { ConfigError, dataDirOf } from './config.js';
import { keyInput, newKey } from './http/account-input.js';
import { parsed } from './http/input.js';
import type { ApiKey } from './persistence/access-store.js';
import { dataDirAt, takeDataDir } from './persistence/data-dir.js';
import { SqliteStore } from './persistence/sqlite/sqlite-store.js';

const OPERATOR: Actor = { ...SYSTEM, name: 'command line' };
const TOPICS = new Set(['admin', 'keys']);

/** `admin …` and `keys …`: what is done to a data dir whose server is not running. */
export function isAccessCommand(argv: string[]): boolean {
  return TOPICS.has(argv[0] ?? '');
}

/** What to print. Throws what an operator can mend: `ConfigError`, `StoreError`, `ApiError`. */
export async function runAccessCommand(argv: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const { values, positionals } = readArguments(argv);
  const [topic, verb, subject, ...rest] = positionals;
  const command = `${topic} ${verb}`;
  if (rest.length > 0) throw new ConfigError(`${command}: ${rest.join(' ')} is too much`);
  switch (command) {
    case 'admin reset-password':
      return onDataDir(values, env, (desk) => resetPassword(desk, subject));
    case 'keys create':
      if (subject === undefined) throw new ConfigError('keys create: say what the key is called');
      return onDataDir(values, env, (desk) => createKey(desk, subject, values));
    case 'keys list':
      if (subject !== undefined) throw new ConfigError(`keys list: ${subject} is too much`);
      return onDataDir(values, env, ({ directory }) => Promise.resolve(keyTable(directory.keys())));
    case 'keys revoke':
      if (subject === undefined)
        throw new ConfigError('keys revoke: say which, by its id or its first characters');
      return onDataDir(values, env, (desk) => revokeKey(desk, subject));
    default:
      throw new ConfigError(
        `${positionals.join(' ')}: no such command; there are admin reset-password [NAME], keys create NAME, keys list, keys revoke ID`,
      );
  }
}

interface Desk {
  accounts: Accounts;
  directory: Directory;
}

type Values = ReturnType<typeof readArguments>['values'];

async function onDataDir(
  values: Values,
  env: NodeJS.ProcessEnv,
  run: (desk: Desk) => Promise<string>,
): Promise<string> {
  const dir = dataDirAt(dataDirOf(values['data-dir'], env));
  if (!existsSync(dir.database)) throw new ConfigError(`${dir.path}: there is no troupe.db`);
  const lock = await takeDataDir(dir);
  const store = new SqliteStore(dir.database, systemClock.now);
  try {
    await store.open();
    const directory = new Directory(null);
    directory.seedUsers(await store.access.seedUsers());
    directory.seedKeys(await store.access.seedKeys());
    const log = { warn() {} };
    const accounts = new Accounts({
      store: store.access,
      directory,
      passwords: passwordsOf(),
      changes: new Changes({ store: store.access, clock: systemClock, log }),
      clock: systemClock,
      newId: randomUUID,
    });
    return await run({ accounts, directory });
  } finally {
    await store.close();
    await lock?.release();
  }
}

/** Of a user that exists; where there is no admin at all, one is made. */
async function resetPassword({ accounts, directory }: Desk, name = 'admin'): Promise<string> {
  const user = directory.userNamed(name);
  const hasAdmin = directory.users().some(({ role }) => role === 'admin');
  if (user !== undefined) {
    const role = hasAdmin ? user.role : 'admin';
    const { password } = await accounts.updateUser(user.id, { role, resetPassword: true }, OPERATOR);
    return `user      ${name}\npassword  ${password}   (to be changed)\n`;
  }
  if (hasAdmin) {
    const known = directory.users().map(({ username }) => username);
    throw new ConfigError(`no user is called ${name}; there are ${known.join(', ')}`);
  }
  const { password } = await accounts.createUser({ username: name, role: 'admin', password: null }, OPERATOR);
  return `There was no admin: one was made.\n\nuser      ${name}\npassword  ${password}   (to be changed)\n`;
}

async function createKey({ accounts, directory }: Desk, name: string, values: Values): Promise<string> {
  const list = (text: string | undefined) => text?.split(',').map((part) => part.trim());
  const input = parsed(keyInput, {
    name,
    permissions: list(values.permissions),
    models: list(values.models),
    expires_at: values['expires-at'],
  });
  // It belongs to the first admin there is.
  const owner = directory.users().find(({ role }) => role === 'admin')?.id ?? NOBODY;
  const { key, secret } = await accounts.createKey(owner, new Set(PERMISSIONS), newKey(input), OPERATOR);
  return `${secret}\n\nid           ${key.id}\npermissions  ${key.permissions.join(', ')}\nIt is not shown again.\n`;
}

async function revokeKey({ accounts, directory }: Desk, which: string): Promise<string> {
  const found = directory.keys().filter(({ id, keyPrefix }) => id === which || keyPrefix === which);
  if (found.length !== 1) {
    throw new ConfigError(
      found.length === 0
        ? `no key has the id or the first characters ${which}`
        : `${which} is not one key alone: use its id`,
    );
  }
  const { name } = await accounts.revokeKey((found[0] as ApiKey).id, null, OPERATOR);
  return `revoked ${name}\n`;
}

function keyTable(keys: ApiKey[]): string {
  if (keys.length === 0) return 'there are no keys\n';
  const rows = keys.map((key) => [
    key.id,
    `${key.keyPrefix}…`,
    key.name,
    key.expiresAt === null ? 'never expires' : `expires ${timestamp(key.expiresAt)}`,
    key.permissions.join(','),
    key.models === null ? 'every model' : `models ${key.models.join(',')}`,
  ]);
  return rows.map((row) => `${row.join('  ')}\n`).join('');
}

function readArguments(argv: string[]) {
  try {
    return parseArgs({
      args: argv,
      strict: true,
      allowPositionals: true,
      options: {
        'data-dir': { type: 'string' },
        permissions: { type: 'string' },
        models: { type: 'string' },
        'expires-at': { type: 'string' },
      },
    });
  } catch (error) {
    throw new ConfigError((error as Error).message.split(/\.\s/, 1)[0]);
  }
}
