import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import type { Clock } from '../src/clock.js';
import { dial, rawRequest } from './support/clients.js';
import { type LocalServer, pause, startLocal, TEST_KEY, until } from './support/server.js';

const PERMISSIONS = [
  'openai.inference',
  'openai.models.read',
  'endpoints.read',
  'endpoints.manage',
  'dashboard.read',
  'users.manage',
  'metrics.read',
  'logs.read',
] as const;
type Permission = (typeof PERMISSIONS)[number];

/**
 * What the contract asks for: a permission; `open`: nothing; `signed-in`: any valid credential; `session`: somebody who has
 * logged in; `own-keys`: somebody who has logged in, or a key that may manage users.
 */
type Need = Permission | 'open' | 'signed-in' | 'session' | 'own-keys';

const NEEDS: Record<string, Need> = {
  'GET /health': 'open',
  'GET /ready': 'open',
  'GET /api/version': 'open',

  'GET /api/endpoints': 'endpoints.read',
  'POST /api/endpoints': 'endpoints.manage',
  'POST /api/endpoints/detect': 'endpoints.manage',
  'GET /api/endpoints/local': 'endpoints.manage',
  'GET /api/endpoints/:id': 'endpoints.read',
  'PUT /api/endpoints/:id': 'endpoints.manage',
  'DELETE /api/endpoints/:id': 'endpoints.manage',
  'POST /api/endpoints/:id/test': 'endpoints.manage',
  'POST /api/endpoints/:id/sync': 'endpoints.manage',
  'GET /api/endpoints/:id/models': 'endpoints.read',
  'POST /api/endpoints/:id/drain': 'endpoints.manage',
  'POST /api/endpoints/:id/resume': 'endpoints.manage',
  'GET /api/endpoints/:id/today-stats': 'endpoints.read',
  'GET /api/endpoints/:id/daily-stats': 'endpoints.read',
  'GET /api/endpoints/:id/model-stats': 'endpoints.read',
  'GET /api/endpoints/:id/model-tps': 'endpoints.read',
  'POST /api/endpoints/:id/chat/completions': 'endpoints.manage',

  'GET /api/dashboard/overview': 'dashboard.read',
  'GET /api/dashboard/endpoints': 'dashboard.read',
  'GET /api/dashboard/stats': 'dashboard.read',
  'GET /api/dashboard/request-history': 'dashboard.read',
  'GET /api/dashboard/model-stats': 'dashboard.read',
  'GET /api/dashboard/models': 'dashboard.read',
  'GET /api/dashboard/request-responses': 'dashboard.read',
  'GET /api/dashboard/request-responses/:id': 'dashboard.read',
  'GET /api/dashboard/requests/live': 'dashboard.read',
  'GET /api/dashboard/requests/live/events': 'dashboard.read',
  'GET /api/dashboard/requests/export': 'dashboard.read',
  'POST /api/dashboard/explain': 'dashboard.read',
  'GET /api/dashboard/actors': 'dashboard.read',
  'GET /api/dashboard/actors/events': 'dashboard.read',
  'GET /api/dashboard/actors/:id': 'dashboard.read',
  'GET /api/dashboard/actors/:id/events': 'dashboard.read',
  'POST /api/dashboard/actors/:id/restart': 'endpoints.manage',
  'GET /api/dashboard/machines': 'dashboard.read',
  'GET /api/dashboard/events': 'dashboard.read',
  'GET /api/dashboard/series': 'dashboard.read',
  'GET /api/dashboard/settings': 'dashboard.read',
  'GET /api/dashboard/keys': 'dashboard.read',
  'GET /api/dashboard/keys/usage.csv': 'dashboard.read',
  'GET /api/dashboard/audit-logs': 'logs.read',
  'POST /api/dashboard/audit-logs/verify': 'logs.read',

  'GET /v1/models': 'openai.models.read',
  'GET /v1/models/**:id': 'openai.models.read',
  'POST /v1/chat/completions': 'openai.inference',
  'POST /v1/completions': 'openai.inference',
  'POST /v1/embeddings': 'openai.inference',
  'POST /v1/responses': 'openai.inference',

  'POST /api/auth/login': 'open',
  'POST /api/auth/logout': 'signed-in',
  'GET /api/auth/me': 'signed-in',
  'PUT /api/auth/change-password': 'session',

  'GET /api/users': 'users.manage',
  'POST /api/users': 'users.manage',
  'PUT /api/users/:id': 'users.manage',
  'DELETE /api/users/:id': 'users.manage',
  'GET /api/me/api-keys': 'own-keys',
  'POST /api/me/api-keys': 'own-keys',
  'PUT /api/me/api-keys/:id': 'own-keys',
  'DELETE /api/me/api-keys/:id': 'own-keys',
  'GET /api/api-keys': 'users.manage',
  'POST /api/api-keys': 'users.manage',
  'PUT /api/api-keys/:id': 'users.manage',
  'DELETE /api/api-keys/:id': 'users.manage',
};

