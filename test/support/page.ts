import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type BrowserContextOptions, type Cookie, chromium, type Locator, type Page } from 'playwright-core';
import { afterAll, expect, test } from 'vitest';
import {
  type SimulatedEngine,
  type SimulatedEngineOptions,
  startSimulatedEngine,
} from '../../src/demo/simulated-engine.js';
import { type Api, api, newDataDir, type ServerOptions, spawnServer, TEST_KEY, until } from './server.js';

const EXECUTABLE = ['chromium', 'chromium-browser', 'google-chrome']
  .map((name) => `/usr/bin/${name}`)
  .find((path) => existsSync(path));
const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'];
export const ADMIN_PASSWORD = 'the admin of the tests';
export const VIEWER_PASSWORD = 'the viewer of the tests';
/** Two cores, a browser, a server: a slow machine is no failure. */
const PATIENCE_MS = 30_000;
const TEST_MS = 150_000;

/** What a browser's console says when nobody answers any more, or a server that begins says that it is not yet ready. */
export const SERVER_GONE =
  /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)|status of 503/;

export interface VisitOptions extends BrowserContextOptions {
  /** `nobody` is not logged in. */
  as?: 'admin' | 'viewer' | 'nobody';
}

/** Opens pages, each in an empty browser profile of its own. */
export interface Visits {
  open(server: Served, path?: string, options?: VisitOptions): Promise<Page>;
  /** Errors of the console that belong to the test; each must have come by its end. */
  expects(...errors: RegExp[]): void;
}

/** The built server with an admin whose password is known. */
export interface Served extends Api {
  url: string;
}

const ENV = { TROUPE_ADMIN_PASSWORD: ADMIN_PASSWORD, TZ: 'UTC' };

/** For one test. */
export function served(options: ServerOptions = {}) {
  return spawnServer({ ...options, env: { ...ENV, ...options.env } });
}

const atEnd: (() => unknown)[] = [];
afterAll(async () => {
  for (const end of atEnd.toReversed()) await end();
});

/** Made when it is first asked for. */
export function lazily<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => {
    made ??= make().catch((error: unknown) => {
      made = null;
      throw error;
    });
    return made;
  };
}

/** For all tests of a file. */
export async function lastingServer(env: Record<string, string> = {}): Promise<Served> {
  const file = fileURLToPath(new URL('../../dist/server.js', import.meta.url));
  const child = spawn(process.execPath, [file, '--port', '0', '--data-dir', newDataDir()], {
    env: {
      PATH: process.env.PATH,
      TROUPE_API_KEY: TEST_KEY,
      TROUPE_HEALTH_INTERVAL_MS: '200',
      ...ENV,
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  atEnd.push(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (chunk) => {
    said += chunk;
  });
  const address = () => /"address":"([^"]+)"/.exec(said)?.[1];
  await until(() => address() !== undefined || child.exitCode !== null, 60_000, 'the start of the server');
  if (address() === undefined) throw new Error(`the server did not start: ${said}`);
  const url = address() as string;
  return { ...api(url), url };
}

/** For all tests of a file. */
export async function lastingEngine(options: SimulatedEngineOptions = {}): Promise<SimulatedEngine> {
  const engine = await startSimulatedEngine(options);
  atEnd.push(() => engine.stop());
  return engine;
}

/** Has something of everything that a page can show, under names of a length that nobody likes. */
export async function furnished() {
  const server = await lastingServer({ TROUPE_HEALTH_INTERVAL_MS: '1000' });
  const models = ['alpha', `org/${'long-'.repeat(12)}model-1.5:latest`];
  const good = await lastingEngine({ models, engine: 'ollama', outputTokens: 20 });
  const bad = await lastingEngine({ models: ['alpha'], engine: 'vllm' });
  const dead = await lastingEngine();
  await dead.stop();
  const { id } = await server.register(`good-${'box'.repeat(20)}`, good.url, {
    priority: 1,
    notes: 'x'.repeat(200),
  });
  await server.register('bad-box', bad.url);
  await server.register('dead-box', dead.url);
  const drained = await server.register('drained-box', (await lastingEngine()).url);
  await server.send('POST', `/api/endpoints/${drained.id}/drain`);
  bad.faults.next.push({ kind: 'status', status: 500 });
  await server.chat('alpha', { stream: true });
  for (const model of models) await server.chat(model, { stream: true });
  bad.faults.next.push({ kind: 'error_event', afterTokens: 2 });
  await server.chat('alpha', { stream: true });
  await server.send('POST', '/api/api-keys', { name: 'a key', rate_limit: { requests_per_minute: 5 } });
  await server.send('POST', '/api/users', { username: 'somebody', role: 'viewer' });
  const [newest, ...older] = (await server.get('/api/dashboard/request-responses')).json.records;
  return { server, id: id as string, failed: newest.id as string, failedOver: older.at(-1).id as string };
}

const browser = lazily(async () => {
  const launched = await chromium.launch({ executablePath: EXECUTABLE as string, args: ARGS });
  atEnd.push(() => launched.close());
  return launched;
});

/**
 * A test in a real browser; one browser for all of a file. At its end no page may have met an error, broken its
 * Content-Security-Policy, or asked another host for anything.
 */
export function pageTest(title: string, run: (visits: Visits) => Promise<void>): void {
  const isAbsent = EXECUTABLE === undefined;
  test.skipIf(isAbsent)(
    isAbsent ? `${title} (skipped: no Chromium is installed)` : title,
    async () => {
      const closing: (() => Promise<void>)[] = [];
      const troubles: string[] = [];
      const expected: RegExp[] = [];
      const visits: Visits = {
        async open(server, path = '/', options = {}) {
          const { page, close } = await visit(server, path, options, (trouble) => troubles.push(trouble));
          closing.push(close);
          return page;
        },
        expects: (...errors) => expected.push(...errors),
      };
      try {
        await run(visits);
        const isExpected = (text: string) => expected.some((error) => error.test(text));
        expect(troubles.filter((text) => !isExpected(text))).toEqual([]);
        expect(expected.filter((error) => !troubles.some((text) => error.test(text)))).toEqual([]);
      } finally {
        for (const close of closing) await close();
      }
    },
    TEST_MS,
  );
}

async function visit(
  server: Served,
  path: string,
  { as = 'admin', ...options }: VisitOptions,
  tell: (trouble: string) => void,
): Promise<{ page: Page; close: () => Promise<void> }> {
  const context = await (await browser()).newContext({
    baseURL: server.url,
    locale: 'en-US',
    timezoneId: 'UTC',
    viewport: { width: 1280, height: 900 },
    ...options,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      console.error(`policy violated: ${violatedDirective} ${blockedURI}`);
    });
  });
  const page = await context.newPage();
  page.on('pageerror', ({ message }) => tell(`uncaught: ${message}`));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) tell(`${message.text()} ${message.location().url}`);
  });
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    if (/^(http|ws)/.test(protocol) && origin !== server.url) tell(`asked elsewhere: ${request.url()}`);
  });
  if (as !== 'nobody') await context.addCookies(await sessionOf(server, as, page));
  await page.goto(`/dashboard${path}`);
  return { page, close: () => context.close() };
}

