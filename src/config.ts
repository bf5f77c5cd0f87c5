import { readFileSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { HELP, LOG_LEVELS } from './help.js';
import { parseTrusted } from './http/client-address.js';
import { normaliseUrl } from './http/endpoint-input.js';
import { POLICIES, type PolicyName } from './machines/policies.js';
import { type Sources, sourcesOf, unknownVariables } from './settings.js';

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

/** Who may come in, and how. */
export interface AccessConfig {
  /** `--no-auth`: everybody on this machine, without a key. */
  isOpen: boolean;
  /** Of the admin of a first start; a password that is null is made. */
  adminUsername: string;
  adminPassword: string | null;
  /** The key of the environment. */
  apiKey: string | null;
  /** What secrets at rest are sealed under; null: the key file in the data dir. */
  secretKey: string | null;
  /** Origins of pages that may use `/v1`. */
  corsOrigins: string[];
  /** Addresses and networks whose forwarding headers are believed. */
  trustedProxies: string[];
  tls: { cert: string; key: string } | null;
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
  policy: PolicyName;
  /** Predicted wait that makes the next priority serve, ms. */
  overflowMs: number;
  access: AccessConfig;
  sources: Sources;
  /** Variables that look like ours and are none. */
  unknownVariables: string[];
}

/** Requests that wait for an endpoint to have room. */
export interface QueueLimits {
  max: number;
  /** Of one key or user. */
  maxPerKey: number;
  timeoutMs: number;
}

export type Command = { run: 'serve' | 'check'; config: Config } | { run: 'print'; text: string };

/** Bad options: one clear line for stderr, exit 2. */
export class ConfigError extends Error {}

/** Longer than this a Node timer fires at once. */
const MOST_MS = 2 ** 31 - 1;

export const VERSION: string = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
).version;

/** Options win over the environment, the environment over defaults. Throws `ConfigError`. */
export function readConfig(argv: string[], env: NodeJS.ProcessEnv): Command {
  const values = readOptions(argv);
  if (values.help) return { run: 'print', text: HELP };
  if (values.version) return { run: 'print', text: `${VERSION}\n` };
  const demo = values.demo ?? flag('TROUPE_DEMO', env);
  if (demo && values['data-dir'] !== undefined) {
    throw new ConfigError('--demo runs on a fresh temporary data dir: leave out --data-dir');
  }
  const whole = env.TROUPE_FIRST_BYTE_TIMEOUT_MS === undefined ? 600_000 : undefined;
  const firstByteMs = number('TROUPE_FIRST_BYTE_TIMEOUT_MS', env, 120_000, 0, MOST_MS);
  const queueMax = number('TROUPE_QUEUE_MAX', env, 1000, 0, 1_000_000);
  const host = text(values.host, '--host') ?? text(env.TROUPE_HOST, 'TROUPE_HOST') ?? '127.0.0.1';
  const config: Config = {
    host,
    port: portOf(values.port, env),
    dataDir: dataDirOf(values['data-dir'], env),
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
      max: queueMax,
      maxPerKey: number('TROUPE_QUEUE_MAX_PER_KEY', env, shareOf(queueMax), 0, 1_000_000),
      timeoutMs: number('TROUPE_QUEUE_TIMEOUT_MS', env, 60_000, 0, MOST_MS),
    },
    policy: policyOf(values.policy, env),
    overflowMs: overflowOf(values['overflow-ms'], env),
    access: accessOf(values, env, host),
    sources: sourcesOf(values, env),
    unknownVariables: unknownVariables(env),
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

/** Absolute. */
export function dataDirOf(option: string | undefined, env: NodeJS.ProcessEnv): string {
  return resolvePath(text(option, '--data-dir') ?? text(env.TROUPE_DATA_DIR, 'TROUPE_DATA_DIR') ?? 'data');
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
        policy: { type: 'string' },
        'overflow-ms': { type: 'string' },
        'tls-cert': { type: 'string' },
        'tls-key': { type: 'string' },
        'trust-proxy': { type: 'string' },
        'no-auth': { type: 'boolean' },
        check: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'v' },
      },
    }).values;
  } catch (error) {
    throw new ConfigError((error as Error).message.split(/\.\s/, 1)[0]);
  }
}

/** Half of a room is one key's at most; a small room is not parted. */
function shareOf(queueMax: number): number {
  return Math.min(queueMax, Math.max(SMALL_QUEUE, Math.ceil(queueMax / 2)));
}

/** A secret that is a guess away is none. */
const LEAST_SECRET_CHARS = 16;
const SMALL_QUEUE = 100;