/** The contract's words on sessions, spelt out. */
const OF_VIEWER: Permission[] = ['openai.models.read', 'endpoints.read', 'dashboard.read', 'metrics.read'];

type Headers = Record<string, string>;

/** Somebody at the door, and what the contract grants them. */
interface Visitor {
  name: string;
  /** Of a session that ends when it is logged out; asked for again for each request that may do so. */
  headers: (fresh: boolean) => Promise<Headers>;
  is: 'nobody' | 'key' | 'session';
  permissions: readonly Permission[];
  /** Its requests may have been made by somebody else's page. */
  forged?: boolean;
}

type Verdict = '401' | '403' | 'in' | `unexpected ${number}`;

function wanted(method: string, need: Need, { is, permissions, forged }: Visitor): Verdict {
  if (need === 'open') return 'in';
  if (is === 'nobody') return '401';
  if (forged === true && method !== 'GET' && method !== 'HEAD') return '403';
  switch (need) {
    case 'signed-in':
      return 'in';
    case 'session':
      return is === 'session' ? 'in' : '403';
    case 'own-keys':
      return is === 'session' || permissions.includes('users.manage') ? 'in' : '403';
    default:
      return permissions.includes(need) ? 'in' : '403';
  }
}

function verdict(status: number): Verdict {
  if (status === 401 || status === 403) return `${status}`;
  return status < 500 && status !== 429 ? 'in' : `unexpected ${status}`;
}

const ADMIN = 'admin';
const PASSWORD = 'the password of the admin';

interface House {
  server: LocalServer;
  visitors: Visitor[];
  /** A key with each permission. */
  all: Headers;
  /** The headers of a new session. */
  session(username: string, password: string): Promise<{ bearer: Headers; cookie: string; csrf: string }>;
}

let lastPlace = 0;

/** As from another address each time, so that nobody is taken for one who guesses. */
function fromElsewhere(): Headers {
  lastPlace += 1;
  return { 'x-forwarded-for': `10.${lastPlace >> 16}.${(lastPlace >> 8) & 255}.${lastPlace & 255}` };
}

