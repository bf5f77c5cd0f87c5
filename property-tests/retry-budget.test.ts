import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RetryBudget } from '../src/actors/retry-budget.js';

const WINDOW = 10_000;

interface Step {
  at: number;
  requests: number;
  wanted: number;
}

/** Bursts of requests, and of retries that are wanted, on a clock that never goes back. */
const steps = fc
  .array(
    fc.record({
      gap: fc.oneof(fc.constant(0), fc.nat(50), fc.nat(1500), fc.nat(12_000)),
      requests: fc.oneof(fc.nat(3), fc.nat(120)),
      wanted: fc.oneof(fc.nat(2), fc.nat(30)),
    }),
    { minLength: 1, maxLength: 40, size: 'max' },
  )
  .chain((list) => fc.nat(5000).map((start) => ({ list, start })))
  .map(({ list, start }) => {
    let at = start;
    return list.map(({ gap, requests, wanted }): Step => {
      at += gap;
      return { at, requests, wanted };
    });
  });

/** Plays the steps; a retry is made only where it is allowed. `asked` sees each question before its effect. */
function play(
  list: Step[],
  asked: (may: boolean, at: number, requests: number[], retries: number[]) => void,
) {
  const budget = new RetryBudget();
  const requests: number[] = [];
  const retries: number[] = [];
  for (const { at, requests: count, wanted } of list) {
    for (let i = 0; i < count; i += 1) {
      budget.noteRequest(at);
      requests.push(at);
    }
    for (let i = 0; i < wanted; i += 1) {
      const may = budget.mayRetry(at);
      asked(may, at, requests, retries);
      if (!may) continue;
      budget.noteRetry(at);
      retries.push(at);
    }
  }
  return { budget, end: list.at(-1)?.at ?? 0 };
}

function within(times: number[], now: number, ms: number): number {
  return times.filter((at) => at > now - ms && at <= now).length;
}

test('no retry makes more than 10 or 20 % of the requests in the 10 s that end with it', () => {
  fc.assert(
    fc.property(steps, (list) => {
      play(list, (may, at, requests, retries) => {
        const most = Math.max(10, within(requests, at, WINDOW) / 5);
        if (may) expect(within(retries, at, WINDOW) + 1).toBeLessThanOrEqual(most);
      });
    }),
  );
});

test('a retry is refused only when the budget of the last 9 s is used up', () => {
  fc.assert(
    fc.property(steps, (list) => {
      play(list, (may, at, requests, retries) => {
        const least = Math.max(10, within(requests, at, WINDOW - 1000) / 5);
        if (!may) expect(within(retries, at, WINDOW) + 1).toBeGreaterThan(least);
      });
    }),
  );
});

test('after 10 s without anything a budget is as good as new', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const { budget, end } = play(list, () => {});
      const later = end + WINDOW;
      for (let i = 0; i < 10; i += 1) {
        expect(budget.mayRetry(later)).toBe(true);
        budget.noteRetry(later);
      }
      expect(budget.mayRetry(later)).toBe(false);
      expect(budget.mayRetry(later + WINDOW - 1)).toBe(false);
      expect(budget.mayRetry(later + WINDOW)).toBe(true);
    }),
  );
});

test('steady traffic may retry a fifth of the requests of ten seconds', () => {
  const budget = new RetryBudget();
  for (let at = 0; at < 30_000; at += 10) budget.noteRequest(at);
  let retries = 0;
  for (; budget.mayRetry(29_999); retries += 1) budget.noteRetry(29_999);
  expect(retries).toBe(200);
});

test('a fifth of the requests may be retried, and the wait counts with the requests that leave meanwhile', () => {
  const budget = new RetryBudget();
  for (let i = 0; i < 100; i += 1) budget.noteRequest(0);
  for (let i = 0; i < 20; i += 1) {
    expect(budget.mayRetry(500 + i)).toBe(true);
    budget.noteRetry(500 + i);
  }
  expect(budget.mayRetry(600)).toBe(false);
  // At 10 500 the first retry is out of the window, but so are the requests: only ten may be in it then.
  expect(budget.mayRetry(10_509)).toBe(false);
  expect(budget.mayRetry(10_510)).toBe(true);
});
