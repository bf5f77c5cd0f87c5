import { chmodSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import { Vault } from '../src/access/vault.js';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import { migrate } from '../src/persistence/sqlite/migrations.js';
import {
  type Api,
  engine,
  type LocalServer,
  newDataDir,
  type Reply,
  runServer,
  spawnServer,
  startLocal,
  until,
} from './support/server.js';

const API_KEY = 'upstream-key-5d1f0c7a';
const HEADER = 'header-value-93b2e6d4';
const HEADERS = { 'x-gate': HEADER };
const MODEL = 'sim-small';
/** A check that is due soon says what is so now. */
const CHECKED_MS = 10_000;

// The vault itself.

const ID = '00000000-0000-4000-8000-000000000001';
const SECRETS = { apiKey: API_KEY, headers: HEADERS };

function vault(secret: string): Vault {
  const made = new Vault();
  made.unlock(secret);
  return made;
}

test('what is sealed opens with the same key, whatever it holds, and is never sealed the same way twice', () => {
  const text = fc.string({ unit: 'binary' });
  const secrets = fc.record({ apiKey: fc.option(text), headers: fc.dictionary(text, text) });
  fc.assert(
    fc.property(text, secrets, (key, some) => {
      const sealed = vault(key).seal(ID, some);
      const isNothing = some.apiKey === null && Object.keys(some.headers).length === 0;
      expect(sealed === null).toBe(isNothing);
      if (sealed === null) return;
      expect(vault(key).seal(ID, some)).not.toBe(sealed);
      const other = vault(key);
      expect(other.open(ID, sealed)).toBe(true);
      expect(other.get(ID)).toEqual(some);
      expect(other.isLost(ID)).toBe(false);
    }),
  );
});

test('what is sealed shows nothing of what is in it', () => {
  const sealed = vault('k').seal(ID, SECRETS) ?? '';
  const bytes = Buffer.from(sealed.slice(3), 'base64').toString('latin1');
  for (const part of [API_KEY, HEADER, 'x-gate', 'apiKey']) {
    expect(sealed).not.toContain(part);
    expect(bytes).not.toContain(part);
  }
});

test('what is sealed opens for no other endpoint, with no other key, and not with a changed byte', () => {
  const sealed = vault('k').seal(ID, SECRETS) ?? '';
  const other = '00000000-0000-4000-8000-000000000002';
  const shut = (key: string, id: string, text: string) => {
    const one = vault(key);
    return !one.open(id, text) && one.isLost(id) && one.get(id).apiKey === null;
  };
  expect(shut('k', other, sealed)).toBe(true);
  expect(shut('K', ID, sealed)).toBe(true);
  const bytes = Buffer.from(sealed.slice(3), 'base64');
  for (let at = 0; at < bytes.length; at += 1) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] as number) ^ 1;
    expect([at, shut('k', ID, `v1.${changed.toString('base64')}`)]).toEqual([at, true]);
    expect([at, shut('k', ID, `v1.${bytes.subarray(0, at).toString('base64')}`)]).toEqual([at, true]);
  }
  for (const text of ['', 'v1.', sealed.slice(3), `v2.${sealed.slice(3)}`, JSON.stringify(SECRETS)]) {
    expect([text, shut('k', ID, text)]).toEqual([text, true]);
  }
});

test('a vault that was never unlocked opens nothing', () => {
  expect(new Vault().open(ID, vault('').seal(ID, SECRETS) ?? '')).toBe(false);
});

test('an endpoint whose secrets are lost is mended by new ones, and forgotten with the endpoint', () => {
  const one = vault('k');
  one.open(ID, 'nonsense');
  expect(one.isLost(ID)).toBe(true);
  one.set(ID, { apiKey: null, headers: {} });
  expect(one.isLost(ID)).toBe(false);
  one.open(ID, 'nonsense');
  one.forget(ID);
  expect(one.isLost(ID)).toBe(false);
});

// At rest.

function filesWith(dataDir: string, ...texts: string[]): string[] {
  return readdirSync(dataDir).filter((name) => {
    const bytes = readFileSync(join(dataDir, name));
    return texts.some((text) => bytes.includes(text));
  });
}

const posts = ({ requests }: SimulatedEngine) => requests.filter(({ method }) => method === 'POST');

function expectSecretsArrive(box: SimulatedEngine): void {
  const last = posts(box).at(-1);
  expect(last?.headers).toMatchObject({ authorization: `Bearer ${API_KEY}`, 'x-gate': HEADER });
}

