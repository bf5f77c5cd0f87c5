import { spawn } from 'node:child_process';
import { Agent, createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { gunzipSync, gzipSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import type { Fault } from '../src/demo/simulated-faults.js';
import {
  chatBody,
  dial,
  openStream,
  payloads,
  rawRequest,
  replyTo,
  startRequest,
  wireRequest,
} from './support/clients.js';
import { engine, type LocalServer, pause, spawnServer, startLocal, until } from './support/server.js';

const CHAT = '/v1/chat/completions';
const MIB = 1024 * 1024;

/** What the engine was asked to infer, oldest first. */
function asked(box: SimulatedEngine) {
  return box.requests.filter(({ method }) => method === 'POST');
}

async function serving(
  box: SimulatedEngine,
  env: Record<string, string> = {},
): Promise<LocalServer & { id: string }> {
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '60000', ...env } });
  const { id } = await server.register('box', box.url);
  return { ...server, id };
}

async function counted(server: LocalServer, id: string) {
  const list = (await server.get('/api/dashboard/endpoints')).json;
  const one = list.find((endpoint: { id: string }) => endpoint.id === id);
  return [one.total_requests, one.successful_requests, one.failed_requests, one.active_requests];
}

// What goes out.

test('the endpoint gets the body byte for byte, odd spacing, escapes, unicode and duplicate unknown keys included', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const bodies = [
    '  \n{ "x":1 ,\t"model" :\r\n "sim-small","x": 2.50e+0, "messages":[{"role":"user","content":"推論 \\u00e9 é 🎭 \\ud83c\\udfad"}]}\n ',
    '{"messages":[],"model":"sim\\u002dsmall","big":12345678901234567890123,"nested":{"model":"other","stream":true}}',
    '{"model":"sim-small","stream":false,"stream_options":null,"__proto__":{"a":1},"":""}',
  ];
  for (const body of bodies) {
    expect((await rawRequest(url, CHAT, { body })).status).toBe(200);
    expect(asked(box).at(-1)?.body).toBe(body);
    expect(asked(box).at(-1)?.headers['content-length']).toBe(String(Buffer.byteLength(body)));
  }
});

test.each([
  ['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }] }],
  ['/v1/completions', { prompt: 'Hi' }],
  ['/v1/responses', { input: 'Hi' }],
  ['/v1/embeddings', { input: 'Hi' }],
])('%s is answered whole as the endpoint wrote it', async (path, fields) => {
  const box = await engine();
  const { url } = await serving(box);
  const body = JSON.stringify({ model: 'sim-small', ...fields });
  const reply = await rawRequest(url, path, { body });
  expect(await reply.whole).toBe(true);
  expect(reply.status).toBe(200);
  expect(reply.headers['content-type']).toBe('application/json');
  expect(reply.json().model).toBe('sim-small');
  expect(asked(box)).toHaveLength(1);
  expect(asked(box)[0]).toMatchObject({ path, body });
});

test('a name without a tag is spliced to NAME:latest and nothing else of the body moves', async () => {
  const box = await engine({ models: ['llama:latest'], engine: 'ollama' });
  const { url } = await serving(box);
  const body = '{ "model" : "llama" , "messages":[ ], "tag":"model" }';
  expect((await rawRequest(url, CHAT, { body })).status).toBe(200);
  expect(asked(box)[0]?.body).toBe(body.replace('"llama"', '"llama:latest"'));
  const exact = body.replace('"llama"', '"llama:latest"');
  expect((await rawRequest(url, CHAT, { body: exact })).status).toBe(200);
  expect(asked(box)[1]?.body).toBe(exact);
});

test('each endpoint is sent the name it lists the model under', async () => {
  const plain = await engine({ models: ['llama'] });
  const tagged = await engine({ models: ['llama:latest'] });
  const server = await serving(plain);
  await server.register('tagged', tagged.url);
  await until(async () => {
    expect((await server.chat('llama')).status).toBe(200);
    return asked(plain).length > 0 && asked(tagged).length > 0;
  });
  expect(JSON.parse(asked(plain)[0]?.body ?? '').model).toBe('llama');
  expect(JSON.parse(asked(tagged)[0]?.body ?? '').model).toBe('llama:latest');
});

test.each([
  ['/v1/chat/completions', { messages: [] }],
  ['/v1/completions', { prompt: 'x' }],
])(
  'a stream of %s is asked for usage, and the client does not see the event that brings it',
  async (path, fields) => {
    const box = await engine({ outputTokens: 5 });
    const server = await serving(box);
    const body = JSON.stringify({ model: 'sim-small', stream: true, ...fields });
    const reply = await rawRequest(server.url, path, { body });
    expect(await reply.whole).toBe(true);
    expect(JSON.parse(asked(box)[0]?.body ?? '')).toEqual({
      ...JSON.parse(body),
      stream_options: { include_usage: true },
    });
    const seen = payloads(reply.text());
    expect(seen.at(-1)).toBe('[DONE]');
    for (const text of seen.slice(0, -1)) expect(JSON.parse(text).choices).toHaveLength(1);
    const [row] = (await server.get('/api/dashboard/request-responses')).json.records;
    expect(row).toMatchObject({ output_tokens: 5, tokens_estimated: false });
  },
);

test('other members of stream_options stay when usage is spliced in', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const body = '{"model":"sim-small","stream":true,"stream_options": { "x":1 },"messages":[]}';
  await (await rawRequest(url, CHAT, { body })).whole;
  expect(JSON.parse(asked(box)[0]?.body ?? '').stream_options).toEqual({ include_usage: true, x: 1 });
});

