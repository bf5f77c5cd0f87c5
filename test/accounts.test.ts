import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { Agent, request } from 'undici';
import { expect, onTestFinished, test } from 'vitest';
import { chatBody, type RawReply, rawRequest } from './support/clients.js';
import {
  engine,
  type LocalServer,
  newDataDir,
  pause,
  type Reply,
  startLocal,
  until,
} from './support/server.js';
import * as shapes from './support/shapes.js';

const PASSWORD = 'a password of the tests';
const LOGIN = '/api/auth/login';
const ME = '/api/auth/me';
const OWN = '/api/me/api-keys';
const ALL = '/api/api-keys';
const MODEL = 'sim-small';
const DAY_MS = 86_400_000;

type StartOptions = Parameters<typeof startLocal>[0];

function start({ env, ...rest }: NonNullable<StartOptions> = {}): Promise<LocalServer> {
  return startLocal({ ...rest, env: { TROUPE_ADMIN_PASSWORD: PASSWORD, ...env } });
}

const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

/** Whatever credential the test's own key would be, this is none. */
const NOBODY = { authorization: '' };

function tryLogIn(server: LocalServer, username: string, password: string, headers = {}): Promise<Reply> {
  return server.send('POST', LOGIN, { username, password }, { ...NOBODY, ...headers });
}

async function logIn(server: LocalServer, username = 'admin', password = PASSWORD): Promise<string> {
  const reply = await tryLogIn(server, username, password);
  expect(reply.status, reply.text).toBe(200);
  return reply.json.token;
}

const isLetIn = async (server: LocalServer, secret: string) =>
  (await server.get('/api/endpoints', bearer(secret))).status === 200;

/** A user with the password that was made for it, and a session. */
async function newUser(server: LocalServer, username: string, role: 'admin' | 'viewer') {
  const reply = await server.send('POST', '/api/users', { username, role });
  expect(reply.status, reply.text).toBe(201);
  const { user, generated_password: password } = shapes.newUser.parse(reply.json);
  return { id: user.id, password, token: await logIn(server, username, password) };
}

async function newKey(server: LocalServer, input: object, secret: string, path = OWN) {
  const reply = await server.send('POST', path, input, bearer(secret));
  expect(reply.status, reply.text).toBe(201);
  return shapes.newApiKey.parse(reply.json);
}

const setCookies = ({ headers }: Reply) => headers.getSetCookie();

/** What a browser would send back. */
const cookieOf = (reply: Reply) =>
  setCookies(reply)
    .map((one) => one.split(';', 1)[0])
    .join('; ');

/** What the page of this server sends with a change. */
function fromPage(server: LocalServer, login: Reply): Record<string, string> {
  return { cookie: cookieOf(login), origin: server.url, 'x-csrf-token': login.json.csrf_token };
}

function expectError(reply: Reply, status: number, code: string): void {
  expect([reply.status, reply.json?.error?.code], reply.text).toEqual([status, code]);
  shapes.apiError.parse(reply.json);
}

// Logging in and out.

test('a log-in answers a token for a day, the user, and two cookies of which scripts see one', async () => {
  const server = await start();
  const reply = await tryLogIn(server, 'admin', PASSWORD);
  expect(reply.status).toBe(200);
  expect(shapes.login.parse(reply.json).user).toMatchObject({
    username: 'admin',
    role: 'admin',
    must_change_password: false,
  });
  expect(reply.headers.get('cache-control')).toBe('no-store');
  const [session = '', csrf = '', ...more] = setCookies(reply);
  expect(more).toEqual([]);
  const ofADay = ['Path=/', 'SameSite=Lax', 'Max-Age=86400'];
  expect(session.split('; ')).toEqual([`troupe_session=${reply.json.token}`, 'HttpOnly', ...ofADay]);
  expect(csrf.split('; ')).toEqual([`troupe_csrf=${reply.json.csrf_token}`, ...ofADay]);
});

test('who has logged in is let in by the token and by the cookie, and is told who that is', async () => {
  const server = await start();
  const login = await tryLogIn(server, 'admin', PASSWORD);
  for (const headers of [bearer(login.json.token), { cookie: cookieOf(login) }]) {
    const reply = await server.get(ME, headers);
    expect(reply.status).toBe(200);
    expect(shapes.me.parse(reply.json)).toEqual({
      user_id: login.json.user.id,
      username: 'admin',
      role: 'admin',
      must_change_password: false,
    });
  }
});

test('X-API-Key takes keys alone and the cookie sessions alone, whether they were used before or not', async () => {
  const server = await start();
  const token = await logIn(server);
  const { key } = await newKey(server, { name: 'k' }, token);
  const inWrongPlace = async () => [
    (await server.get('/v1/models', { 'x-api-key': token })).status,
    (await server.get('/v1/models', { cookie: `troupe_session=${key}` })).status,
  ];
  expect(await inWrongPlace()).toEqual([401, 401]);
  for (const secret of [token, key]) {
    expect((await server.get('/v1/models', bearer(secret))).status).toBe(200);
  }
  expect(await inWrongPlace()).toEqual([401, 401]);
});

