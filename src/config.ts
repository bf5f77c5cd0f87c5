import { readFileSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { normaliseUrl } from './http/endpoint-input.js';

export interface NamedUrl {
  name: string;
  url: string;
}

/** Deadlines of an attempt, ms; 0 = none. */
export interface Deadlines {
  connectMs: number;
  firstByteMs: number;
  /** For a request that does not stream. */
  firstByteWholeMs: number;
  /** The operator has set it: it does not grow with what a request needs. */
  firstByteSet: boolean;
  idleMs: number;
  totalMs: number;
}

export interface Config {
  host: string;
  port: number;
  /** Absolute; of a demo chosen at its start. */
  dataDir: string;
  endpoints: NamedUrl[];
  demo: boolean;
  logLevel: string;
  healthIntervalMs: number;
  healthTimeoutMs: number;
  retentionDays: number;
  shutdownGraceMs: number;
  deadlines: Deadlines;
  queue: QueueLimits;
}

/** Requests that wait for an endpoint to have room. */
export interface QueueLimits {
  max: number;
  timeoutMs: number;
}

export type Command = { run: 'serve' | 'check'; config: Config } | { run: 'print'; text: string };

/** Bad options: one clear line for stderr, exit 2. */
export class ConfigError extends Error {}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];
/** Longer than this a Node timer fires at once. */
const MOST_MS = 2 ** 31 - 1;

export const VERSION: string = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
).version;

const HELP = `Usage: node dist/server.js [options]

One OpenAI-compatible front door for every inference box you own.

Options (and their environment variables)
  --host ADDRESS        TROUPE_HOST          bind address (127.0.0.1); loopback only for now
  --port NUMBER         TROUPE_PORT          port (7180); 0 picks a free one
  --data-dir DIR        TROUPE_DATA_DIR      where troupe.db lives (./data)
  --endpoint NAME=URL   TROUPE_ENDPOINTS     registered at start; repeatable, comma separated in the variable
  --demo                TROUPE_DEMO=1        three simulated engines on a fresh temporary data dir
  --log-level LEVEL     TROUPE_LOG_LEVEL     ${LOG_LEVELS.join(', ')} (info)
  --check               validate options and data dir, then exit
  --help, --version     print and exit

Environment only
  TROUPE_HEALTH_INTERVAL_MS (10000)       TROUPE_HEALTH_TIMEOUT_MS (5000)
  TROUPE_CONNECT_TIMEOUT_MS (5000)        TROUPE_FIRST_BYTE_TIMEOUT_MS (120000; 600000 without streaming)
  TROUPE_IDLE_TIMEOUT_MS (60000)          TROUPE_TOTAL_TIMEOUT_MS (0 = none)
  TROUPE_QUEUE_MAX (1000)                 TROUPE_QUEUE_TIMEOUT_MS (60000)
  TROUPE_HISTORY_RETENTION_DAYS (30)      TROUPE_SHUTDOWN_GRACE_MS (30000)
`;

/** Options win over the environment, the environment over defaults. Throws `ConfigError`. */
export function readConfig(argv: string[], env: NodeJS.ProcessEnv): Command {
  const values = readOptions(argv);
  if (values.help) return { run: 'print', text: HELP };
  if (values.version) return { run: 'print', text: `${VERSION}\n` };
  const demo = values.demo ?? flag('TROUPE_DEMO', env);
  if (demo && values['data-dir'] !== undefined) {
    throw new ConfigError('--demo runs on a fresh temporary data dir: leave out --data-dir');
  }
  const dataDir = text(values['data-dir'], '--data-dir') ?? text(env.TROUPE_DATA_DIR, 'TROUPE_DATA_DIR');
  const whole = env.TROUPE_FIRST_BYTE_TIMEOUT_MS === undefined ? 600_000 : undefined;
  const firstByteMs = number('TROUPE_FIRST_BYTE_TIMEOUT_MS', env, 120_000, 0, MOST_MS);
  const config: Config = {
    host: hostOf(values.host, env),
    port: portOf(values.port, env),
    dataDir: resolvePath(dataDir ?? 'data'),
    endpoints: endpointsOf(values.endpoint, env),
    demo,
    logLevel: logLevelOf(values['log-level'], env),
    healthIntervalMs: number('TROUPE_HEALTH_INTERVAL_MS', env, 10_000, 10, MOST_MS),
    healthTimeoutMs: number('TROUPE_HEALTH_TIMEOUT_MS', env, 5000, 10, MOST_MS),
    retentionDays: number('TROUPE_HISTORY_RETENTION_DAYS', env, 30, 0, 100_000),
    shutdownGraceMs: number('TROUPE_SHUTDOWN_GRACE_MS', env, 30_000, 0, MOST_MS),
    deadlines: {
      connectMs: number('TROUPE_CONNECT_TIMEOUT_MS', env, 5000, 0, MOST_MS),
      firstByteMs,
      firstByteWholeMs: whole ?? firstByteMs,
      firstByteSet: whole === undefined,
      idleMs: number('TROUPE_IDLE_TIMEOUT_MS', env, 60_000, 0, MOST_MS),
      totalMs: number('TROUPE_TOTAL_TIMEOUT_MS', env, 0, 0, MOST_MS),
    },
    queue: {
      max: number('TROUPE_QUEUE_MAX', env, 1000, 0, 1_000_000),
      timeoutMs: number('TROUPE_QUEUE_TIMEOUT_MS', env, 60_000, 0, MOST_MS),
    },
  };
  return { run: values.check ? 'check' : 'serve', config };
}

