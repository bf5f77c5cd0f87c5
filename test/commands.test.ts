import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  type Api,
  api,
  newDataDir,
  type Reply,
  runServer,
  type ServerProcess,
  spawnServer,
  startLocal,
} from './support/server.js';

const PASSWORD = 'a password of the tests';
const NOBODY = { authorization: '' };
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });
const first = (text: string, pattern: RegExp) => pattern.exec(text)?.[1] ?? '';

/** A data dir that a server has left, with its admin and its first key. */
async function stopped(): Promise<string> {
  const server = await startLocal({ env: { TROUPE_ADMIN_PASSWORD: PASSWORD } });
  await server.server.stop();
  return server.dataDir;
}

/** A command that does its work; answers what it printed. */
async function done(dataDir: string, ...args: string[]): Promise<string> {
  const run = runServer([...args, '--data-dir', dataDir]);
  expect(await run.exited, run.stderr()).toBe(0);
  expect(run.stderr()).toBe('');
  return run.stdout();
}

/** A command that does not; answers its one line. */
async function refused(args: string[], env: Record<string, string> = {}): Promise<string> {
  const run = runServer(args, env);
  expect(await run.exited, run.output()).toBe(2);
  expect(run.stdout()).toBe('');
  expect(run.stderr()).toMatch(/^troupe: [^\n]+\n$/);
  return run.stderr();
}

const start = (dataDir: string) => startLocal({ dataDir });

function tryLogIn(server: Api, username: string, password: string): Promise<Reply> {
  return server.send('POST', '/api/auth/login', { username, password }, NOBODY);
}

const statusOf = async (server: Api, path: string, secret: string) =>
  (await server.get(path, bearer(secret))).status;

async function audits(server: Api, action: string): Promise<Reply['json'][]> {
  return (await server.get(`/api/dashboard/audit-logs?action=${action}`)).json.items;
}

const BY_SYSTEM = { actor_type: 'system', client_ip: null };

// Passwords.

test('a reset password is told once, works at the next start, must be changed, and ends the sessions', async () => {
  const before = await startLocal({ env: { TROUPE_ADMIN_PASSWORD: PASSWORD } });
  const { token } = (await tryLogIn(before, 'admin', PASSWORD)).json;
  await before.server.stop();
  const output = await done(before.dataDir, 'admin', 'reset-password');
  const password = first(output, /password +(\S+)/);
  expect(first(output, /user +(\S+)/)).toBe('admin');
  expect(password).toMatch(/^\w{20}$/);

  const server = await start(before.dataDir);
  expect(await statusOf(server, '/api/endpoints', token)).toBe(401);
  expect((await tryLogIn(server, 'admin', PASSWORD)).status).toBe(401);
  const login = await tryLogIn(server, 'admin', password);
  expect(login.json.user).toMatchObject({ username: 'admin', role: 'admin', must_change_password: true });
  expect(await audits(server, 'user.changed')).toMatchObject([
    { ...BY_SYSTEM, target: 'admin', detail: { password: 'reset' } },
  ]);
  expect((await server.send('POST', '/api/dashboard/audit-logs/verify')).json.valid).toBe(true);
});

test('the password of the user who is named is reset, and of no other', async () => {
  const before = await startLocal({ env: { TROUPE_ADMIN_PASSWORD: PASSWORD } });
  await before.send('POST', '/api/users', { username: 'ann lee', role: 'viewer' });
  await before.server.stop();
  const output = await done(before.dataDir, 'admin', 'reset-password', 'ann lee');
  const server = await start(before.dataDir);
  const login = await tryLogIn(server, 'ann lee', first(output, /password +(\S+)/));
  expect(login.json.user).toMatchObject({ role: 'viewer', must_change_password: true });
  expect((await tryLogIn(server, 'admin', PASSWORD)).status).toBe(200);
});

test('a user who is not there is named beside those who are', async () => {
  const dataDir = await stopped();
  const line = await refused(['admin', 'reset-password', 'nobody', '--data-dir', dataDir]);
  expect(line).toContain('nobody');
  expect(line).toContain('admin');
  const server = await start(dataDir);
  expect((await tryLogIn(server, 'admin', PASSWORD)).status).toBe(200);
  expect((await server.get('/api/users')).json.users).toHaveLength(1);
});

// Keys.

