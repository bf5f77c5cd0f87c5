import { expect, test } from 'vitest';
import { type LocalServer, type Reply, startLocal, TEST_KEY } from './support/server.js';

const ADMIN = { username: 'admin', password: 'the password of the admin' };
const MINUTE_MS = 60_000;
const HERE = '192.0.2.1';
const ELSEWHERE = '192.0.2.2';

interface Town {
  server: LocalServer;
  /** Lets time go by. */
  pass(ms: number): void;
  logIn(address: string, username: string, password: string): Promise<Reply>;
  /** GET /api/auth/me from an address, with these headers alone. */
  ask(address: string, headers: Record<string, string>): Promise<Reply>;
  /** One more unknown key from an address. */
  guess(address: string): Promise<Reply>;
}

/** A server behind a proxy, whose clock stands still until it is moved. */
async function startTown(): Promise<Town> {
  const start = Date.UTC(2026, 0, 15, 12);
  let passed = 0;
  const server = await startLocal({
    args: ['--trust-proxy', 'loopback'],
    env: { TROUPE_ADMIN_USERNAME: ADMIN.username, TROUPE_ADMIN_PASSWORD: ADMIN.password },
    seams: { clock: { now: () => start + passed, mono: () => 1000 + passed } },
  });
  const from = (address: string) => ({ 'x-forwarded-for': address });
  let guesses = 0;
  const ask: Town['ask'] = (address, headers) => server.get('/api/auth/me', { ...from(address), ...headers });
  return {
    server,
    pass: (ms) => {
      passed += ms;
    },
    logIn: (address, username, password) =>
      // No credential of the tests comes along.
      server.send('POST', '/api/auth/login', { username, password }, { ...from(address), cookie: '' }),
    ask,
    guess: (address) => {
      guesses += 1;
      // Whatever the way it is shown.
      const key = `sk_guess${guesses}`;
      return ask(address, guesses % 2 === 0 ? { 'x-api-key': key } : { authorization: `Bearer ${key}` });
    },
  };
}

async function times(count: number, run: () => Promise<Reply>): Promise<number[]> {
  const statuses: number[] = [];
  for (let i = 0; i < count; i += 1) statuses.push((await run()).status);
  return statuses;
}

const all = (count: number, status: number) => Array<number>(count).fill(status);

function expectWait(reply: Reply, most = 60): void {
  expect(reply.status).toBe(429);
  expect(reply.json.error).toMatchObject({ type: 'rate_limit_error', code: expect.any(String) });
  expect(reply.headers.get('retry-after')).toMatch(/^\d+$/);
  const secs = Number(reply.headers.get('retry-after'));
  expect(secs).toBeGreaterThanOrEqual(1);
  expect(secs).toBeLessThanOrEqual(most);
}

test('after ten wrong passwords in a minute an account is closed to that address, and to it alone', async () => {
  const { server, logIn, pass } = await startTown();
  const viewer = (await server.send('POST', '/api/users', { username: 'viewer', role: 'viewer' })).json;
  const wrong = () => logIn(HERE, ADMIN.username, 'a guess');
  expect(await times(9, wrong)).toEqual(all(9, 401));
  // A log-in in between is a new start.
  expect((await logIn(HERE, ADMIN.username, ADMIN.password)).status).toBe(200);
  expect(await times(10, wrong)).toEqual(all(10, 401));

  expectWait(await logIn(HERE, ADMIN.username, ADMIN.password));
  expectWait(await wrong());
  expect((await logIn(HERE, 'viewer', viewer.generated_password)).status).toBe(200);
  expect((await logIn(ELSEWHERE, ADMIN.username, ADMIN.password)).status).toBe(200);
  // Neither of these has opened it.
  expectWait(await logIn(HERE, ADMIN.username, ADMIN.password));

  pass(MINUTE_MS - 1000);
  expectWait(await logIn(HERE, ADMIN.username, ADMIN.password), 1);
  pass(1000);
  expect((await logIn(HERE, ADMIN.username, ADMIN.password)).status).toBe(200);
});

