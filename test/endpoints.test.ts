import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { dial, openStream, payloads, rawRequest } from './support/clients.js';
import {
  type Api,
  engine,
  pause,
  type Reply,
  spawnServer,
  startLocal,
  TEST_KEY,
  until,
} from './support/server.js';
import * as shapes from './support/shapes.js';

const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000', TROUPE_HEALTH_TIMEOUT_MS: '1000' };

/** A server that is no inference engine, or a strange one. */
async function webServer(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function closedPort(): Promise<string> {
  const box = await engine();
  await box.stop();
  return box.url;
}

function post(api: Api, body: unknown): Promise<Reply> {
  return api.send('POST', '/api/endpoints', body);
}

async function statusOf(api: Api, id: string): Promise<string> {
  return (await api.get(`/api/endpoints/${id}`)).json.status;
}

function expectError(reply: Reply, status: number, code: string, word = ''): void {
  expect([reply.status, reply.json?.error?.code]).toEqual([status, code]);
  expect(reply.json).toEqual(expect.schemaMatching(shapes.apiError));
  expect(reply.json.error.message).toContain(word);
}

// Registering.

test('an engine that answers is registered online with its models', async () => {
  const box = await engine({ models: ['a', 'b/c'] });
  const server = await startLocal({ env: { ...QUIET, TROUPE_HEALTH_INTERVAL_MS: '12345' } });
  const reply = await post(server, { name: 'box', base_url: `${box.url}/v1/` });
  expect(reply.status).toBe(201);
  const { models, deadlines, tls_ca, ...endpoint } = reply.json;
  expect([deadlines, tls_ca]).toEqual([{}, null]);
  expect(endpoint).toEqual(expect.schemaMatching(shapes.endpoint));
  expect(models).toEqual(expect.schemaMatching(shapes.endpointModel.array()));
  expect(endpoint).toMatchObject({
    name: 'box',
    base_url: box.url,
    status: 'online',
    endpoint_type: 'openai_compatible',
    health_check_interval_secs: 12.345,
    inference_timeout_secs: 0,
    last_error: null,
    error_count: 0,
    notes: null,
    model_count: 2,
  });
  expect(endpoint.latency_ms).toBeGreaterThanOrEqual(0);
  expect(endpoint.last_seen).not.toBeNull();
  expect((await server.get(`/api/endpoints/${endpoint.id}`)).json).toEqual(reply.json);
  expect((await server.chat('b/c')).status).toBe(200);
});

test('every field that can be set is kept, and those that are secret are never shown', async () => {
  const box = await engine({ apiKey: 'top-secret-key' });
  const server = await startLocal({ env: QUIET });
  const reply = await post(server, {
    name: ' box ',
    base_url: box.url,
    api_key: 'top-secret-key',
    headers: { 'x-tenant': 'top-secret-tenant' },
    health_check_interval_secs: 77.5,
    inference_timeout_secs: 30,
    notes: 'rack 4',
  });
  expect(reply.status).toBe(201);
  expect(reply.json).toMatchObject({
    status: 'online',
    health_check_interval_secs: 77.5,
    inference_timeout_secs: 30,
    notes: 'rack 4',
  });
  const { id } = reply.json;
  await server.chat('sim-small');
  box.faults.next.push({ kind: 'reset' }, { kind: 'reset' });
  const replies = [
    reply,
    await server.chat('sim-small'),
    await server.send('PUT', `/api/endpoints/${id}`, { notes: 'rack 5' }),
    await server.send('POST', `/api/endpoints/${id}/test`),
    await server.send('POST', `/api/endpoints/${id}/sync`),
  ];
  for (const path of [
    'endpoints',
    `endpoints/${id}`,
    'dashboard/overview',
    'dashboard/actors',
    'dashboard/request-responses',
  ]) {
    replies.push(await server.get(`/api/${path}`));
  }
  for (const { text } of replies) expect(text).not.toMatch(/top-secret|api_key/);
  const seen = box.requests.filter(({ method }) => method === 'POST').at(0)?.headers;
  expect(seen).toMatchObject({ authorization: 'Bearer top-secret-key', 'x-tenant': 'top-secret-tenant' });
});

test('an endpoint nobody answers at is registered offline', async () => {
  const server = await startLocal({ env: QUIET });
  const reply = await post(server, { name: 'box', base_url: await closedPort() });
  expect([reply.status, reply.json.status]).toEqual([201, 'offline']);
  expect(reply.json).toMatchObject({
    latency_ms: null,
    last_seen: null,
    error_count: 1,
    model_count: 0,
    models: [],
  });
  expect(reply.json.last_error).toEqual(expect.any(String));
});

test.each([500, 503])('an endpoint that answers %s is registered offline', async (status) => {
  const url = await webServer((_req, res) => res.writeHead(status).end());
  const server = await startLocal({ env: QUIET });
  const reply = await post(server, { name: 'box', base_url: url });
  expect([reply.status, reply.json.status]).toEqual([201, 'offline']);
});

test('an endpoint that says nothing is registered offline once the check’s time is over', async () => {
  const box = await engine();
  box.faults.models = { kind: 'hang' };
  const server = await startLocal({ env: { ...QUIET, TROUPE_HEALTH_TIMEOUT_MS: '300' } });
  const reply = await post(server, { name: 'box', base_url: box.url });
  expect([reply.status, reply.json.status]).toEqual([201, 'offline']);
});

test.each([401, 403])(
  'an endpoint that refuses the key with %s is registered in error and says so',
  async (status) => {
    const url = await webServer((_req, res) => res.writeHead(status).end('{}'));
    const server = await startLocal({ env: QUIET });
    const reply = await post(server, { name: 'box', base_url: url, api_key: 'wrong' });
    expect([reply.status, reply.json.status]).toEqual([201, 'error']);
    expect(reply.json.last_error).toBe('the endpoint refused the key');
  },
);

test.each([
  ['a web page', (_req, res) => res.setHeader('content-type', 'text/html').end('<h1>It works</h1>')],
  ['404 everywhere', (_req, res) => res.writeHead(404).end('{}')],
  ['JSON that is no list', (_req, res) => res.end('{"hello":"world"}')],
] as [string, RequestListener][])(
  'something that answers with %s is 422 and nothing is stored',
  async (_what, answer) => {
    const server = await startLocal({ env: QUIET });
    const url = await webServer(answer);
    expectError(await post(server, { name: 'page', base_url: url }), 422, 'engine_not_recognised');
    expect((await server.get('/api/endpoints')).json).toEqual({ endpoints: [], total: 0 });
    // Neither name nor URL stay taken.
    expectError(await post(server, { name: 'page', base_url: url }), 422, 'engine_not_recognised');
  },
);

test.each([
  ['xllm'],
  ['ollama'],
  ['vllm'],
  ['lm_studio'],
  ['llamacpp'],
  ['sglang'],
  ['openai_compatible'],
] as const)('the engine %s is recognised by its own routes', async (type) => {
  const box = await engine({ engine: type });
  const server = await startLocal({ env: QUIET });
  expect((await server.register('box', box.url)).endpoint_type).toBe(type);
  expect((await server.get(`/api/endpoints?type=${type}`)).json.total).toBe(1);
  const other = type === 'ollama' ? 'vllm' : 'ollama';
  expect((await server.get(`/api/endpoints?type=${other}`)).json).toEqual({ endpoints: [], total: 0 });
});

test('a name or a URL is taken once, however the URL is written', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  await server.register('box', box.url);
  const { port } = new URL(box.url);
  expectError(await post(server, { name: 'box', base_url: await closedPort() }), 409, 'name_taken', 'box');
  for (const url of [box.url, `${box.url}/`, `${box.url}/v1`, `${box.url}/v1/`, `HTTP://127.0.0.1:${port}`]) {
    expectError(await post(server, { name: `other ${url}`, base_url: url }), 409, 'url_taken', 'box');
  }
  expect((await server.get('/api/endpoints')).json.total).toBe(1);
});