test('a key that was created is told once and works at the next start', async () => {
  const dataDir = await stopped();
  const output = await done(dataDir, 'keys', 'create', 'ci key');
  const key = first(output, /^(sk_\S+)$/m);
  const id = first(output, /id +(\S+)/);
  const server = await start(dataDir);
  expect(await statusOf(server, '/v1/models', key)).toBe(200);
  expect(await statusOf(server, '/api/endpoints', key)).toBe(403);
  const { api_keys } = (await server.get('/api/api-keys')).json;
  const [admin] = (await server.get('/api/users')).json.users;
  expect(api_keys.find((one: { id: string }) => one.id === id)).toMatchObject({
    name: 'ci key',
    key_prefix: key.slice(0, 10),
    created_by: admin.id,
    expires_at: null,
    permissions: ['openai.inference', 'openai.models.read'],
    models: null,
  });
  const [line] = await audits(server, 'api_key.created');
  expect(line).toMatchObject({ ...BY_SYSTEM, detail: { after: { name: 'ci key' } } });
  expect(JSON.stringify(line)).not.toContain(key.slice(10));
});

test('a key is created with the permissions, models and end that it is given', async () => {
  const dataDir = await stopped();
  const output = await done(
    dataDir,
    ...['keys', 'create', 'k', '--permissions', 'endpoints.read, logs.read', '--models', 'sim-*,llama'],
    ...['--expires-at', '2099-01-31T12:00:00Z'],
  );
  const server = await start(dataDir);
  const key = first(output, /^(sk_\S+)$/m);
  expect(await statusOf(server, '/api/endpoints', key)).toBe(200);
  expect(await statusOf(server, '/v1/models', key)).toBe(403);
  const { api_keys } = (await server.get('/api/api-keys')).json;
  expect(api_keys.find((one: { name: string }) => one.name === 'k')).toMatchObject({
    permissions: ['endpoints.read', 'logs.read'],
    models: ['sim-*', 'llama'],
    expires_at: '2099-01-31T12:00:00.000Z',
  });
});

test('keys are listed by name and beginning, and never themselves', async () => {
  const dataDir = await stopped();
  const key = first(await done(dataDir, 'keys', 'create', 'ci key'), /^(sk_\S+)$/m);
  await done(dataDir, 'keys', 'create', 'small', '--models', 'llama*, qwen*');
  const list = await done(dataDir, 'keys', 'list');
  expect(list.trim().split('\n')).toHaveLength(3);
  expect(list).toContain('first key');
  expect(list).toMatch(/ small .* models llama\*,qwen\*\n/);
  const line = list.split('\n').find((one) => one.includes('ci key')) ?? '';
  expect(line).toContain(key.slice(0, 10));
  expect(line).toContain('openai.inference');
  expect(line).toContain('every model');
  expect(list).not.toContain(key.slice(10));
});

test.each<[string, (created: string) => string]>([
  ['id', (created) => first(created, /id +(\S+)/)],
  ['first characters', (created) => first(created, /^(sk_\S{7})/m)],
])('a key is revoked by its %s, and stays revoked', async (_, which) => {
  const dataDir = await stopped();
  const created = await done(dataDir, 'keys', 'create', 'gone');
  const kept = first(await done(dataDir, 'keys', 'create', 'kept'), /^(sk_\S+)$/m);
  expect(await done(dataDir, 'keys', 'revoke', which(created))).toContain('gone');
  expect(await done(dataDir, 'keys', 'list')).not.toContain('gone');
  const server = await start(dataDir);
  expect(await statusOf(server, '/v1/models', first(created, /^(sk_\S+)$/m))).toBe(401);
  expect(await statusOf(server, '/v1/models', kept)).toBe(200);
  expect(await audits(server, 'api_key.revoked')).toMatchObject([
    { ...BY_SYSTEM, detail: { before: { name: 'gone' } } },
  ]);
});

test('the data dir may be told by the environment as well', async () => {
  const dataDir = await stopped();
  const run = runServer(['keys', 'list'], { TROUPE_DATA_DIR: dataDir });
  expect(await run.exited).toBe(0);
  expect(run.stdout()).toContain('first key');
});

// Beside a running server.

/** What commands could change, and the files there are; SQLite's own come and go. */
async function stateOf(server: ServerProcess): Promise<unknown[]> {
  const files = readdirSync(server.dataDir).filter((name) => !name.startsWith('troupe.db-'));
  const paths = ['/api/users', '/api/api-keys', '/api/dashboard/audit-logs'];
  return [files, ...(await Promise.all(paths.map(async (path) => (await server.get(path)).json)))];
}