test.each([true, false])(
  'a client that sets include_usage to %s itself sends and gets its own bytes',
  async (wanted) => {
    const box = await engine();
    const { url } = await serving(box);
    const body = chatBody('sim-small', { stream: true, stream_options: { include_usage: wanted } });
    const reply = await rawRequest(url, CHAT, { body });
    await reply.whole;
    expect(asked(box)[0]?.body).toBe(body);
    const usage = payloads(reply.text()).filter((text) => /"choices":\[\],"usage":\{/.test(text));
    expect(usage).toHaveLength(wanted ? 1 : 0);
  },
);

test('a responses stream is never given stream_options', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const body = JSON.stringify({ model: 'sim-small', stream: true, input: 'Hi' });
  const reply = await rawRequest(url, '/v1/responses', { body });
  expect(await reply.whole).toBe(true);
  expect(asked(box)[0]?.body).toBe(body);
  expect(reply.text()).toContain('event: response.completed');
});

test.each([400, 422] as const)(
  'an endpoint that answers %s to the addition is asked again in the same attempt, and remembered',
  async (status) => {
    const box = await engine();
    const server = await serving(box);
    box.faults.always = { kind: 'reject_stream_options', status };
    const body = chatBody('sim-small', { stream: true });
    const first = await rawRequest(server.url, CHAT, { body });
    await first.whole;
    expect(first.status).toBe(200);
    expect(first.headers['x-troupe-attempts']).toBe('1');
    expect(payloads(first.text()).at(-1)).toBe('[DONE]');
    expect(asked(box).map((request) => request.body === body)).toEqual([false, true]);
    expect(await counted(server, server.id)).toEqual([1, 1, 0, 0]);
    const [row] = (await server.get('/api/dashboard/request-responses')).json.records;
    expect(row.attempts).toHaveLength(1);
    expect(row).toMatchObject({ tokens_estimated: true, output_tokens: 12 });

    await (await rawRequest(server.url, CHAT, { body })).whole;
    expect(asked(box).map((request) => request.body === body)).toEqual([false, true, true]);
    expect(await counted(server, server.id)).toEqual([2, 2, 0, 0]);
  },
);

test('an endpoint that answers 400 with and without the addition is not remembered for it', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.next.push(
    { kind: 'status', status: 400 },
    { kind: 'status', status: 400, body: '{"second":true}' },
  );
  const body = chatBody('sim-small', { stream: true });
  const first = await rawRequest(server.url, CHAT, { body });
  await first.whole;
  expect([first.status, first.text()]).toEqual([400, '{"second":true}']);
  expect(await counted(server, server.id)).toEqual([1, 0, 1, 0]);
  await (await rawRequest(server.url, CHAT, { body })).whole;
  expect(asked(box).at(-1)?.body).toContain('include_usage');
});

test('the endpoint sees no credential of the client, no hop-by-hop header and nothing of ours, but its own key and headers', async () => {
  const box = await engine({ apiKey: 'box-key' });
  const env = { TROUPE_HEALTH_INTERVAL_MS: '60000', TROUPE_API_KEY: 'client-key' };
  const server = await startLocal({ env });
  const registered = await server.send(
    'POST',
    '/api/endpoints',
    {
      name: 'box',
      base_url: box.url,
      api_key: 'box-key',
      headers: { 'X-Team': 'ours', 'x-kept': 'endpoint' },
    },
    { 'x-api-key': 'client-key' },
  );
  expect(registered.status).toBe(201);
  const reply = await rawRequest(server.url, CHAT, {
    body: chatBody('sim-small'),
    headers: {
      authorization: 'Bearer client-key',
      'proxy-authorization': 'Basic Y2xpZW50',
      'x-api-key': 'client-key',
      cookie: 'session=client',
      expect: '100-continue',
      connection: 'X-Hop, keep-alive',
      'x-hop': '1',
      'keep-alive': 'timeout=5',
      te: 'trailers',
      'x-troupe-secret': '1',
      'X-Troupe-Attempts': '7',
      'accept-encoding': 'gzip, br',
      'x-team': 'client',
      'x-custom': 'passes',
      'user-agent': 'tests',
    },
  });
  expect(reply.status).toBe(200);
  const { headers, rawHeaders } = asked(box)[0] as (typeof box.requests)[number];
  expect(headers).toMatchObject({
    authorization: 'Bearer box-key',
    'x-team': 'ours',
    'x-kept': 'endpoint',
    'x-custom': 'passes',
    'user-agent': 'tests',
    'accept-encoding': 'identity',
    'content-type': 'application/json',
    host: box.url.slice('http://'.length),
  });
  const gone = [
    'proxy-authorization',
    'x-api-key',
    'cookie',
    'expect',
    'x-hop',
    'keep-alive',
    'te',
    'x-troupe-secret',
  ];
  for (const name of [...gone, 'x-troupe-attempts']) expect(headers, name).not.toHaveProperty(name);
  expect(rawHeaders.join('\n')).not.toContain('client');
});

test('names listed in any of several Connection headers are hop-by-hop', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const body = chatBody('sim-small');
  const wire = await dial(url);
  wire.socket.write(
    wireRequest(CHAT, body, {
      'x-one': '1',
      'x-two': '2',
      'x-stays': '3',
      connection: 'x-one\r\nConnection: X-Two, close',
    }),
  );
  await wire.closed;
  expect(wire.received()).toContain('HTTP/1.1 200');
  const headers = asked(box)[0]?.headers ?? {};
  expect(headers).toHaveProperty('x-stays');
  expect(headers).not.toHaveProperty('x-one');
  expect(headers).not.toHaveProperty('x-two');
});

test('a client without a key reaches an endpoint without a key: no authorization is made up', async () => {
  const box = await engine();
  const server = await serving(box);
  await server.chat('sim-small');
  expect(asked(box)[0]?.headers).not.toHaveProperty('authorization');
});