test('a change by cookie is made for the page of this server with its token, and for no other', async () => {
  const server = await start();
  const login = await tryLogIn(server, 'admin', PASSWORD);
  const whole = fromPage(server, login);
  const { origin: _, ...withoutOrigin } = whole;
  const { 'x-csrf-token': __, ...withoutToken } = whole;
  const create = (headers: Record<string, string>) => server.send('POST', OWN, { name: 'k' }, headers);
  expectError(await create(withoutOrigin), 403, 'origin_not_allowed');
  expectError(await create({ ...whole, origin: 'http://evil.example' }), 403, 'origin_not_allowed');
  expectError(await create({ ...whole, origin: 'null' }), 403, 'origin_not_allowed');
  expectError(await create(withoutToken), 403, 'csrf_token_missing');
  const other = await tryLogIn(server, 'admin', PASSWORD);
  expectError(await create({ ...whole, 'x-csrf-token': other.json.csrf_token }), 403, 'csrf_token_missing');
  expect((await create(whole)).status).toBe(201);
});

test('a wrong password and an unknown name get the same answer, and what is malformed is told', async () => {
  const server = await start();
  const wrong = await tryLogIn(server, 'admin', 'another password');
  const unknown = await tryLogIn(server, 'nobody here', PASSWORD);
  expectError(wrong, 401, 'invalid_credentials');
  expect(unknown.status).toBe(401);
  expect(unknown.text).toBe(wrong.text);
  expect(setCookies(wrong)).toEqual([]);
  expectError(await server.send('POST', LOGIN, { username: 'admin' }, NOBODY), 400, 'invalid_request');
  expectError(
    await server.send('POST', LOGIN, { username: 1, password: PASSWORD }, NOBODY),
    400,
    'invalid_request',
  );
});

test('after ten failures in a minute an account waits for that address, a session that is open does not', async () => {
  const moved = { ms: 0 };
  const server = await start({ seams: { clock: movedBy(moved) } });
  const token = await logIn(server);
  for (let i = 0; i < 10; i += 1) {
    expect((await tryLogIn(server, 'admin', `wrong ${i}`)).status).toBe(401);
  }
  const refused = await tryLogIn(server, 'admin', PASSWORD);
  expectError(refused, 429, 'too_many_attempts');
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
  expect(await isLetIn(server, token)).toBe(true);
  moved.ms = 60_001;
  expect((await tryLogIn(server, 'admin', PASSWORD)).status).toBe(200);
});

test('from the hundredth unknown key in a minute an address is told to wait, and who is known is not', async () => {
  const moved = { ms: 0 };
  const server = await start({ seams: { clock: movedBy(moved) } });
  const token = await logIn(server);
  const guess = (i: number) => server.get('/v1/models', bearer(`sk_guess_${i}`));
  for (let i = 1; i < 100; i += 1) {
    const reply = await guess(i);
    expect([i, reply.status, reply.json.error.code]).toEqual([i, 401, 'invalid_api_key']);
    expect(reply.headers.get('www-authenticate')).toContain('Bearer');
  }
  const refused = await guess(100);
  expect([refused.status, refused.json.error.code]).toEqual([429, 'too_many_attempts']);
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
  expect(await isLetIn(server, token)).toBe(true);
  expect((await server.get('/v1/models')).status).toBe(200);
  moved.ms = 60_001;
  expect((await guess(101)).status).toBe(401);
});

test('the cookies are for TLS alone where a trusted proxy says the client speaks it, and only then', async () => {
  const https = { 'x-forwarded-proto': 'https' };
  const isSecure = (cookie: string) => cookie.split('; ').includes('Secure');
  const behindProxy = await start({ args: ['--trust-proxy', 'loopback'] });
  const secure = setCookies(await tryLogIn(behindProxy, 'admin', PASSWORD, https));
  expect(secure.map(isSecure)).toEqual([true, true]);
  const plain = setCookies(
    await tryLogIn(behindProxy, 'admin', PASSWORD, { 'x-forwarded-proto': 'https, http' }),
  );
  expect(plain.map(isSecure)).toEqual([false, false]);
  const direct = await start();
  const believed = setCookies(await tryLogIn(direct, 'admin', PASSWORD, https));
  expect(believed.map(isSecure)).toEqual([false, false]);
});

test('the cookies are for TLS alone where the server itself speaks it', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-accounts-'));
  const [cert, key] = [join(scratch, 'a.crt'), join(scratch, 'a.key')];
  execFileSync(
    'openssl',
    [
      ...[
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '2',
      ],
      ...['-subj', '/CN=localhost', '-keyout', key, '-out', cert],
    ],
    { stdio: 'pipe' },
  );
  const server = await start({ args: ['--tls-cert', cert, '--tls-key', key] });
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  onTestFinished(() => dispatcher.destroy());
  const login = await request(server.url + LOGIN, {
    dispatcher,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username: 'admin', password: PASSWORD }),
  });
  await login.body.dump();
  const cookies = [login.headers['set-cookie']].flat().map(String);
  expect(cookies).toHaveLength(2);
  for (const cookie of cookies) expect(cookie.split('; ')).toContain('Secure');
});

test('a log-out ends that session at once, for the token and for the cookie, clears both cookies and leaves others', async () => {
  const server = await start();
  const login = await tryLogIn(server, 'admin', PASSWORD);
  const other = await logIn(server);
  const out = await server.send('POST', '/api/auth/logout', undefined, bearer(login.json.token));
  expect([out.status, out.text]).toEqual([204, '']);
  const cleared = setCookies(out).map((cookie) => cookie.split('; '));
  expect(cleared.map(([pair]) => pair)).toEqual(['troupe_session=', 'troupe_csrf=']);
  for (const parts of cleared) expect(parts).toContain('Max-Age=0');
  expect((await server.get(ME, bearer(login.json.token))).status).toBe(401);
  expect((await server.get(ME, { cookie: cookieOf(login) })).status).toBe(401);
  expect((await server.get(ME, bearer(other))).status).toBe(200);
});