test('host case and default ports make no difference, other paths and schemes do', async () => {
  const server = await startLocal({ env: { ...QUIET, TROUPE_HEALTH_TIMEOUT_MS: '300' } });
  const first = await post(server, { name: 'one', base_url: 'http://LOCALHOST:80/v1' });
  expect([first.status, first.json.base_url]).toEqual([201, 'http://localhost']);
  for (const base_url of ['http://localhost', 'http://localhost:80/', 'http://LocalHost/v1']) {
    expectError(await post(server, { name: 'two', base_url }), 409, 'url_taken');
  }
  const secure = await post(server, { name: 'three', base_url: 'https://localhost:443/v1' });
  expect([secure.status, secure.json.base_url]).toEqual([201, 'https://localhost']);
  const path = await post(server, { name: 'four', base_url: 'http://localhost/engines/v1' });
  expect([path.status, path.json.base_url]).toEqual([201, 'http://localhost/engines']);
});

test('of two identical registrations at once one is 201 and one 409', async () => {
  const box = await engine({ healthDelayMs: 100 });
  const server = await startLocal({ env: QUIET });
  const replies = await Promise.all([1, 2].map(() => post(server, { name: 'box', base_url: box.url })));
  expect(replies.map(({ status }) => status).sort()).toEqual([201, 409]);
  expect((await server.get('/api/endpoints')).json.total).toBe(1);
});