// What comes back.

test('the client sees no hop-by-hop header, cookie or header of our names from the endpoint, and the rest', async () => {
  const box = await engine();
  const { url } = await serving(box);
  box.faults.next.push({
    kind: 'status',
    status: 200,
    body: '{"ok":true}',
    headers: {
      'set-cookie': 'a=b',
      connection: 'x-hop',
      'x-hop': '1',
      'proxy-authenticate': 'Basic',
      'x-troupe-endpoint': 'fake',
      'x-troupe-attempts': '9',
      'x-ratelimit-remaining': '12',
      'content-type': 'application/json; odd=1',
    },
  });
  const reply = await rawRequest(url, CHAT, { body: chatBody('sim-small') });
  expect(await reply.whole).toBe(true);
  expect(reply.text()).toBe('{"ok":true}');
  expect(reply.headers).toMatchObject({
    'x-troupe-endpoint': 'box',
    'x-troupe-attempts': '1',
    'x-ratelimit-remaining': '12',
    'content-type': 'application/json; odd=1',
  });
  for (const name of ['set-cookie', 'x-hop', 'proxy-authenticate'])
    expect(reply.headers).not.toHaveProperty(name);
});

test.each(['req-1', 'A/b:c+d=', 'x'.repeat(128)])('the sane request id %s is the answer’s', async (id) => {
  const box = await engine();
  const server = await serving(box);
  const reply = await rawRequest(server.url, CHAT, {
    body: chatBody('sim-small'),
    headers: { 'x-request-id': id },
  });
  expect(reply.headers['x-request-id']).toBe(id);
  expect(
    (await server.get(`/api/dashboard/request-responses/${encodeURIComponent(id)}`)).json.request_id,
  ).toBe(id);
});

test.each(['with space', 'é', 'x'.repeat(300)])(
  'the odd request id %s is replaced by one of ours',
  async (id) => {
    const box = await engine();
    const { url } = await serving(box);
    const reply = await rawRequest(url, CHAT, {
      body: chatBody('sim-small'),
      headers: { 'x-request-id': id },
    });
    expect(reply.status).toBe(200);
    expect(reply.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  },
);

test('every answer below /v1 has a request id, refusals included', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const id = { 'x-request-id': 'mine' };
  const replies = [
    await rawRequest(url, '/v1/models', { headers: id }),
    await rawRequest(url, '/v1/nothing', { headers: id }),
    await rawRequest(url, CHAT, { headers: id }),
    await rawRequest(url, CHAT, { headers: id, body: '{' }),
    await rawRequest(url, CHAT, { headers: id, body: chatBody('unknown') }),
    await rawRequest(url, CHAT, {
      headers: { ...id, 'content-type': 'text/plain' },
      body: chatBody('sim-small'),
    }),
  ];
  expect(replies.map(({ status }) => status)).toEqual([200, 404, 405, 400, 404, 415]);
  expect(replies.map(({ headers }) => headers['x-request-id'])).toEqual(replies.map(() => 'mine'));
});

test('the name of an endpoint is percent-encoded in x-troupe-endpoint where it is not printable ASCII', async () => {
  const box = await engine();
  const server = await startLocal();
  await server.register('推論1', box.url);
  expect((await server.chat('sim-small')).headers.get('x-troupe-endpoint')).toBe('%E6%8E%A8%E8%AB%961');
  // The idle connection of the first request is tried, and then a fresh one.
  box.faults.always = { kind: 'reset' };
  const broken = await server.chat('sim-small');
  expect([broken.status, broken.headers.get('x-troupe-endpoint')]).toEqual([502, '%E6%8E%A8%E8%AB%961']);
  expect(broken.headers.get('x-troupe-attempts')).toBe('1');
});

test.each([400, 401, 404, 429, 500, 503])('an upstream %s goes to the client as it is', async (status) => {
  const box = await engine();
  const server = await serving(box);
  const body = `{ "odd":\n "${status}" }`;
  box.faults.next.push({
    kind: 'status',
    status,
    body,
    headers: { 'retry-after': '17', 'x-why': 'because' },
  });
  const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small') });
  expect(await reply.whole).toBe(true);
  expect([reply.status, reply.text()]).toEqual([status, body]);
  expect(reply.headers).toMatchObject({
    'retry-after': '17',
    'x-why': 'because',
    'x-troupe-endpoint': 'box',
  });
  expect(await counted(server, server.id)).toEqual([1, 0, 1, 0]);
});