/** True for addresses that only this machine can reach. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  return (
    bare === 'localhost' ||
    bare.endsWith('.localhost') ||
    bare === '::1' ||
    /^(::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(bare)
  );
}

function readOptions(argv: string[]) {
  try {
    return parseArgs({
      args: argv,
      strict: true,
      allowPositionals: false,
      options: {
        host: { type: 'string' },
        port: { type: 'string' },
        'data-dir': { type: 'string' },
        endpoint: { type: 'string', multiple: true },
        demo: { type: 'boolean' },
        'log-level': { type: 'string' },
        check: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'v' },
      },
    }).values;
  } catch (error) {
    throw new ConfigError((error as Error).message.split(/\.\s/, 1)[0]);
  }
}

function hostOf(option: string | undefined, env: NodeJS.ProcessEnv): string {
  const host = text(option, '--host') ?? text(env.TROUPE_HOST, 'TROUPE_HOST') ?? '127.0.0.1';
  if (!isLoopback(host)) {
    throw new ConfigError(
      `--host ${host}: only loopback addresses (127.0.0.1, ::1, localhost) can be used until access control is there`,
    );
  }
  return host;
}

function portOf(option: string | undefined, env: NodeJS.ProcessEnv): number {
  const name = option === undefined ? 'TROUPE_PORT' : '--port';
  return number(name, { [name]: option ?? env.TROUPE_PORT }, 7180, 0, 65_535);
}

function logLevelOf(option: string | undefined, env: NodeJS.ProcessEnv): string {
  const level = option ?? env.TROUPE_LOG_LEVEL ?? 'info';
  if (LOG_LEVELS.includes(level)) return level;
  const name = option === undefined ? 'TROUPE_LOG_LEVEL' : '--log-level';
  throw new ConfigError(`${name} ${JSON.stringify(level)}: one of ${LOG_LEVELS.join(', ')}`);
}

function endpointsOf(options: string[] | undefined, env: NodeJS.ProcessEnv): NamedUrl[] {
  const fromEnv = (env.TROUPE_ENDPOINTS ?? '').split(',').filter((part) => part.trim() !== '');
  const source = options === undefined ? 'TROUPE_ENDPOINTS' : '--endpoint';
  return (options ?? fromEnv).map((pair) => {
    const equals = pair.indexOf('=');
    const name = pair.slice(0, equals).trim();
    if (equals < 1 || name === '') throw new ConfigError(`${source} ${JSON.stringify(pair)}: write NAME=URL`);
    const url = normaliseUrl(pair.slice(equals + 1).trim());
    if ('problem' in url) throw new ConfigError(`${source} ${name}: ${url.problem}`);
    return { name, url: url.url };
  });
}

function flag(name: string, env: NodeJS.ProcessEnv): boolean {
  const value = env[name];
  if (value === undefined || value === '' || value === '0' || value === 'false') return false;
  if (value === '1' || value === 'true') return true;
  throw new ConfigError(`${name} ${JSON.stringify(value)}: 1 or 0`);
}

function text(value: string | undefined, name: string): string | undefined {
  if (value === undefined) return undefined;
  if (value.trim() === '') throw new ConfigError(`${name} is empty`);
  return value;
}

function number(
  name: string,
  env: Record<string, string | undefined>,
  fallback: number,
  least: number,
  most: number,
): number {
  const value = env[name];
  if (value === undefined) return fallback;
  const parsed = /^\d+$/.test(value.trim()) ? Number(value) : Number.NaN;
  if (parsed >= least && parsed <= most) return parsed;
  throw new ConfigError(`${name} ${JSON.stringify(value)}: a whole number from ${least} to ${most}`);
}

function resolvePath(path: string): string {
  return isAbsolute(path) ? path : resolve(path);
}
