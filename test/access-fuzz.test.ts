import { Agent, type OutgoingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import type { Doorway } from '../src/http/doorways.js';
import { memoryInUse } from './support/memory.js';
import { type LocalServer, startLocal, TEST_KEY } from './support/server.js';

/** Another one by FUZZ_SEED; fast-check tells the seed and the path of a failure. */
const SEED = Number(process.env.FUZZ_SEED ?? 20_260_115);
const BATCH = 20;
/** Cases that fill what is filled once, before the heap is measured; and those after. */
const WARM_UP_RUNS = 100;
const RUNS = 300;
const WIRE_BATCH = 10;
const WIRE_RUNS = 200;
const ANSWER_MS = 15_000;
const MOST_GROWTH = 8 * 1024 * 1024;

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND', 'QUERY'];

interface Sent {
  method: string;
  target: string;
  headers: OutgoingHttpHeaders;
  body: Buffer | null;
}

interface Got {
  status: number;
  type: string;
  body: string;
}

const charsOf = (from: number, to: number) =>
  fc.integer({ min: from, max: to }).map((code) => String.fromCharCode(code));
/** What Node's client sends in a header at all. */
const headerText = fc.string({
  unit: fc.oneof({ weight: 6, arbitrary: charsOf(0x20, 0x7e) }, charsOf(0x80, 0xff), fc.constant('\t')),
  maxLength: 60,
});
const targetText = fc.string({
  unit: fc.oneof(
    { weight: 80, arbitrary: charsOf(0x21, 0x7e) },
    // No server of Node's reads on after one of these.
    charsOf(0x80, 0xff),
    { weight: 20, arbitrary: fc.constantFrom('/', '.', '%', '%2e', '%00') },
  ),
  maxLength: 40,
});
const oddName = fc.constantFrom(
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
  'length',
  '',
);

/** Text of JSON that `JSON.stringify` would not write. */
const jsonText = fc.oneof(
  fc.constantFrom(
    '',
    ' ',
    '{',
    '}',
    'nul',
    'null',
    '0',
    '"',
    '1e999',
    '-1e999',
    '123456789012345678901234567890',
    '"\\ud800"',
    '{"model":"\\ud800","messages":[]}',
    '{"model":"m","messages":[],"model":"n"}',
    '{"__proto__":{"role":"admin"},"username":"a","password":"b"}',
    '{"constructor":{"prototype":{"x":1}},"name":"a"}',
    '\ufeff{"model":"m"}',
    '{"model":"m",}',
    '{"model":1e999}',
    `{"model":"${'m'.repeat(100_000)}"}`,
    `${'['.repeat(100_000)}`,
    `${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`,
    `{"username":"${'u'.repeat(50_000)}","password":"p"}`,
    `{"username":"u","password":"${'p'.repeat(50_000)}"}`,
  ),
  fc.json({ stringUnit: 'binary' }),
);

/** Anything where a field is expected; nothing in it is an address that could be asked. */
const oddValue = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    '',
    ' ',
    '\u0000',
    '\ud800',
    '🏛',
    -1,
    0.5,
    1e308,
    Number.MAX_SAFE_INTEGER,
    [],
    {},
    [[]],
    ['*'],
    'admin',
    'viewer',
    '0000-00-00',
    '9999-12-31T23:59:59Z',
    '+275760-09-13T00:00:00Z',
    'javascript:alert(1)',
    'http://',
    'http://[::1',
    'file:///etc/passwd',
    'http://169.254.169.254',
  ),
  fc.array(fc.constantFrom('dashboard.read', 'users.manage', 'all', '__proto__'), { maxLength: 4 }),
  fc.dictionary(fc.oneof(oddName, fc.string({ maxLength: 5 })), fc.jsonValue({ maxDepth: 1 }), {
    maxKeys: 4,
  }),
  fc.jsonValue({ maxDepth: 2 }),
);
const FIELDS = [
  'username',
  'password',
  'current_password',
  'new_password',
  'role',
  'reset_password',
  'name',
  'permissions',
  'models',
  'rate_limit',
  'expires_at',
  'priority',
  'base_url',
  'api_key',
  'headers',
  'notes',
  'deadlines',
  'models_allow',
  'models_deny',
  'model_settings',
  'tls_ca',
  'model',
  'messages',
  'input',
  'prompt',
  'stream',
  'stream_options',
];
const fields = fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...FIELDS) }, oddName);
const object = fc
  .array(fc.tuple(fields, oddValue), { maxLength: 8 })
  .map(
    (entries) =>
      `{${entries.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join()}}`,
  );