test('a log-out by the page’s cookie ends the session for its token too', async () => {
  const server = await start();
  const login = await tryLogIn(server, 'admin', PASSWORD);
  const out = await server.send('POST', '/api/auth/logout', undefined, fromPage(server, login));
  expect(out.status).toBe(204);
  expect(await isLetIn(server, login.json.token)).toBe(false);
});

test('sessions and keys, their ends and their users survive a restart', async () => {
  const dataDir = newDataDir();
  const first = await start({ dataDir });
  const [stays, leaves] = [await logIn(first), await logIn(first)];
  const kept = await newKey(first, { name: 'kept' }, stays);
  const revoked = await newKey(first, { name: 'revoked', permissions: ['endpoints.read'] }, stays);
  const managing = await newKey(first, { name: 'reads', permissions: ['endpoints.read'] }, stays);
  await first.send('POST', '/api/auth/logout', undefined, bearer(leaves));
  await first.send('DELETE', `${OWN}/${revoked.id}`, undefined, bearer(stays));
  const listed = (await first.get(OWN, bearer(stays))).json;
  await first.server.stop();

  const second = await start({ dataDir });
  expect(await isLetIn(second, stays)).toBe(true);
  expect(await isLetIn(second, leaves)).toBe(false);
  expect(await isLetIn(second, managing.key)).toBe(true);
  expect(await isLetIn(second, revoked.key)).toBe(false);
  expect((await second.get('/v1/models', bearer(kept.key))).status).toBe(200);
  expect((await second.get(OWN, bearer(stays))).json).toEqual(listed);
  expect((await tryLogIn(second, 'admin', PASSWORD)).status).toBe(200);
});

const movedBy = (moved: { ms: number }) => ({
  now: () => Date.now() + moved.ms,
  mono: () => performance.now() + moved.ms,
});

test('a session ends after 24 hours, also over a restart', async () => {
  const moved = { ms: 0 };
  const dataDir = newDataDir();
  const server = await start({ dataDir, seams: { clock: movedBy(moved) } });
  const token = await logIn(server);
  moved.ms = DAY_MS - 60_000;
  expect(await isLetIn(server, token)).toBe(true);
  moved.ms = DAY_MS + 1000;
  expectError(await server.get('/api/endpoints', bearer(token)), 401, 'expired_credential');
  await server.server.stop();
  const again = await start({ dataDir, seams: { clock: movedBy(moved) } });
  expect(await isLetIn(again, token)).toBe(false);
});

// The own password.

test('a changed password ends every session of the user and answers a new one that works', async () => {
  const server = await start();
  const ann = await newUser(server, 'ann', 'viewer');
  const [here, there] = [ann.token, await logIn(server, 'ann', ann.password)];
  const admin = await logIn(server);
  const reply = await server.send(
    'PUT',
    '/api/auth/change-password',
    { current_password: ann.password, new_password: 'quite another one' },
    bearer(here),
  );
  expect(reply.status, reply.text).toBe(200);
  const { token, user } = shapes.login.parse(reply.json);
  expect(user).toMatchObject({ id: ann.id, username: 'ann', must_change_password: false });
  expect(cookieOf(reply)).toContain(`troupe_session=${token}`);
  expect(await isLetIn(server, here)).toBe(false);
  expect(await isLetIn(server, there)).toBe(false);
  expect(await isLetIn(server, token)).toBe(true);
  expect(await isLetIn(server, admin)).toBe(true);
  expectError(await tryLogIn(server, 'ann', ann.password), 401, 'invalid_credentials');
  expect((await tryLogIn(server, 'ann', 'quite another one')).json.user.must_change_password).toBe(false);
});

test('a password that is too short, or a wrong current one, changes nothing', async () => {
  const server = await start();
  const token = await logIn(server);
  const change = (current_password: string, new_password: string, secret = token) =>
    server.send('PUT', '/api/auth/change-password', { current_password, new_password }, bearer(secret));
  const short = await change(PASSWORD, 'seven 7');
  expectError(short, 400, 'invalid_request');
  expect(short.json.error.message).toContain('new_password');
  const wrong = await change('not the password', 'quite another one');
  expect(wrong.status).toBeGreaterThanOrEqual(400);
  expect(wrong.status).toBeLessThan(500);
  expect(await isLetIn(server, token)).toBe(true);
  expect((await tryLogIn(server, 'admin', PASSWORD)).status).toBe(200);
  expect((await tryLogIn(server, 'admin', 'quite another one')).status).toBe(401);
  const { key } = await newKey(server, { name: 'k' }, token);
  expectError(await change(PASSWORD, 'quite another one', key), 403, 'forbidden');
});

// Users.

test('a new user has a password that was made, must change it, and is in the list', async () => {
  const server = await start();
  const { id, password, token } = await newUser(server, 'ann', 'viewer');
  const login = await tryLogIn(server, 'ann', password);
  expect(login.json.user).toEqual({ id, username: 'ann', role: 'viewer', must_change_password: true });
  expect((await server.get(ME, bearer(token))).json.must_change_password).toBe(true);
  const { users } = shapes.userList.parse((await server.get('/api/users')).json);
  expect(users.map(({ username, role }) => [username, role])).toEqual([
    ['admin', 'admin'],
    ['ann', 'viewer'],
  ]);
  expect(users.map(({ last_login }) => last_login !== null)).toEqual([false, true]);
  expect(JSON.stringify(users)).not.toContain(password);
});

