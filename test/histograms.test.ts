import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Database, open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, onTestFinished, test } from 'vitest';
import { Books, newEndpointSeed } from '../src/actors/books.js';
import { modelStats } from '../src/actors/model-stats.js';
import { recordView } from '../src/actors/record-view.js';
import { importUnsaved, saveUnsaved } from '../src/actors/unsaved.js';
import { hourOf } from '../src/clock.js';
import { type Histogram, totalOf } from '../src/machines/histogram.js';
import type { RequestRecord } from '../src/machines/records.js';
import { SqliteStore } from '../src/persistence/sqlite/sqlite-store.js';
import { configOf, finished, START } from './support/house.js';
import { newDataDir, startLocal, until } from './support/server.js';

const HOUR_MS = 3_600_000;

async function newStore(...endpoints: string[]) {
  const dataDir = newDataDir();
  await mkdir(dataDir, { recursive: true });
  const file = join(dataDir, 'troupe.db');
  const store = new SqliteStore(file, () => START);
  await store.open();
  const db = await open({ filename: file, driver: sqlite3.Database });
  onTestFinished(async () => {
    await db.close();
    await store.close();
  });
  for (const id of endpoints) await store.insertEndpoint(configOf(id), null, null);
  return { store, db, dataDir };
}

function booksOf(...endpoints: string[]): Books {
  const books = new Books(`run ${Math.random()}`);
  for (const id of endpoints) books.seedEndpoint(configOf(id), newEndpointSeed());
  return books;
}

/** A stream of 2 s at an endpoint: the first token after 200 ms, then one each 30 ms; predicted to take 1500 ms. */
function measured(endpointId: string, at = START): RequestRecord {
  const record = finished(endpointId, at);
  for (const attempt of record.attempts) {
    const gaps: Histogram = new Map([[86, { count: 60, sum: 1_800_000 }]]);
    Object.assign(attempt, { predictedMs: 1500, samples: { firstTokenMs: 200, gaps } });
  }
  return record;
}

async function write(store: SqliteStore, books: Books): Promise<void> {
  for (let block = books.seal(); block !== undefined; block = books.seal()) {
    await store.apply(block);
    books.commitThrough(block.lastSeq);
  }
}

/** What a start would show. */
async function restored(store: SqliteStore, ...endpoints: string[]) {
  const books = booksOf(...endpoints);
  books.seedSums(await store.seedSums('2026-01-15'));
  books.seedHistograms(await store.seedHistograms());
  return modelStats(books, '2026-01-15');
}

const rows = (db: Database) =>
  db.all<{ hour: number; metric: string; count: number; sum: number }[]>(
    `SELECT hour, metric, sum(count) AS count, sum(sum) AS sum FROM endpoint_histograms
     GROUP BY hour, metric ORDER BY hour, metric LIMIT 100`,
  );

const METRICS = [
  { metric: 'duration', count: 1, sum: 2_000_000 },
  { metric: 'inter_token', count: 60, sum: 1_800_000 },
  { metric: 'prediction_error', count: 1, sum: 25_000 },
  { metric: 'ttft', count: 1, sum: 200_000 },
];

test('a record is in its hour and in the sum of all hours, in thousandths, whatever the metric', async () => {
  const { store, db } = await newStore('e');
  const books = booksOf('e');
  books.append(measured('e'));
  await write(store, books);
  const hour = hourOf(START);
  expect(await rows(db)).toEqual(
    [0, hour].flatMap((at) => METRICS.map((metric) => ({ hour: at, ...metric }))),
  );
  const [found] = modelStats(books, '2026-01-15');
  expect(found).toMatchObject({ decode_tps: 33.33, prediction_error: { p50: expect.closeTo(25, 0) } });
  expect(await restored(store, 'e')).toEqual([found]);
});

test('a row of a request holds the prediction and none of what was measured', async () => {
  const { store, db } = await newStore('e');
  const books = booksOf('e');
  const record = measured('e');
  books.append(record);
  expect(recordView(record).attempts).toMatchObject([{ duration_ms: 2000, predicted_ms: 1500 }]);
  await write(store, books);
  const row = await db.get<{ attempts: string }>('SELECT attempts FROM requests');
  expect(row?.attempts).toContain('"predictedMs":1500');
  expect(row?.attempts).not.toMatch(/samples|gaps|firstToken/);
  expect((await store.request(record.id))?.attempts).toEqual([
    { ...finished('e', START).attempts[0], predictedMs: 1500 },
  ]);
  await db.exec(`UPDATE requests SET attempts = json_remove(attempts, '$[0].predictedMs')`);
  const older = await store.request(record.id);
  expect(older === undefined ? undefined : recordView(older).attempts).toMatchObject([
    { predicted_ms: null },
  ]);
});