test('an answer of told length arrives byte for byte, whatever bytes and however many', async () => {
  const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const json = Buffer.from(
    JSON.stringify({ content: '推論 é 🎭'.repeat(400), usage: { completion_tokens: 3 } }),
  );
  const sizes = [1, 8191, 8192, 8193, 100_000].map((size) => Buffer.alloc(size, every));
  let answer: { status: number; body: Buffer } = { status: 200, body: json };
  const upstream = createServer((req, res) => {
    req.resume();
    const list = Buffer.from(
      JSON.stringify({ object: 'list', data: [{ id: 'sim-small', object: 'model' }] }),
    );
    const { status, body } = req.method === 'GET' ? { status: 200, body: list } : answer;
    res.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
    res.end(body);
  });
  await new Promise<void>((resolve) => {
    upstream.listen(0, '127.0.0.1', resolve);
  });
  onTestFinished(() => {
    upstream.closeAllConnections();
    upstream.close();
  });
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '60000' } });
  await server.register('bytes', `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  for (const one of [{ status: 200, body: json }, ...sizes.map((body) => ({ status: 400, body }))]) {
    answer = one;
    const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small'), agent });
    expect(await reply.whole).toBe(true);
    expect(reply.status).toBe(one.status);
    expect(reply.headers['content-length']).toBe(String(one.body.length));
    expect(reply.bytes().equals(one.body)).toBe(true);
  }
});

test('a redirect is not followed: 502 upstream_broken', async () => {
  const box = await engine();
  const other = await engine();
  const server = await serving(box);
  box.faults.next.push({ kind: 'redirect', location: `${other.url}/v1/chat/completions` });
  const reply = await server.chat('sim-small');
  expect(reply.status).toBe(502);
  expect(reply.json.error).toMatchObject({ type: 'upstream_error', param: null, code: 'upstream_broken' });
  expect(reply.json.error.message).toContain('redirect');
  expect(reply.text).not.toContain(other.url);
  expect(other.requests).toHaveLength(0);
  const [row] = (await server.get('/api/dashboard/request-responses')).json.records;
  expect(row).toMatchObject({ status_code: 502, attempts: [{ outcome: 'failure', status_code: 307 }] });
});

test.each([
  ['/v1/chat/completions', { messages: [] }],
  ['/v1/responses', { input: 'x' }],
])(
  'an error event of the endpoint’s own in a stream of %s is passed on as it is, and not told twice',
  async (path, fields) => {
    const box = await engine();
    const server = await serving(box);
    box.faults.next.push({ kind: 'error_event', afterTokens: 2 });
    const body = JSON.stringify({ model: 'sim-small', stream: true, ...fields });
    const reply = await rawRequest(server.url, path, { body });
    await reply.whole;
    expect(reply.text()).not.toContain('upstream_error');
    expect(payloads(reply.text()).at(-1)).toContain('the engine ran out of memory');
    expect(await counted(server, server.id)).toEqual([1, 0, 1, 0]);
  },
);

test('a stream is passed on as it comes: each event is there before the next is sent', async () => {
  const box = await engine({ outputTokens: 6 });
  const { url } = await serving(box);
  box.faults.next.push({ kind: 'stall', afterTokens: 2 });
  const reply = await rawRequest(url, CHAT, { body: chatBody('sim-small', { stream: true }) });
  await until(() => payloads(reply.text()).length === 3, 5000, 'three events of a stalled stream');
  expect(reply.headers['content-type']).toBe('text/event-stream; charset=utf-8');
  box.release();
  expect(await reply.whole).toBe(true);
  expect(payloads(reply.text())).toHaveLength(1 + 6 + 1 + 1);
});

test('a stream torn into slices of a few bytes arrives unmodified', async () => {
  const box = await engine({ outputTokens: 3 });
  const { url } = await serving(box);
  box.faults.next.push({ kind: 'pauses_bytes', bytes: 7, ms: 0 });
  const reply = await openStream(url, 'sim-small', { stream_options: { include_usage: true } });
  expect(await reply.whole).toBe(true);
  const events = payloads(reply.text());
  expect(events).toHaveLength(1 + 3 + 1 + 1 + 1);
  expect(reply.text()).toBe(events.map((event) => `data: ${event}\n\n`).join(''));
});

test.each([
  ['hang', { kind: 'hang' }],
  ['answers with a head alone', { kind: 'hang_body' }],
] as [string, Fault][])(
  'an endpoint that %ss is given up: 504 timeout_first_byte, and aborted',
  async (_, fault) => {
    for (const stream of [true, false]) {
      const box = await engine();
      const server = await serving(box, { TROUPE_FIRST_BYTE_TIMEOUT_MS: '200' });
      box.faults.next.push(fault);
      const reply = await server.chat('sim-small', { stream });
      expect([reply.status, reply.json.error.code]).toEqual([504, 'timeout_first_byte']);
      expect(reply.json.error.message).toContain('box');
      await until(() => asked(box)[0]?.aborted === true, 2000, 'the abort');
      expect(await counted(server, server.id)).toEqual([1, 0, 1, 0]);
    }
  },
);

test('the total deadline before the first byte answers 504 timeout_total', async () => {
  const box = await engine();
  const server = await serving(box, { TROUPE_TOTAL_TIMEOUT_MS: '200' });
  box.faults.next.push({ kind: 'hang' });
  const reply = await server.chat('sim-small');
  expect([reply.status, reply.json.error.code]).toEqual([504, 'timeout_total']);
});

test('inference_timeout_secs is the total deadline of its endpoint', async () => {
  const box = await engine({ outputTokens: 200 });
  const server = await startLocal();
  await server.register('box', box.url, { inference_timeout_secs: 1 });
  box.faults.next.push({ kind: 'slow_chunks', ms: 30 });
  const reply = await openStream(server.url, 'sim-small');
  await reply.whole;
  expect(JSON.parse(payloads(reply.text()).at(-1) ?? '').error.code).toBe('timeout_total');
});

/** A port that completes no handshake: a listener that never accepts, its queue full. */
async function deafPort(port: number): Promise<void> {
  const child = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen({ port: ${port}, host: '127.0.0.1', backlog: 1 }, () => {
      require('fs').writeSync(1, 'listening');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`,
  ]);
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  for (let i = 0; i < 8; i += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    onTestFinished(() => {
      socket.destroy();
    });
  }
  await pause(100);
}

test('an endpoint that takes no connection is given up: 504 timeout_connect', async () => {
  const box = await engine();
  const server = await serving(box, { TROUPE_CONNECT_TIMEOUT_MS: '300' });
  await box.stop();
  await deafPort(box.port);
  const reply = await server.chat('sim-small');
  expect([reply.status, reply.json.error.code]).toEqual([504, 'timeout_connect']);
  expect(await counted(server, server.id)).toEqual([1, 0, 1, 0]);
});

