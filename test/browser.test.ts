import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { ConfigError, readConfig } from '../src/config.js';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import { chatBody, type RawReply, rawRequest, replyTo, startRequest } from './support/clients.js';
import { engine, type LocalServer, startLocal, until } from './support/server.js';

const CHAT = '/v1/chat/completions';
const MODEL = 'sim-small';
const APP = 'https://app.example';
const NOBODY = { authorization: '' };

interface Serving extends LocalServer {
  box: SimulatedEngine;
}

async function serving(origins?: string): Promise<Serving> {
  const box = await engine();
  const server = await startLocal({
    env: {
      TROUPE_HEALTH_INTERVAL_MS: '60000',
      ...(origins === undefined ? {} : { TROUPE_CORS_ORIGINS: origins }),
    },
  });
  await server.register('box', box.url);
  return { ...server, box };
}

/** A request as a browser sends it: fetch would leave `origin` out. */
async function ask(
  { url }: LocalServer,
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: string,
): Promise<RawReply> {
  const reply = await rawRequest(url, path, { method, headers, ...(body === undefined ? {} : { body }) });
  await reply.whole;
  return reply;
}

function preflight(server: LocalServer, path: string, origin = APP, wanted = 'authorization, content-type') {
  const headers = {
    ...NOBODY,
    origin,
    'access-control-request-method': 'POST',
    'access-control-request-headers': wanted,
  };
  return ask(server, 'OPTIONS', path, headers);
}

const corsHeaders = ({ headers }: RawReply) =>
  Object.keys(headers).filter((name) => name.startsWith('access-control-'));

const keyed = (headers: Record<string, string>) => ({ 'x-api-key': 'the-key-of-the-tests', ...headers });

// What every browser is told.

function directives(reply: RawReply): Map<string, string[]> {
  const policy = reply.headers['content-security-policy'];
  expect(policy).toBeTypeOf('string');
  return new Map(
    String(policy)
      .split(';')
      .map((part) => part.trim().split(/ +/))
      .map(([name = '', ...sources]) => [name, sources]),
  );
}

test('every answer of ours has the headers that keep pages of others out and scripts of others from running', async () => {
  const server = await serving();
  const viewerKey = (await server.send('POST', '/api/api-keys', { name: 'k', permissions: ['metrics.read'] }))
    .json.key;
  const weak = { authorization: `Bearer ${viewerKey}` };
  const chat = chatBody(MODEL);
  const asked: [number, string, string, Record<string, string>, string?][] = [
    [200, 'GET', '/health', NOBODY],
    [200, 'GET', '/ready', NOBODY],
    [200, 'GET', '/api/version', NOBODY],
    [200, 'GET', '/api/endpoints', {}],
    [200, 'HEAD', '/api/endpoints', {}],
    [200, 'GET', '/api/dashboard/keys/usage.csv', {}],
    [200, 'GET', '/v1/models', {}],
    [400, 'POST', '/api/users', {}, '{'],
    [400, 'POST', CHAT, {}, '{'],
    [401, 'GET', '/api/endpoints', NOBODY],
    [401, 'GET', '/api/nowhere', NOBODY],
    [401, 'POST', '/api/auth/login', NOBODY, '{"username":"x","password":"y"}'],
    [401, 'POST', CHAT, NOBODY, chat],
    [403, 'GET', '/api/users', weak],
    [403, 'POST', CHAT, weak, chat],
    [404, 'GET', '/api/nowhere', {}],
    [404, 'GET', '/nowhere', {}],
    [404, 'GET', '/v1/nowhere', {}],
    [404, 'POST', CHAT, {}, chatBody('nowhere')],
    [405, 'DELETE', '/api/endpoints', {}],
  ];
  for (const [status, method, path, headers, body] of asked) {
    const reply = await ask(server, method, path, headers, body);
    const where = `${method} ${path} ${reply.status}`;
    expect(where).toBe(`${method} ${path} ${status}`);
    expect(reply.headers, where).toMatchObject({
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
    });
    expect(corsHeaders(reply), where).toEqual([]);
    const policy = directives(reply);
    expect(policy.get('default-src'), where).toEqual(["'none'"]);
    expect(policy.get('frame-ancestors'), where).toEqual(["'none'"]);
    expect(policy.get('base-uri'), where).toEqual(["'none'"]);
    for (const sources of policy.values()) {
      for (const source of sources)
        expect([where, source]).not.toEqual([where, expect.stringContaining('*')]);
    }
    const scripts = policy.get('script-src') ?? policy.get('default-src') ?? [];
    for (const source of scripts) expect(["'self'", "'none'"], where).toContain(source);
    for (const name of ['script-src-elem', 'script-src-attr']) expect(policy.has(name), where).toBe(false);
  }
});

test('the event stream has them as well', async () => {
  const server = await serving();
  const events = await rawRequest(server.url, '/api/dashboard/events');
  await until(() => events.bytes().length > 0, 5000, 'the snapshot');
  expect(events.headers['content-type']).toContain('text/event-stream');
  expect(directives(events).get('default-src')).toEqual(["'none'"]);
  expect(events.headers['x-content-type-options']).toBe('nosniff');
  events.leave();
});

