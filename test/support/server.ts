import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import { readConfig } from '../../src/config.js';
import {
  type SimulatedEngine,
  type SimulatedEngineOptions,
  startSimulatedEngine,
} from '../../src/demo/simulated-engine.js';
import { type RunningServer, type Seams, startServer } from '../../src/server.js';

const SERVER = fileURLToPath(new URL('../../dist/server.js', import.meta.url));
/** The key in the environment of every server under test, sent by every client that brings nothing of its own. */
export const TEST_KEY = 'the-key-of-the-tests';
/** log2 of the cost of a password's hash: a real one takes a third of a second. */
const PASSWORD_COST = 4;
const READY_MS = 30_000;

/** A fresh data dir below the system's temporary directory. */
export function newDataDir(): string {
  return join(mkdtempSync(join(tmpdir(), 'troupe-test-')), 'data');
}

export interface ServerOptions {
  dataDir?: string;
  env?: Record<string, string>;
  args?: string[];
}

/** The built server as a process of its own: what an operator runs. */
export interface ServerProcess extends Api {
  url: string;
  pid: number;
  dataDir: string;
  child: ChildProcess;
  /** Standard output and error so far. */
  output(): string;
  /** The lines of its log so far. */
  // biome-ignore lint/suspicious/noExplicitAny: lines are judged by the assertions on them
  logLines(): any[];
  /** Sends a signal and waits for the end; answers the exit code, or the signal's name. */
  end(signal?: NodeJS.Signals): Promise<number | string>;
}

export async function spawnServer(options: ServerOptions = {}): Promise<ServerProcess> {
  const dataDir = options.dataDir ?? newDataDir();
  const run = runServer(['--port', '0', '--data-dir', dataDir, ...(options.args ?? [])], options.env);
  const url = await run.ready();
  return {
    ...api(url),
    url,
    pid: run.child.pid ?? 0,
    dataDir,
    child: run.child,
    output: run.output,
    logLines: () =>
      run
        .output()
        .split('\n')
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line)),
    end: run.end,
  };
}

/** Runs `dist/server.js` with exactly these arguments; for starts that are meant to fail as well. */
export function runServer(args: string[], env: Record<string, string> = {}, uid?: number) {
  const child = spawn(process.execPath, [SERVER, ...args], {
    env: { PATH: process.env.PATH, TROUPE_HEALTH_INTERVAL_MS: '200', TROUPE_API_KEY: TEST_KEY, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const exited = new Promise<number | string>((resolve) => {
    child.once('exit', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  });
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const output = () => stdout + stderr;
  return {
    child,
    exited,
    output,
    stdout: () => stdout,
    stderr: () => stderr,
    async ready(): Promise<string> {
      await until(() => stdout.includes('is ready on') || child.exitCode !== null, READY_MS);
      const address = /"address":"([^"]+)"/.exec(stdout)?.[1];
      if (address === undefined) throw new Error(`the server did not start: ${output()}`);
      return address;
    },
    async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string> {
      child.kill(signal);
      return exited;
    },
  };
}

/** The server inside the test's process, where clock, chance and faults can be put in. */
export interface LocalServer extends Api {
  url: string;
  server: RunningServer;
  dataDir: string;
}

export async function startLocal(options: ServerOptions & { seams?: Seams } = {}): Promise<LocalServer> {
  const dataDir = options.dataDir ?? newDataDir();
  const env = {
    TROUPE_HEALTH_INTERVAL_MS: '200',
    TROUPE_SHUTDOWN_GRACE_MS: '2000',
    TROUPE_API_KEY: TEST_KEY,
    ...options.env,
  };
  const command = readConfig(['--port', '0', '--data-dir', dataDir, ...(options.args ?? [])], env);
  if (command.run !== 'serve') throw new Error('not a command that serves');
  const server = await startServer(command.config, pino({ level: 'silent' }), {
    passwordCost: PASSWORD_COST,
    ...options.seams,
  });
  onTestFinished(async () => {
    await server.stop();
  });
  return { ...api(server.url), url: server.url, server, dataDir };
}

/** A simulated engine that ends with the test. */
export async function engine(options: SimulatedEngineOptions = {}): Promise<SimulatedEngine> {
  const started = await startSimulatedEngine(options);
  onTestFinished(() => started.stop());
  return started;
}

export interface Reply {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: answers are judged by the assertions on them
  json: any;
}

/** A client of one server. */
export interface Api {
  get(path: string, headers?: Record<string, string>): Promise<Reply>;
  send(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Reply>;
  /** POST /v1/chat/completions with one user message. */
  chat(model: string, more?: Record<string, unknown>): Promise<Reply>;
  /** Registers an endpoint and answers it. */
  register(name: string, url: string, more?: Record<string, unknown>): Promise<Reply['json']>;
}

export function api(url: string): Api {
  async function call(method: string, path: string, init: RequestInit = {}): Promise<Reply> {
    const headers = withKey(init.headers as Record<string, string>) as Record<string, string>;
    const response = await fetch(url + path, { method, redirect: 'manual', ...init, headers });
    const text = await response.text();
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    return { status: response.status, headers: response.headers, text, json };
  }
  const send: Api['send'] = (method, path, body, headers = {}) =>
    call(
      method,
      path,
      body === undefined
        ? { headers }
        : { headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) },
    );
  return {
    get: (path, headers = {}) => call('GET', path, { headers }),
    send,
    chat: (model, more = {}) =>
      send('POST', '/v1/chat/completions', {
        model,
        messages: [{ role: 'user', content: 'Hello' }],
        ...more,
      }),
    async register(name, base, more = {}) {
      const reply = await send('POST', '/api/endpoints', { name, base_url: base, ...more });
      if (reply.status !== 201) throw new Error(`registering ${name} failed: ${reply.text}`);
      return reply.json;
    },
  };
}

const CREDENTIALS = new Set(['authorization', 'x-api-key', 'cookie']);

/** The key of the tests, unless there is a credential of any kind; an empty one is none. */
export function withKey<T extends Record<string, string | string[]>>(
  headers?: T,
): Record<string, string | string[]> {
  const brings = Object.keys(headers ?? {}).some((name) => CREDENTIALS.has(name.toLowerCase()));
  return brings ? (headers as T) : { authorization: `Bearer ${TEST_KEY}`, ...headers };
}

/** Waits until something is so; fails with what it was about after `ms`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  ms = 10_000,
  about = 'the condition',
): Promise<void> {
  const end = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`${about} did not come true within ${ms} ms`);
    await pause(10);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
