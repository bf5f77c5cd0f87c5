import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { fromPromise } from 'xstate';
import type { Seams } from '../src/server.js';
import {
  chatBody,
  dial,
  openStream,
  payloads,
  rawRequest,
  replyTo,
  startRequest,
} from './support/clients.js';
import {
  api,
  engine,
  newDataDir,
  pause,
  runServer,
  spawnServer,
  startLocal,
  until,
} from './support/server.js';
import * as shapes from './support/shapes.js';

/** Takes a port, or finds a free one. */
async function listener(): Promise<{ port: number; close(): Promise<void> }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const close = () => new Promise<void>((resolve) => server.close(() => resolve()));
  onTestFinished(() => close());
  return { port: typeof address === 'object' && address !== null ? address.port : 0, close };
}

/** A start that must fail: exit 2 and one line on stderr that names what is wrong. */
async function expectRefused(args: string[], env: Record<string, string>, names: string): Promise<void> {
  const run = runServer(args, env);
  expect([await run.exited, run.stdout()]).toEqual([2, '']);
  const lines = run.stderr().trimEnd().split('\n');
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain(names);
}

// Options.

test('--help and --version print and end, and touch nothing', async () => {
  const dataDir = newDataDir();
  const help = runServer(['--data-dir', dataDir, '--help']);
  expect(await help.exited).toBe(0);
  for (const option of ['--host', '--port', '--data-dir', '--endpoint', '--demo', '--log-level', '--check']) {
    expect(help.stdout()).toContain(option);
  }
  const version = runServer(['--data-dir', dataDir, '--version']);
  expect(await version.exited).toBe(0);
  expect(version.stdout()).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect(existsSync(dataDir)).toBe(false);
});

test('--check judges options and data dir without starting', async () => {
  const dataDir = newDataDir();
  const good = runServer(['--data-dir', dataDir, '--check']);
  expect(await good.exited).toBe(0);
  expect(good.stderr()).toBe('');
  expect(existsSync(dataDir)).toBe(false);
  const slip = runServer(['--data-dir', dataDir, '--check'], { TROUPE_QUEU_MAX: '5' });
  expect([await slip.exited, slip.stderr()]).toEqual([
    0,
    'TROUPE_QUEU_MAX sets nothing: there is no such variable\n',
  ]);
  await expectRefused(['--data-dir', dataDir, '--check', '--port', 'x'], {}, '--port');
  const file = join(dirname(newDataDir()), 'file');
  writeFileSync(file, '');
  await expectRefused(['--data-dir', file, '--check'], {}, file);
  await expectRefused(['--data-dir', join(file, 'below'), '--check'], {}, file);
  const running = await spawnServer();
  await expectRefused(['--data-dir', running.dataDir, '--check'], {}, running.dataDir);
});

test('a data dir that cannot be made is refused, also where Node would try for ever', async () => {
  await expectRefused(['--data-dir', '/proc/nowhere/below'], {}, '/proc/nowhere/below');
  const file = join(dirname(newDataDir()), 'a-file');
  writeFileSync(file, '');
  await expectRefused(['--data-dir', join(file, 'below')], {}, file);
});