const body: fc.Arbitrary<Buffer | null> = fc.oneof(
  { weight: 2, arbitrary: fc.constant(null) },
  { weight: 3, arbitrary: jsonText.map((text) => Buffer.from(text)) },
  { weight: 4, arbitrary: object.map((text) => Buffer.from(text)) },
  // Not UTF-8.
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  fc
    .uint8Array({ maxLength: 20 })
    .map((bytes) => Buffer.from([...Buffer.from('{"model":"'), 0xff, ...bytes, 0x22, 0x7d])),
);

/** Paths that there are, with anything as the ids in them, and paths that there are not. */
function targets(doorways: Doorway[]): fc.Arbitrary<Pick<Sent, 'method' | 'target'>> {
  const anyMethod = fc.constantFrom(...METHODS);
  const id = fc.oneof(
    fc.uuid(),
    targetText,
    fc.constantFrom(
      '__proto__',
      '%00',
      '%ff',
      '%',
      '%E0%A4%A',
      '..',
      '%2e%2e%2f',
      'a'.repeat(5000),
      'root',
      'endpoint%3Ax',
    ),
  );
  const known = fc
    .tuple(fc.constantFrom(...doorways), id, anyMethod, fc.nat(5))
    .map(([way, text, other, luck]) => ({
      method: luck === 0 ? other : way.method,
      path: way.path.replace(/(\*\*)?:id/, () => text),
    }));
  const unknown = fc
    .tuple(
      fc.constantFrom('/', '/api/', '/v1/', '//', '/%61pi/', '/api/../', 'http://x/api/'),
      targetText,
      anyMethod,
    )
    .map(([before, after, method]) => ({ method, path: before + after }));
  const parameter = fc.oneof(
    fc.constantFrom(
      'page=1',
      'page=-1',
      'page=99999999999999999999',
      'per_page=',
      'limit=1e9',
      'offset=%00',
      'before=%ff',
      'model=*',
      `model=${'*'.repeat(500)}`,
      'status=__proto__',
      'start_time=9999999999999999',
      'time_from=-271821-04-20',
      'from=2026-13',
      'force=maybe',
      'days=NaN',
      'type=constructor',
      'actor=%F0%9F',
    ),
    targetText,
  );
  const query = fc
    .array(parameter, { maxLength: 3 })
    .map((list) => (list.length === 0 ? '' : `?${list.join('&')}`));
  return fc
    .tuple(fc.oneof({ weight: 4, arbitrary: known }, unknown), query)
    .map(([{ method, path }, after]) => ({ method, target: path + after }));
}