test.each([
  [{ role: 'viewer' }, 'username'],
  [{ username: '  ', role: 'viewer' }, 'username'],
  [{ username: 'a\u0000b', role: 'viewer' }, 'username'],
  [{ username: 'ann', role: 'owner' }, 'role'],
  [{ username: 'ann' }, 'role'],
])('a user such as %j is refused, and the field is named', async (input, field) => {
  const server = await start();
  const reply = await server.send('POST', '/api/users', input);
  expectError(reply, 400, 'invalid_request');
  expect(reply.json.error.message).toContain(field);
  expect((await server.get('/api/users')).json.users).toHaveLength(1);
});

test('what a viewer may not do is refused to a viewer’s session', async () => {
  const server = await start();
  const { token } = await newUser(server, 'ann', 'viewer');
  const refused: [string, string, unknown?][] = [
    ['GET', '/api/users'],
    ['POST', '/api/users', { username: 'bob', role: 'admin' }],
    ['GET', ALL],
    ['POST', ALL, { name: 'k' }],
    ['POST', '/api/endpoints', { name: 'x', base_url: 'http://127.0.0.1:9' }],
    ['GET', '/api/dashboard/audit-logs'],
    ['POST', '/api/dashboard/audit-logs/verify'],
    ['POST', '/v1/chat/completions', { model: MODEL, messages: [] }],
  ];
  for (const [method, path, body] of refused) {
    const reply = await server.send(method, path, body, bearer(token));
    expect([method, path, reply.status, reply.json.error.code]).toEqual([method, path, 403, 'forbidden']);
  }
  for (const path of [
    '/api/endpoints',
    '/api/dashboard/overview',
    '/v1/models',
    '/api/dashboard/keys',
    OWN,
  ]) {
    expect([path, (await server.get(path, bearer(token))).status]).toEqual([path, 200]);
  }
});

test('users and keys can be sent back as they were read, and a field that nobody knows is named', async () => {
  const server = await start();
  const { id } = await newUser(server, 'ann', 'viewer');
  const ann = (await server.get('/api/users')).json.users.find((user: { id: string }) => user.id === id);
  const key = (await server.send('POST', ALL, { name: 'k' })).json;
  const { key: _secret, ...shown } = key;
  for (const [path, one, change] of [
    [`/api/users/${id}`, ann, { role: 'admin' }],
    [`${ALL}/${key.id}`, shown, { name: 'other' }],
  ] as const) {
    const reply = await server.send('PUT', path, { ...one, ...change });
    expect([reply.status, reply.json]).toEqual([200, { ...one, ...change }]);
    const slip = await server.send('PUT', path, { colour: 'red' });
    expectError(slip, 400, 'invalid_request');
    expect(slip.json.error.message).toBe('colour: there is no such field');
  }
});

test('a new name is used from then on, ends no session, and frees the old one', async () => {
  const server = await start();
  const ann = await newUser(server, 'ann', 'viewer');
  const renamed = await server.send('PUT', `/api/users/${ann.id}`, { username: 'anna' });
  expect(renamed.status).toBe(200);
  expect(renamed.json).toMatchObject({ id: ann.id, username: 'anna', role: 'viewer' });
  expect(await isLetIn(server, ann.token)).toBe(true);
  expect((await server.get(ME, bearer(ann.token))).json.username).toBe('anna');
  expect((await tryLogIn(server, 'ann', ann.password)).status).toBe(401);
  expect((await tryLogIn(server, 'anna', ann.password)).status).toBe(200);
  expect((await server.send('POST', '/api/users', { username: 'ann', role: 'viewer' })).status).toBe(201);
});

test('a changed role ends the sessions at once and holds at the next log-in', async () => {
  const server = await start();
  const ann = await newUser(server, 'ann', 'admin');
  expect((await server.get('/api/users', bearer(ann.token))).status).toBe(200);
  expect((await server.send('PUT', `/api/users/${ann.id}`, { role: 'viewer' })).json.role).toBe('viewer');
  expect(await isLetIn(server, ann.token)).toBe(false);
  const token = await logIn(server, 'ann', ann.password);
  expect((await server.get('/api/users', bearer(token))).status).toBe(403);
  await server.send('PUT', `/api/users/${ann.id}`, { role: 'admin' });
  expect(await isLetIn(server, token)).toBe(false);
});

test('a reset password is a new one, to be changed, and ends the sessions; the old one fails', async () => {
  const server = await start();
  const ann = await newUser(server, 'ann', 'viewer');
  await server.send(
    'PUT',
    '/api/auth/change-password',
    { current_password: ann.password, new_password: 'one of my own' },
    bearer(ann.token),
  );
  const token = await logIn(server, 'ann', 'one of my own');
  const reset = await server.send('PUT', `/api/users/${ann.id}`, { reset_password: true });
  expect(reset.status).toBe(200);
  const { generated_password: fresh } = reset.json;
  expect(fresh).not.toBe(ann.password);
  expect(await isLetIn(server, token)).toBe(false);
  expect((await tryLogIn(server, 'ann', 'one of my own')).status).toBe(401);
  expect((await tryLogIn(server, 'ann', fresh)).json.user.must_change_password).toBe(true);
});