test('while a server runs on the data dir every command is refused and changes nothing', async () => {
  const server = await spawnServer({ env: { TROUPE_ADMIN_PASSWORD: PASSWORD } });
  const { token } = (await tryLogIn(server, 'admin', PASSWORD)).json;
  const [{ id }] = (await server.get('/api/api-keys')).json.api_keys;
  const before = await stateOf(server);
  for (const command of [
    ['admin', 'reset-password'],
    ['keys', 'create', 'k'],
    ['keys', 'revoke', id],
    ['keys', 'list'],
  ]) {
    const line = await refused([...command, '--data-dir', server.dataDir]);
    expect(line).toContain(server.dataDir);
    expect(line).toContain('held by another Troupe');
  }
  expect(await stateOf(server)).toEqual(before);
  expect(await statusOf(server, '/api/users', token)).toBe(200);
  expect((await tryLogIn(server, 'admin', PASSWORD)).status).toBe(200);
  expect(await server.end()).toBe(0);
  const after = await spawnServer({ dataDir: server.dataDir });
  expect((await api(after.url).get('/api/api-keys')).json.api_keys).toHaveLength(1);
});

// What is wrong with a command.

test.each<[string[], string]>([
  [['admin'], 'admin'],
  [['keys'], 'keys'],
  [['admin', 'make'], 'admin make'],
  [['keys', 'destroy', 'x'], 'keys destroy'],
  [['keys', 'list', 'all'], 'all'],
  [['admin', 'reset-password', 'admin', 'admin2'], 'admin2'],
  [['keys', 'create'], 'keys create'],
  [['keys', 'create', ''], 'name'],
  [['keys', 'create', 'a\nb'], 'name'],
  [['keys', 'create', 'k', '--permissions', 'everything'], 'permissions'],
  [['keys', 'create', 'k', '--permissions', ''], 'permissions'],
  [['keys', 'create', 'k', '--expires-at', 'tomorrow'], 'expires_at'],
  [['keys', 'create', 'k', '--models', 'a,,b'], 'models'],
  [['keys', 'create', 'k', '--expires', '2099-01-01T00:00:00Z'], '--expires'],
  [['keys', 'create', 'k', '--rate', '1'], '--rate'],
  [['keys', 'revoke'], 'keys revoke'],
  [['keys', 'revoke', 'sk_unknown'], 'sk_unknown'],
  [['keys', 'revoke', '00000000-0000-4000-8000-000000000009'], '00000000-0000-4000-8000-000000000009'],
])('%j is refused with one line that names what is wrong', async (args, named) => {
  expect(await refused([...args, '--data-dir', await stopped()])).toContain(named);
});

test.each([
  [['admin', 'reset-password']],
  [['keys', 'create', 'k']],
  [['keys', 'list']],
  [['keys', 'revoke', 'k']],
  [['keys', 'create', 'k', '--permissions', 'everything']],
])('where there is no database %j is refused, and none is made', async (args) => {
  const dataDir = newDataDir();
  expect(await refused([...args, '--data-dir', dataDir])).toContain(dataDir);
  expect(readdirSync(join(dataDir, '..'))).toEqual([]);
});

test('a command that is refused leaves users, keys and the log as they are', async () => {
  const dataDir = await stopped();
  for (const args of [
    ['keys', 'create', 'k', '--permissions', 'everything'],
    ['keys', 'create', 'k', '--expires-at', 'tomorrow'],
    ['keys', 'revoke', 'sk_unknown'],
    ['keys', 'revoke', ''],
    ['keys', 'make', 'k'],
  ]) {
    await refused([...args, '--data-dir', dataDir]);
  }
  const server = await start(dataDir);
  expect((await server.get('/api/api-keys')).json.api_keys).toHaveLength(1);
  expect((await server.get('/api/dashboard/audit-logs')).json.total).toBe(2);
});

test('characters that two keys begin with revoke neither', async () => {
  const dataDir = await stopped();
  await done(dataDir, 'keys', 'create', 'k');
  await refused(['keys', 'revoke', 'sk_', '--data-dir', dataDir]);
  expect((await done(dataDir, 'keys', 'list')).trim().split('\n')).toHaveLength(2);
});

test('a data dir that cannot be made is named', async () => {
  const line = await refused(['keys', 'list', '--data-dir', '/dev/null/nowhere']);
  expect(line).toContain('/dev/null/nowhere');
});