async function openHouse(): Promise<House> {
  let later = 0;
  const clock: Clock = { now: () => Date.now() + later, mono: () => performance.now() };
  const server = await startLocal({
    args: ['--trust-proxy', 'loopback'],
    env: { TROUPE_ADMIN_USERNAME: ADMIN, TROUPE_ADMIN_PASSWORD: PASSWORD },
    seams: { clock },
  });

  async function session(username: string, password: string) {
    const reply = await server.send('POST', '/api/auth/login', { username, password });
    expect(reply.status).toBe(200);
    const cookies = reply.headers.getSetCookie().map((one) => one.split(';', 1)[0] ?? '');
    const csrf = cookies.find((one) => one.startsWith('troupe_csrf='))?.slice('troupe_csrf='.length) ?? '';
    expect(csrf).not.toBe('');
    return { bearer: { authorization: `Bearer ${reply.json.token}` }, cookie: cookies.join('; '), csrf };
  }

  async function key(permissions: readonly Permission[], more: object = {}) {
    const reply = await server.send('POST', '/api/api-keys', { name: 'of the matrix', permissions, ...more });
    expect(reply.status).toBe(201);
    return { id: reply.json.id as string, headers: { authorization: `Bearer ${reply.json.key}` } };
  }

  const viewer = (await server.send('POST', '/api/users', { username: 'viewer', role: 'viewer' })).json;
  const expired = await key(PERMISSIONS, { expires_at: new Date(Date.now() + 3_600_000).toISOString() });
  const revoked = await key(PERMISSIONS);
  // Both were good once, and known as such.
  for (const { headers } of [expired, revoked]) {
    expect((await server.get('/api/users', headers)).status).toBe(200);
  }
  expect((await server.send('DELETE', `/api/api-keys/${revoked.id}`)).status).toBe(204);
  later = 2 * 3_600_000;
  const all = await key(PERMISSIONS);
  const singles = await Promise.all(PERMISSIONS.map(async (one) => ({ one, ...(await key([one])) })));

  const always = (headers: Headers) => async () => headers;
  /** One session for what leaves it alone, a new one for what may end it. */
  async function ofSession(
    username: string,
    password: string,
    make: (of: Awaited<ReturnType<typeof session>>) => Headers,
  ) {
    const kept = make(await session(username, password));
    return async (fresh: boolean) => (fresh ? make(await session(username, password)) : kept);
  }
  const ofAdmin = (make: (of: Awaited<ReturnType<typeof session>>) => Headers) =>
    ofSession(ADMIN, PASSWORD, make);
  const origin = server.url;
  const nobody = { is: 'nobody', permissions: [] } as const;
  const admin = { is: 'session', permissions: PERMISSIONS } as const;
  const visitors: Visitor[] = [
    { name: 'nothing', headers: always({ cookie: '' }), ...nobody },
    {
      name: 'a garbage key',
      headers: async () => ({ authorization: `Bearer sk_${randomUUID()}` }),
      ...nobody,
    },
    { name: 'a garbage x-api-key', headers: async () => ({ 'x-api-key': `sk_${randomUUID()}` }), ...nobody },
    { name: 'a garbage cookie', headers: always({ cookie: 'troupe_session=ts_x', origin }), ...nobody },
    {
      name: 'a key in the place of the cookie',
      headers: always({
        cookie: `troupe_session=${all.headers.authorization.slice('Bearer '.length)}`,
        origin,
      }),
      ...nobody,
    },
    { name: 'an expired key', headers: always(expired.headers), ...nobody },
    { name: 'a revoked key', headers: always(revoked.headers), ...nobody },
    ...singles.map(
      ({ one, headers }): Visitor => ({
        name: `a key with ${one}`,
        headers: always(headers),
        is: 'key',
        permissions: [one],
      }),
    ),
    { name: 'a key with all permissions', headers: always(all.headers), is: 'key', permissions: PERMISSIONS },
    {
      name: 'a viewer session',
      headers: await ofSession('viewer', viewer.generated_password, ({ bearer }) => bearer),
      is: 'session',
      permissions: OF_VIEWER,
    },
    { name: 'an admin session', headers: await ofAdmin(({ bearer }) => bearer), ...admin },
    {
      name: 'the cookie of an admin, its token and its origin',
      headers: await ofAdmin(({ cookie, csrf }) => ({ cookie, 'x-csrf-token': csrf, origin })),
      ...admin,
    },
    {
      name: 'the cookie of an admin without its token',
      headers: await ofAdmin(({ cookie }) => ({ cookie, origin })),
      ...admin,
      forged: true,
    },
    {
      name: 'the cookie of an admin with another token',
      headers: await ofAdmin(({ cookie, csrf }) => ({ cookie, 'x-csrf-token': `${csrf}x`, origin })),
      ...admin,
      forged: true,
    },
    {
      name: 'the cookie of an admin from another origin',
      headers: await ofAdmin(({ cookie, csrf }) => ({
        cookie,
        'x-csrf-token': csrf,
        origin: 'http://evil.example',
      })),
      ...admin,
      forged: true,
    },
    {
      name: 'the cookie of an admin without an origin',
      headers: await ofAdmin(({ cookie, csrf }) => ({ cookie, 'x-csrf-token': csrf })),
      ...admin,
      forged: true,
    },
    {
      name: 'TROUPE_API_KEY',
      headers: always({ authorization: `Bearer ${TEST_KEY}` }),
      is: 'key',
      permissions: PERMISSIONS,
    },
  ];
  return { server, visitors, all: all.headers, session };
}

