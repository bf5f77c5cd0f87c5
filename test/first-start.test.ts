import { readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import { api, newDataDir, runServer, spawnServer, TEST_KEY, until } from './support/server.js';

const NOBODY = { authorization: '' };
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

/** What a first start has told. */
interface Told {
  user: string;
  password: string;
  key: string;
}

function toldIn(output: string): Told {
  const [, user = ''] = /^ *user +(\S+)/m.exec(output) ?? [];
  const [, password = ''] = /^ *password +(\S+)/m.exec(output) ?? [];
  const [, key = ''] = /^ *API key +(sk_\S+)/m.exec(output) ?? [];
  return { user, password, key };
}

async function statusOf(url: string, secret: string): Promise<number> {
  return (await api(url).get('/api/endpoints', bearer(secret))).status;
}

function logIn(url: string, username: string, password: string) {
  return api(url).send('POST', '/api/auth/login', { username, password }, NOBODY);
}

const count = (text: string, part: string) => text.split(part).length - 1;

test('a first start tells an admin, a password, a key and how to use it once, and they work', async () => {
  const server = await spawnServer();
  const output = server.output();
  const { user, password, key } = toldIn(output);
  expect(user).toBe('admin');
  expect(password).toMatch(/^\w{20}$/);
  expect(key).toMatch(/^sk_[\w-]{43}$/);
  expect(count(output, password)).toBe(1);
  // On its own line, and in the curl.
  expect(count(output, key)).toBe(2);
  expect(output).toContain(`curl ${server.url}/v1/models -H 'Authorization: Bearer ${key}'`);

  const login = await logIn(server.url, user, password);
  expect(login.status).toBe(200);
  expect(login.json.user).toMatchObject({ username: 'admin', role: 'admin', must_change_password: true });
  expect((await server.get('/v1/models', bearer(key))).status).toBe(200);
  expect((await server.get('/api/users', bearer(key))).status).toBe(200);
  expect((await server.get('/api/dashboard/audit-logs', bearer(key))).status).toBe(200);
  expect(await server.end()).toBe(0);

  const second = await spawnServer({ dataDir: server.dataDir });
  expect(toldIn(second.output())).toEqual({ user: '', password: '', key: '' });
  expect(second.output()).not.toContain('First start');
  expect(second.output()).not.toContain(key);
  expect(await statusOf(second.url, key)).toBe(200);
  expect((await logIn(second.url, user, password)).status).toBe(200);
});

test('a name and a password from the environment make the first admin, are not told, and are not used again', async () => {
  const first = await spawnServer({
    env: { TROUPE_ADMIN_USERNAME: 'boss', TROUPE_ADMIN_PASSWORD: 'battery staple' },
  });
  expect(toldIn(first.output()).user).toBe('boss');
  expect(first.output()).not.toContain('battery staple');
  const login = await logIn(first.url, 'boss', 'battery staple');
  expect(login.json.user).toMatchObject({ username: 'boss', role: 'admin', must_change_password: false });
  expect((await logIn(first.url, 'admin', 'battery staple')).status).toBe(401);
  await first.end();

  const second = await spawnServer({
    dataDir: first.dataDir,
    env: { TROUPE_ADMIN_USERNAME: 'chief', TROUPE_ADMIN_PASSWORD: 'another one' },
  });
  expect((await logIn(second.url, 'chief', 'another one')).status).toBe(401);
  expect((await logIn(second.url, 'boss', 'another one')).status).toBe(401);
  expect((await logIn(second.url, 'boss', 'battery staple')).status).toBe(200);
  expect((await second.get('/api/users')).json.users).toHaveLength(1);
});

test('a kill right after the first start has told its secrets loses none of them', async () => {
  const dataDir = newDataDir();
  const run = runServer(['--port', '0', '--data-dir', dataDir]);
  await until(() => run.stdout().includes('curl ') || run.child.exitCode !== null, 30_000, 'the secrets');
  await run.end('SIGKILL');
  const { user, password, key } = toldIn(run.stdout());
  expect(key).not.toBe('');
  const second = await spawnServer({ dataDir });
  expect(second.output()).not.toContain('First start');
  expect(await statusOf(second.url, key)).toBe(200);
  expect((await logIn(second.url, user, password)).status).toBe(200);
  const verdict = await second.send('POST', '/api/dashboard/audit-logs/verify', undefined, bearer(key));
  expect(verdict.json.valid).toBe(true);
});

test('without authentication everybody on this machine may do everything, and a warning says so', async () => {
  const server = await spawnServer({ args: ['--no-auth'] });
  expect(server.output()).toMatch(/"level":40[^\n]*--no-auth/);
  for (const path of ['/v1/models', '/api/endpoints', '/api/users', '/api/dashboard/audit-logs']) {
    expect([path, (await server.get(path, NOBODY)).status]).toEqual([path, 200]);
  }
  const made = await server.send('POST', '/api/users', { username: 'ann', role: 'viewer' }, NOBODY);
  expect(made.status).toBe(201);
  await server.end();

  const asking = await spawnServer({ dataDir: server.dataDir });
  expect(asking.output()).not.toContain('--no-auth');
  expect((await asking.get('/v1/models', NOBODY)).status).toBe(401);
});

test.each([
  ['--no-auth', '--host', '0.0.0.0'],
  ['--no-auth', '--host', '192.0.2.1'],
])('%s is for this machine alone: with %s %s it is an error that changes nothing', async (...args) => {
  const dataDir = newDataDir();
  const run = runServer(['--port', '0', '--data-dir', dataDir, ...args]);
  expect(await run.exited).toBe(2);
  expect(run.stderr()).toMatch(/^troupe: [^\n]*--no-auth[^\n]*\n$/);
  expect(() => readdirSync(dataDir)).toThrow();
});

test('on an address that others reach, without TLS, a warning says that secrets travel in clear', async () => {
  const open = runServer(['--port', '0', '--data-dir', newDataDir(), '--host', '0.0.0.0']);
  await open.ready();
  expect(open.stdout()).toMatch(/"level":40[^\n]*in clear/);
  const local = runServer(['--port', '0', '--data-dir', newDataDir(), '--host', '127.0.0.1']);
  await local.ready();
  expect(local.stdout()).not.toContain('in clear');
});

// Users that were lost.

async function onDatabase(dataDir: string, sql: string): Promise<void> {
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await db.exec(sql);
  await db.close();
}

test.each<[string, (dataDir: string) => Promise<void>]>([
  ['whose users table was dropped', (dataDir) => onDatabase(dataDir, 'DROP TABLE users')],
  [
    'whose users and keys were deleted',
    (dataDir) => onDatabase(dataDir, 'DELETE FROM users; DELETE FROM api_keys; DELETE FROM sessions'),
  ],
  [
    'that lost its users together with its audit log',
    (dataDir) => onDatabase(dataDir, 'DROP TABLE users; DROP TABLE audit_log; DROP TABLE audit_head'),
  ],
  [
    'whose database is no database any more',
    (dataDir) => writeFile(join(dataDir, 'troupe.db'), 'no database at all. '.repeat(5000)),
  ],
])('a data dir %s makes no new admin, now or later, until one is asked for', async (_, damage) => {
  const first = await spawnServer();
  const { user, password, key } = toldIn(first.output());
  expect(await first.end()).toBe(0);
  await damage(first.dataDir);

  for (let start = 2; start <= 3; start += 1) {
    const later = await spawnServer({
      dataDir: first.dataDir,
      env: { TROUPE_ADMIN_USERNAME: 'mallory', TROUPE_ADMIN_PASSWORD: 'a password' },
    });
    expect(later.output()).toMatch(/"level":40[^\n]*only TROUPE_API_KEY enters/);
    expect(later.output()).toContain('admin reset-password');
    expect(toldIn(later.output())).toEqual({ user: '', password: '', key: '' });
    expect(await statusOf(later.url, key)).toBe(401);
    expect((await logIn(later.url, 'mallory', 'a password')).status).toBe(401);
    expect((await logIn(later.url, user, password)).status).toBe(401);
    expect(await statusOf(later.url, TEST_KEY)).toBe(200);
    expect((await later.get('/api/users')).json.users).toEqual([]);
    expect(await later.end()).toBe(0);
  }

  const reset = runServer(['admin', 'reset-password', '--data-dir', first.dataDir]);
  expect(await reset.exited).toBe(0);
  const told = toldIn(reset.stdout());
  expect(told.user).toBe('admin');
  const mended = await spawnServer({ dataDir: first.dataDir });
  expect(mended.output()).not.toContain('only TROUPE_API_KEY enters');
  const login = await logIn(mended.url, 'admin', told.password);
  expect(login.json.user).toMatchObject({ role: 'admin', must_change_password: true });
  expect((await mended.get('/api/users', bearer(login.json.token))).status).toBe(200);
});

test('a start beside a locked database makes no admin where there are users, and lets them in once it can read', async () => {
  const first = await spawnServer();
  const { key } = toldIn(first.output());
  await first.end();
  const locker = await open({ filename: join(first.dataDir, 'troupe.db'), driver: sqlite3.Database });
  await locker.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  const second = await spawnServer({ dataDir: first.dataDir });
  expect(toldIn(second.output())).toEqual({ user: '', password: '', key: '' });
  expect(await statusOf(second.url, key)).toBe(401);
  expect(await statusOf(second.url, TEST_KEY)).toBe(200);
  await locker.exec('ROLLBACK; PRAGMA locking_mode = NORMAL');
  await locker.close();
  await until(async () => (await statusOf(second.url, key)) === 200, 30_000, 'the key of a user who is read');
  expect((await second.get('/api/users')).json.users).toHaveLength(1);
});
