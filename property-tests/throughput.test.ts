import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Throughput, WINDOW_MS, type Writing } from '../src/machines/throughput.js';

const writing = fc
  .record({
    startedAt: fc.integer({ min: 0, max: 60_000 }),
    ms: fc.integer({ min: 0, max: 30_000 }),
    tokens: fc.integer({ min: 0, max: 5000 }),
  })
  .map(({ startedAt, ms, tokens }): Writing => ({ startedAt, endedAt: startedAt + ms, tokens }));
const writings = fc
  .array(writing, { maxLength: 60 })
  .map((all) => all.toSorted((a, b) => a.endedAt - b.endedAt));

test('every token is counted in exactly one of the windows that follow one another', () => {
  fc.assert(
    fc.property(writings, (all) => {
      const throughput = new Throughput();
      let next = 0;
      let counted = 0;
      for (let now = WINDOW_MS; now <= 100_000; now += WINDOW_MS) {
        for (; next < all.length && (all[next] as Writing).endedAt < now; next++) {
          throughput.note(all[next] as Writing);
        }
        const running = all
          .slice(next)
          .filter(({ startedAt }) => startedAt < now)
          .map((one) => ({
            ...one,
            endedAt: now,
            tokens: (one.tokens * (now - one.startedAt)) / (one.endedAt - one.startedAt),
          }));
        counted += (throughput.tokensPerSecond(now, running) * WINDOW_MS) / 1000;
      }
      const told = all.reduce((sum, { tokens }) => sum + tokens, 0);
      expect(counted).toBeCloseTo(told, 3);
    }),
  );
});

test('ten seconds after the last token nothing is written any more', () => {
  fc.assert(
    fc.property(writings, (all) => {
      const throughput = new Throughput();
      for (const one of all) throughput.note(one);
      expect(throughput.tokensPerSecond((all.at(-1)?.endedAt ?? 0) + WINDOW_MS + 1, [])).toBe(0);
    }),
  );
});

test('a steady stream is told as fast as it is', () => {
  const throughput = new Throughput();
  for (let at = 0; at < 30_000; at += 100) throughput.note({ startedAt: at, endedAt: at + 100, tokens: 5 });
  expect(throughput.tokensPerSecond(30_000, [])).toBeCloseTo(50, 6);
});