const pathOf = (pattern: string) => pattern.replace(/(\*\*)?:id/, randomUUID());

/** The status of one request; a stream is not waited for. */
async function knock(url: string, method: string, path: string, headers: Headers): Promise<number> {
  const body = method === 'POST' || method === 'PUT' ? '{}' : undefined;
  const reply = await rawRequest(url, path, {
    method,
    headers: { ...fromElsewhere(), ...headers },
    ...(body === undefined ? {} : { body }),
  });
  reply.leave();
  return reply.status;
}

test('every route lets in exactly whom the contract lets in', async () => {
  const { server, visitors } = await openHouse();
  const rows = server.server.doorways.map(({ method, path }) => `${method} ${path}`);
  expect(rows.toSorted()).toEqual(Object.keys(NEEDS).sort());

  const found: Record<string, Record<string, Verdict>> = {};
  const should: Record<string, Record<string, Verdict>> = {};
  for (const [row, need] of Object.entries(NEEDS)) {
    const [method = '', pattern = ''] = row.split(' ');
    const cells = await Promise.all(
      visitors.map(async (visitor) => {
        const headers = await visitor.headers(pattern.startsWith('/api/auth/'));
        const status = await knock(server.url, method, pathOf(pattern), headers);
        return { name: visitor.name, is: verdict(status), wanted: wanted(method, need, visitor) };
      }),
    );
    found[row] = Object.fromEntries(cells.map((cell) => [cell.name, cell.is]));
    should[row] = Object.fromEntries(cells.map((cell) => [cell.name, cell.wanted]));
  }
  expect(found).toEqual(should);
}, 120_000);

test('HEAD is let in where GET is, a page needs no token for it, and it has no body', async () => {
  const { server, visitors, all } = await openHouse();
  const reads = Object.entries(NEEDS).filter(([row]) => row.startsWith('GET '));
  expect(reads.length).toBeGreaterThan(20);
  const found: Record<string, Verdict> = {};
  const should: Record<string, Verdict> = {};
  for (const [row, need] of reads) {
    const path = pathOf(row.slice('GET '.length));
    for (const visitor of visitors) {
      const cell = `${row} with ${visitor.name}`;
      found[cell] = verdict(await knock(server.url, 'HEAD', path, await visitor.headers(false)));
      should[cell] = wanted('HEAD', need, visitor);
    }
    const [get, head] = [
      await knock(server.url, 'GET', path, all),
      await rawRequest(server.url, path, { method: 'HEAD', headers: all }),
    ];
    await head.whole;
    expect([row, head.status, head.text()]).toEqual([row, get, '']);
  }
  expect(found).toEqual(should);
});

/** Paths that lead nowhere, or nowhere yet. */
const NOWHERE = [
  '/api',
  '/api/',
  '/api/nothing',
  '/api/users/a/b/c',
  '/api/dashboard',
  '/api/dashboard/nothing',
  '/api/endpoints/x/nothing',
  '/api/auth',
  '/api/auth/nothing',
  '/api/auth/login/more',
  '/api/version/more',
  '/v1',
  '/v1/',
  '/v1/nothing',
  '/v1/chat',
  '/v1/chat/completions/more',
];

test('a path that leads nowhere is 401 without a credential and 404 with one', async () => {
  const { server, all } = await openHouse();
  for (const path of NOWHERE) {
    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      const without = await knock(server.url, method, path, { cookie: '' });
      const garbage = await knock(server.url, method, path, { authorization: `Bearer ${randomUUID()}` });
      const withOne = await knock(server.url, method, path, all);
      expect([method, path, without, garbage, withOne]).toEqual([method, path, 401, 401, 404]);
    }
  }
});

