import { join } from 'node:path';
import fc from 'fast-check';
import { type Database, open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { beforeAll, expect, test } from 'vitest';
import type { AuditEntry } from '../src/persistence/access-store.js';
import { appendAudit, verifyAudits } from '../src/persistence/sqlite/audit-log.js';
import { migrate } from '../src/persistence/sqlite/migrations.js';
import { engine, type LocalServer, newDataDir, type Reply, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const PASSWORD = 'a password of the tests';
const LOGS = '/api/dashboard/audit-logs';
const KEYS = '/api/api-keys';
const NOBODY = { authorization: '' };
const HERE = '127.0.0.1';

type Line = Reply['json'];
type StartOptions = NonNullable<Parameters<typeof startLocal>[0]>;

const start = ({ env, ...rest }: StartOptions = {}) =>
  startLocal({ ...rest, env: { TROUPE_ADMIN_PASSWORD: PASSWORD, ...env } });

const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

function tryLogIn(server: LocalServer, username: string, password: string): Promise<Reply> {
  return server.send('POST', '/api/auth/login', { username, password }, NOBODY);
}

async function logIn(server: LocalServer): Promise<string> {
  return (await tryLogIn(server, 'admin', PASSWORD)).json.token;
}

/** One page, newest first. */
async function page(server: LocalServer, query = ''): Promise<Reply['json']> {
  const reply = await server.get(`${LOGS}${query}`);
  expect(reply.status, reply.text).toBe(200);
  return shapes.auditPage.parse(reply.json);
}

/** What one step adds to the log, oldest first. */
async function addedBy(server: LocalServer, step: () => Promise<unknown>): Promise<Line[]> {
  const before = (await page(server)).total;
  await step();
  const { items, total } = await page(server, '?per_page=100');
  return items.slice(0, total - before).reverse();
}

async function verdictOf(server: LocalServer): Promise<Reply['json']> {
  const reply = await server.send('POST', `${LOGS}/verify`);
  expect(reply.status, reply.text).toBe(200);
  return shapes.auditVerdict.parse(reply.json);
}

// What is written.

test('every change of an endpoint has its line, with what was and what is and nothing of its secrets', async () => {
  const [box, other] = [await engine(), await engine()];
  const server = await start();
  const token = await logIn(server);
  const send = (method: string, path: string, body?: unknown) =>
    server.send(method, `/api/endpoints${path}`, body, bearer(token));
  const by = { actor: 'admin', actor_type: 'user', client_ip: HERE };
  let id = '';
  const secret = { api_key: 'secret-key-1', headers: { 'x-gate': 'secret-header-1' } };
  const created = await addedBy(server, async () => {
    id = (await send('POST', '', { name: 'box', base_url: box.url, notes: 'n', ...secret })).json.id;
  });
  const masked = { api_key: '(secret)', headers: { 'x-gate': '(secret)' } };
  expect(created).toMatchObject([
    {
      ...by,
      action: 'endpoint.created',
      target: 'box',
      detail: { after: { name: 'box', base_url: box.url, notes: 'n', ...masked } },
    },
  ]);

  const change = { name: 'crate', base_url: other.url, notes: null, max_concurrency: 3 };
  const changed = await addedBy(server, () => send('PUT', `/${id}`, { ...change, api_key: 'secret-key-2' }));
  expect(changed).toMatchObject([{ ...by, action: 'endpoint.changed', target: 'box' }]);
  expect(changed[0].detail).toEqual({
    before: { name: 'box', base_url: box.url, notes: 'n', max_concurrency: null, api_key: '(secret)' },
    after: { ...change, api_key: '(changed)' },
  });

  const drained = await addedBy(server, () => send('POST', `/${id}/drain`));
  expect(drained).toMatchObject([{ ...by, action: 'endpoint.drained', target: 'crate' }]);
  const resumed = await addedBy(server, () => send('POST', `/${id}/resume`));
  expect(resumed).toMatchObject([{ ...by, action: 'endpoint.resumed', target: 'crate' }]);
  const removed = await addedBy(server, () => send('DELETE', `/${id}`));
  expect(removed).toMatchObject([
    {
      ...by,
      action: 'endpoint.removed',
      target: 'crate',
      detail: { before: { name: 'crate', base_url: other.url, ...masked } },
    },
  ]);
  const all = (await server.get(`${LOGS}?per_page=100`)).text;
  for (const text of ['secret-key', 'secret-header']) expect(all).not.toContain(text);
});

test('an endpoint of the command line is registered by the system', async () => {
  const box = await engine();
  const server = await start({ args: ['--endpoint', `box=${box.url}`] });
  expect((await page(server, '?action=endpoint.created')).items).toMatchObject([
    { actor_type: 'system', client_ip: null, target: 'box', detail: { after: { base_url: box.url } } },
  ]);
});

test('every change of a user has its line, with what was and what is and nothing of the password', async () => {
  const server = await start();
  const token = await logIn(server);
  const send = (method: string, path: string, body?: unknown) =>
    server.send(method, `/api/users${path}`, body, bearer(token));
  const by = { actor: 'admin', actor_type: 'user', client_ip: HERE };
  let made: Reply['json'];
  const created = await addedBy(server, async () => {
    made = (await send('POST', '', { username: 'ann', role: 'viewer' })).json;
  });
  expect(created).toMatchObject([
    { ...by, action: 'user.created', target: 'ann', detail: { after: { username: 'ann', role: 'viewer' } } },
  ]);
  const { id } = made.user;
  const change = { username: 'anna', role: 'admin' };
  const changed = await addedBy(server, () => send('PUT', `/${id}`, change));
  expect(changed).toMatchObject([
    {
      ...by,
      action: 'user.changed',
      target: 'ann',
      detail: { before: { username: 'ann', role: 'viewer' }, after: change },
    },
  ]);
  let fresh = '';
  const reset = await addedBy(server, async () => {
    fresh = (await send('PUT', `/${id}`, { reset_password: true })).json.generated_password;
  });
  expect(reset).toMatchObject([
    { ...by, action: 'user.changed', target: 'anna', detail: { password: 'reset' } },
  ]);
  const annas = (await tryLogIn(server, 'anna', fresh)).json.token;
  const key = (await server.send('POST', '/api/me/api-keys', { name: 'hers' }, bearer(annas))).json;
  const removed = await addedBy(server, () => send('DELETE', `/${id}`));
  expect(removed).toMatchObject([
    {
      ...by,
      action: 'user.removed',
      target: 'anna',
      detail: { before: change, revoked_keys: [{ name: 'hers', key_prefix: key.key_prefix }] },
    },
  ]);
  const all = (await server.get(`${LOGS}?per_page=100`)).text;
  for (const text of [made.generated_password, fresh, PASSWORD, '$scrypt']) expect(all).not.toContain(text);
});

test('every change of a key has its line, with what was and what is and nothing of the key', async () => {
  const server = await start();
  const token = await logIn(server);
  const send = (method: string, path: string, body?: unknown) =>
    server.send(method, `/api/me/api-keys${path}`, body, bearer(token));
  const by = { actor: 'admin', actor_type: 'user', client_ip: HERE };
  let key: Reply['json'];
  const input = { name: 'k', permissions: ['endpoints.read'], models: ['a*'], priority: 2 };
  const created = await addedBy(server, async () => {
    key = (await send('POST', '', { ...input, rate_limit: { concurrent: 4 } })).json;
  });
  expect(created).toMatchObject([
    { ...by, action: 'api_key.created', detail: { after: { ...input, rate_limit: { concurrent: 4 } } } },
  ]);
  expect(created[0].target).toContain('k');
  expect(created[0].target).toContain(key.key_prefix);
  const changed = await addedBy(server, () => send('PUT', `/${key.id}`, { name: 'l', models: null }));
  expect(changed).toMatchObject([
    {
      ...by,
      action: 'api_key.changed',
      detail: { before: { name: 'k', models: ['a*'] }, after: { name: 'l', models: null } },
    },
  ]);
  const revoked = await addedBy(server, () => send('DELETE', `/${key.id}`));
  expect(revoked).toMatchObject([{ ...by, action: 'api_key.revoked', detail: { before: { name: 'l' } } }]);
  const all = (await server.get(`${LOGS}?per_page=100`)).text;
  expect(all).not.toContain(key.key.slice(10));
  expect(all).not.toMatch(/"[0-9a-f]{64}"/);
});

test('what is done with a key is done by that key', async () => {
  const server = await start();
  const { key } = (
    await server.send('POST', KEYS, { name: 'robot', permissions: ['users.manage', 'openai.inference'] })
  ).json;
  const added = await addedBy(server, () =>
    server.send('POST', '/api/users', { username: 'bob', role: 'viewer' }, bearer(key)),
  );
  expect(added).toMatchObject([
    { actor: 'robot', actor_type: 'api_key', client_ip: HERE, action: 'user.created', target: 'bob' },
  ]);
  const own = await addedBy(server, () => server.send('POST', KEYS, { name: 'x' }));
  expect(own).toMatchObject([{ actor: 'TROUPE_API_KEY', actor_type: 'api_key', action: 'api_key.created' }]);
});

test('a first start, a log-in, a log-out and a changed password have their lines', async () => {
  const server = await start();
  const first = (await page(server)).items.reverse();
  expect(first).toMatchObject([
    { id: 1, actor_type: 'system', client_ip: null, action: 'user.created', target: 'admin' },
    { id: 2, actor_type: 'system', client_ip: null, action: 'api_key.created' },
  ]);
  const by = { actor: 'admin', actor_type: 'user', client_ip: HERE, target: 'admin' };
  let token = '';
  const login = await addedBy(server, async () => {
    token = await logIn(server);
  });
  expect(login).toMatchObject([{ ...by, action: 'auth.login' }]);
  const passwords = { current_password: PASSWORD, new_password: 'quite another one' };
  const changed = await addedBy(server, async () => {
    const reply = await server.send('PUT', '/api/auth/change-password', passwords, bearer(token));
    token = reply.json.token;
  });
  expect(changed[0]).toMatchObject({ ...by, action: 'auth.password_changed' });
  const out = await addedBy(server, () => server.send('POST', '/api/auth/logout', undefined, bearer(token)));
  expect(out).toMatchObject([{ ...by, action: 'auth.logout' }]);
  const all = (await server.get(`${LOGS}?per_page=100`)).text;
  for (const text of [...Object.values(passwords), token]) expect(all).not.toContain(text);
});

test('a failed log-in has its line, which never holds a name that is nobody’s', async () => {
  const server = await start();
  const failed = await addedBy(server, () => tryLogIn(server, 'admin', 'wrong password here'));
  expect(failed).toMatchObject([
    { actor: 'admin', actor_type: 'user', client_ip: HERE, action: 'auth.login_failed', target: 'admin' },
  ]);
  const unknown = await addedBy(server, () => tryLogIn(server, 'my-secret-password', 'admin'));
  expect(unknown).toMatchObject([{ client_ip: HERE, action: 'auth.login_failed' }]);
  const all = (await server.get(`${LOGS}?per_page=100`)).text;
  expect(all).not.toContain('my-secret-password');
  expect(all).not.toContain('wrong password here');
});

test('behind a trusted proxy the address is that of the client', async () => {
  const server = await start({ args: ['--trust-proxy', 'loopback'] });
  const headers = { ...NOBODY, 'x-forwarded-for': '198.51.100.7' };
  await server.send('POST', '/api/auth/login', { username: 'admin', password: PASSWORD }, headers);
  expect((await page(server)).items[0]).toMatchObject({ action: 'auth.login', client_ip: '198.51.100.7' });
});

test('what was refused changed nothing and has no line', async () => {
  const server = await start();
  const viewer = (await server.send('POST', '/api/users', { username: 'ann', role: 'viewer' })).json;
  const { token } = (await tryLogIn(server, 'ann', viewer.generated_password)).json;
  const added = await addedBy(server, async () => {
    await server.send('POST', '/api/users', { username: 'ann', role: 'viewer' });
    await server.send('POST', '/api/users', { username: 'bob', role: 'none' });
    await server.send('DELETE', '/api/users/none');
    await server.send('POST', KEYS, { name: 'k' }, bearer(token));
    await server.send('POST', '/api/endpoints', { name: 'x' });
    await server.send('PUT', '/api/endpoints/none', { name: 'x' });
  });
  expect(added).toEqual([]);
});

// How it is read.

test('the log is read newest first, in pages, by actor, action and time', async () => {
  let now = Date.UTC(2026, 2, 1, 12);
  const server = await start({ seams: { clock: { now: () => now, mono: () => now } } });
  for (let i = 0; i < 7; i += 1) {
    now += 60_000;
    await tryLogIn(server, 'admin', i % 2 === 0 ? PASSWORD : 'wrong');
  }
  const all = (await page(server)).items as Line[];
  expect(all.map(({ id }) => id)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1]);
  expect(await page(server)).toMatchObject({ total: 9, page: 1, per_page: 50 });
  const second = await page(server, '?per_page=4&page=2');
  expect(second).toEqual({ items: all.slice(4, 8), total: 9, page: 2, per_page: 4 });
  expect((await page(server, '?per_page=4&page=4')).items).toEqual([]);

  const failed = await page(server, '?action=auth.login_failed');
  expect(failed.total).toBe(3);
  expect(failed.items).toEqual(all.filter(({ action }) => action === 'auth.login_failed'));
  expect((await page(server, '?actor=admin')).total).toBe(7);
  expect((await page(server, '?actor=adm')).total).toBe(0);
  expect((await page(server, '?actor=admin&action=auth.login&per_page=1')).total).toBe(4);
  const [from, to] = ['2026-03-01T12:02:00Z', '2026-03-01T12:04:00Z'];
  const span = await page(server, `?time_from=${from}&time_to=${to}`);
  expect(span.items.map(({ at }: Line) => at)).toEqual([
    '2026-03-01T12:04:00.000Z',
    '2026-03-01T12:03:00.000Z',
    '2026-03-01T12:02:00.000Z',
  ]);
  expect(
    (await page(server, `?time_from=${to}`)).total + (await page(server, `?time_to=${from}`)).total,
  ).toBe(4 + 4);
});

test.each(['page=0', 'per_page=0', 'per_page=101', 'page=x', 'time_from=yesterday', 'time_to=12:00'])(
  '%s is no query of the log and is refused with its name',
  async (query) => {
    const server = await start();
    const reply = await server.get(`${LOGS}?${query}`);
    expect([reply.status, reply.json.error.code]).toEqual([400, 'invalid_request']);
    expect(reply.json.error.message).toContain(query.split('=', 1)[0]);
  },
);

test('only who may read logs reads and verifies this one, and nobody changes it', async () => {
  const server = await start();
  const viewer = (await server.send('POST', '/api/users', { username: 'ann', role: 'viewer' })).json;
  const { token } = (await tryLogIn(server, 'ann', viewer.generated_password)).json;
  const keyWith = async (...permissions: string[]) =>
    (await server.send('POST', KEYS, { name: 'k', permissions })).json.key;
  const others = await keyWith('dashboard.read', 'users.manage', 'endpoints.manage', 'metrics.read');
  for (const secret of [token, others]) {
    expect((await server.get(LOGS, bearer(secret))).status).toBe(403);
    expect((await server.send('POST', `${LOGS}/verify`, undefined, bearer(secret))).status).toBe(403);
  }
  const reader = await keyWith('logs.read');
  expect((await server.get(LOGS, bearer(reader))).status).toBe(200);
  expect((await server.send('POST', `${LOGS}/verify`, undefined, bearer(reader))).status).toBe(200);
  for (const method of ['POST', 'PUT', 'DELETE']) {
    expect([method, (await server.send(method, LOGS, undefined)).status]).toEqual([method, 405]);
    expect([method, (await server.send(method, `${LOGS}/1`, undefined)).status]).toEqual([method, 404]);
  }
});

// The chain.

const openFile = (dataDir: string) =>
  open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });

const UNLOCKED = 'DROP TRIGGER audit_log_unchanged; DROP TRIGGER audit_log_kept;';

/** A stopped server's data dir whose log has so many lines. */
async function stoppedWith(lines: number): Promise<string> {
  const server = await start();
  while ((await page(server)).total < lines) await logIn(server);
  expect(await verdictOf(server)).toEqual({ valid: true, checked: lines, first_bad: null });
  await server.server.stop();
  return server.dataDir;
}

test('the chain of lines holds through all kinds of changes and over restarts', async () => {
  const box = await engine();
  const dataDir = newDataDir();
  for (let run = 0; run < 2; run += 1) {
    const server = await start({ dataDir });
    const { id } = await server.register('b\u{1f980}x "é"', box.url, {
      notes: '\ud800 half a character, \u0000 and a line\nbreak',
      headers: { __proto__x: 'y', constructor: 'z' },
      deadlines: { models: { '7': { idle_ms: 1 }, b: {}, '1': {} } },
    });
    await server.send('DELETE', `/api/endpoints/${id}`);
    await tryLogIn(server, 'no such', 'user');
    const token = await logIn(server);
    await Promise.all([
      ...Array.from({ length: 20 }, (_, i) => server.send('POST', KEYS, { name: `k${i}` })),
      ...Array.from({ length: 5 }, () => logIn(server)),
      server.send('POST', '/api/auth/logout', undefined, bearer(token)),
    ]);
    const { total } = await page(server);
    expect(total).toBeGreaterThan(25);
    expect(await verdictOf(server)).toEqual({ valid: true, checked: total, first_bad: null });
    await server.server.stop();
    const again = await start({ dataDir });
    expect(await verdictOf(again)).toEqual({ valid: true, checked: total, first_bad: null });
    await again.server.stop();
  }
});