async function endpointOf(server: Api, name: string): Promise<Reply['json']> {
  const { endpoints } = (await server.get('/api/endpoints')).json;
  return endpoints.find((one: { name: string }) => one.name === name);
}

test('an endpoint’s key and headers are in no file of the data dir, and reach it after a restart', async () => {
  const box = await engine({ apiKey: API_KEY });
  const dataDir = newDataDir();
  const first = await startLocal({ dataDir });
  const { id } = await first.register('box', box.url, { api_key: 'an-earlier-key-77aa', headers: HEADERS });
  await first.send('PUT', `/api/endpoints/${id}`, { api_key: API_KEY });
  expect((await first.chat(MODEL)).status).toBe(200);
  expectSecretsArrive(box);
  const secrets = [API_KEY, HEADER, 'an-earlier-key-77aa'];
  expect(filesWith(dataDir, 'x-gate')).not.toEqual([]);
  expect(filesWith(dataDir, ...secrets)).toEqual([]);
  await first.server.stop();
  expect(filesWith(dataDir, ...secrets)).toEqual([]);

  const second = await startLocal({ dataDir });
  expect((await second.chat(MODEL)).status).toBe(200);
  expectSecretsArrive(box);
  expect(filesWith(dataDir, ...secrets)).toEqual([]);
});

test('secrets that are cleared are sent no more, also after a restart', async () => {
  const box = await engine();
  const dataDir = newDataDir();
  const first = await startLocal({ dataDir });
  const { id } = await first.register('box', box.url, { api_key: API_KEY, headers: HEADERS });
  await first.send('PUT', `/api/endpoints/${id}`, { api_key: null, headers: null });
  await first.server.stop();
  const second = await startLocal({ dataDir });
  expect((await second.chat(MODEL)).status).toBe(200);
  expect(posts(box).at(-1)?.headers).not.toHaveProperty('authorization');
  expect(posts(box).at(-1)?.headers).not.toHaveProperty('x-gate');
});

test('the key file is made once, is for its owner alone, and is closed where others could read it', async () => {
  const dataDir = newDataDir();
  const first = await spawnServer({ dataDir });
  const file = join(dataDir, 'secret.key');
  const modeOf = () => statSync(file).mode & 0o777;
  expect(modeOf()).toBe(0o600);
  const text = await readFile(file, 'utf8');
  expect(text.trim().length).toBeGreaterThanOrEqual(32);
  expect(first.output()).not.toContain(text.trim());
  await first.end();
  chmodSync(file, 0o644);
  const second = await spawnServer({ dataDir });
  expect(modeOf()).toBe(0o600);
  expect(second.output()).toMatch(/"level":40[^\n]*the key file could be read by others/);
  expect(await readFile(file, 'utf8')).toBe(text);
  expect(readdirSync(dataDir).filter((name) => name.startsWith('secret.key'))).toEqual(['secret.key']);
});

test('a key from the environment needs no file, and seals what only it opens', async () => {
  const box = await engine({ apiKey: API_KEY });
  const dataDir = newDataDir();
  const env = { TROUPE_SECRET_KEY: 'a secret of the tests' };
  const first = await startLocal({ dataDir, env });
  await first.register('box', box.url, { api_key: API_KEY });
  await first.server.stop();
  expect(readdirSync(dataDir)).not.toContain('secret.key');
  expect(filesWith(dataDir, API_KEY, env.TROUPE_SECRET_KEY)).toEqual([]);
  const second = await startLocal({ dataDir, env });
  expect((await second.chat(MODEL)).status).toBe(200);
  await second.server.stop();
  const third = await startLocal({ dataDir, env: { TROUPE_SECRET_KEY: 'another secret of the tests' } });
  expect((await third.chat(MODEL)).status).toBe(503);
});

test('a key from the environment that is too short is an error that changes nothing', async () => {
  const dataDir = newDataDir();
  const run = runServer(['--port', '0', '--data-dir', dataDir], { TROUPE_SECRET_KEY: 'short' });
  expect(await run.exited).toBe(2);
  expect(run.stderr()).toMatch(/^troupe: TROUPE_SECRET_KEY[^\n]*\n$/);
  expect(run.stderr()).not.toContain('short\n');
  expect(() => readdirSync(dataDir)).toThrow();
});

// A lost key.

interface Locked {
  dataDir: string;
  /** Needs its secrets; the other one has none. */
  locked: SimulatedEngine;
  open: SimulatedEngine;
}