test('a closed port is 502 upstream_unreachable, without the endpoint’s address', async () => {
  const box = await engine();
  const server = await serving(box);
  await box.stop();
  const reply = await server.chat('sim-small');
  expect(reply.status).toBe(502);
  expect(reply.json.error).toMatchObject({
    type: 'upstream_error',
    param: null,
    code: 'upstream_unreachable',
  });
  expect(reply.text).not.toContain(String(box.port));
});

/** The last event of a stream that broke; the connection must be closed after it. */
async function lastWords(server: LocalServer, path: string, fields: object) {
  const agent = new Agent({ keepAlive: true });
  onTestFinished(() => agent.destroy());
  const body = JSON.stringify({ model: 'sim-small', stream: true, ...fields });
  const reply = await rawRequest(server.url, path, { body, agent });
  const { socket } = reply.response;
  await reply.whole;
  expect(reply.status).toBe(200);
  expect(reply.text()).not.toContain('[DONE]');
  await until(() => socket.destroyed || socket.readableEnded, 2000, 'the end of the connection');
  return JSON.parse(payloads(reply.text()).at(-1) ?? '').error;
}

test.each([
  ['/v1/chat/completions', { messages: [] }],
  ['/v1/completions', { prompt: 'x' }],
  ['/v1/responses', { input: 'x' }],
])(
  'a stream of %s that breaks ends with an error event, no [DONE] and a closed connection',
  async (path, fields) => {
    const box = await engine();
    const server = await serving(box, { TROUPE_IDLE_TIMEOUT_MS: '250' });
    const breaks: [Fault, string][] = [
      [{ kind: 'reset', afterTokens: 3 }, 'upstream_broken'],
      [{ kind: 'cut', afterTokens: 3 }, 'upstream_broken'],
      [{ kind: 'cut', afterBytes: 120 }, 'upstream_broken'],
      [{ kind: 'end_early', afterTokens: 3 }, 'upstream_broken'],
      [{ kind: 'stall', afterTokens: 3 }, 'timeout_idle'],
    ];
    for (const [fault, code] of breaks) {
      box.faults.next.push(fault);
      const error = await lastWords(server, path, fields);
      expect(error).toEqual({ message: expect.any(String), type: 'upstream_error', param: null, code });
    }
    await until(() => asked(box).at(-1)?.aborted === true, 2000, 'the abort of the stalled one');
    expect(await counted(server, server.id)).toEqual([5, 0, 5, 0]);
  },
);

test('a connection whose stream broke serves whoever sends at once, and is closed where nothing comes', async () => {
  const box = await engine();
  const server = await serving(box);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  const ports = new Set<number | undefined>();
  let last: Socket | undefined;
  for (let i = 0; i < 10; i += 1) {
    box.faults.next.push({ kind: 'reset', afterTokens: 3 });
    for (const stream of [true, false]) {
      const body = chatBody('sim-small', { stream });
      const reply = await rawRequest(server.url, CHAT, { body, agent });
      last = reply.response.socket;
      ports.add(last.localPort);
      expect([i, stream, await reply.whole, reply.status]).toEqual([i, stream, true, 200]);
    }
  }
  expect(ports.size).toBe(1);
  box.faults.next.push({ kind: 'reset', afterTokens: 3 });
  const body = chatBody('sim-small', { stream: true });
  const reply = await rawRequest(server.url, CHAT, { body, agent });
  expect(await reply.whole).toBe(true);
  await until(() => last?.destroyed === true, 2000, 'the end of the connection');
});

test('what was pipelined behind a stream that broke takes the time it needs', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.next.push({ kind: 'reset', afterTokens: 3 }, { kind: 'slow_head', ms: 700 });
  const wire = await dial(server.url);
  const first = wireRequest(CHAT, chatBody('sim-small', { stream: true }));
  wire.socket.write(first + wireRequest(CHAT, chatBody('sim-small')));
  const answers = () => wire.received().split('HTTP/1.1 200').slice(1);
  await until(() => answers()[1]?.includes('"usage"') === true, 4000, 'the second answer');
  expect(answers()[0]).toContain('"upstream_broken"');
});

test('proxies are told not to hold a stream back', async () => {
  const box = await engine();
  const server = await serving(box);
  for (const [stream, told] of [
    [true, 'no'],
    [false, undefined],
  ] as const) {
    const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small', { stream }) });
    expect(await reply.whole).toBe(true);
    expect(reply.headers['x-accel-buffering']).toBe(told);
  }
});