test('an endpoint below a path is asked below that path', async () => {
  const paths: string[] = [];
  const url = await webServer((req, res) => {
    paths.push(`${req.method} ${req.url}`);
    req.resume();
    res.setHeader('content-type', 'application/json');
    if (req.url === '/llm/v1/models') res.end('{"object":"list","data":[{"id":"deep","object":"model"}]}');
    else if (req.method === 'POST') res.end('{"choices":[]}');
    else res.writeHead(404).end('{}');
  });
  const server = await startLocal({ env: QUIET });
  await server.register('deep', `${url}/llm/v1`);
  expect((await server.chat('deep')).status).toBe(200);
  expect(paths).toContain('POST /llm/v1/chat/completions');
});

// Bad input.

test.each([
  [{ base_url: 'http://127.0.0.1:9' }, 'name'],
  [{ name: '', base_url: 'http://127.0.0.1:9' }, 'name'],
  [{ name: '  ', base_url: 'http://127.0.0.1:9' }, 'name'],
  [{ name: 7, base_url: 'http://127.0.0.1:9' }, 'name'],
  [{ name: 'a\nb', base_url: 'http://127.0.0.1:9' }, 'name'],
  [{ name: 'x' }, 'base_url'],
  [{ name: 'x', base_url: 7 }, 'base_url'],
  [{ name: 'x', base_url: '' }, 'base_url'],
  [{ name: 'x', base_url: 'not a url' }, 'base_url'],
  [{ name: 'x', base_url: 'file:///etc/passwd' }, 'base_url'],
  [{ name: 'x', base_url: 'ftp://127.0.0.1/' }, 'base_url'],
  [{ name: 'x', base_url: 'http://' }, 'base_url'],
  [{ name: 'x', base_url: 'http://user:pass@127.0.0.1:9' }, 'base_url'],
  [{ name: 'x', base_url: 'http://user@127.0.0.1:9' }, 'base_url'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', api_key: 7 }, 'api_key'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', api_key: 'a\r\nb' }, 'api_key'],
  [
    { name: 'x', base_url: 'http://127.0.0.1:9', health_check_interval_secs: 0 },
    'health_check_interval_secs',
  ],
  [
    { name: 'x', base_url: 'http://127.0.0.1:9', health_check_interval_secs: '5' },
    'health_check_interval_secs',
  ],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', inference_timeout_secs: -1 }, 'inference_timeout_secs'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', inference_timeout_secs: 1.5 }, 'inference_timeout_secs'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', headers: ['a'] }, 'headers'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', headers: { a: 1 } }, 'headers'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', headers: { 'bad name': 'x' } }, 'headers'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', headers: { a: 'x\r\ny: z' } }, 'headers'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', notes: 7 }, 'notes'],
  [{ name: 'x', base_url: 'http://127.0.0.1:9', max_concurency: 3 }, 'max_concurency'],
  [[], 'body'],
  ['text', 'body'],
  [null, 'body'],
])('%o is a 400 that names %s, for a new endpoint and for an old one', async (input, field) => {
  const server = await startLocal({ env: QUIET });
  expectError(await post(server, input), 400, 'invalid_request', field);
  expect((await server.get('/api/endpoints')).json.total).toBe(0);
  const { id } = await server.register('old', await closedPort());
  const before = (await server.get(`/api/endpoints/${id}`)).json;
  const isPartial = Object.keys(input ?? {}).length < 2 && !Array.isArray(input);
  if (!isPartial || typeof input === 'string') {
    expectError(await server.send('PUT', `/api/endpoints/${id}`, input), 400, 'invalid_request', field);
  }
  expect((await server.get(`/api/endpoints/${id}`)).json).toEqual(before);
});

test.each(['GET', 'PUT', 'DELETE'])('%s of an unknown id is 404', async (method) => {
  const server = await startLocal({ env: QUIET });
  const body = method === 'PUT' ? { notes: 'x' } : undefined;
  const id = '00000000-0000-4000-8000-000000000000';
  expectError(await server.send(method, `/api/endpoints/${id}`, body), 404, 'not_found');
});

