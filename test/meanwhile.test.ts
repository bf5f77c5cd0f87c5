import { createServer } from 'node:http';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, onTestFinished, test } from 'vitest';
import { passwordsOf, TooBusy } from '../src/access/passwords.js';
import { chatBody, dial, rawRequest, wireRequest } from './support/clients.js';
import { engine, type LocalServer, pause, spawnServer, startLocal, until } from './support/server.js';

const PASSWORD = 'a password of the tests';
const MODEL = 'sim-small';
/** A hash takes long enough for something to happen meanwhile. */
const SLOW_HASH = 15;
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

function start(passwordCost = 4): Promise<LocalServer> {
  return startLocal({ env: { TROUPE_ADMIN_PASSWORD: PASSWORD }, seams: { passwordCost } });
}

async function newUser(server: LocalServer, username: string, role = 'admin') {
  const made = (await server.send('POST', '/api/users', { username, role })).json;
  const { id } = made.user;
  const password: string = made.generated_password;
  const login = await server.send('POST', '/api/auth/login', { username, password }, { authorization: '' });
  return { id, password, token: login.json.token as string };
}

const names = async (server: LocalServer) =>
  (await server.get('/api/users')).json.users.map(({ username }: { username: string }) => username);

// What changes between a request and its turn.

test('who is removed while a body is still being sent changes nothing with it', async () => {
  const server = await start();
  const { id, token } = await newUser(server, 'anna');
  const text = wireRequest(
    '/api/users',
    JSON.stringify({ username: 'mallory', role: 'admin' }),
    bearer(token),
  );
  const wire = await dial(server.url);
  wire.socket.write(text.slice(0, -10));
  await pause(50);
  expect((await server.send('DELETE', `/api/users/${id}`)).status).toBe(204);
  wire.socket.write(text.slice(-10));
  await until(() => wire.received().includes('HTTP/1.1'), 3000, 'an answer');
  expect(wire.received()).toContain('HTTP/1.1 401');
  expect(await names(server)).toEqual(['admin']);
});

test('a key that is revoked while its prompt is still being sent reaches no endpoint', async () => {
  const box = await engine();
  const server = await start();
  await server.register('box', box.url);
  const key = (await server.send('POST', '/api/api-keys', { name: 'batch' })).json;
  const text = wireRequest('/v1/chat/completions', chatBody(MODEL), bearer(key.key));
  const wire = await dial(server.url);
  wire.socket.write(text.slice(0, -10));
  await pause(50);
  expect((await server.send('DELETE', `/api/api-keys/${key.id}`)).status).toBe(204);
  wire.socket.write(text.slice(-10));
  await until(() => wire.received().includes('HTTP/1.1'), 3000, 'an answer');
  expect(wire.received()).toContain('HTTP/1.1 401');
  expect(box.requests.filter(({ method }) => method === 'POST')).toEqual([]);
});

test.each<[string, (server: LocalServer, id: string) => Promise<unknown>]>([
  ['removed', (server, id) => server.send('DELETE', `/api/users/${id}`)],
  ['demoted', (server, id) => server.send('PUT', `/api/users/${id}`, { role: 'viewer' })],
  [
    'given another password',
    (server, id) => server.send('PUT', `/api/users/${id}`, { reset_password: true }),
  ],
])('who is %s while a new password is being hashed stays so', async (_, change) => {
  const server = await start(SLOW_HASH);
  const anna = await newUser(server, 'anna');
  const changing = server.send(
    'PUT',
    '/api/auth/change-password',
    { current_password: anna.password, new_password: 'another password' },
    bearer(anna.token),
  );
  await pause(20);
  await change(server, anna.id);
  const reply = await changing;
  // Either came first, and the other saw it; what the admin did holds.
  const users = (await server.get('/api/users')).json.users;
  const now = users.find(({ id }: { id: string }) => id === anna.id);
  if (_ === 'removed') expect(now).toBeUndefined();
  if (_ === 'demoted') expect(now.role).toBe('viewer');
  if (_ === 'given another password') expect(now.must_change_password).toBe(true);
  if (reply.status === 200) {
    expect((await server.get('/api/auth/me', bearer(reply.json.token))).status).toBe(401);
  } else expect(reply.status).toBe(401);
});

test('a log-in with the old password that waits behind a reset is refused', async () => {
  const server = await start();
  const anna = await newUser(server, 'anna', 'viewer');
  const other = await open({ filename: `${server.dataDir}/troupe.db`, driver: sqlite3.Database });
  onTestFinished(() => other.close());
  await other.exec('BEGIN IMMEDIATE');
  const reset = server.send('PUT', `/api/users/${anna.id}`, { reset_password: true });
  await pause(150);
  const login = server.send(
    'POST',
    '/api/auth/login',
    { username: 'anna', password: anna.password },
    { authorization: '' },
  );
  await pause(150);
  await other.exec('ROLLBACK');
  expect((await reset).status).toBe(200);
  expect((await login).status).toBe(401);
});