test('a log that is longer than what is read at a time is verified whole', async () => {
  const dataDir = await stoppedWith(3);
  const db = await openFile(dataDir);
  await db.exec('BEGIN');
  for (let i = 0; i < 1100; i += 1) await appendAudit(db, entryOf(i));
  await db.exec(`COMMIT; ${UNLOCKED} UPDATE audit_log SET actor = 'x' WHERE id = 1050`);
  await db.close();
  const server = await start({ dataDir });
  expect(await verdictOf(server)).toMatchObject({ valid: false, first_bad: 1050 });
});

test('the database itself refuses to change or remove a line', async () => {
  const db = await openFile(await stoppedWith(4));
  for (const sql of [
    "UPDATE audit_log SET actor = 'x' WHERE id = 2",
    'UPDATE audit_log SET id = 9 WHERE id = 2',
    'DELETE FROM audit_log WHERE id = 4',
    'DELETE FROM audit_log',
  ]) {
    await expect(db.exec(sql), sql).rejects.toThrow(/append-only/);
  }
  expect(await db.get("SELECT count(*) AS n, sum(actor = 'x') AS x FROM audit_log")).toEqual({ n: 4, x: 0 });
  await db.close();
});

test.each<[string, string, number]>([
  ['a changed actor', "UPDATE audit_log SET actor = 'nobody' WHERE id = 3", 3],
  ['a changed type of actor', "UPDATE audit_log SET actor_type = 'system' WHERE id = 3", 3],
  ['a changed time', 'UPDATE audit_log SET at = at + 1 WHERE id = 4', 4],
  ['a changed action', "UPDATE audit_log SET action = 'auth.logout' WHERE id = 3", 3],
  ['a changed target', "UPDATE audit_log SET target = 'x' WHERE id = 6", 6],
  ['a target that is gone', 'UPDATE audit_log SET target = NULL WHERE id = 1', 1],
  ['a changed address', "UPDATE audit_log SET client_ip = '127.0.0.2' WHERE id = 3", 3],
  ['an address that is gone', 'UPDATE audit_log SET client_ip = NULL WHERE id = 3', 3],
  ['a changed detail', `UPDATE audit_log SET detail = '{"a":1}' WHERE id = 3`, 3],
  ['a detail that is no JSON', "UPDATE audit_log SET detail = '{' WHERE id = 3", 3],
  ['a changed hash', "UPDATE audit_log SET hash = replace(hash, substr(hash, 1, 1), 'g') WHERE id = 3", 3],
  ['a removed first line', 'DELETE FROM audit_log WHERE id = 1', 1],
  ['a removed line', 'DELETE FROM audit_log WHERE id = 3', 3],
  [
    'a removed line whose number was given to the next ones',
    'DELETE FROM audit_log WHERE id = 3; UPDATE audit_log SET id = id - 1 WHERE id > 3',
    3,
  ],
  [
    'an inserted line',
    `UPDATE audit_log SET id = -id - 1 WHERE id >= 3; UPDATE audit_log SET id = -id WHERE id < 0;
     INSERT INTO audit_log SELECT 3, at, actor, actor_type, action, target, client_ip, detail, hash
     FROM audit_log WHERE id = 2`,
    3,
  ],
  [
    'an added line',
    `INSERT INTO audit_log SELECT 7, at, actor, actor_type, action, target, client_ip, detail, hash
     FROM audit_log WHERE id = 6`,
    7,
  ],
  [
    'two lines that changed places',
    `UPDATE audit_log SET id = 100 WHERE id = 3; UPDATE audit_log SET id = 3 WHERE id = 4;
     UPDATE audit_log SET id = 4 WHERE id = 100`,
    3,
  ],
  [
    'a replaced line',
    `REPLACE INTO audit_log SELECT id, at, 'x', actor_type, action, target, client_ip, detail, hash
     FROM audit_log WHERE id = 3`,
    3,
  ],
  ['a cut tail', 'DELETE FROM audit_log WHERE id > 4', 5],
  ['a last line that is gone', 'DELETE FROM audit_log WHERE id = 6', 6],
  ['a log that was emptied', 'DELETE FROM audit_log', 1],
])('%s is found, and where', async (_, sql, firstBad) => {
  const dataDir = await stoppedWith(6);
  const db = await openFile(dataDir);
  await db.exec(UNLOCKED + sql);
  await db.close();
  const server = await start({ dataDir });
  expect(await verdictOf(server)).toMatchObject({ valid: false, first_bad: firstBad });
  // Lines that come later do not make it good.
  await logIn(server);
  expect(await verdictOf(server)).toMatchObject({ valid: false, first_bad: firstBad });
});