test.each([
  ['POST', 'test'],
  ['POST', 'sync'],
  ['POST', 'drain'],
  ['POST', 'resume'],
  ['GET', 'models'],
  ['GET', 'today-stats'],
  ['GET', 'daily-stats'],
  ['GET', 'model-stats'],
  ['GET', 'model-tps'],
])('%s …/%s of an unknown id is 404', async (method, action) => {
  const server = await startLocal({ env: QUIET });
  expectError(await server.send(method, `/api/endpoints/nobody/${action}`), 404, 'not_found');
});

test('malformed JSON is 400, a body that is not declared JSON 415, whatever the route makes of bodies', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  const ask = async (method: string, path: string, body: string, type?: string) => {
    const length = String(body.length);
    const headers = { 'content-type': type ?? 'application/json', 'content-length': length };
    const reply = await rawRequest(server.url, path, { method, body, headers });
    await reply.whole;
    return [reply.status, reply.json().error.code];
  };
  expect(await ask('POST', '/api/endpoints', '{"name":')).toEqual([400, 'invalid_json']);
  expect(await ask('PUT', `/api/endpoints/${id}`, '{')).toEqual([400, 'invalid_json']);
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
    for (const [method, path] of [
      ['POST', '/api/endpoints'],
      ['PUT', `/api/endpoints/${id}`],
      ['DELETE', `/api/endpoints/${id}`],
      ['POST', `/api/endpoints/${id}/drain`],
      ['POST', `/api/endpoints/${id}/chat/completions`],
      ['GET', '/api/dashboard/stats'],
      ['GET', '/api/dashboard/events'],
    ] as const) {
      expect([method, path, await ask(method, path, '{}', type)]).toEqual([
        method,
        path,
        [415, 'unsupported_media_type'],
      ]);
    }
  }
  expect((await server.get(`/api/endpoints/${id}`)).json.status).toBe('online');
  for (const type of ['application/json; charset=utf-8', 'APPLICATION/JSON']) {
    expect(
      (
        await rawRequest(server.url, `/api/endpoints/${id}`, {
          method: 'PUT',
          body: '{}',
          headers: { 'content-type': type },
        })
      ).status,
    ).toBe(200);
  }
});

test('a body without a content type is 415', async () => {
  const server = await startLocal({ env: QUIET });
  const wire = await dial(server.url);
  wire.socket.write(
    `POST /api/endpoints HTTP/1.1\r\nhost: localhost\r\nx-api-key: ${TEST_KEY}\r\ncontent-length: 2\r\n\r\n{}`,
  );
  await until(() => wire.received().includes('\r\n\r\n'));
  expect(wire.received()).toContain('HTTP/1.1 415');
});

test('a wrong method is 405 with the right ones in Allow', async () => {
  const server = await startLocal({ env: QUIET });
  for (const [method, path, allow] of [
    ['PATCH', '/api/endpoints', 'GET, POST'],
    ['DELETE', '/api/endpoints', 'GET, POST'],
    ['POST', '/api/endpoints/x', 'DELETE, GET, PUT'],
    ['GET', '/api/endpoints/x/drain', 'POST'],
    ['POST', '/api/version', 'GET'],
    ['POST', '/health', 'GET'],
    ['GET', '/v1/chat/completions', 'POST'],
    ['DELETE', '/v1/models', 'GET'],
  ] as const) {
    const reply = await server.send(method, path);
    const allowed = reply.headers.get('allow')?.split(/, */).sort().join(', ');
    expect([method, path, reply.status, allowed]).toEqual([method, path, 405, allow]);
  }
});

test('an unknown path is 404 in the shape of its protocol', async () => {
  const server = await startLocal({ env: QUIET });
  for (const path of ['/api/nothing', '/api/endpoints/x/nothing', '/nothing']) {
    expectError(await server.get(path), 404, 'not_found');
  }
  const openAi = await server.send('POST', '/v1/nothing', {});
  expect(openAi.status).toBe(404);
  expect(openAi.json).toEqual(expect.schemaMatching(shapes.openAiError));
  const anthropic = await server.send('POST', '/v1/messages', {}, { 'x-request-id': 'req-7' });
  expect(anthropic.status).toBe(404);
  expect(anthropic.json).toEqual({
    type: 'error',
    error: { type: 'not_found_error', message: expect.any(String) },
    request_id: 'req-7',
  });
});

// Changing.