test('a removed user is gone at once: the sessions, the log-in, and every key', async () => {
  const server = await start();
  const ann = await newUser(server, 'ann', 'viewer');
  const { key } = await newKey(server, { name: 'k', permissions: ['endpoints.read'] }, ann.token);
  expect(await isLetIn(server, key)).toBe(true);
  const removed = await server.send('DELETE', `/api/users/${ann.id}`);
  expect([removed.status, removed.text]).toEqual([204, '']);
  expect(await isLetIn(server, ann.token)).toBe(false);
  expect(await isLetIn(server, key)).toBe(false);
  expect((await tryLogIn(server, 'ann', ann.password)).status).toBe(401);
  expect((await server.get(ALL)).text).not.toContain('"k"');
  expect((await server.get('/api/users')).json.users).toHaveLength(1);
});

test('a name that is taken is 409, for a new user and for a renamed one', async () => {
  const server = await start();
  const ann = await newUser(server, 'ann', 'viewer');
  const again = await server.send('POST', '/api/users', { username: 'ann', role: 'admin' });
  expectError(again, 409, 'name_taken');
  expectError(await server.send('PUT', `/api/users/${ann.id}`, { username: 'admin' }), 409, 'name_taken');
  expect((await server.send('PUT', `/api/users/${ann.id}`, { username: 'ann' })).status).toBe(200);
  const both = await Promise.all(
    [1, 2].map(() => server.send('POST', '/api/users', { username: 'bob', role: 'viewer' })),
  );
  expect(both.map(({ status }) => status).sort()).toEqual([201, 409]);
});

test('the last admin can be neither removed nor demoted, and stays one', async () => {
  const server = await start();
  const token = await logIn(server);
  const { user_id: id } = (await server.get(ME, bearer(token))).json;
  expectError(await server.send('DELETE', `/api/users/${id}`), 400, 'last_admin');
  expectError(await server.send('PUT', `/api/users/${id}`, { role: 'viewer' }), 400, 'last_admin');
  expect((await server.get('/api/users', bearer(token))).status).toBe(200);
  const ann = await newUser(server, 'ann', 'admin');
  const both = await Promise.all([
    server.send('PUT', `/api/users/${id}`, { role: 'viewer' }),
    server.send('DELETE', `/api/users/${ann.id}`),
  ]);
  expect(both.map(({ status }) => status).filter((status) => status === 400)).toHaveLength(1);
});

test.each(['PUT', 'DELETE'])('%s of a user or a key that is not there is 404', async (method) => {
  const server = await start();
  for (const path of ['/api/users', ALL, OWN]) {
    for (const id of ['00000000-0000-4000-8000-000000000009', 'x']) {
      const body = method === 'PUT' ? {} : undefined;
      expectError(await server.send(method, `${path}/${id}`, body), 404, 'not_found');
    }
  }
});

test('the key of a demoted admin may do no more than a viewer may give', async () => {
  const server = await start();
  const ann = await newUser(server, 'ann', 'admin');
  const wanted = ['openai.inference', 'endpoints.read', 'endpoints.manage', 'users.manage', 'logs.read'];
  const { id, key } = await newKey(server, { name: 'k', permissions: wanted }, ann.token);
  const add = () =>
    server.send('POST', '/api/endpoints', { name: 'x', base_url: 'http://127.0.0.1:9' }, bearer(key));
  expect((await server.get('/api/users', bearer(key))).status).toBe(200);
  await server.send('PUT', `/api/users/${ann.id}`, { role: 'viewer' });
  expectError(await add(), 403, 'forbidden');
  expectError(await server.get('/api/users', bearer(key)), 403, 'forbidden');
  expectError(await server.get('/api/dashboard/audit-logs', bearer(key)), 403, 'forbidden');
  expect(await isLetIn(server, key)).toBe(true);
  const listed = (await server.get(ALL)).json.api_keys.find((one: { id: string }) => one.id === id);
  expect(listed.permissions).toEqual(['openai.inference', 'endpoints.read']);
  await server.send('PUT', `/api/users/${ann.id}`, { role: 'admin' });
  expect((await add()).status).toBe(201);
});

// What is open when its credential ends.

async function openEvents(server: LocalServer, secret: string): Promise<RawReply> {
  const events = await rawRequest(server.url, '/api/dashboard/events', { headers: bearer(secret) });
  expect(events.status).toBe(200);
  await until(() => events.text().includes('event: snapshot'), 5000, 'the snapshot');
  return events;
}

async function expectEnded({ whole }: RawReply): Promise<void> {
  const ended = await Promise.race([whole.then(() => true), pause(10_000).then(() => false)]);
  expect(ended).toBe(true);
}

test('an open event stream ends when its session is logged out, and another one goes on', async () => {
  const server = await start();
  const [token, other] = [await logIn(server), await logIn(server)];
  const [events, others] = [await openEvents(server, token), await openEvents(server, other)];
  await server.send('POST', '/api/auth/logout', undefined, bearer(token));
  await expectEnded(events);
  await server.register('box', (await engine()).url);
  await until(() => others.text().includes('event: endpoint'), 5000, 'an event on the other stream');
});

test('an open event stream ends when its key is revoked or its time is over', async () => {
  const moved = { ms: 0 };
  const server = await start({ seams: { clock: movedBy(moved) } });
  const token = await logIn(server);
  const reads = { permissions: ['dashboard.read'] };
  const revoked = await newKey(server, { name: 'a', ...reads }, token);
  const hourLater = new Date(Date.now() + 3_600_000).toISOString();
  const expiring = await newKey(server, { name: 'b', ...reads, expires_at: hourLater }, token);
  const [first, second] = [await openEvents(server, revoked.key), await openEvents(server, expiring.key)];
  await server.send('DELETE', `${OWN}/${revoked.id}`, undefined, bearer(token));
  await expectEnded(first);
  expect(second.response.complete).toBe(false);
  moved.ms = 3_600_001;
  await expectEnded(second);
});

