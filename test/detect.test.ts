import { expect, test } from 'vitest';
import { serve, serveRaw, status, tags } from './engines/fakes.js';
import { engine, type LocalServer, startLocal, until } from './support/server.js';

const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };

const detect = (server: LocalServer, input: object) => server.send('POST', '/api/endpoints/detect', input);

async function found(server: LocalServer, input: object) {
  const reply = await detect(server, input);
  expect(reply.status).toBe(200);
  expect(Object.keys(reply.json)).toEqual(['reachable', 'endpoint_type', 'models', 'latency_ms', 'error']);
  return reply.json;
}

const portOf = (url: string) => Number(new URL(url).port);

test('an engine that is not registered is recognised with its models, and nothing is kept of it', async () => {
  const box = await engine({ engine: 'ollama', models: ['llama3:latest', 'phi'] });
  const server = await startLocal({ env: QUIET });
  expect(await found(server, { base_url: `${box.url}/v1/` })).toEqual({
    reachable: true,
    endpoint_type: 'ollama',
    models: ['llama3:latest', 'phi'],
    latency_ms: expect.any(Number),
    error: null,
  });
  expect((await server.get('/api/endpoints')).json.total).toBe(0);
  const { root } = (await server.get('/api/dashboard/actors')).json;
  const endpoints = root.children.find(({ id }: { id: string }) => id === 'endpoints');
  expect(endpoints.children).toEqual([]);
});

test('a key and headers go along, and a refused key is told from a silent server', async () => {
  const box = await engine({ apiKey: 'the right one' });
  const server = await startLocal({ env: QUIET });
  expect(await found(server, { base_url: box.url, api_key: 'the right one' })).toMatchObject({
    reachable: true,
    error: null,
  });
  const refused = await found(server, { base_url: box.url, api_key: 'a-wrong-key' });
  expect(refused).toEqual({
    reachable: true,
    endpoint_type: null,
    models: [],
    latency_ms: null,
    error: 'the endpoint refused the key',
  });
  const fake = await serve({ '/api/tags': tags });
  await found(server, { base_url: fake.url, headers: { 'x-own': 'yes' } });
  expect(fake.headers.every((sent) => sent['x-own'] === 'yes')).toBe(true);
});

test('what answers but is no inference server is reachable, of no type, and said so', async () => {
  const web = await serve({}, status(200, '<html>'));
  const server = await startLocal({ env: QUIET });
  const { error, ...rest } = await found(server, { base_url: web.url });
  expect(rest).toEqual({ reachable: true, endpoint_type: null, models: [], latency_ms: null });
  expect(error).toContain('no inference server');
});

test('nobody there, and somebody who never answers, are unreachable and said in words', async () => {
  const server = await startLocal({ env: { ...QUIET, TROUPE_HEALTH_TIMEOUT_MS: '300' } });
  const gone = await engine();
  await gone.stop();
  expect(await found(server, { base_url: gone.url, api_key: 'a-key-of-mine' })).toEqual({
    reachable: false,
    endpoint_type: null,
    models: [],
    latency_ms: null,
    error: 'connection refused',
  });
  const silent = await serveRaw(() => {});
  expect(await found(server, { base_url: silent.url })).toMatchObject({
    reachable: false,
    error: 'no answer within 300 ms',
  });
});

test.each([
  ['ftp://box', 'base_url'],
  ['http://user:pass@box', 'base_url'],
  ['http://169.254.169.254', 'base_url'],
  ['http://[fe80::1]:80', 'base_url'],
  ['nothing', 'base_url'],
])('the URL %s is refused as it is when an endpoint is registered', async (url, field) => {
  const server = await startLocal({ env: QUIET });
  const registered = await server.send('POST', '/api/endpoints', { name: 'x', base_url: url });
  const reply = await detect(server, { base_url: url });
  expect([reply.status, reply.json]).toEqual([400, registered.json]);
  expect(reply.json.error.message).toContain(field);
  expect(reply.text).not.toContain('pass');
});

test('engines on this machine are found side by side, named, and known again under any name of it', async () => {
  const one = await engine({ engine: 'ollama', models: ['m'] });
  const two = await engine({ engine: 'ollama' });
  const vllm = await engine({ engine: 'vllm' });
  const web = await serve({}, status(404));
  const gone = await engine();
  await gone.stop();
  const silent = await serveRaw(() => {});
  const localPorts = [one, web, two, gone, silent, vllm].map(({ url }) => portOf(url));
  const server = await startLocal({ env: QUIET, seams: { localPorts } });
  const local = async () => (await server.get('/api/endpoints/local')).json.engines;
  const began = performance.now();
  const engines = await local();
  // The silent one costs its second once, not each of them.
  expect(performance.now() - began).toBeLessThan(5000);
  expect(engines.map(({ name, registered }: Record<string, unknown>) => [name, registered])).toEqual([
    ['ollama', false],
    ['ollama-2', false],
    ['vllm', false],
  ]);
  expect(engines[0]).toEqual({
    base_url: one.url,
    endpoint_type: 'ollama',
    models: ['m'],
    name: 'ollama',
    registered: false,
  });

  await server.register('ollama', one.url.replace('127.0.0.1', 'localhost'));
  const again = await local();
  expect(again.map(({ name, registered }: Record<string, unknown>) => [name, registered])).toEqual([
    ['ollama-2', true],
    ['ollama-3', false],
    ['vllm', false],
  ]);
});

test('many who look for engines at once cause one look, and Troupe does not look at itself', async () => {
  const fake = await serve({ '/api/tags': tags, '/api/version': { version: '0.5.1' } });
  const ports = [portOf(fake.url)];
  const server = await startLocal({ env: QUIET, seams: { localPorts: ports } });
  ports.push(portOf(server.url));
  const replies = await Promise.all(Array.from({ length: 20 }, () => server.get('/api/endpoints/local')));
  expect(new Set(replies.map(({ text }) => text)).size).toBe(1);
  const looks = fake.asked.filter((path) => path === '/api/tags').length;
  expect(looks).toBeLessThan(5);
  await until(async () => (await server.get('/api/endpoints/local')).json.engines.length === 1);
});
