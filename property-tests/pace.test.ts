import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type Asked,
  allowanceMs,
  extraMs,
  learn,
  NEW_PACE,
  type Pace,
  percentile,
} from '../src/machines/pace.js';
import type { SpeedSample } from '../src/machines/speed.js';

/** Alone, nothing of it read before, its tokens not told. */
const ALONE = { cachedBytes: 0, ahead: 0, beside: 0, outputTokens: null, mono: 0 };

const KB = 1024;
const SHORT = 8 * KB;
/** The last bucket begins here: what takes longer is told as this long. */
const LONGEST_MS = 2 ** 20.5;

/** Times from under a millisecond to some minutes, spread over all sizes, and the edges of buckets. */
const ms = fc.oneof(
  fc.double({ min: 0, max: 20, noNaN: true }).map((exponent) => 2 ** exponent),
  fc.integer({ min: 0, max: 40 }).map((half) => 2 ** (half / 2)),
  fc.nat(300_000_000).map((us) => us / 1000),
);
const bytes = fc.oneof(
  fc.nat(SHORT),
  fc.nat(400 * KB),
  fc.constantFrom(0, SHORT, ...[4, 16, 64, 256].flatMap((size) => [size * KB - 1, size * KB])),
);
const asked: fc.Arbitrary<Asked> = fc.record({
  promptBytes: bytes,
  stream: fc.boolean(),
  cold: fc.boolean(),
});
/** What was learned, and what is asked then: mostly of the same few kinds, so that they meet. */
interface Case {
  list: SpeedSample[];
  what: Asked;
}

const sampleOf = (of: fc.Arbitrary<Asked>): fc.Arbitrary<SpeedSample> =>
  fc
    .tuple(of, ms, ms)
    .map(([what, firstByteMs, more]) => ({ ...ALONE, ...what, firstByteMs, durationMs: firstByteMs + more }));
const cases: fc.Arbitrary<Case> = fc.array(asked, { minLength: 1, maxLength: 3 }).chain((few) => {
  const kind = fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...few) }, { weight: 1, arbitrary: asked });
  const list = fc.array(sampleOf(kind), { maxLength: 60, size: 'max' });
  return fc.record({ list, what: kind });
});
const share = fc.oneof(fc.double({ min: 0.001, max: 1, noNaN: true }), fc.constantFrom(0.5, 0.95, 0.99, 1));

const after = (list: SpeedSample[]): Pace => list.reduce(learn, NEW_PACE);
const streamOf = (firstByteMs: number, more: Partial<SpeedSample> = {}): SpeedSample => ({
  ...ALONE,
  promptBytes: 100,
  stream: true,
  cold: false,
  firstByteMs,
  durationMs: firstByteMs,
  ...more,
});
/** Counts of one place, as samples of one kind leave them. */
const countsOf = (list: number[]) => after(list.map((one) => streamOf(one))).firstByte.find(Boolean);

/** The smallest sample that at least this share is not above. */
function truePercentile(list: number[], share: number): number {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted.find((_, i) => i + 1 >= list.length * share) as number;
}

/** Which streams are learned together, said plainly. */
function kindOf({ promptBytes, cold }: Asked): string {
  const size = promptBytes < 4 * KB ? 0 : promptBytes < 16 * KB ? 1 : promptBytes < 64 * KB ? 2 : 3;
  return `${promptBytes < 256 * KB ? size : 4} ${cold}`;
}

test('a percentile is never below the true one and at most the root of two above it', () => {
  fc.assert(
    fc.property(fc.array(ms, { minLength: 5, maxLength: 250, size: 'max' }), share, (list, of) => {
      const told = percentile(countsOf(list), of) as number;
      const real = truePercentile(list, of);
      expect(told).toBeGreaterThanOrEqual(real * (1 - 1e-12));
      expect(told).toBeLessThanOrEqual(Math.max(1, real * Math.SQRT2 * (1 + 1e-12)));
    }),
    { numRuns: 300 },
  );
});