test('an open event stream ends when its key may not read the dashboard any more', async () => {
  const server = await start();
  const token = await logIn(server);
  const { id, key } = await newKey(server, { name: 'k', permissions: ['dashboard.read'] }, token);
  const events = await openEvents(server, key);
  const changed = await server.send(
    'PUT',
    `${OWN}/${id}`,
    { permissions: ['endpoints.read'] },
    bearer(token),
  );
  expect(changed.status).toBe(200);
  expect((await server.get('/api/dashboard/stats', bearer(key))).status).toBe(403);
  await expectEnded(events);
});

// The store.

async function lockStore(dataDir: string): Promise<() => Promise<void>> {
  const locker = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await locker.exec('BEGIN IMMEDIATE');
  return async () => {
    await locker.exec('ROLLBACK');
    await locker.close();
  };
}

test('while the store is away who is known is let in, logging in works, and changes are refused whole', async () => {
  const server = await start();
  const token = await logIn(server);
  const ann = await newUser(server, 'ann', 'viewer');
  const { id, key } = await newKey(server, { name: 'k', permissions: ['endpoints.read'] }, token);
  const before = [(await server.get(ALL)).text, (await server.get('/api/users')).json.users.length];
  const unlock = await lockStore(server.dataDir);

  expect(await isLetIn(server, token)).toBe(true);
  expect(await isLetIn(server, key)).toBe(true);
  const meanwhile = await logIn(server);
  expect(await isLetIn(server, meanwhile)).toBe(true);
  expectError(await tryLogIn(server, 'admin', 'wrong password'), 401, 'invalid_credentials');
  const change = (method: string, path: string, body?: unknown) =>
    server.send(method, path, body, bearer(token));
  for (const reply of [
    await change('POST', OWN, { name: 'another' }),
    await change('PUT', `${OWN}/${id}`, { name: 'other' }),
    await change('DELETE', `${OWN}/${id}`),
    await change('POST', '/api/users', { username: 'bob', role: 'viewer' }),
    await change('DELETE', `/api/users/${ann.id}`),
    await change('PUT', `/api/users/${ann.id}`, { reset_password: true }),
    await change('PUT', '/api/auth/change-password', {
      current_password: PASSWORD,
      new_password: 'quite another one',
    }),
  ]) {
    expectError(reply, 503, 'store_unavailable');
    expect(reply.headers.get('retry-after')).not.toBeNull();
  }
  expect(await isLetIn(server, key)).toBe(true);
  expect(await isLetIn(server, ann.token)).toBe(true);
  await server.send('POST', '/api/auth/logout', undefined, bearer(meanwhile));
  expect(await isLetIn(server, meanwhile)).toBe(false);

  await unlock();
  expect([(await server.get(ALL)).text, (await server.get('/api/users')).json.users.length]).toEqual(before);
  await until(async () => (await change('POST', OWN, { name: 'another' })).status === 201);
});

test.each([
  ['once the store is back', true],
  ['even where the server ends as soon as the store is back', false],
])(
  'a log-out while the store is away is not forgotten: it is written %s',
  async (_, waits) => {
    const first = await start();
    const [token, other] = [await logIn(first), await logIn(first)];
    const unlock = await lockStore(first.dataDir);
    await first.send('POST', '/api/auth/logout', undefined, bearer(token));
    expect(await isLetIn(first, token)).toBe(false);
    await unlock();
    const outs = async () => (await first.get('/api/dashboard/audit-logs?action=auth.logout')).json.total;
    if (waits) await until(async () => (await outs()) === 1, 90_000, 'the line of the log-out');
    await first.server.stop();
    const second = await start({ dataDir: first.dataDir });
    expect(await isLetIn(second, token)).toBe(false);
    expect(await isLetIn(second, other)).toBe(true);
  },
  120_000,
);

// API keys.

test('a new key may do inference and read models, is told once, and is never listed', async () => {
  const box = await engine();
  const server = await start();
  await server.register('box', box.url);
  const token = await logIn(server);
  const { key, ...rest } = await newKey(server, { name: 'mine' }, token);
  expect(rest).toMatchObject({
    name: 'mine',
    key_prefix: key.slice(0, 10),
    expires_at: null,
    permissions: ['openai.inference', 'openai.models.read'],
    models: null,
    priority: 0,
  });
  expect(
    (await server.send('POST', '/v1/chat/completions', JSON.parse(chatBody(MODEL)), bearer(key))).status,
  ).toBe(200);
  for (const headers of [bearer(key), { 'x-api-key': key }]) {
    expect((await server.get('/v1/models', headers)).status).toBe(200);
  }
  expectError(await server.get('/api/endpoints', bearer(key)), 403, 'forbidden');
  expectError(await server.get(OWN, bearer(key)), 403, 'forbidden');
  for (const path of [OWN, ALL]) {
    const list = await server.get(path, bearer(token));
    expect(shapes.apiKeyList.parse(list.json).api_keys).toContainEqual(rest);
    expect(list.text).not.toContain(key.slice(10));
  }
});

test('a key is created with what it is given', async () => {
  const server = await start();
  const token = await logIn(server);
  const input = {
    name: 'all of it',
    expires_at: '2099-01-31T12:00:00Z',
    permissions: ['dashboard.read', 'metrics.read'],
    models: ['sim-*', 'llama?'],
    rate_limit: { requests_per_minute: 5, tokens_per_day: 1000 },
    priority: 7,
  };
  const { key: _, ...made } = await newKey(server, input, token);
  expect(made).toMatchObject({
    ...input,
    expires_at: '2099-01-31T12:00:00.000Z',
    rate_limit: {
      requests_per_minute: 5,
      tokens_per_minute: null,
      concurrent: null,
      tokens_per_day: 1000,
      tokens_per_month: null,
    },
  });
});