test.each([0, -7])('a line that was put before the first one, as number %i, is found', async (id) => {
  const dataDir = await stoppedWith(3);
  const db = await openFile(dataDir);
  await db.exec(`INSERT INTO audit_log SELECT ${id}, at, actor, actor_type, action, target, client_ip, detail, hash
    FROM audit_log WHERE id = 3`);
  await db.close();
  const server = await start({ dataDir });
  const { valid } = (await server.send('POST', `${LOGS}/verify`)).json;
  expect(valid).toBe(false);
});

test('a line whose detail cannot be read hides none of the others', async () => {
  const dataDir = await stoppedWith(5);
  const db = await openFile(dataDir);
  await db.exec(`${UNLOCKED} UPDATE audit_log SET detail = '{' WHERE id = 3`);
  await db.close();
  const server = await start({ dataDir });
  const { items, total } = await page(server);
  expect(total).toBe(5);
  expect(items.map(({ id }: Line) => id)).toEqual([5, 4, 3, 2, 1]);
});

test('triggers that somebody has dropped are there again after the next start', async () => {
  const dataDir = await stoppedWith(3);
  const db = await openFile(dataDir);
  await db.exec(UNLOCKED);
  await db.close();
  const server = await start({ dataDir });
  expect(await verdictOf(server)).toMatchObject({ valid: true });
  const again = await openFile(dataDir);
  await expect(again.exec('DELETE FROM audit_log WHERE id = 2')).rejects.toThrow(/append-only/);
  await again.close();
});