test.each([
  [['--bogus'], {}, '--bogus'],
  [['stray'], {}, 'stray'],
  [['--port'], {}, '--port'],
  [['--port', '65536'], {}, '--port'],
  [['--port', '-1'], {}, '--port'],
  [['--port=-1'], {}, '--port'],
  [['--port', 'http'], {}, '--port'],
  [['--log-level', 'loud'], {}, '--log-level'],
  [['--policy', 'best'], {}, '--policy'],
  [[], { TROUPE_POLICY: 'constructor' }, 'TROUPE_POLICY'],
  [['--endpoint', 'http://127.0.0.1:1'], {}, '--endpoint'],
  [['--endpoint', 'box=ftp://127.0.0.1'], {}, '--endpoint'],
  [['--endpoint', 'box=http://u:p@127.0.0.1'], {}, '--endpoint'],
  [['--no-auth', '--host', '0.0.0.0'], {}, '--no-auth'],
  [
    ['--host', '192.168.7.7'],
    {},
    '--host 192.168.7.7: it cannot be listened on: it is no address of this machine',
  ],
  [['--host', '999.1.1.1', '--port', '7180'], {}, '--host'],
  [['--host', '999.1.1.1', '--check'], {}, '--host'],
  [['--no-auth', '--host', '::'], {}, '--no-auth'],
  [['--tls-cert', 'cert.pem'], {}, '--tls-key'],
  [['--tls-key', 'key.pem'], {}, '--tls-cert'],
  [['--tls-cert', '/nowhere/cert.pem', '--tls-key', '/nowhere/key.pem'], {}, '--tls-cert'],
  [['--trust-proxy', 'everybody'], {}, '--trust-proxy'],
  [['--endpoint', 'box=http://169.254.169.254'], {}, '--endpoint'],
  [[], { TROUPE_TRUST_PROXY: '10.0.0.0/99' }, 'TROUPE_TRUST_PROXY'],
  [[], { TROUPE_CORS_ORIGINS: 'app.example' }, 'TROUPE_CORS_ORIGINS'],
  [[], { TROUPE_SECRET_KEY: 'short' }, 'TROUPE_SECRET_KEY'],
  [[], { TROUPE_API_KEY: ' ' }, 'TROUPE_API_KEY'],
  [[], { TROUPE_ADMIN_PASSWORD: '' }, 'TROUPE_ADMIN_PASSWORD'],
  [[], { TROUPE_QUEUE_MAX_PER_KEY: 'x' }, 'TROUPE_QUEUE_MAX_PER_KEY'],
  [[], { TROUPE_PORT: 'abc' }, 'TROUPE_PORT'],
  [[], { TROUPE_LOG_LEVEL: 'loud' }, 'TROUPE_LOG_LEVEL'],
  [[], { TROUPE_ENDPOINTS: 'nonsense' }, 'TROUPE_ENDPOINTS'],
  [[], { TROUPE_HEALTH_INTERVAL_MS: 'soon' }, 'TROUPE_HEALTH_INTERVAL_MS'],
  [[], { TROUPE_HEALTH_TIMEOUT_MS: '-5' }, 'TROUPE_HEALTH_TIMEOUT_MS'],
  [[], { TROUPE_HISTORY_RETENTION_DAYS: 'x' }, 'TROUPE_HISTORY_RETENTION_DAYS'],
  [[], { TROUPE_SHUTDOWN_GRACE_MS: '1.5' }, 'TROUPE_SHUTDOWN_GRACE_MS'],
  [[], { TROUPE_CONNECT_TIMEOUT_MS: 'x' }, 'TROUPE_CONNECT_TIMEOUT_MS'],
  [[], { TROUPE_FIRST_BYTE_TIMEOUT_MS: 'x' }, 'TROUPE_FIRST_BYTE_TIMEOUT_MS'],
  [[], { TROUPE_IDLE_TIMEOUT_MS: 'x' }, 'TROUPE_IDLE_TIMEOUT_MS'],
  [[], { TROUPE_TOTAL_TIMEOUT_MS: '99999999999' }, 'TROUPE_TOTAL_TIMEOUT_MS'],
  [[], { TROUPE_DEMO: 'maybe' }, 'TROUPE_DEMO'],
  [['--demo'], {}, '--data-dir'],
] as [string[], Record<string, string>, string][])(
  '%j %j is refused by name, with nothing on disk',
  async (args, env, names) => {
    const dataDir = newDataDir();
    const port = args.includes('--port') || 'TROUPE_PORT' in env ? [] : ['--port', '0'];
    await expectRefused(['--data-dir', dataDir, ...port, ...args], env, names);
    expect(existsSync(dataDir)).toBe(false);
  },
);

test('without access control TROUPE_HOST outside of loopback is refused', async () => {
  const dataDir = newDataDir();
  await expectRefused(
    ['--no-auth', '--data-dir', dataDir, '--port', '0'],
    { TROUPE_HOST: '0.0.0.0' },
    '0.0.0.0',
  );
  expect(existsSync(dataDir)).toBe(false);
});