test('limits that are set while requests are open hold exactly for those that come after', async () => {
  const box = await engine({ tokensPerSecond: 20, outputTokens: 40 });
  const server = await start();
  await server.register('box', box.url);
  const key = (await server.send('POST', '/api/api-keys', { name: 'batch' })).json;
  const ask = () =>
    rawRequest(server.url, '/v1/chat/completions', {
      body: chatBody(MODEL, { stream: true }),
      headers: bearer(key.key),
    });
  const free = [await ask(), await ask(), await ask()];
  await server.send('PUT', `/api/api-keys/${key.id}`, { rate_limit: { concurrent: 1 } });
  const first = await ask();
  expect(first.status).toBe(200);
  for (const one of free) one.leave();
  await until(async () => (await server.get('/api/dashboard/stats')).json.total_active_requests === 1, 3000);
  expect((await ask()).status).toBe(429);
  first.leave();
  await until(async () => (await server.get('/api/dashboard/stats')).json.total_active_requests === 0, 3000);
  expect((await ask()).status).toBe(200);
});

test('a client that has read the end of its answer may come again, whether the endpoint has closed or not', async () => {
  const upstream = createServer((req, res) => {
    req.resume();
    if (req.method === 'GET') {
      res.setHeader('content-type', 'application/json');
      res.end(JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model' }] }));
      return;
    }
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    // The body stays open after its terminal event.
    res.write(
      'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    );
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    upstream.closeAllConnections();
    upstream.close();
  });
  const { port } = upstream.address() as { port: number };
  const server = await start();
  await server.register('box', `http://127.0.0.1:${port}`);
  const key = (await server.send('POST', '/api/api-keys', { name: 'one', rate_limit: { concurrent: 1 } }))
    .json;
  for (let i = 0; i < 3; i += 1) {
    const reply = await rawRequest(server.url, '/v1/chat/completions', {
      body: chatBody(MODEL, { stream: true }),
      headers: bearer(key.key),
    });
    expect(reply.status).toBe(200);
    await until(() => reply.text().includes('[DONE]'), 3000, 'the end of the answer');
  }
});

// What strangers can cost.

test('a body of a stranger is small, and one that is broken off is no line in the log', async () => {
  const server = await spawnServer();
  const long = JSON.stringify({ username: 'x', password: 'y'.repeat(20_000) });
  const reply = await rawRequest(server.url, '/api/auth/login', {
    body: long,
    headers: { authorization: '' },
  });
  expect(reply.status).toBe(413);
  const text = wireRequest('/api/auth/login', '{"username":"x","password":"y"}', { authorization: '' });
  for (let i = 0; i < 5; i += 1) {
    const wire = await dial(server.url);
    wire.socket.write(text.slice(0, -5));
    await pause(20);
    wire.socket.destroy();
  }
  await pause(100);
  expect(await server.end()).toBe(0);
  expect(server.output()).not.toMatch(/unexpectedly|"level":50/);
});

test('passwords of strangers wait behind those of people who are let in, and are dropped when nobody waits', async () => {
  const running: (() => void)[] = [];
  const begun: string[] = [];
  const { verify, hash } = passwordsOf({
    cost: 1,
    derive: (password, _salt, bytes, _options, done) => {
      begun.push(password);
      running.push(() => done(null, Buffer.alloc(bytes)));
    },
  });
  let left = false;
  const strangers = Array.from({ length: 65 }, (_, i) =>
    verify(`stranger ${i}`, null, 'strangers', () => left && i > 1),
  );
  const oneMore = verify('one too many', null, 'strangers');
  await expect(oneMore).rejects.toBeInstanceOf(TooBusy);
  const known = hash('known');
  running.shift()?.();
  await pause(1);
  expect(begun).toEqual(['stranger 0', 'known']);
  left = true;
  for (const settled of strangers.slice(2)) settled.catch(() => {});
  running.shift()?.();
  await known;
  await pause(1);
  running.shift()?.();
  await Promise.all(strangers.slice(0, 2));
  await expect(strangers[2]).rejects.toBeInstanceOf(TooBusy);
  await expect(strangers[64]).rejects.toBeInstanceOf(TooBusy);
  expect(begun).toEqual(['stranger 0', 'known', 'stranger 1']);
});

test('however its path is spelled, what is not there is told to nobody who was not let in', async () => {
  const server = await start();
  for (const path of ['/%61pi/nothing', '/%76%31/nothing', '/api%2Fnothing']) {
    const wire = await dial(server.url);
    wire.socket.write(`PATCH ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
    await wire.closed;
    expect([path, wire.received().slice(9, 12)]).toEqual([path, '401']);
  }
});
