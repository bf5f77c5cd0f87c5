import { execFileSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import { rawRequest } from './support/clients.js';
import { engine, type Reply, type ServerProcess, spawnServer, until } from './support/server.js';

const MODEL = 'sim-small';
/** What may be seen, and must be, or else the search looks in the wrong places. */
const VISIBLE = 'the-visible-box';

/** What must not be seen, by what it is. */
class Secrets {
  readonly #all = new Map<string, string>();

  /** A new one, that no other text contains by chance. */
  make(what: string): string {
    return this.add(what, `${what.replaceAll(' ', '-')}-${randomBytes(12).toString('hex')}`);
  }

  /** One short enough to stand whole in a message that shows where something is wrong. */
  makeShort(what: string): string {
    return this.add(what, Array.from({ length: 10 }, () => 'bcdfghjkmnpqrtvwxz'[randomInt(18)]).join(''));
  }

  /** One that the server has made. */
  add(what: string, secret: string): string {
    expect(secret.length).toBeGreaterThanOrEqual(10);
    this.#all.set(`${what} ${this.#all.size}`, secret);
    return secret;
  }

  /** Of a key the first ten characters may be shown. */
  addKey(what: string, key: string): string {
    this.add(what, key.slice(10));
    return key;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Which of them are there, and how they are written. */
  in(text: string): string[] {
    const lower = text.toLowerCase();
    return [...this.#all].flatMap(([what, secret]) =>
      formsOf(secret)
        .filter(({ form, anyCase }) => (anyCase ? lower : text).includes(form))
        .map(({ how }) => `${what} ${how}`),
    );
  }
}

/** A secret as it is, as hex, and as base64 wherever it lies in what was encoded. */
function formsOf(secret: string): { how: string; form: string; anyCase: boolean }[] {
  const bytes = Buffer.from(secret);
  const base64 = [0, 1, 2].map((offset) => {
    const encoded = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const whole = Math.floor(((offset + bytes.length) * 8) / 6);
    return encoded.slice(Math.ceil((offset * 8) / 6), whole);
  });
  return [
    { how: 'as it is', form: secret.toLowerCase(), anyCase: true },
    { how: 'in hex', form: bytes.toString('hex'), anyCase: true },
    ...base64.map((form) => ({ how: 'in base64', form, anyCase: false })),
    ...base64.map((form) => ({
      how: 'in base64url',
      form: form.replaceAll('+', '-').replaceAll('/', '_'),
      anyCase: false,
    })),
  ];
}

test('a secret is found as it is, in hex and in base64, in the middle of other text and bytes', () => {
  const secrets = new Secrets();
  const secret = secrets.make('the one');
  const key = secrets.addKey('a key', `sk_${randomBytes(32).toString('base64url')}`);
  for (const before of ['', 'a', 'ab', 'abc', '\u0000\u00ff']) {
    const text = `${before}${secret}and more`;
    const forms = [
      text,
      text.toUpperCase(),
      Buffer.from(text).toString('hex'),
      Buffer.from(text).toString('hex').toUpperCase(),
      Buffer.from(text).toString('base64'),
      Buffer.from(text).toString('base64url'),
    ];
    for (const form of forms)
      expect(secrets.in(`..${form}..`)).toContainEqual(expect.stringMatching(/^the one 0 /));
  }
  expect(secrets.in(`${secret.slice(0, -1)} ${key.slice(0, 10)} nothing else`)).toEqual([]);
  expect(secrets.in(`x${key}x`)).toHaveLength(1);
});

/** A server that is asked all sorts of things, and every error it answered. */
class Run {
  readonly secrets: Secrets;
  readonly server: ServerProcess;
  readonly box: SimulatedEngine;
  readonly #key: string;
  #errors: string[] = [];

  constructor(secrets: Secrets, server: ServerProcess, box: SimulatedEngine, key: string) {
    this.secrets = secrets;
    this.server = server;
    this.box = box;
    this.#key = key;
  }

  get errors(): string {
    return this.#errors.join('\n');
  }

  get errorCount(): number {
    return this.#errors.length;
  }

  /** `status`: what must come, so that nothing that was to happen is left out. */
  async ask(
    status: number,
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = { authorization: `Bearer ${this.#key}` },
  ): Promise<Reply> {
    const reply = await this.server.send(method, path, body, headers);
    expect([method, path, reply.status, reply.text]).toEqual([method, path, status, expect.any(String)]);
    if (status >= 400) this.#note(reply.status, reply.text, [...reply.headers].join('\n'));
    return reply;
  }

  /** The same with a body of any bytes. */
  async askRaw(status: number, path: string, body: string, method = 'POST'): Promise<void> {
    const reply = await rawRequest(this.server.url, path, {
      method,
      body,
      headers: { authorization: `Bearer ${this.#key}` },
    });
    await reply.whole;
    expect([path, reply.status]).toEqual([path, status]);
    if (status >= 400) this.#note(reply.status, reply.text(), reply.rawHeaders.join('\n'));
  }

  /** What an endpoint answers goes to the client as it is, and is none of ours. */
  async chat(status: number, body: object, isTheirs = false): Promise<string> {
    const reply = await rawRequest(this.server.url, '/v1/chat/completions', {
      body: JSON.stringify({ model: MODEL, ...body }),
      headers: { authorization: `Bearer ${this.#key}` },
    });
    await reply.whole;
    expect([reply.status, reply.text()]).toEqual([status, expect.any(String)]);
    if (status >= 400 && !isTheirs) this.#note(reply.status, reply.text(), reply.rawHeaders.join('\n'));
    return reply.text();
  }

  #note(status: number, text: string, headers: string): void {
    this.#errors.push(`${status}\n${headers}\n${text}`);
  }
}

const says = (content: string) => [{ role: 'user', content }];

/** Requests whose prompts and answers nobody but the two ends may know, answered well and badly. */
async function infer(run: Run): Promise<void> {
  const { box, secrets } = run;
  const usage = { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 };
  const answer = (content: string) => ({
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model: MODEL,
    choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
    usage,
  });
  const event = (value: object) => `data: ${JSON.stringify(value)}\n\n`;
  const chunk = (content: string) =>
    event({
      id: 'c',
      object: 'chat.completion.chunk',
      created: 1,
      model: MODEL,
      choices: [{ index: 0, delta: { content } }],
    });
  const events = { 'content-type': 'text/event-stream' };

  const said = secrets.make('an answer');
  box.faults.next.push({ kind: 'status', status: 200, body: JSON.stringify(answer(said)) });
  expect(await run.chat(200, { messages: says(secrets.make('a prompt')) })).toContain(said);

  const streamed = secrets.make('a streamed answer');
  const ends = event({ id: 'c', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage });
  const body = `${chunk(streamed)}${ends}data: [DONE]\n\n`;
  box.faults.next.push({ kind: 'status', status: 200, headers: events, body });
  const streaming = { stream: true, messages: says(secrets.make('a streamed prompt')) };
  expect(await run.chat(200, streaming)).toContain(streamed);

  // An error in the middle of a stream, and a stream that is cut, that repeat what they were asked.
  const repeated = secrets.make('a prompt in an error event');
  const failure = event({ error: { message: `cannot do ${repeated}`, type: 'server_error', code: 'oom' } });
  box.faults.next.push({
    kind: 'status',
    status: 200,
    headers: events,
    body: `${chunk(repeated)}${failure}`,
  });
  await run.chat(200, { stream: true, messages: says(repeated) });
  const cut = secrets.make('an answer that is cut');
  box.faults.next.push({
    kind: 'status',
    status: 200,
    headers: events,
    body: `${chunk(cut)}data: {"choices": [{`,
  });
  await run.chat(200, { stream: true, messages: says(secrets.make('a prompt that is cut')) });
  const half = secrets.make('half an answer');
  box.faults.next.push({ kind: 'status', status: 200, body: `{"choices":[{"message":{"content":"${half}` });
  await run.chat(200, { messages: says(secrets.make('a prompt for half an answer')) });

  // Errors of the endpoint that repeat the prompt.
  for (const status of [400, 404, 422, 500, 503]) {
    const prompt = secrets.make(`a prompt that is answered with ${status}`);
    const fault = {
      kind: 'status',
      status,
      body: JSON.stringify({ error: { message: `no: ${prompt}`, code: prompt } }),
    } as const;
    // As often as it is tried.
    box.faults.always = fault;
    await run.chat(status, { messages: says(prompt) }, true);
    box.faults.always = null;
    await until(
      async () => (await run.ask(200, 'GET', '/api/endpoints')).json.endpoints[0].circuit !== 'open',
    );
  }
  for (const [fault, status] of [
    [{ kind: 'redirect', location: `http://127.0.0.1:1/?key=${secrets.make('a place of a redirect')}` }, 502],
    [{ kind: 'reset' }, 502],
    [{ kind: 'garbage' }, 200],
  ] as const) {
    box.faults.always = fault;
    await run.chat(status, { messages: says(secrets.make(`a prompt with ${fault.kind}`)) });
    box.faults.always = null;
  }

  for (const [path, more] of [
    ['/v1/completions', { prompt: secrets.make('a plain prompt') }],
    ['/v1/embeddings', { input: secrets.make('an input to embed') }],
    ['/v1/responses', { input: secrets.make('an input to respond to') }],
  ] as const) {
    await run.ask(200, 'POST', path, { model: MODEL, ...more });
    await run.ask(404, 'POST', path, { model: 'nobody', ...more });
    await run.ask(400, 'POST', path, { ...more });
    await run.askRaw(
      400,
      path,
      `{"model":"${MODEL}","prompt":"${secrets.make('a prompt that is cut short')}`,
    );
  }
  const [first] = (await run.ask(200, 'GET', '/api/endpoints')).json.endpoints;
  const tried = { model: MODEL, messages: says(secrets.make('a prompt to try it out')) };
  await run.ask(200, 'POST', `/api/endpoints/${first.id}/chat/completions`, tried);
}

/** Log-ins, keys and users, as they should be and not. */
async function manage(run: Run, adminPassword: string): Promise<string> {
  const { secrets } = run;
  const none = { cookie: '' };
  const refused = (username: string, password: string) =>
    run.ask(401, 'POST', '/api/auth/login', { username, password }, none);
  const logIn = async (username: string, password: string) => {
    const { json } = await run.ask(200, 'POST', '/api/auth/login', { username, password }, none);
    return bearerOf(json);
  };
  /** The headers of a session that was just begun. */
  const bearerOf = (session: { token: string; csrf_token: string }): Record<string, string> => {
    secrets.add('a CSRF token', session.csrf_token);
    return { authorization: `Bearer ${secrets.add('a token', session.token)}` };
  };
  await refused('admin', secrets.make('a wrong password'));
  await refused(secrets.make('a user name that is nobodys'), secrets.make('another wrong password'));
  await refused(secrets.make('a password as a user name'), 'admin');
  await run.ask(401, 'GET', '/api/users', undefined, {
    authorization: `Bearer ${secrets.make('an unknown key')}`,
  });
  await run.ask(401, 'GET', '/api/users', undefined, { 'x-api-key': secrets.make('another unknown key') });
  await run.ask(401, 'GET', '/v1/models', undefined, {
    cookie: `troupe_session=${secrets.make('a stale cookie')}`,
  });
  await run.ask(401, 'GET', `/api/users?api_key=${secrets.make('a key in a query')}`, undefined, none);

  const bearer = await logIn('admin', adminPassword);
  const wanted = secrets.make('a new password');
  await run.ask(
    400,
    'PUT',
    '/api/auth/change-password',
    { current_password: secrets.make('not the password'), new_password: wanted },
    bearer,
  );
  await run.ask(
    400,
    'PUT',
    '/api/auth/change-password',
    { current_password: adminPassword, new_password: secrets.make('long').repeat(50) },
    bearer,
  );
  const changed = await run.ask(
    200,
    'PUT',
    '/api/auth/change-password',
    { current_password: adminPassword, new_password: wanted },
    bearer,
  );
  const newBearer = bearerOf(changed.json);
  await run.ask(401, 'GET', '/api/auth/me', undefined, bearer);

  const { user, generated_password: generated } = (
    await run.ask(201, 'POST', '/api/users', { username: 'viewer', role: 'viewer' })
  ).json;
  secrets.add('a generated password', generated);
  const viewer = await logIn('viewer', generated);
  await run.ask(403, 'GET', '/api/users', undefined, viewer);
  await run.ask(409, 'POST', '/api/users', { username: 'viewer', role: 'viewer' });
  const reset = await run.ask(200, 'PUT', `/api/users/${user.id}`, { reset_password: true });
  secrets.add('a reset password', reset.json.generated_password);

  const created = (
    await run.ask(201, 'POST', '/api/api-keys', { name: 'kept', permissions: ['dashboard.read'] })
  ).json;
  secrets.addKey('a key', created.key);
  await run.ask(403, 'GET', '/api/users', undefined, { authorization: `Bearer ${created.key}` });
  await run.ask(200, 'PUT', `/api/api-keys/${created.id}`, { name: 'renamed' });
  const revoked = (await run.ask(201, 'POST', '/api/me/api-keys', { name: 'revoked' })).json;
  secrets.addKey('a revoked key', revoked.key);
  await run.ask(204, 'DELETE', `/api/api-keys/${revoked.id}`);
  await run.ask(401, 'GET', '/v1/models', undefined, { 'x-api-key': revoked.key });
  await run.ask(204, 'DELETE', `/api/users/${user.id}`);
  await run.ask(204, 'POST', '/api/auth/logout', undefined, newBearer);
  return wanted;
}

/** Bodies that are refused, with something in them that was meant for nobody else. */
async function blunder(run: Run, endpointId: string): Promise<void> {
  const { secrets } = run;
  const secret = () => secrets.make('what a bad body holds');
  for (const path of [
    '/api/auth/login',
    '/api/users',
    '/api/api-keys',
    '/api/endpoints',
    '/v1/chat/completions',
  ]) {
    await run.askRaw(400, path, `{"password":"${secret()}`);
    await run.askRaw(400, path, secret());
    // Node's parser repeats a short text that it cannot read.
    await run.askRaw(400, path, secrets.makeShort('a short bad body'));
    await run.askRaw(400, path, `{"a":${secrets.makeShort('a short bad value')}}`);
    await run.askRaw(400, path, `["${secret()}"]`);
    await run.askRaw(400, path, `"${secret()}"`);
  }
  const at = (path: string, body: object, method = 'POST') => run.ask(400, method, path, body);
  await at('/api/auth/login', { username: 'admin', password: { text: secret() } });
  await at('/api/auth/login', { username: [secret()], password: secret() });
  await at('/api/users', { username: 'x', role: secret() });
  await at('/api/api-keys', { name: 'x', permissions: [secret()] });
  await at('/api/api-keys', { name: 'x', expires_at: secret() });
  await at('/api/endpoints', { name: 'x', base_url: `http://user:${secret()}@localhost` });
  await at('/api/endpoints', { name: 'x', base_url: `not a url ${secret()}` });
  await at('/api/endpoints', { name: 'x', base_url: `http://localhost/?key=${secret()}` });
  await at('/api/endpoints', { name: 'x', base_url: 'http://localhost', api_key: `${secret()}\n` });
  await at('/api/endpoints', {
    name: 'x',
    base_url: 'http://localhost',
    headers: { 'x-secret': `${secret()}\n` },
  });
  await at('/api/endpoints', { name: 'x', base_url: 'http://localhost', headers: { host: secret() } });
  await at(`/api/endpoints/${endpointId}`, { api_key: `${secret()}\u0000` }, 'PUT');
  await at(`/api/endpoints/${endpointId}`, { headers: [secret()] }, 'PUT');
  await at(`/api/endpoints/${endpointId}`, { tls_ca: secret() }, 'PUT');
  await at('/v1/chat/completions', { model: { name: secret() }, messages: says(secret()) });
}

interface Actor {
  id: string;
  children: Actor[];
}

/** But for probes, which may have ended by the time they are looked at. */
const flat = (actor: Actor): Actor[] => [
  actor,
  ...actor.children.filter(({ id }) => !id.startsWith('probe:')).flatMap(flat),
];

/** Everything that the dashboard and the endpoint routes tell, by where. */
async function looks(run: Run): Promise<Record<string, string>> {
  const seen: Record<string, string> = {};
  const look = async (path: string) => {
    const reply = await run.ask(200, 'GET', path);
    seen[path] = reply.text + JSON.stringify([...reply.headers]);
    return reply.json;
  };
  const dashboard = (path: string) => look(`/api/dashboard/${path}`);
  for (const path of [
    'overview',
    'endpoints',
    'stats',
    'request-history',
    'model-stats',
    'machines',
    'requests/live',
    'keys',
    'keys/usage.csv',
  ])
    await dashboard(path);
  const { records, total_count: total } = await dashboard('request-responses?per_page=100');
  expect(records).toHaveLength(total);
  for (const { id } of records) await dashboard(`request-responses/${id}`);
  for (const { id } of flat((await dashboard('actors')).root))
    await dashboard(`actors/${encodeURIComponent(id)}`);
  const audits = await dashboard('audit-logs?per_page=100');
  expect(audits.items).toHaveLength(audits.total);
  for (const { id } of (await look('/api/endpoints')).endpoints) {
    await look(`/api/endpoints/${id}`);
    for (const part of ['models', 'today-stats', 'daily-stats', 'model-stats', 'model-tps'])
      await look(`/api/endpoints/${id}/${part}`);
  }
  for (const path of ['/api/users', '/api/api-keys', '/api/me/api-keys', '/api/auth/me', '/v1/models'])
    await look(path);
  return seen;
}

/**
 * Every file, byte for byte. Read by a process of its own: whoever closes a file gives up every lock that their process
 * has on it, SQLite's too.
 */
function files(dir: string): Record<string, string> {
  const names = readdirSync(dir).filter((name) => name !== 'secret.key');
  const read = (name: string) =>
    execFileSync('cat', [join(dir, name)], { encoding: 'latin1', maxBuffer: 256 * 1024 * 1024 });
  return Object.fromEntries(names.map((name) => [name, read(name)]));
}

const FIRST_START = /\nFirst start:[\s\S]*?API key {3}(\S+)\n[\s\S]*?curl [^\n]*\n/;

/** What the terminal and the log show but for what is told once. */
function output(server: ServerProcess): string {
  return server.output().replace(FIRST_START, '');
}

function expectNone(secrets: Secrets, seen: Record<string, string>): void {
  const found = Object.entries(seen).flatMap(([where, text]) =>
    secrets.in(text).map((what) => `${where}: ${what}`),
  );
  expect(found).toEqual([]);
}

test('no secret, prompt or answer is in the log, the data dir, the dashboard or an error', async () => {
  const secrets = new Secrets();
  const key = secrets.make('TROUPE_API_KEY');
  const adminPassword = secrets.make('TROUPE_ADMIN_PASSWORD');
  const env = {
    TROUPE_API_KEY: key,
    TROUPE_ADMIN_PASSWORD: adminPassword,
    TROUPE_SECRET_KEY: secrets.make('TROUPE_SECRET_KEY'),
    TROUPE_HEALTH_INTERVAL_MS: '100',
    TROUPE_SHUTDOWN_GRACE_MS: '1000',
  };
  const args = ['--log-level', 'trace'];
  const boxKey = secrets.make('the key of an endpoint');
  const box = await engine({ apiKey: boxKey });
  const server = await spawnServer({ env, args });
  const run = new Run(secrets, server, box, key);
  await until(() => FIRST_START.test(server.output()));
  secrets.addKey('the first key', FIRST_START.exec(server.output())?.[1] ?? '');

  // An endpoint whose first key is refused, whose next one is not, and whose headers change.
  const refused = { name: VISIBLE, base_url: box.url, api_key: secrets.make('a key that is refused') };
  const headers = () => ({
    'x-secret': secrets.make('the value of a header'),
    cookie: secrets.make('a cookie for an endpoint'),
  });
  const { id } = (await run.ask(201, 'POST', '/api/endpoints', { ...refused, headers: headers() })).json;
  await run.ask(409, 'POST', '/api/endpoints', { ...refused, api_key: secrets.make('a key of a twin') });
  await run.ask(200, 'PUT', `/api/endpoints/${id}`, { api_key: boxKey, headers: headers() });
  await until(async () => (await run.ask(200, 'GET', `/api/endpoints/${id}`)).json.status === 'online');
  const gone = {
    name: 'gone',
    base_url: 'http://127.0.0.1:1',
    api_key: secrets.make('a key of an endpoint that is gone'),
  };
  const goneId = (await run.ask(201, 'POST', '/api/endpoints', gone)).json.id;
  await run.ask(204, 'DELETE', `/api/endpoints/${goneId}`);

  const events = await rawRequest(server.url, '/api/dashboard/events', {
    headers: { authorization: `Bearer ${key}` },
  });
  await until(() => events.text().includes('event: snapshot'));
  await infer(run);
  // Health checks that repeat the key they were sent.
  for (const status of [500, 401, 200]) {
    box.faults.models = { kind: 'status', status, body: `{"error":"${boxKey}"}` };
    const before = box.requests.length;
    await until(() => box.requests.length > before + 1);
    await run.ask(200, 'POST', `/api/endpoints/${id}/test`);
    await run.ask(502, 'POST', `/api/endpoints/${id}/sync`);
    expectNone(secrets, { endpoint: (await run.ask(200, 'GET', `/api/endpoints/${id}`)).text });
  }
  box.faults.models = null;
  await until(async () => (await run.ask(200, 'GET', `/api/endpoints/${id}`)).json.status === 'online');
  await blunder(run, id);
  const password = await manage(run, adminPassword);

  // One under way while everything is looked at.
  box.faults.next.push({ kind: 'hang' });
  const hanging = run.chat(200, { messages: says(secrets.make('a prompt under way')) });
  await until(async () => (await run.ask(200, 'GET', '/api/dashboard/requests/live')).json.length === 1);
  const seen = await looks(run);
  box.release();
  await hanging;
  await until(() => events.text().includes('event: request'));
  seen.events = events.text();
  events.leave();
  seen.errors = run.errors;
  expect(run.errorCount).toBeGreaterThan(60);
  expectNone(secrets, { ...seen, ...files(server.dataDir) });
  expect(Object.keys(files(server.dataDir))).toContain('troupe.db-wal');

  expect(await server.end()).toBe(0);
  expectNone(secrets, { log: output(server), ...files(server.dataDir) });

  // Where they look there is something to be seen.
  const { errors, ...told } = seen;
  for (const where of [
    '/api/dashboard/overview',
    '/api/dashboard/audit-logs?per_page=100',
    '/api/dashboard/actors',
    'events',
  ]) {
    expect([where, told[where]]).toEqual([where, expect.stringContaining(VISIBLE)]);
  }
  expect(errors).toContain(VISIBLE);
  expect(output(server)).toContain(VISIBLE);
  expect(files(server.dataDir)['troupe.db']).toContain(VISIBLE);

  // Once more, with a store that takes nothing.
  const again = await spawnServer({ env, args, dataDir: server.dataDir });
  const second = new Run(secrets, again, box, key);
  await until(async () => (await second.ask(200, 'GET', `/api/endpoints/${id}`)).json.status === 'online');
  const locker = await open({ filename: join(server.dataDir, 'troupe.db'), driver: sqlite3.Database });
  await locker.exec('BEGIN IMMEDIATE');
  const said = secrets.make('an answer that is not stored');
  const body = JSON.stringify({ choices: [{ message: { content: said }, finish_reason: 'stop' }] });
  box.faults.next.push({ kind: 'status', status: 200, body });
  expect(await second.chat(200, { messages: says(secrets.make('a prompt that is not stored')) })).toContain(
    said,
  );
  const bad = secrets.make('a prompt of an error that is not stored');
  box.faults.next.push({ kind: 'status', status: 400, body: `{"error":{"message":"${bad}"}}` });
  await second.chat(400, { messages: says(bad) }, true);
  await until(async () => (await second.ask(200, 'GET', '/ready')).json.degraded);
  const unstored = await second.ask(
    200,
    'POST',
    '/api/auth/login',
    { username: 'admin', password },
    { cookie: '' },
  );
  secrets.add('a token that is not stored', unstored.json.token);
  await second.ask(
    401,
    'POST',
    '/api/auth/login',
    { username: secrets.make('nobody'), password: secrets.make('no password') },
    { cookie: '' },
  );
  await second.ask(503, 'POST', '/api/users', { username: 'late', role: 'viewer' });
  await second.ask(503, 'POST', '/api/api-keys', { name: 'late' });
  await second.ask(503, 'PUT', `/api/endpoints/${id}`, { api_key: secrets.make('a key that is not stored') });
  expectNone(secrets, { ...(await looks(second)), errors: second.errors, ...files(server.dataDir) });
  expect(await again.end()).toBe(1);
  await locker.exec('ROLLBACK');
  await locker.close();

  const left = files(server.dataDir);
  expect(left['troupe.unsaved.ndjson']).toContain(VISIBLE);
  expectNone(secrets, { log: output(again), ...left });
  expect(secrets.size).toBeGreaterThan(90);
}, 180_000);