test('an endpoint that answers in a coding of its own is asked for usage only once', async () => {
  const bodies: string[] = [];
  const upstream = createServer((req, res) => {
    if (req.method === 'GET') {
      res.end('{"object":"list","data":[{"id":"coded","object":"model"}]}');
      return;
    }
    let body = '';
    req.on('data', (chunk) => {
      body += chunk;
    });
    req.on('end', () => {
      bodies.push(body);
      res.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' });
      res.end(gzipSync('data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'));
    });
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    upstream.closeAllConnections();
    upstream.close();
  });
  const server = await startLocal();
  await server.register('box', `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  const body = chatBody('coded', { stream: true });
  for (let i = 0; i < 2; i += 1) {
    const reply = await rawRequest(server.url, CHAT, { body });
    expect(await reply.whole).toBe(true);
    expect(gunzipSync(reply.bytes()).toString()).toContain('[DONE]');
  }
  expect(bodies[0]).toContain('include_usage');
  expect(bodies[1]).toBe(body);
});

test('a stream that takes too long in all ends with timeout_total', async () => {
  const box = await engine({ outputTokens: 500 });
  const server = await serving(box, { TROUPE_TOTAL_TIMEOUT_MS: '400' });
  box.faults.next.push({ kind: 'slow_chunks', ms: 20 });
  expect((await lastWords(server, CHAT, { messages: [] })).code).toBe('timeout_total');
  await until(() => asked(box)[0]?.aborted === true, 2000, 'the abort');
});

test('a whole JSON answer that ends half-way does not look whole to the client', async () => {
  const box = await engine();
  const server = await serving(box);
  for (const fault of [
    { kind: 'cut' },
    { kind: 'half_json' },
    { kind: 'reset', afterTokens: 1 },
  ] as Fault[]) {
    box.faults.next.push(fault);
    const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small') });
    expect(await reply.whole).toBe(false);
  }
  expect(await counted(server, server.id)).toEqual([3, 0, 3, 0]);
});

test('a reused idle connection that turns out dead costs neither an attempt nor a failure', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.next.push({ kind: 'close_idle' });
  expect((await server.chat('sim-small')).status).toBe(200);
  const second = await server.chat('sim-small');
  expect([second.status, second.headers.get('x-troupe-attempts')]).toEqual([200, '1']);
  expect(asked(box)).toHaveLength(3);
  expect(await counted(server, server.id)).toEqual([2, 2, 0, 0]);
  const [row] = (await server.get('/api/dashboard/request-responses')).json.records;
  expect(row.attempts).toHaveLength(1);
});

test('a reset of a fresh connection is not tried again', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.next.push({ kind: 'reset' });
  const reply = await server.chat('sim-small');
  expect([reply.status, reply.json.error.code]).toEqual([502, 'upstream_broken']);
  expect(asked(box)).toHaveLength(1);
});

// Clients.

test.each(['before the head', 'in mid-stream'])(
  'a client that leaves %s aborts the upstream request',
  async (when) => {
    const box = await engine();
    const server = await serving(box);
    box.faults.next.push(when === 'before the head' ? { kind: 'hang' } : { kind: 'stall', afterTokens: 2 });
    const sent = startRequest(server.url, CHAT, { body: chatBody('sim-small', { stream: true }) });
    const reply = replyTo(sent);
    reply.catch(() => {});
    await until(() => box.active === 1);
    if (when === 'in mid-stream') {
      const { bytes } = await reply;
      await until(() => bytes().length > 0);
    }
    sent.destroy();
    await until(() => asked(box)[0]?.aborted === true, 2000, 'the abort');
    await until(async () => (await counted(server, server.id))[3] === 0);
  },
);

test.each(['before the head', 'in mid-stream'])(
  'a client that half-closes %s aborts the upstream request',
  async (when) => {
    const box = await engine();
    const { url } = await serving(box);
    box.faults.next.push(when === 'before the head' ? { kind: 'hang' } : { kind: 'stall', afterTokens: 2 });
    const wire = await dial(url);
    wire.socket.write(wireRequest(CHAT, chatBody('sim-small', { stream: true })));
    await until(() => box.active === 1);
    if (when === 'in mid-stream') await until(() => wire.received().includes('data:'));
    wire.socket.end();
    await until(() => asked(box)[0]?.aborted === true, 2000, 'the abort');
  },
);

test('a slow reader slows the endpoint down instead of filling memory, and gets everything', async () => {
  const event = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: 'x'.repeat(16_000) } }] })}\n\n`;
  const events = 4000;
  let written = 0;
  const upstream = createServer((req, res) => {
    req.resume();
    if (req.method === 'GET') {
      res.end('{"object":"list","data":[{"id":"wide","object":"model"}]}');
      return;
    }
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    const more = () => {
      while (written < events) {
        written += 1;
        if (!res.write(event)) {
          res.once('drain', more);
          return;
        }
      }
      res.end('data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n');
    };
    more();
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    upstream.closeAllConnections();
    upstream.close();
  });
  const server = await startLocal({ env: { TROUPE_IDLE_TIMEOUT_MS: '300' } });
  await server.register('wide', `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);

  const sent = startRequest(server.url, CHAT, { body: chatBody('wide', { stream: true }) });
  const reply = await replyTo(sent);
  reply.response.pause();
  let before = -1;
  // Longer than the idle deadline: a reader's pause is not the endpoint's.
  while (before !== written) {
    before = written;
    await pause(400);
  }
  expect(written).toBeLessThan(events * 0.75);
  reply.response.resume();
  expect(await reply.whole).toBe(true);
  expect(reply.bytes().length).toBeGreaterThan(events * event.length);
  expect(reply.text().endsWith('data: [DONE]\n\n')).toBe(true);
});

test('a kept connection carries one request after another', async () => {
  const box = await engine();
  const server = await serving(box);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  const ports = new Set<number | undefined>();
  for (let i = 0; i < 12; i += 1) {
    const stream = i % 2 === 0;
    const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small', { stream }), agent });
    ports.add(reply.response.socket.localPort);
    expect(await reply.whole).toBe(true);
    expect(reply.status).toBe(200);
  }
  expect(ports.size).toBe(1);
  expect(await counted(server, server.id)).toEqual([12, 12, 0, 0]);
});

test('a request for all of a URL, as for a forward proxy, is one for its path', async () => {
  const box = await engine();
  const server = await serving(box);
  const answerTo = async (target: string, path: string, key = true): Promise<string> => {
    const wire = await dial(server.url);
    const text = wireRequest(path, path === CHAT ? chatBody('sim-small') : '');
    const known = key ? text : text.replace(/authorization: .*\r\n/i, '');
    const whole = known.replace(` ${path} `, ` ${target} `);
    wire.socket.write(path === CHAT ? whole : whole.replace('POST', 'GET'));
    await until(() => wire.received().includes('\r\n\r\n'), 4000, 'an answer');
    wire.socket.destroy();
    return wire.received().split(' ')[1] ?? '';
  };
  expect(await answerTo(`${server.url}${CHAT}?x=/`, CHAT)).toBe('200');
  for (const origin of [server.url, 'HTTP://elsewhere', 'http://u:p@h:1', 'ftp://h', 'http://']) {
    for (const path of ['/v1/models', '/api/endpoints']) {
      expect([origin, path, await answerTo(`${origin}${path}?x=http://y/`, path)]).toEqual([
        origin,
        path,
        '200',
      ]);
      expect([origin, path, await answerTo(`${origin}${path}`, path, false)]).toEqual([origin, path, '401']);
    }
  }
  expect(await answerTo(`${server.url}?x=1`, '/v1/models')).toBe(await answerTo('/?x=1', '/v1/models'));
});