function headersOf(secrets: string[], origin: string): fc.Arbitrary<OutgoingHttpHeaders> {
  const secret = fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...secrets) }, headerText);
  const address = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    headerText,
    fc.constantFrom('::', ',,,', '[::1]:9', 'fe80::1%eth0', '1.2.3.4, x'),
  );
  const often = {
    authorization: fc.oneof(
      { weight: 8, arbitrary: secret.map((text) => `Bearer ${text}`) },
      secret.map((text) => `bearer   ${text} `),
      fc.constantFrom('Bearer', 'Bearer ', 'Basic Og==', 'Basic', ''),
      headerText,
    ),
    'x-api-key': fc.oneof(secret, fc.array(headerText, { minLength: 2, maxLength: 2 })),
    cookie: fc.oneof(
      secret.map((text) => `troupe_session=${text}`),
      secret.map((text) => `a=b; troupe_session = ${text}; troupe_session=x`),
      fc.constantFrom('troupe_session', 'troupe_session=', ';;;=', '=troupe_session'),
      headerText,
    ),
    origin: fc.oneof(fc.constantFrom(origin, 'null', 'http://evil.example', ''), headerText),
    'x-csrf-token': fc.oneof(fc.constantFrom(...secrets), headerText),
    'x-forwarded-for': fc.oneof(
      address,
      fc.array(address, { maxLength: 5 }).map((list) => list.join(', ')),
    ),
    'x-forwarded-proto': fc.oneof(fc.constantFrom('https', 'http', 'HTTPS,http', ','), headerText),
    'x-forwarded-host': headerText,
    'x-request-id': headerText,
    host: fc.oneof(
      fc.constantFrom(
        'localhost',
        'x',
        '[',
        ':',
        'a b',
        'evil.example:99999',
        'x:65536',
        '127.0.0.1:0',
        '',
        '\u00ff',
        '@',
        '/',
        '%00',
        'x#y?z',
      ),
      headerText,
    ),
    'content-type': fc.oneof(
      { weight: 12, arbitrary: fc.constant('application/json') },
      fc.constantFrom(
        'text/plain',
        'multipart/form-data; boundary=x',
        'application/x+json; charset=utf-7',
        ';',
        '',
      ),
      headerText,
    ),
  };
  /** Each of them alone makes Node or h3 look no further. */
  const seldom = {
    'content-encoding': fc.constantFrom('gzip', 'identity', 'br'),
    expect: fc.constantFrom('100-continue', '100-Continue', '100-continue', 'more'),
    connection: fc.constantFrom('keep-alive', 'close', 'authorization', 'x-api-key, close'),
    range: fc.constant('bytes=0-'),
    'access-control-request-method': fc.constantFrom('POST', ''),
  };
  return fc
    .record({ ...rarely(often, 1), ...rarely(seldom, 8) })
    .map((headers) =>
      Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== null)),
    ) as fc.Arbitrary<OutgoingHttpHeaders>;
}

/** Each one is there once for so many times that it is null. */
function rarely<T extends Record<string, fc.Arbitrary<unknown>>>(all: T, times: number) {
  const entries = Object.entries(all).map(([name, value]) => [
    name,
    fc.oneof({ weight: times, arbitrary: fc.constant(null) }, value),
  ]);
  return Object.fromEntries(entries) as Record<string, fc.Arbitrary<unknown>>;
}

/** One request on a kept connection; one that was closed while it was idle is no answer, and asked once more. */
async function send(server: LocalServer, agent: Agent, sent: Sent, mayRetry = true): Promise<Got> {
  const { hostname, port } = new URL(server.url);
  const { method, target, headers, body: bytes } = sent;
  const length = bytes === null ? {} : { 'content-length': String(bytes.length) };
  const asked = request({ hostname, port, method, path: target, agent, headers: { ...headers, ...length } });
  try {
    return await new Promise<Got>((resolve, reject) => {
      asked.setTimeout(ANSWER_MS, () => reject(new Error('no answer')));
      asked.on('error', reject);
      asked.on('response', (response) => {
        const type = String(response.headers['content-type'] ?? '');
        let text = '';
        const done = () => resolve({ status: response.statusCode ?? 0, type, body: text });
        response.setEncoding('utf8');
        response.on('data', (chunk) => {
          text += chunk;
          // A stream of events has no end.
          if (type.startsWith('text/event-stream')) asked.destroy();
        });
        response.on('close', done);
      });
      if (bytes === null) asked.end();
      else asked.end(bytes);
    });
  } catch (error) {
    asked.destroy();
    const { code } = error as NodeJS.ErrnoException;
    if (mayRetry && asked.reusedSocket && (code === 'ECONNRESET' || code === 'EPIPE')) {
      return send(server, new Agent({ keepAlive: false }), sent, false);
    }
    throw error;
  }
}

function judge(sent: Sent, { status, type, body: text }: Got): void {
  if (status < 200 || status >= 500) fail(sent, `${status} ${text}`);
  if (sent.method === 'HEAD' || !type.startsWith('application/json')) return;
  try {
    JSON.parse(text);
  } catch {
    fail(sent, `${status}, not JSON: ${text}`);
  }
}

/** Names the one request of its batch. */
function fail(sent: Sent, what: string): never {
  const told = { ...sent, body: sent.body?.toString('latin1') ?? null };
  throw new Error(`${what.slice(0, 500)}\nto ${JSON.stringify(told).slice(0, 2000)}`);
}

