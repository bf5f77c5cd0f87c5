import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Books } from '../src/actors/books.js';
import { localDate } from '../src/clock.js';
import { lastAttempt, type RequestRecord } from '../src/machines/records.js';
import { addDay, emptyOwnerUsage, monthOf, noUsage, onDate, type Usage } from '../src/machines/usage.js';
import { OWNERS, records } from './support/records.js';

/** Records that may lie days and weeks apart. */
const list = records(40, 12 * 86_400_000);

function plainly(rows: RequestRecord[], counts: (date: string) => boolean): Usage {
  return rows
    .filter((row) => counts(localDate(row.completedAt)))
    .reduce((sum, row) => {
      const last = lastAttempt(row);
      return {
        requests: sum.requests + 1,
        errors: sum.errors + (row.outcome === 'failure' ? 1 : 0),
        inputTokens: sum.inputTokens + (last?.inputTokens ?? 0),
        outputTokens: sum.outputTokens + (last?.outputTokens ?? 0),
      };
    }, noUsage());
}

test('however much of it is written, what an owner has used is the plain sum of the owner’s requests', () => {
  fc.assert(
    fc.property(list, fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }), (rows, writes) => {
      const books = new Books('run', { blockRows: 3, maxBytes: Number.MAX_SAFE_INTEGER });
      const today = localDate(rows.at(-1)?.completedAt ?? 0);
      rows.forEach((row, i) => {
        books.append(structuredClone(row));
        if (writes[i]) books.commitThrough(books.seal()?.lastSeq ?? 0);
      });
      for (const owner of OWNERS) {
        const own = rows.filter(({ keyId }) => keyId === owner);
        const usage = books.usage(owner, today);
        expect(usage.total).toEqual(plainly(own, () => true));
        expect(usage.today).toEqual(plainly(own, (date) => date === today));
        expect(usage.month).toEqual(plainly(own, (date) => monthOf(date) === monthOf(today)));
        expect(usage.lastUsedAt).toBe(own.at(-1)?.completedAt ?? 0);
      }
    }),
  );
});

test('requests of nobody count for nobody', () => {
  fc.assert(
    fc.property(list, (rows) => {
      const books = new Books('run');
      for (const row of rows) books.append({ ...structuredClone(row), keyId: null, userId: null });
      for (const owner of OWNERS) expect(books.usage(owner, '2026-01-15').total).toEqual(noUsage());
    }),
  );
});

test('a user’s own requests count for the user, and those with a key for the key alone', () => {
  fc.assert(
    fc.property(list, (rows) => {
      const books = new Books('run');
      for (const row of rows) books.append({ ...structuredClone(row), userId: 'u' });
      const own = rows.filter(({ keyId }) => keyId === null);
      expect(books.usage('u', '2026-01-15').total).toEqual(plainly(own, () => true));
    }),
  );
});

test('seen from a later day nothing was used that day, and looking changes nothing', () => {
  const usage = emptyOwnerUsage('k1', '2026-01-30');
  addDay(usage, { ownerId: 'k1', date: '2026-01-30', lastUsedAt: 5, ...noUsage(), requests: 3 });
  expect(onDate(usage, '2026-01-31')).toMatchObject({
    today: noUsage(),
    month: { requests: 3 },
    total: { requests: 3 },
  });
  expect(onDate(usage, '2026-02-01')).toMatchObject({
    today: noUsage(),
    month: noUsage(),
    total: { requests: 3 },
  });
  expect(usage.today.requests).toBe(3);
});