test('what counts is the last minute, and being refused does not prolong it', async () => {
  const { logIn, pass } = await startTown();
  const wrong = () => logIn(HERE, ADMIN.username, 'a guess');
  const right = () => logIn(HERE, ADMIN.username, ADMIN.password);
  expect(await times(5, wrong)).toEqual(all(5, 401));
  pass(MINUTE_MS / 2);
  expect(await times(5, wrong)).toEqual(all(5, 401));
  pass(MINUTE_MS / 4);
  for (const status of await times(30, wrong)) expect(status).toBe(429);
  pass(MINUTE_MS / 4);
  // The first five are a minute ago.
  expect(await times(5, wrong)).toEqual(all(5, 401));
  expectWait(await right(), 30);
  pass(MINUTE_MS / 2);
  expect((await right()).status).toBe(200);
});

test('of twenty wrong passwords at once exactly ten are judged', async () => {
  const { logIn } = await startTown();
  const replies = await Promise.all(
    Array.from({ length: 20 }, (_, i) => logIn(HERE, ADMIN.username, `guess ${i}`)),
  );
  const statuses = replies.map(({ status }) => status).sort();
  expect(statuses).toEqual([...all(10, 401), ...all(10, 429)]);
  for (const reply of replies.filter(({ status }) => status === 429)) expectWait(reply);
  expectWait(await logIn(HERE, ADMIN.username, ADMIN.password));
});

test('nobody learns from log-in which accounts there are', async () => {
  const { logIn } = await startTown();
  const names = ({ headers }: Reply) => [...headers.keys()].sort();
  const same = (known: Reply, unknown: Reply) => {
    expect([unknown.status, unknown.text, names(unknown)]).toEqual([known.status, known.text, names(known)]);
    expect(unknown.headers.get('retry-after')).toBe(known.headers.get('retry-after'));
  };
  for (let i = 0; i < 12; i += 1) {
    const known = await logIn(HERE, ADMIN.username, 'a guess');
    same(known, await logIn(HERE, 'nobody', 'a guess'));
    expect(known.status).toBe(i < 10 ? 401 : 429);
    expect(known.headers.getSetCookie()).toEqual([]);
  }
  for (const name of ['', 'Admin', 'admin ', '__proto__', 'x'.repeat(1000), '\ud800']) {
    const known = await logIn(ELSEWHERE, ADMIN.username, 'a guess');
    same(known, await logIn(ELSEWHERE, name, 'a guess'));
  }
});

test('ninety-nine unknown keys a minute from one address are 401, the next ones 429, and elsewhere nothing changes', async () => {
  const { guess, ask, pass } = await startTown();
  expect(await times(99, () => guess(HERE))).toEqual(all(99, 401));
  for (let i = 0; i < 5; i += 1) expectWait(await guess(HERE));
  expect((await guess(ELSEWHERE)).status).toBe(401);
  // Without any there is nothing to guess.
  expect((await ask(HERE, { cookie: '' })).status).toBe(401);
  pass(MINUTE_MS - 1000);
  expectWait(await guess(HERE));
  pass(MINUTE_MS);
  expect((await guess(HERE)).status).toBe(401);
});

test('whoever has a valid credential is served whatever others guess from the same address', async () => {
  const { server, guess, ask, logIn } = await startTown();
  const login = await logIn(HERE, ADMIN.username, ADMIN.password);
  const key = (await server.send('POST', '/api/api-keys', { name: 'valid' })).json.key;
  const cookie = login.headers
    .getSetCookie()
    .map((one) => one.split(';', 1)[0])
    .join('; ');
  const valid = [
    { authorization: `Bearer ${key}` },
    { 'x-api-key': key },
    { authorization: `Bearer ${TEST_KEY}` },
    { 'x-api-key': TEST_KEY },
    { authorization: `Bearer ${login.json.token}` },
    { cookie },
  ] as Record<string, string>[];
  const served = async () => Promise.all(valid.map(async (headers) => (await ask(HERE, headers)).status));
  expect(await served()).toEqual(all(valid.length, 200));
  for (let i = 0; i < 150; i += 1) await guess(HERE);
  expectWait(await guess(HERE));
  for (let i = 0; i < 3; i += 1) expect(await served()).toEqual(all(valid.length, 200));
  // To log in is no guess at a key.
  expect((await logIn(HERE, ADMIN.username, ADMIN.password)).status).toBe(200);
  // And being served forgives nothing.
  expectWait(await guess(HERE));
});