test('a database that lost the end of its chain is found out, and still takes changes', async () => {
  const dataDir = await stoppedWith(4);
  const db = await openFile(dataDir);
  await db.exec('DELETE FROM audit_head');
  await db.close();
  const server = await start({ dataDir });
  expect(await verdictOf(server)).toMatchObject({ valid: false });
  const made = await server.send('POST', '/api/users', { username: 'ann', role: 'viewer' });
  expect(made.status, made.text).toBe(201);
  expect((await page(server)).items[0]).toMatchObject({ action: 'user.created', target: 'ann' });
});

test('a database that lost its log, but not its users, goes on writing one', async () => {
  const dataDir = await stoppedWith(4);
  const db = await openFile(dataDir);
  await db.exec('DROP TABLE audit_log; DROP TABLE audit_head');
  await db.close();
  const server = await start({ dataDir });
  const token = await logIn(server);
  await until(async () => (await page(server)).total > 0, 5000, 'a line of the new log');
  expect((await server.get('/api/users', bearer(token))).status).toBe(200);
});

// Laws of the chain, on a database in memory.

let db: Database;

beforeAll(async () => {
  db = await open({ filename: ':memory:', driver: sqlite3.Database });
  await migrate(db);
  await db.exec(UNLOCKED);
  return () => db.close();
});