test('a percentile grows with its share and is unknown below five samples', () => {
  fc.assert(
    fc.property(fc.array(ms, { maxLength: 30, size: 'max' }), share, share, (list, a, b) => {
      const counts = countsOf(list);
      if (list.length < 5) {
        expect(percentile(counts, a)).toBeNull();
        return;
      }
      const [low, high] = [Math.min(a, b), Math.max(a, b)].map((one) => percentile(counts, one) as number);
      expect(low).toBeLessThanOrEqual(high as number);
    }),
    { numRuns: 300 },
  );
});

test('what takes longer than the last bucket says is told as its edge, not as nothing', () => {
  fc.assert(
    fc.property(fc.double({ min: LONGEST_MS, max: 1e9, noNaN: true }), (long) => {
      expect(percentile(countsOf(Array.from({ length: 5 }, () => long)), 0.5)).toBeCloseTo(LONGEST_MS, 3);
    }),
  );
});

test('an allowance is 30 s until enough of its kind was learned, and then at least 2 s and three times the slowest', () => {
  let learned = 0;
  let unlearned = 0;
  fc.assert(
    fc.property(cases, ({ list, what }) => {
      const allowed = allowanceMs(after(list), what);
      const same = list.filter((one) => one.stream && kindOf(one) === kindOf(what));
      const isLearned = what.stream ? same.length >= 5 : list.some(({ stream }) => !stream);
      if (isLearned) learned += 1;
      else unlearned += 1;
      if (!isLearned) {
        expect(allowed).toBe(30_000 + extraMs(after(list), what));
        return;
      }
      expect(allowed).toBeGreaterThanOrEqual(2000);
      if (!what.stream) return;
      // Up to a hundred samples have their slowest as the 99th percentile.
      const slowest = Math.max(...same.map(({ firstByteMs }) => firstByteMs));
      expect(allowed).toBeGreaterThanOrEqual(3 * slowest * (1 - 1e-12));
      expect(allowed).toBeLessThanOrEqual(Math.max(2000, 3 * Math.SQRT2 * slowest * (1 + 1e-12)));
    }),
    { numRuns: 400 },
  );
  expect(Math.min(learned, unlearned)).toBeGreaterThan(50);
});

test('an answer as a whole is allowed three times the mean of those before, whatever streams took', () => {
  fc.assert(
    fc.property(cases, ({ list, what }) => {
      const whole = list.filter(({ stream }) => !stream).map(({ durationMs }) => durationMs);
      fc.pre(whole.length > 0);
      const allowed = allowanceMs(after(list), { ...what, stream: false });
      expect(allowed).toBeGreaterThanOrEqual(Math.max(2000, 3 * Math.min(...whole) * (1 - 1e-9)));
      expect(allowed).toBeLessThanOrEqual(Math.max(2000, 3 * Math.max(...whole) * (1 + 1e-9)));
    }),
  );
});

test('what a deadline grows by is never negative, nothing for a short prompt of a warm stream, and more for a longer one', () => {
  fc.assert(
    fc.property(cases, fc.nat(400 * KB), ({ list, what }, more) => {
      const pace = after(list);
      const extra = extraMs(pace, what);
      const longer = extraMs(pace, { ...what, promptBytes: what.promptBytes + more });
      expect(Number.isFinite(extra)).toBe(true);
      expect(extra).toBeGreaterThanOrEqual(0);
      expect(longer).toBeGreaterThanOrEqual(extra);
      if (more > 0 && what.promptBytes >= SHORT) expect(longer).toBeGreaterThan(extra);
      const short = { promptBytes: Math.min(SHORT, what.promptBytes), stream: true, cold: false };
      expect(extraMs(pace, short)).toBe(0);
      for (const slower of [{ cold: true }, { stream: false }]) {
        expect(extraMs(pace, { ...what, ...slower })).toBeGreaterThanOrEqual(
          extraMs(pace, { ...what, stream: true, cold: false }),
        );
      }
    }),
    { numRuns: 300 },
  );
});