test('an endpoint can be sent back as it was read, with a change', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  const { json } = await server.get(`/api/endpoints/${id}`);
  const reply = await server.send('PUT', `/api/endpoints/${id}`, { ...json, notes: 'rack 5' });
  expect([reply.status, reply.json]).toEqual([200, { ...json, notes: 'rack 5' }]);
  const [shown] = (await server.get('/api/dashboard/endpoints')).json;
  const again = await server.send('PUT', `/api/endpoints/${id}`, { ...shown, notes: 'rack 6' });
  expect([again.status, again.json.notes]).toEqual([200, 'rack 6']);
});

test('what clients of llmlb send beside the rest is passed over', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const more = { capabilities: ['chat_completion'], device_info: { device_type: 'gpu', gpu_devices: [] } };
  const reply = await server.send('POST', '/api/endpoints', { name: 'box', base_url: box.url, ...more });
  expect([reply.status, reply.json]).toEqual([201, expect.not.objectContaining(more)]);
});

test('PUT changes what it names and null clears', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const { id, ...before } = await server.register('box', box.url, {
    notes: 'old',
    health_check_interval_secs: 50,
    inference_timeout_secs: 9,
  });
  const put = async (change: object) => {
    const reply = await server.send('PUT', `/api/endpoints/${id}`, change);
    expect(reply.status).toBe(200);
    expect(reply.json).toEqual(expect.schemaMatching(shapes.endpointWithModels));
    return reply.json;
  };
  expect(await put({})).toEqual({ id, ...before });
  expect(await put({ name: 'renamed' })).toEqual({ id, ...before, name: 'renamed' });
  const cleared = await put({ notes: null, health_check_interval_secs: null, inference_timeout_secs: null });
  expect(cleared).toMatchObject({
    name: 'renamed',
    notes: null,
    health_check_interval_secs: 3600,
    inference_timeout_secs: 0,
  });
  expect(await put({ base_url: `${box.url}/v1/` })).toMatchObject({ base_url: box.url, status: 'online' });
  expectError(
    await server.send('PUT', `/api/endpoints/${id}`, { name: null }),
    400,
    'invalid_request',
    'name',
  );
  expectError(
    await server.send('PUT', `/api/endpoints/${id}`, { base_url: null }),
    400,
    'invalid_request',
    'base_url',
  );
  expect((await server.chat('sim-small')).headers.get('x-troupe-endpoint')).toBe('renamed');
});

test('PUT refuses a name or URL of another endpoint and changes nothing', async () => {
  const [one, two] = [await engine(), await engine()];
  const server = await startLocal({ env: QUIET });
  await server.register('one', one.url);
  const { id } = await server.register('two', two.url);
  expectError(
    await server.send('PUT', `/api/endpoints/${id}`, { name: 'one', notes: 'x' }),
    409,
    'name_taken',
  );
  expectError(
    await server.send('PUT', `/api/endpoints/${id}`, { base_url: `${one.url}/v1` }),
    409,
    'url_taken',
  );
  expect((await server.get(`/api/endpoints/${id}`)).json).toMatchObject({
    name: 'two',
    base_url: two.url,
    notes: null,
  });
});

test('a new key is used at once', async () => {
  const box = await engine({ apiKey: 'right' });
  const server = await startLocal({ env: { ...QUIET, TROUPE_HEALTH_INTERVAL_MS: '50' } });
  const { id } = await server.register('box', box.url, { api_key: 'wrong' });
  expect(await statusOf(server, id)).toBe('error');
  await server.send('PUT', `/api/endpoints/${id}`, { api_key: 'right' });
  await until(async () => (await statusOf(server, id)) === 'online');
  expect((await server.chat('sim-small')).status).toBe(200);
  await server.send('PUT', `/api/endpoints/${id}`, { api_key: null });
  await until(async () => (await statusOf(server, id)) === 'error');
});

test('a new URL keeps id and numbers, is pending, and is recognised anew; old connections finish', async () => {
  const before = await engine({ models: ['shared', 'old'], outputTokens: 6 });
  const after = await engine({ models: ['shared', 'new'], engine: 'vllm', healthDelayMs: 300 });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', before.url);
  await server.chat('shared');
  before.faults.next.push({ kind: 'stall', afterTokens: 2 });
  const stream = await openStream(server.url, 'shared');

  const changed = (await server.send('PUT', `/api/endpoints/${id}`, { base_url: after.url })).json;
  expect(changed).toMatchObject({ id, base_url: after.url, status: 'pending', error_count: 0 });
  expect((await server.chat('shared')).json.error.code).toBe('no_endpoint_available');
  await until(async () => (await statusOf(server, id)) === 'online');
  const found = (await server.get(`/api/endpoints/${id}`)).json;
  expect(found).toMatchObject({ id, endpoint_type: 'vllm', model_count: 2 });
  expect((await server.chat('new')).status).toBe(200);
  before.release();
  expect(await stream.whole).toBe(true);
  expect(payloads(stream.text()).at(-1)).toBe('[DONE]');
  const [numbers] = (await server.get('/api/dashboard/endpoints')).json;
  expect(numbers).toMatchObject({ id, total_requests: 3, successful_requests: 3, active_requests: 0 });
  expect((await server.chat('old')).status).toBe(404);
});