function entryOf(i: number): AuditEntry {
  return {
    at: i,
    actor: `a${i}`,
    actorType: 'user',
    action: 'a.b',
    target: null,
    clientIp: null,
    detail: { i },
  };
}

const text = fc.string({ unit: 'grapheme', maxLength: 12 });
const entry: fc.Arbitrary<AuditEntry> = fc.record({
  at: fc.nat(),
  actor: text,
  actorType: fc.constantFrom('user', 'api_key', 'system'),
  action: text,
  target: fc.option(text),
  clientIp: fc.option(text),
  detail: fc.dictionary(text, fc.jsonValue({ maxDepth: 2 }), { maxKeys: 4 }),
});
const entries = fc.array(entry, { minLength: 1, maxLength: 6 });

async function fill(lines: AuditEntry[]): Promise<void> {
  await db.exec('DELETE FROM audit_log; DELETE FROM audit_head');
  for (const line of lines) await appendAudit(db, line);
}

test('a chain that nobody touched is whole, whatever its lines hold', async () => {
  await fc.assert(
    fc.asyncProperty(entries, async (lines) => {
      await fill(lines);
      expect(await verifyAudits(db)).toEqual({ valid: true, checked: lines.length, firstBad: null });
    }),
  );
});

const COLUMNS = {
  id: fc.integer({ min: -5, max: 50 }),
  at: fc.nat(),
  actor: text,
  actor_type: text,
  action: text,
  target: fc.option(text),
  client_ip: fc.option(text),
  detail: fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value)),
  hash: fc.stringMatching(/^[0-9a-f]{64}$/),
};
const tampering = fc
  .constantFrom(...(Object.keys(COLUMNS) as (keyof typeof COLUMNS)[]))
  .chain((column) => fc.tuple(fc.constant(column), COLUMNS[column] as fc.Arbitrary<string | number | null>));