/** What is on the wire as text of one byte a character. */
function wires(doorways: Doorway[]): fc.Arbitrary<string> {
  const noise = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1'));
  const valid = fc
    .tuple(targets(doorways), object)
    .map(
      ([{ method, target }, text]) =>
        `${method} ${target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TEST_KEY}\r\ncontent-type: application/json\r\n` +
        `content-length: ${Buffer.byteLength(text)}\r\n\r\n${Buffer.from(text).toString('latin1')}`,
    );
  const spoilt = fc
    .tuple(valid, fc.array(fc.tuple(fc.nat(300), fc.nat(10), noise), { minLength: 1, maxLength: 4 }))
    .map(([text, cuts]) =>
      cuts.reduce((left, [at, gone, put]) => left.slice(0, at) + put + left.slice(at + gone), text),
    );
  const line = fc.oneof(
    fc.constantFrom(
      'host: x',
      'host:',
      'host: x\r\nhost: y',
      'content-length: 5',
      'content-length: -1',
      'content-length: 5\r\ncontent-length: 6',
      'content-length: 99999999999999999999',
      'content-length: 0x5',
      'transfer-encoding: chunked',
      'transfer-encoding: chunked, identity',
      'transfer-encoding : chunked',
      'transfer-encoding: xchunked',
      ' folded: x',
      'a:b\r\n\tc',
      'no colon',
      ': no name',
      'n\u0000l: x',
      'expect: 100-continue',
      'connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__',
      `authorization: Bearer ${TEST_KEY}`,
      `authorization: Bearer ${TEST_KEY}\r\nauthorization: Bearer y`,
      'authorization: Bearer \u0000',
      `x: ${'y'.repeat(20_000)}`,
      Array.from({ length: 2100 }, (_, i) => `h${i}: x`).join('\r\n'),
    ),
    noise,
  );
  const made = fc
    .tuple(
      fc.oneof(
        fc.constantFrom(
          'GET /api/users HTTP/1.1',
          'POST /v1/chat/completions HTTP/1.1',
          'GET /api/users HTTP/1.0',
          'GET /api/users',
          'GET  /api/users  HTTP/1.1',
          'GET /api/users HTTP/9.9',
          'get /health HTTP/1.1',
          'PRI * HTTP/2.0',
          'OPTIONS * HTTP/1.1',
          'CONNECT localhost:1 HTTP/1.1',
          `GET /${'a'.repeat(40_000)} HTTP/1.1`,
          '',
        ),
        noise,
      ),
      fc.array(line, { maxLength: 6 }),
      fc.oneof(
        fc.constantFrom(
          '',
          'hello',
          '5\r\nhello\r\n0\r\n\r\n',
          'z\r\n',
          '-1\r\n',
          'ffffffffffffffff\r\n',
          '5;a="\r\nhello\r\n0\r\n\r\n',
        ),
        noise,
      ),
    )
    .map(([first, lines, rest]) => `${[first, ...lines].join('\r\n')}\r\n\r\n${rest}`);
  const pipelined = fc.array(valid, { minLength: 2, maxLength: 5 }).map((list) => list.join(''));
  return fc.oneof(noise, { weight: 2, arbitrary: spoilt }, { weight: 3, arbitrary: made }, pipelined);
}

/** Writes it, says that this was all, and waits for the end. */
function write(server: LocalServer, text: string): Promise<string> {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port) });
    let got = '';
    socket.setEncoding('latin1');
    socket.setTimeout(ANSWER_MS, () => {
      socket.destroy();
      reject(new Error('the connection was neither answered nor closed'));
    });
    socket.on('data', (chunk) => {
      got += chunk;
      if (got.includes('text/event-stream')) socket.destroy();
    });
    // A connection that is refused in the middle of what is sent may be reset.
    socket.on('error', () => {});
    socket.on('close', () => resolve(got));
    socket.end(Buffer.from(text, 'latin1'));
  });
}