test('an answer without content is passed on, and a success', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.next.push({ kind: 'status', status: 204, body: '' });
  const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small') });
  expect(await reply.whole).toBe(true);
  expect([reply.status, reply.text()]).toEqual([204, '']);
  expect(await counted(server, server.id)).toEqual([1, 1, 0, 0]);
});

test('a stream that is answered without content has failed', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.next.push({ kind: 'status', status: 204, body: '' });
  const reply = await rawRequest(server.url, CHAT, { body: chatBody('sim-small', { stream: true }) });
  expect(await reply.whole).toBe(true);
  expect([reply.status, reply.json().error.code]).toEqual([502, 'upstream_broken']);
  expect(await counted(server, server.id)).toEqual([1, 0, 1, 0]);
});

test('requests pipelined on one connection are answered in their order', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.next.push({ kind: 'slow_head', ms: 150 });
  const wire = await dial(server.url);
  const ids = ['first', 'second', 'third'];
  wire.socket.write(
    ids.map((id) => wireRequest(CHAT, chatBody('sim-small'), { 'x-request-id': id })).join(''),
  );
  await until(() => (wire.received().match(/HTTP\/1\.1 200/g) ?? []).length === 3, 4000, 'three answers');
  const order = [...wire.received().matchAll(/x-request-id: (\w+)/g)].map((match) => match[1]);
  expect(order).toEqual(ids);
  expect(await counted(server, server.id)).toEqual([3, 3, 0, 0]);
});

test('a pipelining client that leaves aborts what it waits for, the queued requests too', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.always = { kind: 'hang' };
  const wire = await dial(server.url);
  wire.socket.write(wireRequest(CHAT, chatBody('sim-small')).repeat(2));
  await until(() => box.active === 2, 4000, 'two requests at the engine');
  wire.socket.destroy();
  await until(() => asked(box).every(({ aborted }) => aborted), 2000, 'both aborts');
  await until(async () => (await counted(server, server.id))[3] === 0);
});

// Bodies.

test.each([
  ['', 'the body is missing'],
  ['{"model":"sim-small"', 'cut JSON'],
  ['[]', 'an array'],
  ['{"messages":[]}', 'no model'],
  ['{"model":7}', 'a model that is no string'],
  ['{"model":null}', 'a null model'],
  ['{"model":"sim-small"} x', 'something after it'],
])('%s is refused with 400 and counted nowhere: %s', async (body) => {
  const box = await engine();
  const server = await serving(box);
  const reply = await rawRequest(server.url, CHAT, { body, method: 'POST' });
  await reply.whole;
  expect(reply.status).toBe(400);
  expect(reply.json().error).toMatchObject({ message: expect.any(String), type: 'invalid_request_error' });
  expect(Object.keys(reply.json().error).sort()).toEqual(['code', 'message', 'param', 'type']);
  expect(asked(box)).toHaveLength(0);
  expect((await server.get('/api/dashboard/request-responses')).json.total_count).toBe(0);
});

test('a body over 32 MiB is refused from its content-length, before it is sent', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const wire = await dial(url);
  wire.socket.write(wireRequest(CHAT, '', { 'content-length': String(32 * MIB + 1) }));
  await until(() => wire.received().includes('\r\n\r\n'), 2000, 'the answer');
  expect(wire.received()).toContain('HTTP/1.1 413');
  expect(wire.received()).toContain('invalid_request_error');
});

test('a client that asks before it sends is told 413 instead of to go on, or to go on', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const refused = await dial(url);
  const expecting = { expect: '100-continue' };
  refused.socket.write(wireRequest(CHAT, '', { ...expecting, 'content-length': String(33 * MIB) }));
  await until(() => refused.received().includes('\r\n\r\n'), 2000, 'the answer');
  expect(refused.received()).toMatch(/^HTTP\/1\.1 413/);

  const body = chatBody('sim-small');
  const welcome = await dial(url);
  welcome.socket.write(wireRequest(CHAT, '', { ...expecting, 'content-length': String(body.length) }));
  await until(() => welcome.received().startsWith('HTTP/1.1 100 Continue'), 2000, 'the go-ahead');
  welcome.socket.write(body);
  await until(() => welcome.received().includes('HTTP/1.1 200'), 2000, 'the answer');
  expect(asked(box)[0]?.body).toBe(body);
});

test('a chunked body over 32 MiB is refused with 413', async () => {
  const box = await engine();
  const { url } = await serving(box);
  const sent = startRequest(url, CHAT, {
    body: Buffer.alloc(33 * MIB, ' '),
    headers: { 'transfer-encoding': 'chunked' },
  });
  const reply = await replyTo(sent);
  await reply.whole;
  expect(reply.status).toBe(413);
  expect(reply.json().error.type).toBe('invalid_request_error');
  expect(asked(box)).toHaveLength(0);
});