function accessOf(
  values: ReturnType<typeof readOptions>,
  env: NodeJS.ProcessEnv,
  host: string,
): AccessConfig {
  const isOpen = values['no-auth'] ?? false;
  if (isOpen && !isLoopback(host)) {
    throw new ConfigError(
      `--no-auth with --host ${host}: only on loopback (127.0.0.1, ::1, localhost) can everybody be let in`,
    );
  }
  const secretKey = text(env.TROUPE_SECRET_KEY, 'TROUPE_SECRET_KEY') ?? null;
  if (secretKey !== null && secretKey.length < LEAST_SECRET_CHARS) {
    throw new ConfigError(`TROUPE_SECRET_KEY has fewer than ${LEAST_SECRET_CHARS} characters`);
  }
  return {
    isOpen,
    adminUsername: text(env.TROUPE_ADMIN_USERNAME, 'TROUPE_ADMIN_USERNAME')?.trim() ?? 'admin',
    adminPassword: text(env.TROUPE_ADMIN_PASSWORD, 'TROUPE_ADMIN_PASSWORD') ?? null,
    apiKey: text(env.TROUPE_API_KEY, 'TROUPE_API_KEY')?.trim() ?? null,
    secretKey,
    corsOrigins: originsOf(env),
    trustedProxies: trustedOf(values['trust-proxy'], env),
    tls: tlsOf(values, env),
  };
}

function originsOf(env: NodeJS.ProcessEnv): string[] {
  return listOf(env.TROUPE_CORS_ORIGINS).map((origin) => {
    if (origin === '*') return origin;
    try {
      // As browsers write it: lower case, without a default port.
      const { origin: written } = new URL(origin);
      if (written !== 'null' && /^https?:\/\/[^/@*]+\/?$/i.test(origin)) return written;
    } catch {
      // Said below.
    }
    throw new ConfigError(
      `TROUPE_CORS_ORIGINS ${JSON.stringify(origin)}: write origins such as https://app.example`,
    );
  });
}

function trustedOf(option: string | undefined, env: NodeJS.ProcessEnv): string[] {
  const name = option === undefined ? 'TROUPE_TRUST_PROXY' : '--trust-proxy';
  try {
    return parseTrusted(option ?? env.TROUPE_TRUST_PROXY ?? '');
  } catch (error) {
    throw new ConfigError(`${name}: ${(error as Error).message}`);
  }
}

function tlsOf(values: ReturnType<typeof readOptions>, env: NodeJS.ProcessEnv): AccessConfig['tls'] {
  const cert = text(values['tls-cert'], '--tls-cert') ?? text(env.TROUPE_TLS_CERT, 'TROUPE_TLS_CERT');
  const key = text(values['tls-key'], '--tls-key') ?? text(env.TROUPE_TLS_KEY, 'TROUPE_TLS_KEY');
  if (cert === undefined && key === undefined) return null;
  if (cert === undefined) throw new ConfigError('--tls-key goes with --tls-cert');
  if (key === undefined) throw new ConfigError('--tls-cert goes with --tls-key');
  return { cert: resolvePath(cert), key: resolvePath(key) };
}

function listOf(value: string | undefined): string[] {
  return (value ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
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

function policyOf(option: string | undefined, env: NodeJS.ProcessEnv): PolicyName {
  const policy = option ?? env.TROUPE_POLICY ?? 'adaptive';
  if (Object.hasOwn(POLICIES, policy)) return policy as PolicyName;
  const name = option === undefined ? 'TROUPE_POLICY' : '--policy';
  throw new ConfigError(`${name} ${JSON.stringify(policy)}: one of ${Object.keys(POLICIES).join(', ')}`);
}

function overflowOf(option: string | undefined, env: NodeJS.ProcessEnv): number {
  const name = option === undefined ? 'TROUPE_OVERFLOW_MS' : '--overflow-ms';
  return number(name, { [name]: option ?? env.TROUPE_OVERFLOW_MS }, 1000, 0, MOST_MS);
}

function endpointsOf(options: string[] | undefined, env: NodeJS.ProcessEnv): NamedUrl[] {
  const fromEnv = (env.TROUPE_ENDPOINTS ?? '').split(',').filter((part) => part.trim() !== '');
  const source = options === undefined ? 'TROUPE_ENDPOINTS' : '--endpoint';
  return (options ?? fromEnv).map((pair) => {
    const equals = pair.indexOf('=');
    const name = pair.slice(0, equals).trim();
    if (equals < 1 || name === '') throw new ConfigError(`${source}: write NAME=URL`);
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