test('a link to the server is the server', async () => {
  const link = join(mkdtempSync(join(tmpdir(), 'troupe-test-')), 'troupe');
  const target = fileURLToPath(new URL('../dist/server.js', import.meta.url));
  symlinkSync(target, link);
  const run = await promisify(execFile)(process.execPath, [link, '--version']);
  expect(run.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test('a taken port is refused, and nothing is on disk', async () => {
  const { port } = await listener();
  const dataDir = newDataDir();
  await expectRefused(['--data-dir', dataDir, '--port', String(port)], {}, String(port));
  expect(existsSync(dataDir)).toBe(false);
});

test('a data dir that is held by another Troupe is refused and left as it is; the first one serves on', async () => {
  const first = await spawnServer();
  const files = () => readdirSync(first.dataDir).sort();
  const before = files();
  await expectRefused(['--data-dir', first.dataDir, '--port', '0'], {}, first.dataDir);
  expect(files()).toEqual(before);
  expect((await first.get('/ready')).status).toBe(200);
});

test('environment and options mean the same, options win', async () => {
  const { port, close } = await listener();
  await close();
  const dataDir = newDataDir();
  const run = runServer(['--port', String(port)], {
    TROUPE_DATA_DIR: dataDir,
    TROUPE_PORT: '1',
    TROUPE_HOST: 'localhost',
  });
  const url = await run.ready();
  expect(url).toBe(`http://127.0.0.1:${port}`);
  expect(existsSync(join(dataDir, 'troupe.db'))).toBe(true);
});

test('one line says that it is ready: address, absolute data dir, endpoints, seeded', async () => {
  const server = await spawnServer({ args: ['--endpoint', 'box=http://127.0.0.1:9'] });
  const lines = server
    .output()
    .trim()
    .split('\n')
    .filter((line) => line.includes('ready on'));
  expect(lines).toHaveLength(1);
  const line = JSON.parse(lines[0] ?? '');
  expect(line).toMatchObject({ address: server.url, data_dir: server.dataDir, endpoints: 1, seeded: true });
  expect(isAbsolute(line.data_dir)).toBe(true);
  expect(statSync(server.dataDir).mode & 0o777).toBe(0o700);
});

test('the ready line is there even where only errors are logged', async () => {
  const server = await spawnServer({ env: { TROUPE_LOG_LEVEL: 'error' } });
  expect((await server.get('/health')).status).toBe(200);
});

// Endpoints of the command line.

test('--endpoint registers once: a known URL stays as it is, a taken name is warned of with both URLs', async () => {
  const [box, other] = [await engine(), await engine()];
  const list = async (server: { get: ReturnType<typeof api>['get'] }) =>
    (await server.get('/api/endpoints')).json.endpoints.map((one: { name: string; base_url: string }) => [
      one.name,
      one.base_url,
    ]);
  const first = await spawnServer({ args: ['--endpoint', `box=${box.url}/v1/`] });
  await until(async () => (await first.get('/api/endpoints?status=online')).json.total === 1);
  expect(await list(first)).toEqual([['box', box.url]]);
  expect((await first.chat('sim-small')).status).toBe(200);
  await first.end();

  const { dataDir } = first;
  const same = await spawnServer({ dataDir, args: ['--endpoint', `another=${box.url}`] });
  expect(await list(same)).toEqual([['box', box.url]]);
  expect((await same.get('/api/dashboard/endpoints')).json[0].total_requests).toBe(1);
  await same.end();
  expect(same.output()).not.toContain('"level":40');

  const moved = await spawnServer({ dataDir, args: ['--endpoint', `box=${other.url}`] });
  expect(await list(moved)).toEqual([['box', box.url]]);
  await moved.end();
  const warnings = moved
    .output()
    .split('\n')
    .filter((line) => line.includes('"level":40'));
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain(box.url);
  expect(warnings[0]).toContain(other.url);
});

test('TROUPE_ENDPOINTS registers a comma separated list', async () => {
  const [box, other] = [await engine(), await engine({ models: ['else'] })];
  const server = await spawnServer({ env: { TROUPE_ENDPOINTS: `one=${box.url},two=${other.url}` } });
  await until(async () => (await server.get('/api/endpoints?status=online')).json.total === 2);
  expect((await server.chat('else')).headers.get('x-troupe-endpoint')).toBe('two');
});

test('a dead endpoint on the command line does not hold up the start', async () => {
  const box = await engine();
  box.faults.models = { kind: 'hang' };
  const server = await spawnServer({ args: ['--endpoint', `box=${box.url}`] });
  expect((await server.get('/api/endpoints')).json.endpoints[0].status).toBe('pending');
});

// Liveness.

test('liveness answers exactly what it promises', async () => {
  const server = await startLocal();
  const health = await server.get('/health');
  expect([health.status, health.json]).toEqual([200, { status: 'ok' }]);
  const ready = await server.get('/ready');
  expect([ready.status, ready.json]).toEqual([200, { status: 'ready', seeded: true, degraded: false }]);
  const version = await server.get('/api/version');
  expect([version.status, version.json]).toEqual([200, { version: expect.stringMatching(/^\d+\.\d+\.\d+/) }]);
});

test('until seeding is done everything but liveness is 503 with Retry-After: 1', async () => {
  const { port, close } = await listener();
  await close();
  let seeded = (_missing: string[]) => {};
  const gate = new Promise<string[]>((resolve) => {
    seeded = resolve;
  });
  const tamper: Seams['tamper'] = {
    root: (root) => root.provide({ actors: { seed: fromPromise(() => gate) } }),
  };
  const starting = startLocal({ args: ['--port', String(port)], seams: { tamper } });
  const early = api(`http://127.0.0.1:${port}`);
  await until(() =>
    early.get('/health').then(
      ({ status }) => status === 200,
      () => false,
    ),
  );
  const ready = await early.get('/ready');
  expect([ready.status, ready.json]).toEqual([503, { status: 'seeding' }]);
  for (const path of [
    '/api/version',
    '/api/endpoints',
    '/api/dashboard/overview',
    '/v1/models',
    '/nothing',
  ]) {
    const reply = await early.get(path);
    expect([path, reply.status, reply.headers.get('retry-after')]).toEqual([path, 503, '1']);
  }
  expect((await early.chat('any')).status).toBe(503);
  seeded([]);
  const server = await starting;
  expect((await server.get('/ready')).status).toBe(200);
});

// Ending.

test('SIGTERM during 50 streams: all finish, new ones are refused, everything is on disk, exit 0', async () => {
  const box = await engine();
  const first = await spawnServer();
  const { id } = await first.register('box', box.url);
  box.faults.always = { kind: 'stall', afterTokens: 2 };
  const streams = await Promise.all(Array.from({ length: 50 }, () => openStream(first.url, 'sim-small')));
  const ended = first.end('SIGTERM');
  await until(async () => (await first.get('/ready')).status === 503);
  expect((await first.get('/ready')).json).toEqual({ status: 'draining' });
  const refused = await first.chat('sim-small');
  expect([refused.status, refused.json.error.code]).toEqual([503, 'shutting_down']);
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
  expect((await first.get('/api/dashboard/stats')).json.total_active_requests).toBe(50);
  box.release();
  for (const stream of streams) {
    expect(await stream.whole).toBe(true);
    expect(payloads(stream.text()).at(-1)).toBe('[DONE]');
  }
  expect(await ended).toBe(0);

  const second = await spawnServer({ dataDir: first.dataDir });
  const [endpoint] = (await second.get('/api/dashboard/endpoints')).json;
  expect(endpoint).toMatchObject({ total_requests: 50, successful_requests: 50, failed_requests: 0 });
  const { records } = (await second.get(`/api/dashboard/request-responses?per_page=100&endpoint_id=${id}`))
    .json;
  expect(new Set(records.map((row: { id: string }) => row.id)).size).toBe(50);
  // A 503 of ours is an error of the client's, without an endpoint.
  const { requests_60m } = (await second.get('/api/dashboard/stats')).json;
  expect(requests_60m).toEqual({ success: 50, error: 1 });
  const failed = (await second.get('/api/dashboard/request-responses?status=error')).json.records;
  expect(failed).toMatchObject([{ outcome: 'failure', status_code: 503, endpoint_id: null, attempts: [] }]);
});

test('when the grace is over streams end with shutting_down, others with a 503, nobody’s counter moves, exit 0', async () => {
  const box = await engine();
  const first = await spawnServer({ env: { TROUPE_SHUTDOWN_GRACE_MS: '300' } });
  await first.register('box', box.url);
  box.faults.next.push({ kind: 'stall', afterTokens: 2 }, { kind: 'hang' });
  const stream = await openStream(first.url, 'sim-small');
  const waiting = replyTo(startRequest(first.url, '/v1/chat/completions', { body: chatBody('sim-small') }));
  await until(() => box.active === 2);
  expect(await first.end('SIGINT')).toBe(0);
  await stream.whole;
  expect(JSON.parse(payloads(stream.text()).at(-1) ?? '').error).toMatchObject({
    type: 'upstream_error',
    code: 'shutting_down',
  });
  expect(stream.text()).not.toContain('[DONE]');
  const refused = await waiting;
  await refused.whole;
  expect([refused.status, refused.json().error.code]).toEqual([503, 'shutting_down']);

  const second = await spawnServer({ dataDir: first.dataDir });
  expect((await second.get('/api/dashboard/endpoints')).json[0]).toMatchObject({ total_requests: 0 });
  const { records } = (await second.get('/api/dashboard/request-responses')).json;
  expect(records.map((row: { status_code: number }) => row.status_code).sort()).toEqual([200, 503]);
  for (const row of records)
    expect(row).toMatchObject({ outcome: 'failure', attempts: [{ outcome: 'cancelled' }] });
});

test('readers of the event stream and idle connections do not hold up the end', async () => {
  const server = await spawnServer({ env: { TROUPE_SHUTDOWN_GRACE_MS: '60000' } });
  const events = await rawRequest(server.url, '/api/dashboard/events');
  await dial(server.url);
  expect(await server.end()).toBe(0);
  await events.whole;
});

test.each([
  ['SIGTERM', 143],
  ['SIGINT', 130],
] as const)('a second %s ends at once with %s', async (signal, code) => {
  const box = await engine();
  const server = await spawnServer();
  await server.register('box', box.url);
  box.faults.next.push({ kind: 'stall', afterTokens: 2 });
  await openStream(server.url, 'sim-small');
  server.child.kill(signal);
  await until(async () => (await server.get('/ready')).status === 503);
  expect(await server.end(signal)).toBe(code);
});

test('after kill -9 and an immediate restart nothing is there twice, and what finished a second before is there', async () => {
  const box = await engine();
  const first = await spawnServer();
  await first.register('box', box.url);
  for (let i = 0; i < 10; i += 1) await first.chat('sim-small', { stream: i % 2 === 0 });
  await pause(1000);
  let answered = 10;
  let busy = true;
  const clients = Array.from({ length: 4 }, async () => {
    while (busy) {
      const ok = await first.chat('sim-small').then(
        ({ status }) => status === 200,
        () => false,
      );
      if (ok) answered += 1;
    }
  });
  await until(() => answered > 30);
  expect(await first.end('SIGKILL')).toBe('SIGKILL');
  busy = false;
  await Promise.all(clients);

  const second = await spawnServer({ dataDir: first.dataDir });
  const { endpoints, stats, history } = (await second.get('/api/dashboard/overview')).json;
  const total = endpoints[0].total_requests;
  expect(total).toBeGreaterThanOrEqual(10);
  // What was under way when it died may be on disk though no client saw its end.
  expect(total).toBeLessThanOrEqual(answered + 4);
  expect(endpoints[0].successful_requests).toBe(total);
  const { records, total_count } = (await second.get('/api/dashboard/request-responses?per_page=100')).json;
  expect(total_count).toBe(total);
  expect(new Set(records.map((row: { id: string }) => row.id)).size).toBe(records.length);
  expect(stats.requests_60m.success).toBe(total);
  expect(history.reduce((sum: number, point: { success: number }) => sum + point.success, 0)).toBe(total);
  expect((await second.chat('sim-small')).status).toBe(200);
});

// The demo.

test('the demo comes alive by itself and leaves nothing behind', async () => {
  const run = runServer(['--demo', '--port', '0']);
  const url = await run.ready();
  const demo = api(url);
  await until(async () => (await demo.get('/api/dashboard/stats')).json.successful_requests > 0);
  const endpoints = (await demo.get('/api/dashboard/endpoints')).json;
  expect(endpoints.map((one: { status: string }) => one.status)).toEqual(['online', 'online', 'online']);
  const dataDir = /"data_dir":"([^"]+)"/.exec(run.stdout())?.[1] ?? '';
  expect(existsSync(dataDir)).toBe(true);
  run.child.kill('SIGINT');
  await until(async () => (await demo.get('/ready').catch(() => ({ status: 503 }))).status === 503);
  expect(await run.exited).toBe(0);
  expect(existsSync(dataDir)).toBe(false);
});

// Who is let in.

test('where nobody is asked for a key only clients that name this machine are let in', async () => {
  const server = await startLocal({ args: ['--no-auth'] });
  const { port } = new URL(server.url);
  const status = async (path: string, headers: Record<string, string>, body?: string) => {
    const reply = await rawRequest(server.url, path, { headers, ...(body === undefined ? {} : { body }) });
    await reply.whole;
    if (reply.status === 403) {
      const shape = path.startsWith('/v1') ? shapes.openAiError : shapes.apiError;
      expect(reply.json()).toEqual(expect.schemaMatching(shape));
    }
    return reply.status;
  };
  for (const host of ['127.0.0.1', `127.0.0.1:${port}`, 'localhost', `LOCALHOST:${port}`, `[::1]:${port}`]) {
    expect([host, await status('/api/endpoints', { host })]).toEqual([host, 200]);
  }
  for (const host of [
    'evil.example',
    '127.0.0.1.evil.example',
    `evil.example:${port}`,
    '10.0.0.1',
    'localhost.evil',
  ]) {
    expect([host, await status('/api/endpoints', { host })]).toEqual([host, 403]);
    expect([host, await status('/v1/chat/completions', { host }, chatBody('x'))]).toEqual([host, 403]);
  }
});

test('where nobody is asked for a key pages of other origins change nothing', async () => {
  const box = await engine();
  const server = await startLocal({ args: ['--no-auth'] });
  const body = { name: 'box', base_url: box.url };
  for (const origin of ['https://evil.example', 'null', 'http://localhost.evil.example']) {
    const reply = await server.send('POST', '/api/endpoints', body, { origin });
    expect([origin, reply.status]).toEqual([origin, 403]);
    expect((await server.send('POST', '/v1/chat/completions', { model: 'x' }, { origin })).status).toBe(403);
  }
  expect((await server.get('/api/endpoints')).json.total).toBe(0);
  const own = await server.send('POST', '/api/endpoints', body, { origin: 'http://localhost:5173' });
  expect(own.status).toBe(201);
});

// The log.

test('there is one line per finished request, without prompt, answer or key', async () => {
  const box = await engine({ apiKey: 'canary-box-key' });
  const server = await spawnServer({ env: { TROUPE_API_KEY: 'canary-client-key' } });
  const key = { authorization: 'Bearer canary-client-key' };
  await server.send(
    'POST',
    '/api/endpoints',
    { name: 'box', base_url: box.url, api_key: 'canary-box-key', headers: { 'x-tenant': 'canary-tenant' } },
    key,
  );
  const ask = (id: string, more: object) =>
    server.send(
      'POST',
      '/v1/chat/completions',
      { model: 'sim-small', messages: [{ role: 'user', content: 'canary-prompt' }], ...more },
      { 'x-request-id': id, authorization: 'Bearer canary-client-key', cookie: 'canary-cookie' },
    );
  await ask('whole', {});
  await ask('stream', { stream: true });
  box.faults.next.push({
    kind: 'status',
    status: 500,
    body: '{"error":{"message":"cannot say canary-prompt"}}',
  });
  await ask('refused', {});
  box.faults.next.push({ kind: 'cut' });
  await ask('cut', { stream: true });
  expect(await server.end()).toBe(0);
  const finished = server.logLines().filter(({ request_id }) => request_id !== undefined);
  expect(finished.map(({ request_id }) => request_id)).toEqual(['whole', 'stream', 'refused', 'cut']);
  expect(server.output()).not.toMatch(/canary|plays every night/);
});
