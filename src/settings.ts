import type { Config } from './config.js';

export type Source = 'default' | 'environment' | 'option' | 'file' | 'store';
/** By the name of the setting; what is not in it is the default. */
export type Sources = Readonly<Record<string, Source>>;

export interface Setting {
  name: string;
  value: string | number | boolean | string[];
  source: Source;
}

/** How a setting is given: by an option, a variable, or the option before the variable. */
interface Way {
  option?: string;
  variable?: string;
  /** In force. Of secrets and paths only whether there is one. */
  value: (config: Config, isSet: boolean) => Setting['value'];
}

const SECRET_KEY = 'TROUPE_SECRET_KEY';
const told = (isSet: boolean) => (isSet ? 'set' : 'not set');

const WAYS: Way[] = [
  { option: 'host', variable: 'TROUPE_HOST', value: ({ host }) => host },
  { option: 'port', variable: 'TROUPE_PORT', value: ({ port }) => port },
  {
    option: 'data-dir',
    variable: 'TROUPE_DATA_DIR',
    value: ({ demo }, isSet) => (demo ? 'temporary' : isSet ? 'set' : 'default'),
  },
  // Their addresses are for those who may read endpoints.
  {
    option: 'endpoint',
    variable: 'TROUPE_ENDPOINTS',
    value: ({ endpoints }) => endpoints.map(({ name }) => name),
  },
  { option: 'demo', variable: 'TROUPE_DEMO', value: ({ demo }) => demo },
  { option: 'policy', variable: 'TROUPE_POLICY', value: ({ policy }) => policy },
  { option: 'overflow-ms', variable: 'TROUPE_OVERFLOW_MS', value: ({ overflowMs }) => overflowMs },
  { option: 'log-level', variable: 'TROUPE_LOG_LEVEL', value: ({ logLevel }) => logLevel },
  { option: 'tls-cert', variable: 'TROUPE_TLS_CERT', value: ({ access }) => told(access.tls !== null) },
  { option: 'tls-key', variable: 'TROUPE_TLS_KEY', value: ({ access }) => told(access.tls !== null) },
  { option: 'trust-proxy', variable: 'TROUPE_TRUST_PROXY', value: ({ access }) => access.trustedProxies },
  { option: 'no-auth', value: ({ access }) => access.isOpen },
  // A name is half of what it takes to log in.
  { variable: 'TROUPE_ADMIN_USERNAME', value: (_, isSet) => (isSet ? 'set' : 'admin') },
  { variable: 'TROUPE_ADMIN_PASSWORD', value: ({ access }) => told(access.adminPassword !== null) },
  { variable: 'TROUPE_API_KEY', value: ({ access }) => told(access.apiKey !== null) },
  { variable: SECRET_KEY, value: () => 'set' },
  { variable: 'TROUPE_CORS_ORIGINS', value: ({ access }) => access.corsOrigins },
  { variable: 'TROUPE_HEALTH_INTERVAL_MS', value: ({ healthIntervalMs }) => healthIntervalMs },
  { variable: 'TROUPE_HEALTH_TIMEOUT_MS', value: ({ healthTimeoutMs }) => healthTimeoutMs },
  { variable: 'TROUPE_CONNECT_TIMEOUT_MS', value: ({ deadlines }) => deadlines.connectMs },
  { variable: 'TROUPE_FIRST_BYTE_TIMEOUT_MS', value: ({ deadlines }) => deadlines.firstByteMs },
  { variable: 'TROUPE_IDLE_TIMEOUT_MS', value: ({ deadlines }) => deadlines.idleMs },
  { variable: 'TROUPE_TOTAL_TIMEOUT_MS', value: ({ deadlines }) => deadlines.totalMs },
  { variable: 'TROUPE_QUEUE_MAX', value: ({ queue }) => queue.max },
  { variable: 'TROUPE_QUEUE_MAX_PER_KEY', value: ({ queue }) => queue.maxPerKey },
  { variable: 'TROUPE_QUEUE_TIMEOUT_MS', value: ({ queue }) => queue.timeoutMs },
  { variable: 'TROUPE_HISTORY_RETENTION_DAYS', value: ({ retentionDays }) => retentionDays },
  { variable: 'TROUPE_SHUTDOWN_GRACE_MS', value: ({ shutdownGraceMs }) => shutdownGraceMs },
];

/** Where each setting comes from that is given. */
export function sourcesOf(options: Record<string, unknown>, env: NodeJS.ProcessEnv): Sources {
  const sources: Record<string, Source> = {};
  for (const way of WAYS) {
    const { option, variable } = way;
    if (option !== undefined && options[option] !== undefined) sources[nameOf(way)] = 'option';
    // An empty list is none.
    else if (variable !== undefined && (env[variable] ?? '').trim() !== '') {
      sources[nameOf(way)] = 'environment';
    }
  }
  // Without one it is the key file in the data dir.
  sources[SECRET_KEY] ??= 'file';
  return sources;
}

/** Variables of our prefix that set nothing: a slip of the pen, most likely. */
export function unknownVariables(env: NodeJS.ProcessEnv): string[] {
  const known = new Set(WAYS.map(({ variable }) => variable));
  return Object.keys(env).filter((name) => name.startsWith('TROUPE_') && !known.has(name));
}

/** Every setting with its value in force. */
export function settingsOf(config: Config): Setting[] {
  return WAYS.map((way) => {
    const name = nameOf(way);
    const source = config.sources[name] ?? 'default';
    return { name, value: way.value(config, source !== 'default'), source };
  });
}

function nameOf({ option, variable }: Way): string {
  return option === undefined ? (variable ?? '') : `--${option}`;
}