test('a method that a path does not have is 401 without a credential and 405 with one', async () => {
  const { server, all } = await openHouse();
  const methods = new Map<string, string[]>();
  for (const row of Object.keys(NEEDS)) {
    const [method = '', path = ''] = row.split(' ');
    methods.set(path, [...(methods.get(path) ?? []), method]);
  }
  for (const [pattern, has] of methods) {
    const isGuarded = pattern.startsWith('/api/') || pattern.startsWith('/v1/');
    const isOpen = has.every((method) => NEEDS[`${method} ${pattern}`] === 'open');
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH']) {
      if (has.includes(method)) continue;
      // The model's own name may hold slashes, so that every path below is one of a model.
      const path = pathOf(pattern);
      const without = await knock(server.url, method, path, { cookie: '' });
      const reply = await rawRequest(server.url, path, { method, headers: all });
      expect([method, pattern, without]).toEqual([method, pattern, isGuarded && !isOpen ? 401 : 405]);
      expect([method, pattern, reply.status]).toEqual([method, pattern, 405]);
      expect(String(reply.headers.allow).split(', ').sort()).toEqual(has.toSorted());
    }
  }
});

test.each(['/v1/audio/transcriptions', '/v1/images/edits', '/v1/chat/completions', '/api/users'])(
  'a form that is sent to %s without a credential is 401',
  async (path) => {
    const server = await startLocal();
    const form = '--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n';
    const send = (headers: Headers) =>
      rawRequest(server.url, path, {
        method: 'POST',
        body: form,
        headers: { 'content-type': 'multipart/form-data; boundary=x', ...headers },
      });
    expect((await send({ cookie: '' })).status).toBe(401);
    expect((await send({ authorization: 'Bearer nobody' })).status).toBe(401);
    expect((await send({})).status).not.toBe(401);
  },
);

test('what comes before the credential is the credential: neither body nor media type tells anything', async () => {
  const server = await startLocal();
  const huge = String(64 * 1024 * 1024);
  for (const path of ['/api/users', '/api/endpoints', '/v1/chat/completions', '/v1/embeddings', '/v1/x']) {
    for (const [body, headers] of [
      ['{', {}],
      ['{}', { 'content-type': 'text/plain' }],
      ['', {}],
      ['{}', { 'content-type': 'application/json', expect: '100-continue' }],
    ] as [string, Headers][]) {
      const reply = await rawRequest(server.url, path, {
        method: 'POST',
        body,
        headers: { cookie: '', ...headers },
      });
      expect([path, body, reply.status]).toEqual([path, body, 401]);
    }
    const wire = await dial(server.url);
    wire.socket.write(
      `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${huge}\r\n\r\n`,
    );
    await until(() => wire.received().includes('\r\n\r\n'));
    expect([path, wire.received().split('\r\n', 1)[0]]).toEqual([path, 'HTTP/1.1 401 Unauthorized']);
  }
});

