import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import { type Api, engine, newDataDir, startLocal, TEST_KEY } from './support/server.js';

interface Setting {
  name: string;
  value: unknown;
  source: string;
}

async function settings(server: Api): Promise<Record<string, [value: unknown, source: string]>> {
  const list: Setting[] = (await server.get('/api/dashboard/settings')).json;
  const found = Object.fromEntries(list.map(({ name, value, source }) => [name, [value, source] as const]));
  expect(Object.keys(found)).toHaveLength(list.length);
  return found as never;
}

/** The options and the variables that stand alone, as the help lists them. */
function helped(): string[] {
  const command = readConfig(['--help'], {});
  const help = command.run === 'print' ? command.text : '';
  const [head = '', rest = ''] = help.split('Environment only');
  const [alone = ''] = rest.split('Commands on');
  const options = [...head.matchAll(/^ {2}(--[a-z-]+)/gm)].map(([, name]) => name as string);
  const variables = [...alone.matchAll(/TROUPE_[A-Z_]+/g)].map(([name]) => name);
  return [...options.filter((name) => !['--check', '--help'].includes(name)), ...variables];
}

test('every option and variable of the help is listed, once, under the name that it has there', async () => {
  const names = helped();
  expect(names.length).toBeGreaterThan(25);
  expect(Object.keys(await settings(await startLocal())).sort()).toEqual([...new Set(names)].sort());
});

test('a setting that nobody gave has its default', async () => {
  const server = await startLocal();
  const found = await settings(server);
  expect(found).toMatchObject({
    '--host': ['127.0.0.1', 'default'],
    '--policy': ['adaptive', 'default'],
    '--overflow-ms': [1000, 'default'],
    '--endpoint': [[], 'default'],
    '--demo': [false, 'default'],
    '--no-auth': [false, 'default'],
    '--tls-key': ['not set', 'default'],
    '--trust-proxy': [[], 'default'],
    TROUPE_ADMIN_USERNAME: ['admin', 'default'],
    TROUPE_ADMIN_PASSWORD: ['not set', 'default'],
    TROUPE_SECRET_KEY: ['set', 'file'],
    TROUPE_CORS_ORIGINS: [[], 'default'],
    TROUPE_HEALTH_TIMEOUT_MS: [5000, 'default'],
    TROUPE_FIRST_BYTE_TIMEOUT_MS: [120_000, 'default'],
    TROUPE_QUEUE_MAX_PER_KEY: [500, 'default'],
    TROUPE_HISTORY_RETENTION_DAYS: [30, 'default'],
  });
  // Those the tests give.
  expect(found).toMatchObject({
    '--port': [Number(new URL(server.url).port), 'option'],
    '--data-dir': ['set', 'option'],
    TROUPE_API_KEY: ['set', 'environment'],
    TROUPE_HEALTH_INTERVAL_MS: [200, 'environment'],
  });
});

test('an option wins over its variable, and each says where its value comes from', async () => {
  const box = await engine();
  const server = await startLocal({
    args: ['--policy', 'fastest', `--endpoint=box=${box.url}`],
    env: {
      TROUPE_POLICY: 'weighted',
      TROUPE_ENDPOINTS: '',
      TROUPE_DEMO: '0',
      TROUPE_OVERFLOW_MS: '7',
      TROUPE_QUEUE_MAX: '40',
      TROUPE_TRUST_PROXY: '10.0.0.0/8, loopback',
      TROUPE_CORS_ORIGINS: 'https://app.example',
    },
  });
  expect(await settings(server)).toMatchObject({
    '--policy': ['fastest', 'option'],
    '--endpoint': [['box'], 'option'],
    '--demo': [false, 'environment'],
    '--overflow-ms': [7, 'environment'],
    '--trust-proxy': [expect.arrayContaining(['10.0.0.0/8']), 'environment'],
    TROUPE_QUEUE_MAX: [40, 'environment'],
    TROUPE_QUEUE_MAX_PER_KEY: [40, 'default'],
    TROUPE_CORS_ORIGINS: [['https://app.example'], 'environment'],
  });
});

test('no secret, no path, no address of an endpoint and no name to log in with is in the reply', async () => {
  const box = await engine();
  const dataDir = join(newDataDir(), 'a-dir-of-secrets');
  const server = await startLocal({
    dataDir,
    env: {
      TROUPE_ADMIN_USERNAME: 'root-of-all',
      TROUPE_ADMIN_PASSWORD: 'a password of the tests',
      TROUPE_SECRET_KEY: 'a secret key of the tests',
      TROUPE_ENDPOINTS: `box=${box.url}`,
    },
  });
  const { text, json } = await server.get('/api/dashboard/settings');
  const hidden = [
    TEST_KEY,
    'root-of-all',
    'a password',
    'a secret key',
    'a-dir-of-secrets',
    '/tmp',
    box.url,
    String(box.port),
  ];
  for (const part of hidden) expect(text).not.toContain(part);
  const byName = Object.fromEntries(json.map(({ name, ...rest }: Setting) => [name, rest]));
  expect(byName).toMatchObject({
    TROUPE_API_KEY: { value: 'set', source: 'environment' },
    TROUPE_ADMIN_USERNAME: { value: 'set', source: 'environment' },
    TROUPE_ADMIN_PASSWORD: { value: 'set', source: 'environment' },
    TROUPE_SECRET_KEY: { value: 'set', source: 'environment' },
    '--endpoint': { value: ['box'], source: 'environment' },
  });
});