test('hours that are too old go in slices, and what a start reads stays the same', async () => {
  const { store, db } = await newStore('e', 'f');
  const books = booksOf('e', 'f');
  for (let i = 0; i < 20; i += 1) {
    for (const id of ['e', 'f']) books.append(measured(id, START + i * HOUR_MS));
  }
  await write(store, books);
  const before = await restored(store, 'e', 'f');
  const slices: number[] = [];
  do slices.push(await store.expireHistograms(hourOf(START) + 15, 50));
  while (slices.at(-1) !== 0);
  expect(slices).toEqual([50, 50, 20, 0]);
  expect((await rows(db)).map(({ hour }) => hour)).toEqual(
    [0, 15, 16, 17, 18, 19].flatMap((i) => METRICS.map(() => (i === 0 ? 0 : hourOf(START) + i))),
  );
  expect(await restored(store, 'e', 'f')).toEqual(before);
  expect(before).toMatchObject([{ total_requests: 40 }]);
});

test('a server forgets hours of more than eight days ago, and shows what it showed', async () => {
  const { store, db, dataDir } = await newStore('e');
  const books = booksOf('e');
  const now = Date.now();
  for (const days of [40, 9, 7, 0]) books.append(measured('e', now - days * 24 * HOUR_MS));
  await write(store, books);
  const hours = async () => [...new Set((await rows(db)).map(({ hour }) => hour))];
  expect(await hours()).toHaveLength(5);
  const server = await startLocal({ dataDir });
  await until(async () => (await hours()).length === 3);
  expect(await hours()).toEqual([0, hourOf(now - 7 * 24 * HOUR_MS), hourOf(now)]);
  const shown = (await server.get('/api/dashboard/model-stats')).json;
  expect(shown).toEqual(modelStats(books, '2026-01-15'));
});

test('a removed endpoint takes its histograms with it, and what is written of it later goes nowhere', async () => {
  const { store, db } = await newStore('e', 'f');
  const books = booksOf('e', 'f');
  for (const id of ['e', 'f']) books.append(measured(id));
  await write(store, books);
  for (const id of ['e', 'f']) books.append(measured(id));
  await store.deleteEndpoint('e', null);
  books.forget('e');
  await write(store, books);
  const found = await db.all('SELECT DISTINCT endpoint_id AS id FROM endpoint_histograms LIMIT 10');
  expect(found).toEqual([{ id: 'f' }]);
  expect(await restored(store, 'f')).toEqual(modelStats(books, '2026-01-15'));
});

test('the file of saved records carries the histograms, once, and one of an earlier version has none', async () => {
  const { store, dataDir } = await newStore('e');
  const books = booksOf('e');
  for (let i = 0; i < 3; i += 1) books.append(measured('e'));
  const file = join(dataDir, 'saved.ndjson');
  await saveUnsaved(file, books);
  const text = await readFile(file, 'utf8');
  for (let i = 0; i < 2; i += 1) {
    await writeFile(file, text);
    await importUnsaved(file, store);
    expect(await restored(store, 'e')).toEqual(modelStats(books, '2026-01-15'));
  }
  const { histograms, ...older } = JSON.parse(text);
  expect(histograms).toHaveLength(4);
  await writeFile(file, `${JSON.stringify({ ...older, run: 'another', rows: [] })}\n`);
  await importUnsaved(file, store);
  expect(await restored(store, 'e')).toMatchObject([{ total_requests: 6, decode_tps: 33.33 }]);
});

test('saved records of an endpoint that got another id meanwhile are measured under that one', async () => {
  const { store, dataDir } = await newStore('stored');
  const books = booksOf();
  books.addProvisional({ ...configOf('mine'), baseUrl: configOf('stored').baseUrl });
  books.append(measured('mine'));
  const file = join(dataDir, 'saved.ndjson');
  await saveUnsaved(file, books);
  await importUnsaved(file, store);
  const seeds = await store.seedHistograms();
  expect(seeds.map(({ endpointId }) => endpointId)).toEqual(['stored', 'stored', 'stored', 'stored']);
  const gaps = seeds.find(({ metric }) => metric === 'inter_token')?.histogram ?? new Map();
  expect(totalOf(gaps)).toEqual({ count: 60, sum: 1_800_000 });
});