// Removing.

test('a removed endpoint is gone with its numbers; what runs there finishes and is written', async () => {
  const [box, other] = [await engine(), await engine({ models: ['else'] })];
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  const { id: kept } = await server.register('other', other.url);
  await server.chat('sim-small');
  await server.chat('else');
  box.faults.next.push({ kind: 'stall', afterTokens: 2 });
  const stream = await openStream(server.url, 'sim-small');
  const reply = await server.send('DELETE', `/api/endpoints/${id}`);
  expect([reply.status, reply.text]).toEqual([204, '']);
  expectError(await server.get(`/api/endpoints/${id}`), 404, 'not_found');
  const overview = (await server.get('/api/dashboard/overview')).json;
  expect(overview.endpoints.map((one: { id: string }) => one.id)).toEqual([kept]);
  expect(overview.stats).toMatchObject({ total_requests: 1, successful_requests: 1 });
  expect((await server.chat('sim-small')).status).toBe(404);
  box.release();
  expect(await stream.whole).toBe(true);
  expect(payloads(stream.text()).at(-1)).toBe('[DONE]');
  const [row] = (await server.get('/api/dashboard/request-responses')).json.records;
  expect(row).toMatchObject({ endpoint_id: id, endpoint_name: 'box', outcome: 'success', status_code: 200 });
  expect((await server.get('/api/dashboard/stats')).json.total_requests).toBe(1);
  await until(async () => !(await server.get('/api/dashboard/actors')).text.includes(id));
  expectError(await server.send('DELETE', `/api/endpoints/${id}`), 404, 'not_found');

  await server.server.stop();
  const second = await startLocal({ dataDir: server.dataDir, env: QUIET });
  expect((await second.get('/api/endpoints')).json.endpoints.map((one: { id: string }) => one.id)).toEqual([
    kept,
  ]);
  expect((await second.get('/api/dashboard/stats')).json.total_requests).toBe(1);
});

test('a removed name and URL are free again, and the new endpoint starts at zero', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const first = await server.register('box', box.url);
  await server.chat('sim-small', { stream: true });
  await server.send('DELETE', `/api/endpoints/${first.id}`);
  const second = await server.register('box', box.url);
  expect(second.id).not.toBe(first.id);
  expect((await server.get('/api/dashboard/endpoints')).json[0]).toMatchObject({
    id: second.id,
    total_requests: 0,
  });
  expect((await server.get(`/api/endpoints/${second.id}/model-tps`)).json).toEqual([]);
});

// Checks.

test('a test answers what one check found, and moves the status', async () => {
  const box = await engine({ models: ['a', 'b'] });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  const check = async () => {
    const reply = await server.send('POST', `/api/endpoints/${id}/test`);
    expect(reply.status).toBe(200);
    expect(reply.json).toEqual(expect.schemaMatching(shapes.testResult));
    return reply.json;
  };
  expect(await check()).toMatchObject({ success: true, error: null, models_found: ['a', 'b'] });
  await box.stop();
  expect(await check()).toMatchObject({ success: false, latency_ms: null, models_found: null });
  expect(await statusOf(server, id)).toBe('error');
  await check();
  expect(await statusOf(server, id)).toBe('offline');
  await box.restart();
  expect(await check()).toMatchObject({ success: true });
  expect(await statusOf(server, id)).toBe('online');
});