/** `api/users` and others, as somebody would write them who wants to get round the door. */
function spellings(path: string): string[] {
  const bare = path.slice(1);
  const [first = '', ...rest] = bare.split('/');
  const tail = rest.join('/');
  const hex = (text: string) =>
    [...text].map((char) => `%${char.charCodeAt(0).toString(16).padStart(2, '0')}`).join('');
  return [
    `/${hex(first[0] ?? '')}${first.slice(1)}/${tail}`,
    `/${hex(first)}/${hex(tail)}`,
    `/${hex(bare)}`,
    `/%25${hex(first[0] ?? '').slice(1)}${first.slice(1)}/${tail}`,
    `/${first}%2f${tail}`,
    `/${first}%2F${tail}`,
    `/${first}/./${tail}`,
    `/./${bare}`,
    `/%2e/${bare}`,
    `/x/../${bare}`,
    `/x/%2e%2e/${bare}`,
    `/x/.%2E/${bare}`,
    `/health/../${bare}`,
    `/ready/%2e%2e/${bare}`,
    `/api/version/../../${bare}`,
    `/api/auth/login/../../../${bare}`,
    `/${first}/x/../${tail}`,
    `//${bare}`,
    `///${bare}`,
    `/\\${bare}`,
    `/${first}\\${tail}`,
    `/${first}//${tail}`,
    `/${bare}/`,
    `/${bare}//`,
    `/${bare}/.`,
    `/${bare}%20`,
    `/${bare}%00`,
    `/${bare};x=1`,
    `/${bare}?x=1`,
    `/${bare}/?x=1`,
    `/${bare}#x`,
    `/${bare}%3fx=1`,
    `/${bare}.json`,
    `/${bare.toUpperCase()}`,
    `/${first.toUpperCase()}/${tail}`,
    `/${first}/${tail.toUpperCase()}`,
    `/health?/${bare}`,
    `http://localhost/${bare}`,
    `http://localhost//${bare}`,
    `HTTP://LOCALHOST/${bare}`,
    `https://localhost/${bare}`,
    `http://admin@localhost/${bare}`,
    `http://localhost/x/../${bare}`,
    `http://localhost/%61pi/../${bare}`,
    `//localhost/${bare}`,
    `${bare}`,
    `?/${bare}`,
    `*/${bare}`,
    `http:/${bare}`,
    `http:${bare}`,
  ];
}

const GUARDED = [
  '/api/users',
  '/api/api-keys',
  '/api/endpoints',
  '/api/auth/me',
  '/api/dashboard/overview',
  '/api/dashboard/keys',
  '/api/dashboard/audit-logs',
  '/v1/models',
];

/** Every answer on a connection of its own; the target may be no path at all. */
async function ask(url: string, method: string, target: string, headers: Headers = {}) {
  const wire = await dial(url);
  const lines = Object.entries({ host: new URL(url).host, connection: 'close', ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  wire.socket.write(`${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`);
  await wire.closed;
  const text = wire.received();
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1]);
  return { status, text };
}

test('no spelling of a guarded path gives anything away without a credential', async () => {
  const server = await startLocal();
  const secret = `box-${randomUUID()}`;
  await server.send('POST', '/api/users', { username: secret, role: 'viewer' });
  await server.send('POST', '/api/api-keys', { name: secret });
  await server.send('POST', '/api/endpoints', { name: secret, base_url: 'http://127.0.0.1:1' });
  const reachable: string[] = [];
  for (const path of GUARDED) {
    for (const target of spellings(path)) {
      for (const method of ['GET', 'HEAD']) {
        const { status, text } = await ask(server.url, method, target);
        expect([method, target, text.includes(secret)]).toEqual([method, target, false]);
        // `/health?…` is a question about health, and open.
        const isOpen = target.startsWith('/health?');
        expect([method, target, isOpen ? [200] : [400, 401, 404]]).toEqual([
          method,
          target,
          expect.arrayContaining([status]),
        ]);
      }
      const known = await ask(server.url, 'GET', target, { authorization: `Bearer ${TEST_KEY}` });
      if (known.status === 200 && !target.startsWith('/health?')) reachable.push(target);
    }
  }
  // Some of these spellings do lead there with a key: the door is what kept the rest out.
  expect(reachable).toContain('/api/users/');
  expect(reachable.length).toBeGreaterThan(20);
});

test('no spelling of a guarded path changes anything without a credential', async () => {
  const server = await startLocal();
  const { id } = (
    await server.send('POST', '/api/endpoints', { name: 'box', base_url: 'http://127.0.0.1:1' })
  ).json;
  for (const target of [...spellings(`/api/endpoints/${id}`), ...spellings('/v1/chat/completions')]) {
    for (const method of ['DELETE', 'POST', 'PUT']) {
      const { status } = await ask(server.url, method, target, { 'content-length': '0' });
      const isOpen = target.startsWith('/health?');
      expect([method, target, status]).toEqual([
        method,
        target,
        isOpen ? 405 : expect.toSatisfy((code: number) => [400, 401, 404, 405].includes(code)),
      ]);
    }
  }
  expect((await server.get('/api/endpoints')).json.total).toBe(1);
});