/** A stopped server that knows an endpoint with secrets and one without, both with the same model. */
async function stopped(): Promise<Locked> {
  const locked = await engine({ models: [MODEL, 'alone'] });
  const free = await engine();
  const dataDir = newDataDir();
  const server = await startLocal({ dataDir });
  await server.register('locked', locked.url, { api_key: API_KEY, headers: HEADERS });
  await server.register('open', free.url);
  expect((await server.chat('alone')).status).toBe(200);
  await server.server.stop();
  return { dataDir, locked, open: free };
}

async function expectLocked(server: Api, { locked, open }: Locked, seen: number): Promise<void> {
  await until(async () => (await endpointOf(server, 'locked')).status === 'error', CHECKED_MS, 'its error');
  const { last_error, id } = await endpointOf(server, 'locked');
  expect(last_error).toMatch(/set .*again/);
  expect(last_error).toMatch(/key/);
  expect((await endpointOf(server, 'open')).status).toBe('online');
  const before = posts(open).length;
  for (let i = 0; i < 6; i += 1) expect((await server.chat(MODEL)).status).toBe(200);
  expect(posts(open)).toHaveLength(before + 6);
  const alone = await server.chat('alone');
  expect([alone.status, alone.json.error.code]).toEqual([503, 'no_endpoint_available']);
  const test = await server.send('POST', `/api/endpoints/${id}/test`);
  expect(test.json).toMatchObject({ success: false, error: last_error });
  expect(locked.requests).toHaveLength(seen);
}

test.each<[string, (file: string) => Promise<void>]>([
  ['deleted', (file) => rm(file)],
  ['replaced by another', (file) => writeFile(file, `${'x'.repeat(43)}\n`, { mode: 0o600 })],
  ['cut short', (file) => writeFile(file, 'abc\n', { mode: 0o600 })],
])(
  'where the key file was %s the start works, what it locked away is named and left alone',
  async (_, spoil) => {
    const house = await stopped();
    await spoil(join(house.dataDir, 'secret.key'));
    const seen = house.locked.requests.length;
    const server = await spawnServer({ dataDir: house.dataDir });
    const errors = server
      .output()
      .split('\n')
      .filter((line) => line.includes('"level":50'));
    expect(errors).toHaveLength(1);
    expect(JSON.parse(errors[0] ?? '').endpoints).toEqual(['locked']);
    expect(JSON.parse(errors[0] ?? '').msg).toContain('locked');
    await expectLocked(server, house, seen);
  },
);

test('an endpoint whose key is lost is not even asked when it is tried out', async () => {
  const house = await stopped();
  await rm(join(house.dataDir, 'secret.key'));
  const seen = house.locked.requests.length;
  const server = await startLocal({ dataDir: house.dataDir });
  const { id } = await endpointOf(server, 'locked');
  const body = { model: MODEL, messages: [{ role: 'user', content: 'Hello' }] };
  const tried = await server.send('POST', `/api/endpoints/${id}/chat/completions`, body);
  expect(tried.status).toBeGreaterThanOrEqual(400);
  expect(house.locked.requests).toHaveLength(seen);
});

test('the right key mends it, whatever else was changed of the endpoint meanwhile', async () => {
  const house = await stopped();
  const file = join(house.dataDir, 'secret.key');
  await copyFile(file, `${file}.kept`);
  await rm(file);
  const seen = house.locked.requests.length;
  const without = await startLocal({ dataDir: house.dataDir });
  await expectLocked(without, house, seen);
  const { id } = await endpointOf(without, 'locked');
  expect((await without.send('PUT', `/api/endpoints/${id}`, { name: 'renamed', notes: 'n' })).status).toBe(
    200,
  );
  expect((await without.send('POST', `/api/endpoints/${id}/drain`)).status).toBe(200);
  expect((await without.send('POST', `/api/endpoints/${id}/resume`)).status).toBe(200);
  expect((await without.chat('alone')).status).toBe(503);
  await without.server.stop();

  await copyFile(`${file}.kept`, file);
  const again = await startLocal({ dataDir: house.dataDir });
  await until(
    async () => (await endpointOf(again, 'renamed')).status === 'online',
    CHECKED_MS,
    'online again',
  );
  expect((await again.chat('alone')).status).toBe(200);
  expectSecretsArrive(house.locked);
});

