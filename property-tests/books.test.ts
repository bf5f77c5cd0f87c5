import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Block, BlockLimits } from '../src/actors/blocks.js';
import { Books, newEndpointSeed } from '../src/actors/books.js';
import { localDate } from '../src/clock.js';
import type { RequestRecord } from '../src/machines/records.js';
import { readRing } from '../src/machines/ring.js';
import { configOf } from '../test/support/house.js';
import {
  countersOf,
  ENDPOINTS,
  histogramsOf,
  KINDS,
  MODELS,
  minutesOf,
  NOON,
  plain,
  records,
  sumsOf,
} from './support/records.js';

const TODAY = localDate(NOON);
const ROOMY: BlockLimits = { blockRows: 3, maxBytes: 1e9 };

/** What a batch may do between two records. `replay` commits what was committed before. */
type Step = 'seal' | 'commit' | 'replay' | 'nothing';
const steps = fc.array(fc.constantFrom<Step>('seal', 'commit', 'replay', 'nothing'), {
  minLength: 40,
  maxLength: 40,
});

function newBooks(limits: BlockLimits = ROOMY): Books {
  const books = new Books('run', limits);
  for (const id of ENDPOINTS) books.seedEndpoint(configOf(id), newEndpointSeed());
  return books;
}

/** Feeds the records one by one with a step of the writer after each; `look` is called after every move. */
function feed(
  books: Books,
  list: RequestRecord[],
  writer: Step[],
  look: (sofar: RequestRecord[]) => void,
): void {
  let committed = 0;
  for (const [i, record] of list.entries()) {
    books.append(structuredClone(record));
    const sofar = list.slice(0, i + 1);
    look(sofar);
    const step = writer[i % writer.length];
    if (step === 'seal') books.seal();
    if (step === 'commit') committed = books.seal()?.lastSeq ?? committed;
    if (step === 'commit' || step === 'replay') books.commitThrough(committed);
    look(sofar);
  }
}

/** All that can be read of the books equals the plain fold over the records. */
function expectFold(books: Books, list: RequestRecord[], ids = ENDPOINTS): void {
  for (const id of ids) {
    expect(books.endpoint(id)).toMatchObject(countersOf(list, id));
    const sums = books.modelSums(TODAY, id);
    const histograms = books.histograms(id);
    for (const modelId of MODELS) {
      expect(plain(histograms.get(modelId))).toEqual(histogramsOf(list, id, modelId));
      for (const kind of KINDS) {
        const wanted = sumsOf(list, id, modelId, kind);
        const found = sums.find((one) => one.modelId === modelId && one.kind === kind);
        if (wanted.success + wanted.failed === 0) expect(found).toBeUndefined();
        else {
          expect(found?.total).toEqual(wanted);
          expect(found?.today).toEqual(wanted);
        }
        const { samples, sampleTokens: tokens, sampleMs: ms } = wanted;
        const ema = ms > 0 ? (tokens * 1000) / ms : null;
        expect(books.tps(id, modelId, kind, TODAY)).toEqual({
          ema,
          date: TODAY,
          samples,
          tokens,
          ms,
          live: false,
        });
      }
    }
  }
  const now = Math.floor((list[list.length - 1]?.completedAt ?? NOON) / 60_000);
  const minutes = minutesOf(list);
  for (const slot of readRing(books.ring(now), now)) {
    const [success, error, measuredMs, measured] = minutes.get(slot.minute) ?? [0, 0, 0, 0];
    expect(slot).toEqual({ minute: slot.minute, success, error, measured, measuredMs });
  }
}

test('whenever it is asked, a seed equals the fold of all records, however they are batched and replayed', () => {
  fc.assert(
    fc.property(records(), steps, fc.integer({ min: 1, max: 9 }), (list, writer, blockRows) => {
      const books = newBooks({ blockRows, maxBytes: 1e9 });
      feed(books, list, writer, (sofar) => expectFold(books, sofar));
      books.commitThrough(books.pending.lastSeq);
      expect(books.pending).toMatchObject({ blocks: 0, rows: 0, bytes: 0 });
      expectFold(books, list);
    }),
  );
});

test('nothing that is read changes in the moment of a commit', () => {
  fc.assert(
    fc.property(records(), fc.array(fc.nat(40)), (list, cuts) => {
      const books = newBooks();
      for (const record of list) books.append(structuredClone(record));
      const read = () => ({
        endpoints: ENDPOINTS.map((id) => books.endpoint(id)),
        sums: ENDPOINTS.map((id) => books.modelSums(TODAY, id).sort((a, b) => (key(a) < key(b) ? -1 : 1))),
        histograms: [...ENDPOINTS, undefined].map((id) =>
          MODELS.map((m) => plain(books.histograms(id).get(m))),
        ),
        ring: books.ring(Math.floor((list[list.length - 1]?.completedAt ?? NOON) / 60_000)),
      });
      const before = read();
      for (const seq of [...cuts.sort((a, b) => a - b), books.pending.lastSeq]) {
        books.commitThrough(seq);
        expect(read()).toEqual(before);
      }
    }),
  );
});

test('a sealed block does not change any more, and no number of a record is left out or used twice', () => {
  fc.assert(
    fc.property(records(), steps, fc.integer({ min: 1000, max: 20_000 }), (list, writer, maxBytes) => {
      const books = newBooks({ blockRows: 2, maxBytes });
      const sealed = new Map<Block, string>();
      feed(books, list, writer, () => {
        const blocks = books.pendingBlocks();
        for (const [i, block] of blocks.entries()) {
          if (i > 0) expect(block.firstSeq).toBe((blocks[i - 1]?.lastSeq ?? 0) + 1);
          if (!block.sealed) continue;
          expect(i).toBe(0);
          const { counters, histograms } = block.delta;
          const tallies = [...histograms.values()].map(({ histogram }) => [...histogram]);
          const now = JSON.stringify({ ...block, counters: [...counters], tallies });
          expect(sealed.get(block) ?? now).toBe(now);
          sealed.set(block, now);
        }
        if (blocks.length > 0) expect(blocks[blocks.length - 1]?.lastSeq).toBe(books.pending.lastSeq);
      });
    }),
  );
});