test('whoever is not let in is told so in the words of the protocol they speak', async () => {
  const { server } = await openHouse();
  const ask = (path: string, headers: Headers, method = 'GET') =>
    server.send(method, path, undefined, { ...fromElsewhere(), ...headers });
  const shape = (value: object) => Object.keys(value).sort();
  const key = await server.send('POST', '/api/api-keys', { name: 'little', permissions: ['metrics.read'] });
  const may = { authorization: `Bearer ${key.json.key}` };

  for (const [headers, status, type] of [
    [{ cookie: '' }, 401, 'authentication_error'],
    [{ authorization: 'Bearer nobody' }, 401, 'authentication_error'],
    [{ 'x-api-key': 'nobody' }, 401, 'authentication_error'],
    [{ cookie: 'troupe_session=nobody' }, 401, 'authentication_error'],
    [may, 403, 'permission_error'],
  ] as [Headers, number, string][]) {
    const api = await ask('/api/users', headers);
    expect([api.status, shape(api.json), shape(api.json.error)]).toEqual([
      status,
      ['error'],
      ['code', 'message', 'type'],
    ]);
    expect(api.json.error).toMatchObject({ type, code: expect.any(String), message: expect.any(String) });

    for (const path of ['/v1/models', '/v1/models/a/b']) {
      const v1 = await ask(path, headers);
      expect([v1.status, shape(v1.json), shape(v1.json.error)]).toEqual([
        status,
        ['error'],
        ['code', 'message', 'param', 'type'],
      ]);
      expect(v1.json.error).toMatchObject({ type, param: null, code: expect.any(String) });
      expect(v1.headers.get('x-request-id')).not.toBeNull();
    }
    for (const reply of [api, await ask('/v1/models', headers)]) {
      expect(reply.headers.get('content-type')).toBe('application/json');
      expect(reply.headers.get('www-authenticate') !== null).toBe(status === 401);
    }
  }
  const anthropic = await ask('/v1/messages', { cookie: '' }, 'POST');
  expect(anthropic.status).toBe(401);
  expect(anthropic.json).toEqual({
    type: 'error',
    error: { type: 'authentication_error', message: expect.any(String) },
    request_id: anthropic.headers.get('x-request-id'),
  });
});

test.each([
  ['made a viewer', 200],
  ['removed', 204],
  ['given another password', 200],
])('an admin who is %s while changing the password stays so', async (what, status) => {
  // Costly enough that a decision falls while a password is being hashed.
  const server = await startLocal({ seams: { passwordCost: 15 } });
  const { user, generated_password: old } = (
    await server.send('POST', '/api/users', { username: 'second', role: 'admin' })
  ).json;
  const logIn = (password: string) =>
    server.send('POST', '/api/auth/login', { username: 'second', password }, { cookie: '' });
  const session = { authorization: `Bearer ${(await logIn(old)).json.token}` };
  const input = { current_password: old, new_password: 'what the second wants' };
  const changing = server.send('PUT', '/api/auth/change-password', input, session);
  await pause(50);
  const path = `/api/users/${user.id}`;
  const decided =
    what === 'removed'
      ? await server.send('DELETE', path)
      : await server.send(
          'PUT',
          path,
          what === 'made a viewer' ? { role: 'viewer' } : { reset_password: true },
        );
  expect(decided.status).toBe(status);
  const changed = await changing;

  const now = (await server.get('/api/users')).json.users.find(({ id }: { id: string }) => id === user.id);
  expect(now?.role).toBe(what === 'removed' ? undefined : what === 'made a viewer' ? 'viewer' : 'admin');
  const stillManages = await server.get('/api/users', {
    authorization: `Bearer ${changed.json.token ?? 'none'}`,
  });
  expect(stillManages.status).not.toBe(200);
  if (what === 'given another password') {
    expect((await logIn(decided.json.generated_password)).status).toBe(200);
    expect((await logIn('what the second wants')).status).toBe(401);
  }
});