// Pages of others.

test('no page of another origin may read anything unless it is told', async () => {
  const server = await serving();
  for (const path of [CHAT, '/v1/models', '/v1/nowhere', '/api/endpoints']) {
    const reply = await preflight(server, path);
    expect([path, reply.status, corsHeaders(reply)]).toEqual([path, 401, []]);
  }
  for (const [method, path, body] of [
    ['GET', '/v1/models'],
    ['POST', CHAT, chatBody(MODEL)],
    ['POST', CHAT, chatBody(MODEL, { stream: true })],
    ['GET', '/api/endpoints'],
  ] as const) {
    const reply = await ask(server, method, path, keyed({ origin: APP }), body);
    expect([path, reply.status, corsHeaders(reply)]).toEqual([path, 200, []]);
  }
});

/** An engine that would let pages of every origin read its answers. */
async function generous(): Promise<string> {
  const upstream = createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      const stream = request.url !== '/v1/models' && request.headers['x-stream'] === '1';
      response.writeHead(request.url === '/v1/embeddings' ? 400 : 200, {
        'content-type': stream ? 'text/event-stream' : 'application/json',
        'access-control-allow-origin': '*',
        'access-control-allow-credentials': 'true',
        'access-control-expose-headers': '*',
        'x-of-the-engine': 'yes',
      });
      const choices = [{ index: 0, delta: { content: 'x' }, finish_reason: 'stop' }];
      if (stream) response.end(`data: ${JSON.stringify({ choices })}\n\ndata: [DONE]\n\n`);
      else response.end(JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model' }], choices }));
    });
  });
  upstream.listen(0, '127.0.0.1');
  await new Promise((resolve) => upstream.once('listening', resolve));
  onTestFinished(() => {
    upstream.closeAllConnections();
    upstream.close();
  });
  return `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
}

test.each([
  [undefined, []],
  [APP, ['access-control-allow-origin', 'access-control-expose-headers']],
])('what an endpoint says of other origins is not passed on (allowed here: %s)', async (origins, allowed) => {
  const server = await startLocal({ env: origins === undefined ? {} : { TROUPE_CORS_ORIGINS: origins } });
  await server.register('box', await generous());
  for (const [path, stream] of [
    [CHAT, false],
    [CHAT, true],
    ['/v1/embeddings', false],
  ] as const) {
    const headers = keyed({ origin: APP, ...(stream ? { 'x-stream': '1' } : {}) });
    const body = chatBody(MODEL, { stream });
    const reply = await ask(server, 'POST', path, headers, body);
    expect(reply.headers['x-of-the-engine']).toBe('yes');
    expect([path, corsHeaders(reply).sort()]).toEqual([path, allowed]);
    if (origins !== undefined) expect(reply.headers['access-control-allow-origin']).toBe(APP);
  }
});

test('a page of an allowed origin may ask for inference and read the models, with the headers it wants to send', async () => {
  const server = await serving(`${APP}, http://localhost:3000`);
  for (const origin of [APP, 'http://localhost:3000']) {
    for (const path of [CHAT, '/v1/models', '/v1/embeddings']) {
      const reply = await preflight(server, path, origin);
      expect([path, reply.status, reply.text()]).toEqual([path, 204, '']);
      expect(reply.headers['access-control-allow-origin']).toBe(origin);
      expect(reply.headers['access-control-allow-methods']).toMatch(/\bPOST\b/);
      expect(reply.headers['access-control-allow-methods']).toMatch(/\bGET\b/);
      expect(reply.headers['access-control-allow-headers']).toBe('authorization, content-type');
      expect(reply.headers.vary).toContain('Origin');
      // Cookies are of no use there.
      expect(reply.headers).not.toHaveProperty('access-control-allow-credentials');
    }
  }
  const odd = await preflight(server, CHAT, APP, 'x-a, <script>');
  expect(odd.headers).not.toHaveProperty('access-control-allow-headers');
});

const READABLE = { 'access-control-allow-origin': APP, vary: 'Origin' };