test('bodies of 20 MiB and of exactly 32 MiB pass', async () => {
  const box = await engine();
  const server = await serving(box);
  for (const size of [20 * MIB, 32 * MIB]) {
    const open = '{"model":"sim-small","messages":[],"filler":"';
    const body = `${open}${'x'.repeat(size - open.length - 2)}"}`;
    const reply = await rawRequest(server.url, CHAT, { body });
    expect(reply.status).toBe(200);
    expect(asked(box).at(-1)?.body === body).toBe(true);
    asked(box).forEach((request) => {
      request.body = '';
    });
  }
});

// Models.

test('the models of all endpoints are one list, and each is found by its id, slashes included', async () => {
  const one = await engine({ models: ['org/model-a', 'shared'] });
  const two = await engine({ models: ['shared', 'plain:latest'] });
  const server = await serving(one);
  await server.register('two', two.url);
  const list = (await server.get('/v1/models')).json;
  expect(list.object).toBe('list');
  expect(list.data.map(({ id }: { id: string }) => id).sort()).toEqual([
    'org/model-a',
    'plain:latest',
    'shared',
  ]);
  for (const model of list.data) {
    expect(model).toEqual({
      id: expect.any(String),
      object: 'model',
      created: expect.any(Number),
      owned_by: expect.any(String),
    });
  }
  for (const path of ['org/model-a', 'org%2Fmodel-a', 'shared', 'plain:latest']) {
    const reply = await server.get(`/v1/models/${path}`);
    expect([path, reply.status, reply.json.id]).toEqual([path, 200, decodeURIComponent(path)]);
  }
  expect((await server.get('/v1/models/plain')).status).toBe(200);
  const unknown = await server.get('/v1/models/org/nothing');
  expect([unknown.status, unknown.json.error.code]).toEqual([404, 'model_not_found']);
});

test('a model that was just added is found by its id as well', async () => {
  const box = await engine();
  const server = await serving(box);
  box.options.models = ['sim-small', 'just-added'];
  expect((await server.get('/v1/models/just-added')).json.id).toBe('just-added');
});

test('a colon before the last slash is the port of a registry and no tag', async () => {
  const box = await engine({ models: ['reg:5000/q:latest'], engine: 'ollama' });
  const server = await serving(box);
  const reply = await server.chat('reg:5000/q');
  expect([reply.status, JSON.parse(asked(box).at(-1)?.body ?? '{}').model]).toEqual([
    200,
    'reg:5000/q:latest',
  ]);
  expect((await server.get('/v1/models/reg:5000%2Fq')).status).toBe(200);
});

test('a model that was just added is found by one sync, an unknown one is 404 model_not_found', async () => {
  const box = await engine();
  const server = await serving(box);
  box.options.models = ['sim-small', 'just-added'];
  expect((await server.chat('just-added')).status).toBe(200);
  const checks = () => box.requests.filter(({ method }) => method === 'GET').length;
  const before = checks();
  const unknown = await server.chat('no-such-model');
  expect(unknown.status).toBe(404);
  expect(unknown.json.error).toEqual({
    message: expect.stringContaining('no-such-model'),
    type: 'invalid_request_error',
    param: 'model',
    code: 'model_not_found',
  });
  expect(checks()).toBe(before);
  expect(await counted(server, server.id)).toEqual([1, 1, 0, 0]);
});

test('many requests for an unknown model share one sync', async () => {
  const box = await engine();
  const server = await serving(box);
  const checks = () => box.requests.filter(({ path }) => path === '/v1/models').length;
  const before = checks();
  const replies = await Promise.all(Array.from({ length: 20 }, () => server.chat('nothing')));
  expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([404]));
  expect(checks()).toBe(before + 1);
});

test('a slow endpoint holds an unknown model up for two seconds at most', async () => {
  const box = await engine();
  const server = await serving(box);
  box.faults.models = { kind: 'hang' };
  const reply = await server.chat('nothing');
  expect(reply.status).toBe(404);
});

test('a listed model nobody can serve is 503 no_endpoint_available with Retry-After', async () => {
  const box = await engine();
  const server = await serving(box);
  await server.send('POST', `/api/endpoints/${server.id}/drain`);
  const reply = await server.chat('sim-small');
  expect([reply.status, reply.json.error.code]).toEqual([503, 'no_endpoint_available']);
  expect(Number(reply.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(asked(box)).toHaveLength(0);
});

test('an endpoint in error serves as long as no online one has the model', async () => {
  const weak = await engine({ models: ['shared', 'own'] });
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '60000' } });
  const { id } = await server.register('weak', weak.url);
  weak.faults.models = { kind: 'status', status: 500 };
  await server.send('POST', `/api/endpoints/${id}/test`);
  expect((await server.get(`/api/endpoints/${id}`)).json.status).toBe('error');
  expect((await server.chat('shared')).status).toBe(200);

  const strong = await engine({ models: ['shared'] });
  await server.register('strong', strong.url);
  for (let i = 0; i < 8; i += 1) await server.chat('shared');
  expect([asked(weak).length, asked(strong).length]).toEqual([1, 8]);
  expect((await server.chat('own')).status).toBe(200);

  await server.send('POST', `/api/endpoints/${id}/test`);
  expect((await server.get(`/api/endpoints/${id}`)).json.status).toBe('offline');
  expect((await server.chat('own')).status).toBe(503);
});

test('the built server relays a stream too', async () => {
  const box = await engine();
  const server = await spawnServer();
  await server.register('box', box.url);
  const reply = await openStream(server.url, 'sim-small');
  expect(await reply.whole).toBe(true);
  expect(payloads(reply.text()).at(-1)).toBe('[DONE]');
});
