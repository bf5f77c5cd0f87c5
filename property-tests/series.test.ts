import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Books, newEndpointSeed } from '../src/actors/books.js';
import { seriesOf } from '../src/actors/series.js';
import { lastAttempt, type RequestRecord } from '../src/machines/records.js';
import {
  addMinutes,
  METRICS,
  pointsOf,
  RANGES,
  type Range,
  type SeriesFilter,
  type SeriesMetric,
  type Steps,
} from '../src/machines/series.js';
import { emptyDelta, foldRecord } from '../src/machines/sums.js';
import { fitsPattern } from '../src/machines/wildcard.js';
import { SqliteStore } from '../src/persistence/sqlite/sqlite-store.js';
import { configOf } from '../test/support/house.js';
import { ENDPOINTS, MODELS, NOON, records } from './support/records.js';

const ranges = fc.constantFrom(...(Object.keys(RANGES) as Range[]));
const filters: fc.Arbitrary<SeriesFilter> = fc.record(
  {
    endpointId: fc.constantFrom(...ENDPOINTS, 'nobody'),
    model: fc.constantFrom(...MODELS, 'n', 'n*', '*', 'x'),
  },
  { requiredKeys: [] },
);
const timed = records(30, 900_000).chain((list) =>
  fc
    .array(fc.option(fc.nat(5000)), { minLength: list.length, maxLength: list.length })
    .map((times) => list.map((one, i) => ({ ...one, ttftMs: times[i] ?? null }))),
);

/** Every metric of the requests that fit, plainly: step → value. */
function plainly(list: RequestRecord[], range: Range, filter: SeriesFilter) {
  const { stepSecs } = RANGES[range];
  const counted = list.filter((record) => {
    const { timeline, model } = record;
    const last = lastAttempt(record);
    const listed = last?.modelId ?? model;
    if (timeline === 'none') return false;
    if (filter.endpointId !== undefined && filter.endpointId !== (last?.endpointId ?? '')) return false;
    const wanted = filter.model ?? '*';
    return (
      wanted === '*' || listed === wanted || (wanted !== 'x' && wanted[0] === 'n' && listed === 'n:latest')
    );
  });
  const bySteps = new Map<number, RequestRecord[]>();
  for (const record of counted) {
    const at = Math.floor(record.completedAt / 1000 / stepSecs) * stepSecs;
    bySteps.set(at, [...(bySteps.get(at) ?? []), record]);
  }
  const mean = (values: number[]) =>
    values.length === 0 ? null : values.reduce((a, b) => a + b, 0) / values.length;
  return (metric: SeriesMetric, at: number): number | null => {
    const here = bySteps.get(at) ?? [];
    const good = here.filter(({ outcome }) => outcome === 'success');
    const samples = here.map(lastAttempt).filter((one) => one?.sampled === true);
    const tokens = samples.reduce((total, one) => total + (one?.outputTokens ?? 0), 0);
    const ms = samples.reduce((total, one) => total + (one?.durationMs ?? 0), 0);
    switch (metric) {
      case 'requests':
        return here.length;
      case 'errors':
        return here.filter(({ timeline }) => timeline === 'error').length;
      case 'latency':
        return mean(good.map(({ durationMs }) => durationMs));
      case 'ttft':
        return mean(good.flatMap(({ ttftMs }) => ttftMs ?? []));
      case 'tps':
        return ms === 0 ? null : (1000 * tokens) / ms;
      case 'tokens':
        return here
          .map(lastAttempt)
          .reduce((n, one) => n + (one?.inputTokens ?? 0) + (one?.outputTokens ?? 0), 0);
    }
  };
}

