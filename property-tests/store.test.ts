import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Block } from '../src/actors/blocks.js';
import { Books, newEndpointSeed } from '../src/actors/books.js';
import { localDate } from '../src/clock.js';
import type { RequestRecord } from '../src/machines/records.js';
import { RING_MINUTES, readRing } from '../src/machines/ring.js';
import { SqliteStore } from '../src/persistence/sqlite/sqlite-store.js';
import { configOf } from '../test/support/house.js';
import { countersOf, ENDPOINTS, KINDS, MODELS, NOON, OWNERS, plain, records } from './support/records.js';

const TODAY = localDate(NOON);

/** How a block gets into the store: once, twice, or again after its answer was lost. */
type Way = 'once' | 'twice' | 'answer lost';
const ways = fc.array(fc.constantFrom<Way>('once', 'twice', 'answer lost'), { minLength: 1, maxLength: 10 });
const latencies = fc.array(fc.option(fc.nat(500)), { minLength: 3, maxLength: 3 });

async function withStore(run: (file: string) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'troupe-law-'));
  try {
    await run(join(dir, 'troupe.db'));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function write(store: SqliteStore, books: Books, block: Block, way: Way): Promise<void> {
  await store.apply(block);
  if (way === 'twice') await store.apply(block);
  if (way === 'answer lost') {
    // Nobody was told that it is there: the ledger starts again with the same block.
    expect(books.seal()).toBe(block);
    await store.apply(block);
  }
  books.commitThrough(block.lastSeq);
  if (way !== 'once') await store.apply(block);
}

/** What a start reads, into books of its own. */
async function restored(file: string, minute: number): Promise<Books> {
  const store = new SqliteStore(file, () => NOON);
  await store.open();
  const books = new Books('next run');
  for (const { config, seed } of await store.seedEndpoints()) books.seedEndpoint(config, seed);
  for (const [id, models] of await store.seedModels()) books.seedModels(id, models);
  books.seedSums(await store.seedSums(TODAY));
  books.seedHistograms(await store.seedHistograms());
  books.seedUsage(await store.seedUsage(TODAY));
  books.seedMinutes(await store.seedMinutes(minute - RING_MINUTES + 1, minute));
  await store.close();
  return books;
}

function numbersOf(books: Books, minute: number) {
  const slots = readRing(books.ring(minute), minute);
  const measured = slots.reduce((sum, slot) => sum + slot.measured, 0);
  return {
    endpoints: ENDPOINTS.map((id) => books.endpoint(id)),
    sums: books.modelSums(TODAY).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
    histograms: [...ENDPOINTS, undefined].map((id) =>
      MODELS.map((model) => plain(books.histograms(id).get(model))),
    ),
    timeline: slots,
    average: measured === 0 ? null : slots.reduce((sum, slot) => sum + slot.measuredMs, 0) / measured,
    usage: OWNERS.map((id) => books.usage(id, TODAY)),
    tps: ENDPOINTS.flatMap((id) =>
      MODELS.flatMap((model) => KINDS.map((kind) => books.tps(id, model, kind, TODAY))),
    ),
  };
}

test('a start restores exactly what was live, however often each batch was written', async () => {
  await fc.assert(
    fc.asyncProperty(
      records(30),
      ways,
      latencies,
      fc.integer({ min: 1, max: 12 }),
      (list, how, latency, blockRows) =>
        withStore(async (file) => {
          const store = new SqliteStore(file, () => NOON);
          await store.open();
          const books = new Books('run', { blockRows, maxBytes: 1e9 });
          for (const id of ENDPOINTS) {
            await store.insertEndpoint(configOf(id), null, null);
            books.seedEndpoint(configOf(id), newEndpointSeed());
          }
          let written = 0;
          const next = async () => {
            const block = books.seal();
            if (block === undefined) return;
            await write(store, books, block, how[written % how.length] as Way);
            written += 1;
          };
          for (const [i, record] of list.entries()) {
            books.append(structuredClone(record));
            noteHealth(books, ENDPOINTS[i % 3] as string, latency[i % 3] ?? null);
            if (i % 7 === 3) await next();
          }
          while (books.pending.blocks > 0) await next();
          const minute = Math.floor((list[list.length - 1]?.completedAt ?? NOON) / 60_000);
          const live = numbersOf(books, minute);
          const { records: rows, total } = await store.requests({ limit: 100, offset: 0 });
          await store.close();

          expect(total).toBe(list.length);
          expect(rows.map(({ id }) => id).sort()).toEqual(list.map(({ id }) => id).sort());
          expect(numbersOf(await restored(file, minute), minute)).toEqual(live);
          for (const id of ENDPOINTS)
            expect(live.endpoints[ENDPOINTS.indexOf(id)]).toMatchObject(countersOf(list, id));
        }),
    ),
    { numRuns: 25 },
  );
});

test('the restored rate is today’s tokens ÷ seconds, whatever yesterday was', async () => {
  await fc.assert(
    fc.asyncProperty(records(20), records(20), (yesterday, today) =>
      withStore(async (file) => {
        const store = new SqliteStore(file, () => NOON);
        await store.open();
        for (const id of ENDPOINTS) await store.insertEndpoint(configOf(id), null, null);
        const books = new Books('run');
        for (const id of ENDPOINTS) books.seedEndpoint(configOf(id), newEndpointSeed());
        for (const one of yesterday) books.append(moved(one, -86_400_000, 'y'));
        for (const one of today) books.append(structuredClone(one));
        for (let block = books.seal(); block !== undefined; block = books.seal())
          await write(store, books, block, 'once');
        await store.close();
        const again = await restored(file, Math.floor(NOON / 60_000));
        for (const id of ENDPOINTS) {
          for (const model of MODELS) {
            for (const kind of KINDS) {
              const samples = today
                .filter((record) => record.kind === kind)
                .flatMap(({ attempts }) => attempts)
                .filter((one) => one.sampled && one.endpointId === id && one.modelId === model);
              const tokens = samples.reduce((sum, one) => sum + (one.outputTokens ?? 0), 0);
              const seconds = samples.reduce((sum, one) => sum + one.durationMs, 0) / 1000;
              const { ema, samples: count } = again.tps(id, model, kind, TODAY);
              expect(count).toBe(samples.length);
              if (samples.length === 0) expect(ema).toBeNull();
              else expect(ema).toBeCloseTo(tokens / seconds, 9);
            }
          }
        }
      }),
    ),
    { numRuns: 15 },
  );
});

function noteHealth(books: Books, id: string, latencyMs: number | null): void {
  books.noteHealth(id, {
    health: latencyMs === null ? 'offline' : 'online',
    engineType: latencyMs === null ? null : 'vllm',
    latencyMs,
    lastSeen: latencyMs === null ? null : NOON,
    lastError: latencyMs === null ? 'no answer' : null,
    errorCount: latencyMs === null ? 1 : 0,
  });
  books.noteModels(id, [{ modelId: 'm', capabilities: ['chat'], maxTokens: latencyMs }]);
}

/** The same request at another time, as another row. */
function moved(record: RequestRecord, byMs: number, prefix: string): RequestRecord {
  const at = record.completedAt + byMs;
  return { ...structuredClone(record), id: prefix + record.id, completedAt: at, acceptedAt: at - 1 };
}