test('wrong passwords for an account close no session and no key', async () => {
  const { server, ask, logIn } = await startTown();
  const { token } = (await logIn(HERE, ADMIN.username, ADMIN.password)).json;
  const key = (
    await server.send('POST', '/api/api-keys', { name: 'valid' }, { authorization: `Bearer ${token}` })
  ).json.key;
  expect(await times(10, () => logIn(HERE, ADMIN.username, 'a guess'))).toEqual(all(10, 401));
  expectWait(await logIn(HERE, ADMIN.username, ADMIN.password));
  expect((await ask(HERE, { authorization: `Bearer ${token}` })).status).toBe(200);
  expect((await ask(HERE, { authorization: `Bearer ${key}` })).status).toBe(200);
});

test('a key that has expired and a cookie that is stale are 401 and no guesses', async () => {
  const { server, guess, ask, logIn, pass } = await startTown();
  const soon = new Date(Date.UTC(2026, 0, 15, 12) + MINUTE_MS).toISOString();
  const { key } = (await server.send('POST', '/api/api-keys', { name: 'short', expires_at: soon })).json;
  const expired = { authorization: `Bearer ${key}` };
  const cookie = (await logIn(HERE, ADMIN.username, ADMIN.password)).headers
    .getSetCookie()[0]
    ?.split(';', 1)[0];
  const stale = { cookie: cookie ?? '' };
  expect((await ask(HERE, expired)).status).toBe(200);
  expect((await ask(HERE, stale)).status).toBe(200);
  expect(
    (await server.send('POST', '/api/auth/logout', undefined, { cookie: '', ...bearerOf(stale) })).status,
  ).toBe(204);
  pass(2 * MINUTE_MS);

  for (let i = 0; i < 150; i += 1) {
    expect((await ask(HERE, expired)).status).toBe(401);
    expect((await ask(HERE, stale)).status).toBe(401);
    expect((await ask(HERE, { cookie: 'troupe_session=never-was-one' })).status).toBe(401);
  }
  expect(await times(99, () => guess(HERE))).toEqual(all(99, 401));
  expectWait(await guess(HERE));
  // They are told what they were before, too.
  expect((await ask(HERE, expired)).status).toBe(401);
  expect((await ask(HERE, stale)).status).toBe(401);
});

/** The token in a cookie as programs send it. */
function bearerOf({ cookie = '' }: { cookie?: string }): Record<string, string> {
  return { authorization: `Bearer ${cookie.slice(cookie.indexOf('=') + 1)}` };
}

test('IPv6 addresses of one /64 count together, and those of another do not', async () => {
  const { guess, logIn } = await startTown();
  let host = 0;
  const inNet = (net: string) => {
    host += 1;
    return `2001:db8:0:${net}:${host.toString(16)}::${host.toString(16)}`;
  };
  expect(await times(99, () => guess(inNet('7')))).toEqual(all(99, 401));
  expectWait(await guess(inNet('7')));
  expectWait(await guess('2001:0DB8::7:ffff:0:0:1'));
  expect((await guess(inNet('8'))).status).toBe(401);

  expect(await times(10, () => logIn(inNet('7'), ADMIN.username, 'a guess'))).toEqual(all(10, 401));
  expectWait(await logIn(inNet('7'), ADMIN.username, ADMIN.password));
  expect((await logIn(inNet('8'), ADMIN.username, ADMIN.password)).status).toBe(200);
});

test('nobody who is no trusted proxy comes from another address by saying so', async () => {
  const server = await startLocal();
  const guess = (i: number) =>
    server.get('/v1/models', { authorization: `Bearer sk_${i}`, 'x-forwarded-for': `10.0.0.${i}` });
  const statuses = await Promise.all(Array.from({ length: 110 }, (_, i) => guess(i)));
  expect(statuses.map(({ status }) => status).sort()).toEqual([...all(99, 401), ...all(11, 429)]);
});
