import { chmodSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, open as openFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, onTestFinished, test } from 'vitest';
import { Vault } from '../src/access/vault.js';
import { migrate } from '../src/persistence/sqlite/migrations.js';
import { SqliteStore } from '../src/persistence/sqlite/sqlite-store.js';
import { api, engine, newDataDir, runServer, spawnServer, TEST_KEY } from './support/server.js';

const OLD_KEY = 'old-key-of-the-box-c0ffee';
const ID = '00000000-0000-4000-8000-000000000001';

/** A data dir of the version before secrets were sealed, with one endpoint. */
async function earlier(url: string, more = ''): Promise<string> {
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await migrate(db, 2);
  await db.exec(`
    INSERT INTO endpoints (id, name, base_url, api_key, registered_at, health)
    VALUES ('${ID}', 'box', '${url}', '${OLD_KEY}', 1700000000000, 'online');
    ${more}`);
  await db.close();
  return dataDir;
}

const holds = (dataDir: string, text: string) =>
  readdirSync(dataDir).filter((name) => readFileSync(join(dataDir, name)).includes(text));

test('secrets of endpoints that an earlier version removed are in no file either', async () => {
  const dataDir = await earlier(
    'http://127.0.0.1:1',
    `INSERT INTO endpoints (id, name, base_url, api_key, registered_at)
     SELECT 'gone-' || value, 'gone ' || value, 'http://gone/' || value, 'removed-key-c0ffee', 1
     FROM json_each('[${Array.from({ length: 200 }, (_, i) => i)}]');
     DELETE FROM endpoints WHERE id LIKE 'gone-%';`,
  );
  expect(holds(dataDir, 'removed-key-c0ffee')).toEqual(['troupe.db']);
  const server = await spawnServer({ dataDir });
  expect(holds(dataDir, 'removed-key-c0ffee')).toEqual([]);
  expect(holds(dataDir, OLD_KEY)).toEqual([]);
  expect(await server.end()).toBe(0);
  expect([...holds(dataDir, 'removed-key-c0ffee'), ...holds(dataDir, OLD_KEY)]).toEqual([]);
});

test('a key that is given before the old one could be sealed is the one that stays', async () => {
  const dataDir = await earlier('http://127.0.0.1:1');
  const store = new SqliteStore(join(dataDir, 'troupe.db'), () => Date.now());
  await store.open();
  onTestFinished(() => store.close());
  const vault = new Vault();
  vault.unlock('a secret of the tests');
  const [before] = await store.seedEndpoints();
  expect(before).toMatchObject({ sealed: null, clear: { apiKey: OLD_KEY } });
  const config = before?.config as NonNullable<typeof before>['config'];
  const text = vault.seal(ID, { apiKey: 'new-key', headers: {} });
  await store.updateEndpoint(config, { text }, null, null);
  const [after] = await store.seedEndpoints();
  expect(after?.clear).toBeNull();
  expect(vault.open(ID, after?.sealed ?? '')).toBe(true);
  expect(vault.get(ID).apiKey).toBe('new-key');
});

test('a data dir of an earlier version that can only be read is served as far as it goes', async () => {
  const box = await engine({ apiKey: OLD_KEY });
  const dataDir = await earlier(box.url);
  const asRoot = process.getuid?.() === 0;
  chmodSync(dirname(dataDir), 0o755);
  chmodSync(join(dataDir, 'troupe.db'), 0o444);
  chmodSync(dataDir, 0o555);
  onTestFinished(() => chmodSync(dataDir, 0o755));
  const run = runServer(['--port', '0', '--data-dir', dataDir], {}, asRoot ? 65_534 : undefined);
  const server = api(await run.ready());
  expect((await server.get('/ready')).json).toMatchObject({ status: 'ready', degraded: true });
  expect((await server.get('/api/endpoints')).json.endpoints).toMatchObject([{ name: 'box' }]);
  expect((await server.get('/api/endpoints', { authorization: `Bearer ${TEST_KEY}x` })).status).toBe(401);
  expect((await server.chat('sim-small')).status).toBe(200);
});

test('a store that lost its users is no new one, whoever found it first', async () => {
  const first = await spawnServer();
  expect(first.output()).toContain('First start');
  expect(await first.end()).toBe(0);
  const file = await openFile(join(first.dataDir, 'troupe.db'), 'r+');
  await file.write(Buffer.alloc(100), 0, 100, 0);
  await file.close();
  const list = runServer(['keys', 'list', '--data-dir', first.dataDir]);
  expect(await list.exited).toBe(0);
  expect(list.stdout()).toBe('there are no keys\n');
  for (let i = 0; i < 2; i += 1) {
    const next = await spawnServer({ dataDir: first.dataDir });
    expect(next.output()).not.toContain('First start');
    expect(next.output()).toContain('reset-password');
    expect((await next.get('/api/users')).json).toEqual({ users: [] });
    expect(await next.end()).toBe(0);
  }
});