function expectPoints(
  steps: Steps,
  list: RequestRecord[],
  range: Range,
  filter: SeriesFilter,
  now: number,
): void {
  const value = plainly(list, range, filter);
  const { stepSecs, steps: count } = RANGES[range];
  const last = Math.floor(now / 1000 / stepSecs);
  const grid = Array.from({ length: count }, (_, i) => (last - count + 1 + i) * stepSecs);
  for (const metric of Object.keys(METRICS) as SeriesMetric[]) {
    const points = pointsOf(steps, range, metric, now);
    expect(points.map(([at, found]) => [at, rounded(found)])).toEqual(
      grid.map((at) => [at, rounded(value(metric, at))]),
    );
  }
}

const rounded = (value: number | null) => (value === null ? null : Number(value.toPrecision(12)));

test('a series is the plain fold of the requests in its range, however they are grouped', () => {
  fc.assert(
    fc.property(timed, ranges, filters, fc.nat(9), fc.nat(7_200_000), (list, range, filter, size, later) => {
      const now = (list[list.length - 1]?.completedAt ?? NOON) + later;
      const steps: Steps = new Map();
      for (let i = 0; i < list.length; i += size + 1) {
        const delta = emptyDelta();
        for (const record of list.slice(i, i + size + 1)) foldRecord(delta, structuredClone(record));
        addMinutes(steps, range, filter, delta.minutes.values());
      }
      expectPoints(steps, list, range, filter, now);
    }),
  );
});

/** What happens between two requests. */
type Step = 'write' | 'write unheard' | 'hear' | 'look' | 'fold' | 'later';
const steps = fc.array(
  fc.constantFrom<Step>('write', 'write unheard', 'hear', 'look', 'look', 'fold', 'later'),
  {
    minLength: 10,
    maxLength: 40,
  },
);

test('whenever it is looked at, a series has each request once: waiting, written, kept or folded into hours', async () => {
  await fc.assert(
    fc.asyncProperty(timed, steps, ranges, filters, async (list, course, range, filter) => {
      const dir = mkdtempSync(join(tmpdir(), 'troupe-law-'));
      const store = new SqliteStore(join(dir, 'troupe.db'), () => NOON);
      try {
        await store.open();
        const books = new Books('run', { blockRows: 3, maxBytes: 1e9 });
        for (const id of ENDPOINTS) {
          await store.insertEndpoint(configOf(id), null, null);
          books.seedEndpoint(configOf(id), newEndpointSeed());
        }
        let now = NOON;
        let mono = 0;
        const series = seriesOf({ books, store, clock: { now: () => now, mono: () => mono } });
        const sofar: RequestRecord[] = [];
        const rest = [...list];
        for (const step of course) {
          const next = rest.shift();
          if (next !== undefined) {
            sofar.push(next);
            now = next.completedAt;
            books.append(structuredClone(next));
          }
          // A look and a write that go on at the same time.
          const looked = step === 'look' ? series(range, filter) : undefined;
          if (step !== 'hear' && step !== 'later' && step !== 'fold') {
            const block = books.seal();
            if (block !== undefined) {
              await store.apply(block);
              if (step !== 'write unheard') books.commitThrough(block.lastSeq);
            }
          }
          if (step === 'hear') books.commitThrough(await store.cursor('run'));
          // Minutes that are still looked at one by one stay minutes.
          if (step === 'fold' && RANGES[range].stepSecs >= 3600) {
            await store.foldMinutes(Math.floor(now / 60_000) - 5, 500);
          }
          if (step === 'later') mono += 20_000;
          if (looked !== undefined) expectPoints(await looked, sofar, range, filter, now);
          expectPoints(await series(range, filter), sofar, range, filter, now);
        }
      } finally {
        await store.close();
        rmSync(dir, { recursive: true, force: true });
      }
    }),
    { numRuns: 25 },
  );
}, 60_000);

test('a pattern fits what its regular expression fits', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '*', '.', '['), maxLength: 8 });
  fc.assert(
    fc.property(text, text, (pattern, name) => {
      const parts = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
      expect(fitsPattern(pattern, name)).toBe(new RegExp(`^${parts.join('.*')}$`, 's').test(name));
    }),
    { numRuns: 1000 },
  );
});