test('a deadline for a long prompt leaves twice the time that such prompts took, learned or not', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 400 * KB }),
      fc.double({ min: 1, max: 300_000, noNaN: true }),
      fc.integer({ min: 1, max: 20 }),
      (long, took, times) => {
        const what = { promptBytes: SHORT + long, stream: true, cold: false };
        // 200 tokens of 4 bytes a second.
        expect(extraMs(NEW_PACE, what)).toBeCloseTo(long / 0.8, 6);
        const pace = after(Array.from({ length: times }, () => streamOf(took, what)));
        expect(extraMs(pace, what)).toBeCloseTo((2 * took * long) / (SHORT + long), 3);
      },
    ),
  );
});

test('a cold model is allowed twice what it took longer than a warm one', () => {
  fc.assert(
    fc.property(
      fc.nat(1000),
      fc.integer({ min: -1000, max: 60_000 }),
      fc.integer({ min: 1, max: 9 }),
      (warm, more, times) => {
        const cold = Math.max(-warm, more);
        const list = [
          ...Array.from({ length: 5 }, () => streamOf(warm)),
          ...Array.from({ length: times }, () => streamOf(warm + cold, { cold: true })),
        ];
        const extra = extraMs(after(list), { promptBytes: 100, stream: true, cold: true });
        // The warm time is known to the edge of its bucket.
        expect(extra).toBeLessThanOrEqual(2 * Math.max(0, cold) + 1e-6);
        expect(extra).toBeGreaterThanOrEqual(0);
        expect(extra).toBeGreaterThanOrEqual(2 * (warm + cold - Math.SQRT2 * Math.max(1, warm)) - 1e-6);
      },
    ),
  );
});

test('counts stay bounded and whole after any number of samples, and what was learned stays learned', () => {
  fc.assert(
    fc.property(
      fc.array(ms, { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 5, max: 1500 }),
      (list, times) => {
        let pace = NEW_PACE;
        for (let i = 0; i < times; i += 1) {
          const before = pace;
          pace = learn(pace, streamOf(list[i % list.length] as number));
          const counts = pace.firstByte.flatMap((one) => one ?? []);
          const all = counts.reduce((sum, one) => sum + one, 0);
          if (all > 256 || all < Math.min(5, i + 1) || counts.length > 42) expect([i, all]).toBe('bounded');
          if (before === pace) expect('the same').toBe('another');
        }
        const [counts] = pace.firstByte;
        expect(counts?.every((one) => Number.isInteger(one) && one >= 0)).toBe(true);
        expect(percentile(counts, 0.99)).not.toBeNull();
      },
    ),
    { numRuns: 30 },
  );
});

test('old times fade: a few hundred new ones decide alone', () => {
  fc.assert(
    fc.property(ms, ms, fc.integer({ min: 5, max: 256 }), (old, young, times) => {
      const list = [
        ...Array.from({ length: times }, () => old),
        ...Array.from({ length: 3000 }, () => young),
      ];
      const told = percentile(countsOf(list), 0.99) as number;
      expect(told).toBeGreaterThanOrEqual(young * (1 - 1e-12));
      expect(told).toBeLessThanOrEqual(Math.max(1, young * Math.SQRT2 * (1 + 1e-12)));
    }),
    { numRuns: 20 },
  );
});

test('a sample teaches only its own kind, and changes nothing that was known', () => {
  let told = 0;
  fc.assert(
    fc.property(cases, ({ list, what: other }) => {
      const one = list.pop() ?? streamOf(1);
      const pace = after(list);
      const before = structuredClone(pace);
      const learned = learn(pace, one);
      expect(pace).toEqual(before);
      if (one.stream !== other.stream || (one.stream && kindOf(one) !== kindOf(other))) {
        const allowed = (known: Pace) => {
          const all = allowanceMs(known, other);
          // While nothing is known of a kind its allowance has what such requests need on top.
          return all === 30_000 + extraMs(known, other) ? 30_000 : all;
        };
        expect(allowed(learned)).toBe(allowed(pace));
        told += 1;
      }
      // How fast it reads is learned of long prompts alone, and not while it loads the model.
      const long = { promptBytes: 400 * KB, stream: true, cold: false };
      if (one.promptBytes < SHORT || one.cold || !one.stream) {
        expect(extraMs(learned, long)).toBe(extraMs(pace, long));
      }
    }),
    { numRuns: 300 },
  );
  expect(told).toBeGreaterThan(50);
});