test('a key whose time is over is accepted when it is made and refused when it is used', async () => {
  const server = await start();
  const token = await logIn(server);
  const past = await newKey(server, { name: 'past', expires_at: '2020-01-01T00:00:00Z' }, token);
  expect(past.expires_at).toBe('2020-01-01T00:00:00.000Z');
  const reply = await server.get('/v1/models', bearer(past.key));
  expect([reply.status, reply.json.error.code]).toEqual([401, 'expired_credential']);
  shapes.openAiError.parse(reply.json);
  await server.send('PUT', `${OWN}/${past.id}`, { expires_at: null }, bearer(token));
  expect((await server.get('/v1/models', bearer(past.key))).status).toBe(200);
});

test.each<[object, string]>([
  [{}, 'name'],
  [{ name: ' ' }, 'name'],
  [{ name: 'k', permissions: ['endpoints.delete'] }, 'permissions'],
  [{ name: 'k', permissions: [] }, 'permissions'],
  [{ name: 'k', expires: '2099-01-01T00:00:00Z' }, 'expires'],
  [{ name: 'k', expires_at: 'tomorrow' }, 'expires_at'],
  [{ name: 'k', expires_at: 1_900_000_000 }, 'expires_at'],
  [{ name: 'k', models: [] }, 'models'],
  [{ name: 'k', rate_limit: { requests_per_second: 1 } }, 'requests_per_second'],
  [{ name: 'k', rate_limit: { concurrent: 0 } }, 'rate_limit.concurrent'],
  [{ name: 'k', priority: -1 }, 'priority'],
])('a key such as %j is refused, the field is named, and nothing is made', async (input, field) => {
  const server = await start();
  const before = (await server.get(ALL)).text;
  for (const path of [OWN, ALL]) {
    const reply = await server.send('POST', path, input);
    expectError(reply, 400, 'invalid_request');
    expect(reply.json.error.message).toContain(field);
  }
  expect((await server.get(ALL)).text).toBe(before);
});

test('nobody gives a key what they may not do themselves', async () => {
  const server = await start();
  const admin = await logIn(server);
  const { token } = await newUser(server, 'ann', 'viewer');
  const give = (secret: string, permissions: string[], path = OWN) =>
    server.send('POST', path, { name: 'k', permissions }, bearer(secret));
  for (const permission of ['endpoints.manage', 'users.manage', 'logs.read']) {
    const reply = await give(token, ['endpoints.read', permission]);
    expectError(reply, 403, 'forbidden');
    expect(reply.json.error.message).toContain(permission);
  }
  expect((await give(token, ['openai.inference', 'dashboard.read'])).status).toBe(201);

  const managing = await newKey(server, { name: 'm', permissions: ['users.manage', 'metrics.read'] }, admin);
  for (const path of [OWN, ALL]) {
    expectError(await give(managing.key, ['endpoints.manage'], path), 403, 'forbidden');
    // What a key gets unless it is told otherwise is given as well.
    expectError(await server.send('POST', path, { name: 'k' }, bearer(managing.key)), 403, 'forbidden');
    expect((await give(managing.key, ['metrics.read'], path)).status).toBe(201);
  }
  const more = { permissions: ['users.manage', 'endpoints.manage'] };
  expectError(
    await server.send('PUT', `${ALL}/${managing.id}`, more, bearer(managing.key)),
    403,
    'forbidden',
  );
  expectError(await give(managing.key.replace(/.$/, '#'), ['metrics.read']), 401, 'invalid_api_key');
});

test('a changed key is another one from its next request, and what is not named stays', async () => {
  const server = await start();
  const token = await logIn(server);
  const before = await newKey(
    server,
    { name: 'k', permissions: ['endpoints.read'], models: ['a'], priority: 3, rate_limit: { concurrent: 2 } },
    token,
  );
  const put = (change: object) => server.send('PUT', `${OWN}/${before.id}`, change, bearer(token));
  const { key, ...rest } = before;
  expect(await isLetIn(server, key)).toBe(true);
  const renamed = await put({ name: 'new' });
  expect(renamed.status).toBe(200);
  expect(shapes.apiKey.parse(renamed.json)).toEqual({ ...rest, name: 'new' });
  await put({ permissions: ['metrics.read'] });
  expect(await isLetIn(server, key)).toBe(false);
  const cleared = await put({ models: null, rate_limit: null, priority: null, permissions: null });
  expect(cleared.json).toMatchObject({
    name: 'new',
    models: null,
    priority: 0,
    permissions: ['openai.inference', 'openai.models.read'],
    rate_limit: { concurrent: null },
  });
  expectError(await put({ permissions: ['all'] }), 400, 'invalid_request');
  expectError(await put({ key: 'sk_mine' }), 400, 'invalid_request');
  expect((await server.get(OWN, bearer(token))).json.api_keys).toContainEqual(cleared.json);
});

