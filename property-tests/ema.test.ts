import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createActor } from 'xstate';
import { withReducer } from '../src/actors/fast-path.js';
import { addSample, EMA_ALPHA, type TpsState, tpsLogic, tpsSeed } from '../src/machines/tps.js';

const samples = fc.array(
  fc.record({ tokens: fc.integer({ min: 1, max: 100_000 }), ms: fc.integer({ min: 1, max: 600_000 }) }),
  { minLength: 1, maxLength: 50 },
);
const NOTHING = { date: '2026-01-15', samples: 0, tokens: 0, ms: 0 };

function fed(state: TpsState, all: { tokens: number; ms: number }[], date = NOTHING.date): TpsState {
  return all.reduce<TpsState>((to, sample) => addSample(to, { date, ...sample }), state);
}

test('the rate stays within the range of its samples', () => {
  fc.assert(
    fc.property(samples, (all) => {
      const rates = all.map(({ tokens, ms }) => (tokens * 1000) / ms);
      const ema = fed(tpsSeed(NOTHING), all).ema ?? Number.NaN;
      expect(ema).toBeGreaterThanOrEqual(Math.min(...rates) * (1 - 1e-9));
      expect(ema).toBeLessThanOrEqual(Math.max(...rates) * (1 + 1e-9));
    }),
  );
});

test('the rate equals its closed form: the first sample fading by four fifths, each later one by its age', () => {
  fc.assert(
    fc.property(samples, (all) => {
      const rates = all.map(({ tokens, ms }) => (tokens * 1000) / ms);
      const last = rates.length - 1;
      const closed = rates.reduce((sum, rate, i) => {
        const weight = i === 0 ? (1 - EMA_ALPHA) ** last : EMA_ALPHA * (1 - EMA_ALPHA) ** (last - i);
        return sum + weight * rate;
      }, 0);
      const ema = fed(tpsSeed(NOTHING), all).ema ?? Number.NaN;
      expect(Math.abs(ema - closed)).toBeLessThanOrEqual(1e-9 * Math.max(1, closed));
    }),
  );
});

test('the sums are those of the newest day, while the rate goes on over midnight', () => {
  fc.assert(
    fc.property(samples, samples, (before, after) => {
      const evening = fed(tpsSeed(NOTHING), before);
      const state = fed(evening, after, '2026-01-16');
      expect(state).toMatchObject({
        date: '2026-01-16',
        samples: after.length,
        tokens: after.reduce((sum, { tokens }) => sum + tokens, 0),
        ms: after.reduce((sum, { ms }) => sum + ms, 0),
      });
      expect(fed({ ...evening, date: '2026-01-16' }, after).ema).toBe(state.ema);
    }),
  );
});

test('a restarted tracker begins with tokens per second of today, or unmeasured', () => {
  fc.assert(
    fc.property(samples, (all) => {
      const { date, samples: count, tokens, ms } = fed(tpsSeed(NOTHING), all);
      expect(tpsSeed({ date, samples: count, tokens, ms }).ema).toBeCloseTo(tokens / (ms / 1000), 6);
    }),
  );
  expect(tpsSeed(NOTHING).ema).toBeNull();
  expect(tpsSeed({ ...NOTHING, samples: 1, tokens: 100, ms: 2000 }).ema).toBe(50);
});

test('a tracker that takes its samples the fast way is at every step what its store makes of it', () => {
  const event = fc.oneof(
    fc.record({
      type: fc.constant('sample' as const),
      date: fc.constantFrom('2026-01-15', '2026-01-16'),
      tokens: fc.integer({ min: 1, max: 100_000 }),
      ms: fc.integer({ min: 1, max: 600_000 }),
    }),
    fc.record({ type: fc.constant('reseed' as const), seed: fc.constant(tpsSeed({ ...NOTHING, ms: 10 })) }),
  );
  const started = (logic: typeof tpsLogic) => createActor(logic, { input: tpsSeed(NOTHING) }).start();
  fc.assert(
    fc.property(fc.array(event, { minLength: 1, maxLength: 30 }), (events) => {
      const plain = started(tpsLogic);
      const fast = started(withReducer(tpsLogic, 'sample', addSample));
      for (const one of events) {
        plain.send(one);
        fast.send(one);
        expect(fast.getSnapshot()).toEqual(plain.getSnapshot());
      }
    }),
  );
});