const sessions = new Map<string, Cookie[]>();

/** Logged in by the API, once for each server. */
async function sessionOf(server: Served, as: 'admin' | 'viewer', page: Page): Promise<Cookie[]> {
  const key = `${as} ${server.url}`;
  const known = sessions.get(key);
  if (known !== undefined) return known;
  if (as === 'viewer') await makeViewer(server);
  const password = as === 'admin' ? ADMIN_PASSWORD : VIEWER_PASSWORD;
  const reply = await page.request.post('/api/auth/login', { data: { username: as, password } });
  expect(reply.status()).toBe(200);
  const cookies = await page.context().cookies();
  sessions.set(key, cookies);
  return cookies;
}

/** A viewer who has chosen a password already; nothing if there is one. */
async function makeViewer(server: Served): Promise<void> {
  const made = await server.send('POST', '/api/users', { username: 'viewer', role: 'viewer' });
  if (made.status === 409) return;
  const password = made.json.generated_password;
  const { token } = (await server.send('POST', '/api/auth/login', { username: 'viewer', password })).json;
  const changed = await server.send(
    'PUT',
    '/api/auth/change-password',
    { current_password: password, new_password: VIEWER_PASSWORD },
    { authorization: `Bearer ${token}` },
  );
  expect(changed.status).toBe(200);
}

/** Waits until what is read is as the assertion wants it. */
export function see<T>(read: () => T | Promise<T>) {
  return expect.poll(read, { timeout: PATIENCE_MS, interval: 30 });
}

/** What can be read there, line breaks as they are seen. */
export function textOf(part: Locator): Promise<string> {
  // biome-ignore lint/performance/useDomNodeTextContent: the text as it is laid out
  return part.innerText();
}

/** The query of the page's address. */
export const queryOf = (page: Page) => Object.fromEntries(new URL(page.url()).searchParams);

/** Every page by its path, with two actors of a house that has this endpoint. */
export function pagesWith(endpointId: string): string[] {
  return [
    '/',
    '/endpoints',
    '/models',
    '/requests',
    '/actors',
    `/actors/endpoint:${endpointId}`,
    '/actors/history',
    '/playground',
    '/keys',
    '/users',
    '/audit',
    '/settings',
    '/account',
    '/no/such/page',
  ];
}

export const pathOf = (page: Page) => new URL(page.url()).pathname;