test('nothing that is sent makes the server fail, answer nonsense, stop or grow', async () => {
  const admin = { username: 'admin', password: 'the password of the fuzz' };
  const server = await startLocal({
    args: ['--trust-proxy', 'loopback'],
    env: { TROUPE_ADMIN_USERNAME: admin.username, TROUPE_ADMIN_PASSWORD: admin.password },
  });
  const session = (await server.send('POST', '/api/auth/login', admin)).json;
  const viewer = (await server.send('POST', '/api/users', { username: 'viewer', role: 'viewer' })).json;
  const viewing = (
    await server.send('POST', '/api/auth/login', { username: 'viewer', password: viewer.generated_password })
  ).json;
  const key = (await server.send('POST', '/api/api-keys', { name: 'of the fuzz' })).json;
  const limited = (
    await server.send('POST', '/api/api-keys', {
      name: 'limited',
      models: ['a*', '?'],
      rate_limit: { requests_per_minute: 5, tokens_per_minute: 5, concurrent: 1 },
    })
  ).json;
  const secrets = [TEST_KEY, session.token, session.csrf_token, viewing.token, key.key, limited.key];
  const { doorways } = server.server;
  const agent = new Agent({ keepAlive: true, maxSockets: BATCH });
  onTestFinished(() => agent.destroy());

  const statuses = new Map<number, number>();
  let cases = 0;
  const one = fc
    .record({ where: targets(doorways), headers: headersOf(secrets, server.url), body })
    .map(({ where, ...rest }): Sent => ({ ...where, ...rest }));
  const requests = fc.asyncProperty(fc.array(one, { minLength: BATCH, maxLength: BATCH }), async (batch) => {
    await Promise.all(
      batch.map(async (sent) => {
        const got = await send(server, agent, sent).catch((error: Error) => fail(sent, error.message));
        judge(sent, got);
        cases += 1;
        statuses.set(got.status, (statuses.get(got.status) ?? 0) + 1);
      }),
    );
  });
  await hold(requests, SEED, WARM_UP_RUNS);
  const before = await heapUsed();
  await hold(requests, SEED + 1, RUNS);

  let answered = 0;
  const bytes = fc.asyncProperty(
    fc.array(wires(doorways), { minLength: WIRE_BATCH, maxLength: WIRE_BATCH }),
    async (batch) => {
      const answers = await Promise.all(batch.map((text) => write(server, text)));
      for (const text of answers) {
        cases += 1;
        if (text === '') continue;
        answered += 1;
        expect(text).toMatch(/^HTTP\/1\.1 [1-4]\d\d /);
        expect(text).not.toMatch(/\r\nHTTP\/1\.1 5/);
      }
    },
  );
  await hold(bytes, SEED, WIRE_RUNS);
  agent.destroy();
  // What the last connections took is let go of seconds after them.
  const growth = async () => (await heapUsed()) - before;
  await expect.poll(growth, { timeout: 30_000, interval: 250 }).toBeLessThan(MOST_GROWTH);

  // Shrinking aside nothing was left out, and what was sent came past the door in every way there is.
  expect(cases).toBe((WARM_UP_RUNS + RUNS) * BATCH + WIRE_RUNS * WIRE_BATCH);
  for (const status of [200, 204, 400, 401, 403, 404, 405, 415, 429]) {
    expect([status, statuses.get(status) ?? 0]).toEqual([
      status,
      expect.toSatisfy((count: number) => count > 0),
    ]);
  }
  expect(answered).toBeGreaterThan((WIRE_RUNS * WIRE_BATCH) / 2);
  expect((await server.get('/ready')).json).toMatchObject({ status: 'ready', degraded: false });
  expect((await server.get('/api/users')).json.users[0].username).toBe('admin');
  expect((await server.send('POST', '/api/auth/login', admin)).status).toBe(200);
  expect((await server.get('/api/endpoints')).json.total).toBe(0);
  expect(Object.keys(Object.prototype)).toEqual([]);
}, 240_000);

/** As `fc.assert`, without 100 kB of the requests that stood beside the one that the message names. */
async function hold<T>(law: fc.IAsyncPropertyWithHooks<T>, seed: number, numRuns: number): Promise<void> {
  const { failed, counterexamplePath, errorInstance } = await fc.check(law, {
    seed,
    numRuns,
    endOnFailure: true,
  });
  if (!failed) return;
  const what = errorInstance instanceof Error ? errorInstance.message : String(errorInstance);
  throw new Error(`{ seed: ${seed}, path: ${counterexamplePath} }: ${what}`, { cause: errorInstance });
}

async function heapUsed(): Promise<number> {
  return (await memoryInUse(5, 20)).heapUsed;
}