test('a revoked key is refused from its next request and is in no list', async () => {
  const server = await start();
  const token = await logIn(server);
  const { id, key } = await newKey(server, { name: 'k', permissions: ['endpoints.read'] }, token);
  expect(await isLetIn(server, key)).toBe(true);
  const revoked = await server.send('DELETE', `${OWN}/${id}`, undefined, bearer(token));
  expect([revoked.status, revoked.text]).toEqual([204, '']);
  expectError(await server.get('/api/endpoints', bearer(key)), 401, 'invalid_api_key');
  expect((await server.get(ALL)).text).not.toContain(id);
  expectError(await server.send('DELETE', `${OWN}/${id}`, undefined, bearer(token)), 404, 'not_found');
});

test('a user sees and changes the own keys alone, an admin all of them', async () => {
  const server = await start();
  const admin = await logIn(server);
  const [ann, bob] = [await newUser(server, 'ann', 'viewer'), await newUser(server, 'bob', 'admin')];
  const reads = { permissions: ['endpoints.read'] };
  const annKey = await newKey(server, { name: 'of ann', ...reads }, ann.token);
  const bobKey = await newKey(server, { name: 'of bob', ...reads }, bob.token);
  expect([annKey.created_by, bobKey.created_by]).toEqual([ann.id, bob.id]);
  const namesAt = async (path: string, secret: string) =>
    (await server.get(path, bearer(secret))).json.api_keys.map(({ name }: { name: string }) => name);
  expect(await namesAt(OWN, ann.token)).toEqual(['of ann']);
  expect(await namesAt(OWN, bob.token)).toEqual(['of bob']);
  expect(await namesAt(ALL, admin)).toEqual(['first key', 'of ann', 'of bob']);
  for (const [id, secret] of [
    [annKey.id, bob.token],
    [bobKey.id, ann.token],
  ] as const) {
    const path = `${OWN}/${id}`;
    expectError(await server.send('PUT', path, { name: 'mine' }, bearer(secret)), 404, 'not_found');
    expectError(await server.send('DELETE', path, undefined, bearer(secret)), 404, 'not_found');
  }
  expect(await isLetIn(server, annKey.key)).toBe(true);
  expect(await isLetIn(server, bobKey.key)).toBe(true);
  expect((await server.send('PUT', `${ALL}/${annKey.id}`, { name: 'hers' }, bearer(admin))).status).toBe(200);
  expect(await namesAt(OWN, ann.token)).toEqual(['hers']);
  expect((await server.send('DELETE', `${ALL}/${annKey.id}`, undefined, bearer(admin))).status).toBe(204);
  expect(await isLetIn(server, annKey.key)).toBe(false);
});

// Models.

async function withModels(...models: string[]) {
  const box = await engine({ models });
  const server = await start();
  await server.register('box', box.url);
  const token = await logIn(server);
  const chat = (key: string, model: string, path = '/v1/chat/completions') =>
    server.send('POST', path, JSON.parse(chatBody(model)), bearer(key));
  return { box, server, token, chat };
}

test('a key with globs reaches the models they name and is told of no others', async () => {
  const { box, server, token, chat } = await withModels('sim-a', 'sim-b', 'org/big', 'org/big-2', 'other');
  const { key } = await newKey(server, { name: 'k', models: ['sim-?', 'org/*g'] }, token);
  for (const model of ['sim-a', 'sim-b', 'org/big']) {
    expect([model, (await chat(key, model)).status]).toEqual([model, 200]);
    expect((await server.get(`/v1/models/${model}`, bearer(key))).json.id).toBe(model);
  }
  const asked = box.requests.filter(({ method }) => method === 'POST').length;
  for (const model of ['org/big-2', 'other', 'sim-ab', 'nowhere', 'SIM-a']) {
    const reply = await chat(key, model);
    expect([model, reply.status, reply.json.error.code]).toEqual([model, 403, 'model_not_allowed']);
    expect(shapes.openAiError.parse(reply.json).error.param).toBe('model');
    const shown = await server.get(`/v1/models/${model}`, bearer(key));
    expect([model, shown.status, shown.json.error.code]).toEqual([model, 404, 'model_not_found']);
  }
  expect(box.requests.filter(({ method }) => method === 'POST')).toHaveLength(asked);
  const { data } = (await server.get('/v1/models', bearer(key))).json;
  expect(data.map(({ id }: { id: string }) => id)).toEqual(['org/big', 'sim-a', 'sim-b']);
  const hidden = await server.get('/v1/models/other', bearer(key));
  const missing = await server.get('/v1/models/nowhere', bearer(key));
  expect(hidden.text).toBe(missing.text.replace('nowhere', 'other'));
});

test('a key’s globs hold on every way to a model, and are changed with the key', async () => {
  const { server, token, chat } = await withModels('sim-a', 'sim-b');
  const [{ id: endpointId }] = (await server.get('/api/endpoints')).json.endpoints;
  const permissions = ['openai.inference', 'endpoints.manage'];
  const { id, key } = await newKey(server, { name: 'k', models: ['sim-a'], permissions }, token);
  const ways = [
    '/v1/chat/completions',
    '/v1/completions',
    '/v1/embeddings',
    '/v1/responses',
    `/api/endpoints/${endpointId}/chat/completions`,
  ];
  for (const path of ways) {
    const reply = await chat(key, 'sim-b', path);
    expect([path, reply.status, reply.json.error.code]).toEqual([path, 403, 'model_not_allowed']);
  }
  await server.send('PUT', `${OWN}/${id}`, { models: ['sim-b'] }, bearer(token));
  expect((await chat(key, 'sim-b')).status).toBe(200);
  expect((await chat(key, 'sim-a')).status).toBe(403);
  await server.send('PUT', `${OWN}/${id}`, { models: null }, bearer(token));
  expect((await chat(key, 'sim-a')).status).toBe(200);
});