test('a sync says what was added, removed and updated', async () => {
  const box = await engine({ models: ['a', 'b'], engine: 'vllm' });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  const sync = async () => {
    const reply = await server.send('POST', `/api/endpoints/${id}/sync`);
    expect(reply.status).toBe(200);
    expect(reply.json).toEqual(expect.schemaMatching(shapes.syncResult));
    const { synced_models, ...rest } = reply.json;
    return [synced_models.map((model: { model_id: string }) => model.model_id), rest];
  };
  expect(await sync()).toEqual([['a', 'b'], { added: 0, removed: 0, updated: 0 }]);
  box.options.models = ['b', 'c', 'd'];
  expect(await sync()).toEqual([['b', 'c', 'd'], { added: 2, removed: 1, updated: 0 }]);
  const models = (await server.get(`/api/endpoints/${id}/models`)).json;
  expect(models).toEqual(expect.schemaMatching(shapes.endpointModels));
  expect(models.endpoint_id).toBe(id);
  expect(models.models.map((model: { model_id: string }) => model.model_id)).toEqual(['b', 'c', 'd']);
  expect(models.models[0].max_tokens).toBe(8192);
  expect((await server.chat('a')).status).toBe(404);
  expect((await server.chat('d')).status).toBe(200);
});

test('a sync counts a model whose data changed as updated', async () => {
  let length = 4096;
  const url = await webServer((req, res) => {
    const model = { id: 'm', object: 'model', owned_by: 'vllm', root: 'm', max_model_len: length };
    if (req.url === '/v1/models') res.end(JSON.stringify({ object: 'list', data: [model] }));
    else res.writeHead(404).end('{}');
  });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', url);
  length = 8192;
  const reply = (await server.send('POST', `/api/endpoints/${id}/sync`)).json;
  expect(reply).toMatchObject({
    added: 0,
    removed: 0,
    updated: 1,
    synced_models: [{ model_id: 'm', max_tokens: 8192 }],
  });
});

test('a failure makes an endpoint error, the next one offline, a success online again', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  const check = async () => {
    await server.send('POST', `/api/endpoints/${id}/test`);
    const { status, error_count, last_error } = (await server.get(`/api/endpoints/${id}`)).json;
    return [status, error_count, last_error === null];
  };
  const seen = (await server.get(`/api/endpoints/${id}`)).json.last_seen;
  box.faults.models = { kind: 'status', status: 500 };
  expect(await check()).toEqual(['error', 1, false]);
  expect(await check()).toEqual(['offline', 2, false]);
  expect(await check()).toEqual(['offline', 3, false]);
  expect((await server.get(`/api/endpoints/${id}`)).json.last_seen).toBe(seen);
  box.faults.models = { kind: 'status', status: 401 };
  expect(await check()).toEqual(['error', 4, false]);
  box.faults.models = null;
  expect(await check()).toEqual(['online', 0, true]);
  box.faults.models = { kind: 'status', status: 500 };
  expect(await check()).toEqual(['error', 1, false]);
  box.faults.models = null;
  expect(await check()).toEqual(['online', 0, true]);
});

test('checks run by themselves at the endpoint’s own interval', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url, { health_check_interval_secs: 0.05 });
  await box.stop();
  await until(async () => (await statusOf(server, id)) === 'offline');
  await box.restart();
  await until(async () => (await statusOf(server, id)) === 'online');
});

test('the list is newest first and is filtered by status and type', async () => {
  const server = await startLocal({ env: QUIET });
  const boxes = [await engine(), await engine({ engine: 'ollama' })];
  for (const [index, box] of boxes.entries()) await server.register(`box-${index}`, box.url);
  await server.register('away', await closedPort());
  const list = async (query = '') => {
    const { json } = await server.get(`/api/endpoints${query}`);
    expect(json).toEqual(expect.schemaMatching(shapes.endpointList));
    expect(json.total).toBe(json.endpoints.length);
    return json.endpoints.map((one: { name: string }) => one.name);
  };
  expect(await list()).toEqual(['away', 'box-1', 'box-0']);
  expect(await list('?status=offline')).toEqual(['away']);
  expect(await list('?status=online')).toEqual(['box-1', 'box-0']);
  expect(await list('?status=online&type=ollama')).toEqual(['box-1']);
  expect(await list('?status=draining')).toEqual([]);
  expectError(await server.get('/api/endpoints?status=fine'), 400, 'invalid_request', 'status');
  expectError(await server.get('/api/endpoints?type=toaster'), 400, 'invalid_request', 'type');
});

// Draining.