/** Sets one field of one line to another value; false if there is none to set. */
async function tamper(id: number, column: string, value: unknown): Promise<boolean> {
  const row = await db.get(`SELECT ${column} AS was FROM audit_log WHERE id = ?`, id);
  if (row.was === value) return false;
  if (column === 'id' && (await db.get('SELECT 1 FROM audit_log WHERE id = ?', value)) !== undefined)
    return false;
  await db.run(`UPDATE audit_log SET ${column} = ? WHERE id = ?`, value, id);
  return true;
}

test('whatever one field of any line is set to, it is found at that line', async () => {
  await fc.assert(
    fc.asyncProperty(entries, fc.nat(), tampering, async (lines, at, [column, value]) => {
      await fill(lines);
      const id = (at % lines.length) + 1;
      fc.pre(await tamper(id, column, value));
      const { valid, firstBad } = await verifyAudits(db);
      expect(valid).toBe(false);
      // One that is numbered below 1 leaves a gap behind and stands before the first: either is where to look.
      expect(column === 'id' && Number(value) < 1 ? [id, value] : [id]).toContain(firstBad);
    }),
    { numRuns: 300 },
  );
});

test('a detail that reads the same but is written otherwise is found as well', async () => {
  for (const [was, is] of [
    ['{"a":1}', '{ "a":1}'],
    ['{"a":1}', '{"a":2,"a":1}'],
    ['{"a":1}', '{"a":1.0}'],
    ['{"a":"b"}', '{"a":"\\u0062"}'],
  ] as const) {
    await fill([entryOf(1), { ...entryOf(2), detail: JSON.parse(was) }, entryOf(3)]);
    expect(await tamper(2, 'detail', is)).toBe(true);
    expect([is, await verifyAudits(db)]).toEqual([is, { valid: false, checked: 1, firstBad: 2 }]);
  }
});

test('whatever line is removed, or changes places with another, it is found at the first of them', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(entry, { minLength: 2, maxLength: 8 }),
      fc.nat(),
      fc.nat(),
      async (lines, one, other) => {
        await fill(lines);
        const [a, b] = [(one % lines.length) + 1, (other % lines.length) + 1];
        if (a === b) {
          await db.run('DELETE FROM audit_log WHERE id = ?', a);
        } else {
          await db.exec(`UPDATE audit_log SET id = 1000 WHERE id = ${a}; UPDATE audit_log SET id = ${a} WHERE id = ${b};
            UPDATE audit_log SET id = ${b} WHERE id = 1000`);
        }
        expect(await verifyAudits(db)).toMatchObject({ valid: false, firstBad: Math.min(a, b) });
      },
    ),
  );
});