test('new secrets mend it at once, and for the starts to come', async () => {
  const house = await stopped();
  await rm(join(house.dataDir, 'secret.key'));
  const server = await startLocal({ dataDir: house.dataDir });
  const { id } = await endpointOf(server, 'locked');
  const change = { api_key: API_KEY, headers: HEADERS };
  expect((await server.send('PUT', `/api/endpoints/${id}`, change)).status).toBe(200);
  const mended = async (one: LocalServer) => {
    await until(
      async () => (await endpointOf(one, 'locked')).status === 'online',
      CHECKED_MS,
      'online again',
    );
    expect((await endpointOf(one, 'locked')).last_error).toBeNull();
    expect((await one.chat('alone')).status).toBe(200);
    expectSecretsArrive(house.locked);
  };
  await mended(server);
  await server.server.stop();
  await mended(await startLocal({ dataDir: house.dataDir }));
});

test('a new API key alone mends it', async () => {
  const house = await stopped();
  await rm(join(house.dataDir, 'secret.key'));
  const server = await startLocal({ dataDir: house.dataDir });
  const { id } = await endpointOf(server, 'locked');
  await server.send('PUT', `/api/endpoints/${id}`, { api_key: API_KEY });
  await until(async () => (await server.chat('alone')).status === 200, CHECKED_MS, 'an answer');
  expect(posts(house.locked).at(-1)?.headers.authorization).toBe(`Bearer ${API_KEY}`);
});

// An earlier version.

test('secrets that an earlier version stored as they are serve, and are in no file afterwards', async () => {
  const box = await engine({ apiKey: API_KEY });
  const plain = await engine();
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await migrate(db, 2);
  const long = `${'y'.repeat(6000)}-long-value-c0ffee`;
  const insert = `INSERT INTO endpoints (id, name, base_url, api_key, headers, registered_at, health)
    VALUES (?, ?, ?, ?, ?, 1700000000000, 'online')`;
  await db.run(insert, ID, 'box', box.url, API_KEY, JSON.stringify({ ...HEADERS, 'x-long': long }));
  await db.run(insert, ID.replace(/1$/, '2'), 'plain', plain.url, null, '{}');
  await db.run(
    `INSERT INTO endpoint_models (endpoint_id, model_id, position) VALUES ('${ID}', '${MODEL}', 0)`,
  );
  await db.close();
  const secrets = [API_KEY, HEADER, 'long-value-c0ffee', 'yyyyyyyy'];
  expect(filesWith(dataDir, ...secrets)).toEqual(['troupe.db']);

  const first = await startLocal({ dataDir });
  await until(async () => (await endpointOf(first, 'box')).status === 'online', CHECKED_MS, 'a good check');
  const toBox = { model: MODEL, messages: [{ role: 'user', content: 'Hello' }] };
  expect((await first.send('POST', `/api/endpoints/${ID}/chat/completions`, toBox)).status).toBe(200);
  expectSecretsArrive(box);
  expect(posts(box).at(-1)?.headers['x-long']).toBe(long);
  expect(filesWith(dataDir, ...secrets)).toEqual([]);
  await first.server.stop();
  expect(filesWith(dataDir, ...secrets)).toEqual([]);

  const second = await startLocal({ dataDir });
  expect((await second.send('POST', `/api/endpoints/${ID}/chat/completions`, toBox)).status).toBe(200);
  expectSecretsArrive(box);
  expect((await endpointOf(second, 'plain')).status).toBe('online');
});

// A private CA.

const PEM = (body: string) => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`;

test.each([
  ['no PEM', 'a certificate'],
  ['an empty one', ''],
  ['PEM around nothing', PEM('')],
  ['PEM around something else', PEM(Buffer.from('no certificate').toString('base64'))],
  ['a private key', '-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n'],
])('a CA that is %s is refused with 400 and changes nothing', async (_, tls_ca) => {
  const box = await engine();
  const server = await startLocal();
  const input = { name: 'new', base_url: box.url, tls_ca };
  for (const reply of [
    await server.send('POST', '/api/endpoints', input),
    await server
      .register('box', box.url)
      .then(({ id }) => server.send('PUT', `/api/endpoints/${id}`, { tls_ca })),
  ]) {
    expect([reply.status, reply.json.error.code]).toEqual([400, 'invalid_request']);
    expect(reply.json.error.message).toContain('tls_ca');
  }
  const { id } = await endpointOf(server, 'box');
  expect((await server.get(`/api/endpoints/${id}`)).json.tls_ca).toBeNull();
});