test('a small memory gives up the oldest rows, tells how many, and keeps every sum', () => {
  fc.assert(
    fc.property(records(), steps, fc.integer({ min: 1000, max: 20_000 }), (list, writer, maxBytes) => {
      const books = newBooks({ blockRows: 2, maxBytes });
      feed(books, list, writer, (sofar) => expectFold(books, sofar));
      const { lastSeq } = books.pending;
      books.commitThrough(lastSeq);
      expectFold(books, list);
      expect(books.pending).toMatchObject({ blocks: 0, rows: 0, bytes: 0 });
    }),
  );
});

test('without a writer the rows in memory and the dropped ones are all there are, within the limit', () => {
  fc.assert(
    fc.property(records(), fc.integer({ min: 5000, max: 20_000 }), (list, maxBytes) => {
      const books = newBooks({ blockRows: 1, maxBytes });
      for (const record of list) books.append(structuredClone(record));
      const { rows, droppedRows, bytes } = books.pending;
      expect(rows + droppedRows).toBe(list.length);
      expect(bytes).toBeLessThanOrEqual(maxBytes);
      expect(books.pendingRows().map(({ id }) => id)).toEqual(list.slice(droppedRows).map(({ id }) => id));
      expectFold(books, list);
    }),
  );
});

test('what was counted under a provisional id belongs to the stored one, together with what is stored', () => {
  fc.assert(
    fc.property(records(), records(), fc.nat(1000), fc.nat(1000), (before, after, success, failed) => {
      const books = newBooks();
      for (const record of before) books.append(structuredClone(record));
      books.alias('e1', 'stored');
      books.seedEndpoint(configOf('stored'), { ...newEndpointSeed(), success, failed });
      for (const record of after) books.append(structuredClone(record));
      const mine = countersOf([...before, ...after], 'e1');
      const total = { success: success + mine.success, failed: failed + mine.failed };
      expect(books.endpoint('stored')).toMatchObject(total);
      expect(books.endpoint('e1')).toBeUndefined();
      expect(books.resolve('e1')).toBe('stored');
      const read = () => books.modelSums(TODAY, 'stored').sort((a, b) => (key(a) < key(b) ? -1 : 1));
      const sums = read();
      books.commitThrough(books.pending.lastSeq);
      expect(books.endpoint('stored')).toMatchObject(total);
      expect(read()).toEqual(sums);
      for (const { modelId, kind, total: of } of sums) {
        expect(of).toEqual(sumsOf([...before, ...after], 'e1', modelId, kind));
      }
      expect(books.modelSums(TODAY, 'e1')).toEqual([]);
      for (const modelId of MODELS) {
        const moved = books.histograms('stored').get(modelId);
        expect(plain(moved)).toEqual(histogramsOf([...before, ...after], 'e1', modelId));
      }
      expect(books.histograms('e1').size).toBe(0);
    }),
  );
});

test('a removed endpoint takes its counters and sums with it, and leaves the others and the timeline', () => {
  fc.assert(
    fc.property(records(), records(), steps, (before, after, writer) => {
      const books = newBooks();
      const list = [...before, ...after.map((one) => ({ ...one, completedAt: one.completedAt + 3_600_000 }))];
      feed(books, before, writer, () => {});
      books.forget('e1');
      for (const record of list.slice(before.length)) books.append(structuredClone(record));
      for (const written of [false, true]) {
        if (written) books.commitThrough(books.pending.lastSeq);
        expect(books.endpoint('e1')).toBeUndefined();
        expect(books.modelSums(TODAY, 'e1')).toEqual([]);
        expect(books.modelSums(TODAY).some(({ endpointId }) => endpointId === 'e1')).toBe(false);
        expect(books.histograms('e1').size).toBe(0);
        expectFold(books, list, ['e2', 'e3']);
      }
    }),
  );
});

test('of several health results and model lists the newest is the seed, written or not', () => {
  const health = fc.record({
    health: fc.constantFrom('pending' as const, 'online' as const, 'error' as const, 'offline' as const),
    engineType: fc.constant(null),
    latencyMs: fc.option(fc.nat(500)),
    lastSeen: fc.option(fc.nat()),
    lastError: fc.option(fc.string()),
    errorCount: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(fc.tuple(health, fc.boolean()), { minLength: 1 }), records(5), (results, list) => {
      const books = newBooks({ blockRows: 1, maxBytes: 1e9 });
      for (const [i, [result, commit]] of results.entries()) {
        books.noteHealth('e1', result);
        books.noteModels('e1', [{ modelId: `m${i}`, capabilities: null, maxTokens: null }]);
        const record = list[i];
        if (record !== undefined) books.append(structuredClone(record));
        expect(books.endpoint('e1')).toMatchObject({ ...result, models: [{ modelId: `m${i}` }] });
        if (commit) books.commitThrough(books.seal()?.lastSeq ?? 0);
        expect(books.endpoint('e1')).toMatchObject({ ...result, models: [{ modelId: `m${i}` }] });
      }
    }),
  );
});

function key({ modelId, kind }: { modelId: string; kind: string }): string {
  return `${kind} ${modelId}`;
}