test('a draining endpoint takes nothing new, lets streams finish and outlives checks and a restart', async () => {
  const box = await engine();
  const first = await spawnServer({ env: { TROUPE_HEALTH_INTERVAL_MS: '50' } });
  const { id } = await first.register('box', box.url);
  box.faults.next.push({ kind: 'stall', afterTokens: 2 });
  const stream = await openStream(first.url, 'sim-small');
  const drained = await first.send('POST', `/api/endpoints/${id}/drain`);
  expect([drained.status, drained.json.status]).toEqual([200, 'draining']);
  expect(drained.json).toEqual(expect.schemaMatching(shapes.endpoint));
  expect((await first.chat('sim-small')).json.error.code).toBe('no_endpoint_available');
  const seen = (await first.get(`/api/endpoints/${id}`)).json.last_seen;
  await until(async () => (await first.get(`/api/endpoints/${id}`)).json.last_seen !== seen);
  expect(await statusOf(first, id)).toBe('draining');
  box.release();
  expect(await stream.whole).toBe(true);
  expect(payloads(stream.text()).at(-1)).toBe('[DONE]');
  await first.end();

  const second = await spawnServer({ dataDir: first.dataDir, env: { TROUPE_HEALTH_INTERVAL_MS: '50' } });
  const stored = (await second.get(`/api/endpoints/${id}`)).json.last_seen;
  await until(async () => (await second.get(`/api/endpoints/${id}`)).json.last_seen !== stored);
  expect(await statusOf(second, id)).toBe('draining');
  expect((await second.chat('sim-small')).status).toBe(503);
  expect((await second.send('POST', `/api/endpoints/${id}/drain`)).json.status).toBe('draining');
  const resumed = await second.send('POST', `/api/endpoints/${id}/resume`);
  expect([resumed.status, resumed.json.status]).toEqual([200, 'online']);
  expect((await second.chat('sim-small')).status).toBe(200);
});

test('a failure while draining is remembered, a success while draining does not make it online', async () => {
  const box = await engine();
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  const check = () => server.send('POST', `/api/endpoints/${id}/test`);
  box.faults.models = { kind: 'status', status: 500 };
  await check();
  await check();
  expect((await server.get(`/api/endpoints/${id}`)).json).toMatchObject({
    status: 'draining',
    error_count: 2,
  });
  box.faults.models = null;
  await check();
  const after = (await server.get(`/api/endpoints/${id}`)).json;
  expect(after).toMatchObject({ status: 'draining', error_count: 0, last_error: null });
  // Its health is what it was before the success: only the next check, after the draining, moves it.
  box.faults.models = { kind: 'hang' };
  expect((await server.send('POST', `/api/endpoints/${id}/resume`)).json.status).toBe('offline');
  box.faults.models = null;
  await check();
  expect(await statusOf(server, id)).toBe('online');
});

test('trying out reaches even a draining endpoint and is in flight like any other', async () => {
  const box = await engine({ models: ['m:latest'] });
  const server = await startLocal({ env: QUIET });
  const { id } = await server.register('box', box.url);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  box.faults.next.push({ kind: 'stall', afterTokens: 1 });
  const stream = await openStream(server.url, 'm', {}, `/api/endpoints/${id}/chat/completions`);
  expect((await server.get('/api/dashboard/endpoints')).json[0]).toMatchObject({
    active_requests: 1,
    total_requests: 0,
  });
  box.release();
  expect(await stream.whole).toBe(true);
  expect(payloads(stream.text()).at(-1)).toBe('[DONE]');
  expect((await server.get('/api/dashboard/endpoints')).json[0]).toMatchObject({
    active_requests: 0,
    total_requests: 0,
  });
  const unknown = await server.send('POST', '/api/endpoints/nobody/chat/completions', { model: 'm' });
  expectError(unknown, 404, 'not_found');
  const broken = await server.send('POST', `/api/endpoints/${id}/chat/completions`, { messages: [] });
  expect(broken.status).toBe(400);
  expect(broken.json).toEqual(expect.schemaMatching(shapes.apiError));
});

test('after a restart an endpoint has its stored status, type, models and latency until its first check', async () => {
  const box = await engine({ engine: 'ollama', models: ['a:latest', 'b'], healthDelayMs: 20 });
  const first = await startLocal({ env: QUIET });
  const before = await first.register('box', box.url, { api_key: 'k', headers: { 'x-a': '1' }, notes: 'n' });
  await first.server.stop();
  box.faults.models = { kind: 'hang' };
  const second = await startLocal({ dataDir: first.dataDir, env: QUIET });
  expect((await second.get(`/api/endpoints/${before.id}`)).json).toEqual(before);
  expect((await second.chat('a')).status).toBe(200);
  const seen = box.requests.filter(({ method }) => method === 'POST').at(-1)?.headers;
  expect(seen).toMatchObject({ authorization: 'Bearer k', 'x-a': '1' });
  await pause(20);
  expect((await second.get(`/api/endpoints/${before.id}`)).json.status).toBe('online');
});