test('it may read every answer below /v1: JSON, streams and errors', async () => {
  const server = await serving(APP);
  const { box } = server;
  const asked: [number, string, string, Record<string, string>, string?][] = [
    [200, 'GET', '/v1/models', keyed({})],
    [200, 'GET', `/v1/models/${MODEL}`, keyed({})],
    [200, 'POST', CHAT, keyed({}), chatBody(MODEL)],
    [200, 'POST', CHAT, keyed({}), chatBody(MODEL, { stream: true })],
    [401, 'POST', CHAT, NOBODY, chatBody(MODEL)],
    [401, 'GET', '/v1/models', { authorization: 'Bearer sk_wrong' }],
    [404, 'POST', CHAT, keyed({}), chatBody('nowhere')],
    [404, 'GET', '/v1/nowhere', keyed({})],
    [400, 'POST', CHAT, keyed({}), '{'],
    [405, 'DELETE', '/v1/models', keyed({})],
  ];
  for (const [status, method, path, headers, body] of asked) {
    const reply = await ask(server, method, path, { ...headers, origin: APP }, body);
    expect([method, path, reply.status]).toEqual([method, path, status]);
    expect(reply.headers, `${method} ${path} ${status}`).toMatchObject(READABLE);
    const exposed = String(reply.headers['access-control-expose-headers']).split(', ');
    expect(exposed).toEqual(expect.arrayContaining(['x-request-id', 'retry-after']));
  }
  box.faults.always = { kind: 'refuse' };
  const broken = await ask(server, 'POST', CHAT, keyed({ origin: APP }), chatBody(MODEL));
  expect(broken.status).toBe(502);
  expect(broken.headers).toMatchObject(READABLE);
  for (const bytes of box.requests) expect(bytes.headers).not.toHaveProperty('origin');
});

test('a limit that is reached can be read, and when to come back', async () => {
  const server = await serving(APP);
  const { key } = (
    await server.send('POST', '/api/api-keys', { name: 'k', rate_limit: { requests_per_minute: 1 } })
  ).json;
  const chat = () =>
    ask(server, 'POST', CHAT, { authorization: `Bearer ${key}`, origin: APP }, chatBody(MODEL));
  const replies = [await chat(), await chat()];
  expect(replies.map(({ status }) => status)).toEqual([200, 429]);
  for (const { headers } of replies) {
    expect(headers).toMatchObject(READABLE);
    expect(String(headers['access-control-expose-headers']).split(', ')).toEqual(
      expect.arrayContaining(['retry-after', 'x-ratelimit-remaining-requests']),
    );
  }
});

test.each([
  'https://app.example.evil.example',
  'https://evil.example',
  'http://app.example',
  'https://app.example:8443',
  'https://sub.app.example',
  'null',
])('a page of %s may not read what one of another origin may', async (origin) => {
  const server = await serving(APP);
  const refused = await preflight(server, CHAT, origin);
  expect([refused.status, corsHeaders(refused)]).toEqual([401, []]);
  const reply = await ask(server, 'POST', CHAT, keyed({ origin }), chatBody(MODEL));
  expect([reply.status, corsHeaders(reply)]).toEqual([200, []]);
});

test.each([APP, '*'])(
  'whatever origins are allowed (%s), nothing below /api can be read by them',
  async (origins) => {
    const server = await serving(origins);
    for (const path of ['/api/endpoints', '/api/auth/login', '/api/nowhere', '/health', '/']) {
      const refused = await preflight(server, path);
      expect([path, corsHeaders(refused)]).toEqual([path, []]);
      const reply = await ask(server, 'GET', path, keyed({ origin: APP }));
      expect([path, corsHeaders(reply)]).toEqual([path, []]);
    }
    const login = await ask(
      server,
      'POST',
      '/api/auth/login',
      { origin: APP },
      '{"username":"admin","password":"wrong"}',
    );
    expect([login.status, corsHeaders(login)]).toEqual([401, []]);
  },
);

test('an asterisk allows pages of every origin, each by its name', async () => {
  const server = await serving('*');
  for (const origin of [APP, 'http://other.example:81', 'null']) {
    expect((await preflight(server, CHAT, origin)).status).toBe(204);
    const reply = await ask(server, 'POST', CHAT, keyed({ origin }), chatBody(MODEL));
    expect([reply.status, reply.headers['access-control-allow-origin']]).toEqual([200, origin]);
    expect(reply.headers).not.toHaveProperty('access-control-allow-credentials');
  }
  const plain = await ask(server, 'GET', '/v1/models', keyed({}));
  expect(corsHeaders(plain)).toEqual([]);
});

test('an OPTIONS that is no preflight needs a key like everything else', async () => {
  const server = await serving(APP);
  const reply = await ask(server, 'OPTIONS', CHAT, { ...NOBODY, origin: APP });
  expect(reply.status).toBe(401);
});

test('a page that comes with an early head of a stream may read it', async () => {
  const server = await serving(APP);
  server.box.faults.next.push({ kind: 'slow_head', ms: 11_500 });
  const sent = startRequest(server.url, CHAT, {
    headers: keyed({ origin: APP }),
    body: chatBody(MODEL, { stream: true }),
  });
  const reply = await replyTo(sent);
  expect(reply.status).toBe(200);
  expect(reply.headers).toMatchObject(READABLE);
  expect(await reply.whole).toBe(true);
  expect(reply.text()).toMatch(/^: /);
});

test.each([
  'app.example',
  'https://app.example/path',
  'ftp://app.example',
  'https://user@app.example',
  'https://*.example',
])('an origin such as %s is an error that names it', (origin) => {
  const read = () => readConfig([], { TROUPE_CORS_ORIGINS: `${APP},${origin}` });
  expect(read).toThrow(ConfigError);
  expect(read).toThrow(`TROUPE_CORS_ORIGINS ${JSON.stringify(origin)}`);
});
