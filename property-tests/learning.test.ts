import fc from 'fast-check';
import { expect, test } from 'vitest';
import { newEndpointSeed } from '../src/actors/books.js';
import { Curve } from '../src/machines/curve.js';
import { afterEvidence, type EndpointContext, nothingLearned, ofModel } from '../src/machines/endpoint.js';
import { forecast, isMeasured, learnSpeed, NEW_SPEED, type Speed, totalMs } from '../src/machines/speed.js';
import { type Asking, answerOf, type Box, boxOf, chance, learned, samples, takes } from './support/boxes.js';

const seed = fc.integer();
const box: fc.Arbitrary<Box> = fc
  .record({
    wait: fc.integer({ min: 10, max: 200 }),
    waitEach: fc.nat(200),
    token: fc.integer({ min: 20, max: 80 }),
    growth: fc.double({ min: 0, max: 1, noNaN: true }),
    prefill: fc.integer({ min: 8, max: 24 }),
    loadMs: fc.integer({ min: 2000, max: 20_000 }),
  })
  .map(({ wait, waitEach, token, growth, prefill, loadMs }) => ({
    waitMs: (ahead) => wait + waitEach * ahead,
    tokenMs: (beside) => token * (1 + growth * beside),
    prefill,
    loadMs,
  }));
/** Numbers of others that are met; nobody but oneself is among them, as on any box at some time. */
const numbers = fc
  .uniqueArray(fc.constantFrom(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16), { maxLength: 6 })
  .map((list) => [0, ...list]);

/** Within a fifth of what it should be, either way. */
const noisy = (random: () => number) => () => 0.8 + 0.4 * random();

function shuffled<T>(list: T[], random: () => number): T[] {
  const mixed = [...list];
  for (let i = mixed.length - 1; i > 0; i -= 1) {
    const j = Math.floor(random() * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j] as T, mixed[i] as T];
  }
  return mixed;
}

const times = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);

function told(speed: Speed, { others, promptBytes, tokens, cold }: Asking): number {
  return totalMs(forecast(speed, others, promptBytes, tokens, cold));
}

/** How often what is told is off by more than a share of the truth. */
function expectNear(speed: Speed, truth: Box, asking: Asking, share: number): void {
  const off = told(speed, asking) / takes(truth, asking) - 1;
  expect([asking, Math.abs(off) <= share || off]).toEqual([asking, true]);
}

test('after some noisy streams in any order a forecast is within a quarter of the truth wherever they were', () => {
  fc.assert(
    fc.property(box, numbers, seed, (truth, met, from) => {
      const random = chance(from);
      const plain = { tokens: 100, cold: false, stream: true };
      const short = () => 100 + Math.floor(4000 * random());
      const long = () => 8192 + Math.floor(12_000 * random());
      const asked = met.flatMap((others): Asking[] => [
        ...times(24, () => ({ ...plain, others, promptBytes: short() })),
        // How fast it reads is learned of who is alone there, how long it loads of whoever finds it cold.
        ...times(others === 0 ? 14 : 4, () => ({ ...plain, others, promptBytes: long() })),
        ...times(others === 0 ? 10 : 1, () => ({ ...plain, others, promptBytes: 100, cold: true })),
      ]);
      let speed = NEW_SPEED;
      for (const one of shuffled(asked, random)) {
        const tokens = 30 + Math.floor(200 * random());
        speed = learnSpeed(speed, answerOf(truth, { ...one, tokens }, noisy(random)));
      }
      for (const others of met) {
        for (const promptBytes of [500, 20_000]) {
          for (const cold of [false, true]) {
            expectNear(speed, truth, { ...plain, others, promptBytes, cold }, 0.25);
          }
        }
      }
    }),
    { numRuns: 300 },
  );
});

test('of answers that come as a whole it is learned as well', () => {
  fc.assert(
    fc.property(box, numbers, seed, (truth, met, from) => {
      const random = chance(from);
      const plain = { tokens: 100, cold: false, stream: false, promptBytes: 500 };
      const asked = met.flatMap((others) => times(30, (): Asking => ({ ...plain, others })));
      let speed = NEW_SPEED;
      for (const one of shuffled(asked, random)) {
        speed = learnSpeed(speed, answerOf(truth, one, noisy(random)));
      }
      for (const others of met) expectNear(speed, truth, { ...plain, others }, 0.25);
    }),
    { numRuns: 200 },
  );
});

test('long prompts among answers that come as a whole do not pass for slow writing', () => {
  const plain = { tokens: 100, cold: false, stream: false };
  fc.assert(
    fc.property(box, seed, (truth, from) => {
      const random = chance(from);
      let speed = NEW_SPEED;
      for (let i = 0; i < 300; i += 1) {
        const promptBytes = random() < 0.2 ? 8192 + Math.floor(12_000 * random()) : 500;
        const asking = { ...plain, promptBytes, others: Math.floor(8 * random()) };
        speed = learnSpeed(speed, answerOf(truth, asking, noisy(random)));
      }
      for (let others = 0; others < 8; others += 1) {
        expectNear(speed, truth, { ...plain, promptBytes: 500, others }, 0.25);
      }
    }),
  );
});

test('a prompt that the engine had in its cache unseen is outweighed by the next ten that it had not', () => {
  fc.assert(
    fc.property(fc.integer({ min: 10_000, max: 200_000 }), fc.nat(9), seed, (promptBytes, place, from) => {
      const random = chance(from);
      const truth = { ...boxOf(1000, 0), prefill: 16 };
      const asking = { others: 0, promptBytes, tokens: 100, cold: false, stream: true };
      let speed = NEW_SPEED;
      for (let i = 0; i < 20; i += 1) {
        const answer = answerOf(truth, asking, noisy(random));
        speed = learnSpeed(speed, i === place ? { ...answer, firstByteMs: truth.waitMs(0) } : answer);
      }
      const { prefillMs } = forecast(speed, 0, promptBytes, 100, false);
      expect(Math.abs(prefillMs * (truth.prefill / promptBytes) - 1)).toBeLessThan(0.5);
    }),
  );
});

/** A box that was well known at some numbers of others turns into another, and 30 are answered beside so many. */
function afterChange(before: Box, met: number[], after: Box, since: number, random: () => number): Speed {
  const plain = { promptBytes: 500, tokens: 100, cold: false, stream: true };
  const old = shuffled(
    met.flatMap((others) => times(30, () => ({ ...plain, others }))),
    random,
  ).map((asking) => answerOf(before, asking, noisy(random)));
  const young = times(30, () => answerOf(after, { ...plain, others: since }, noisy(random)));
  return [...old, ...young].reduce(learnSpeed, NEW_SPEED);
}

const alone = fc.integer({ min: 200, max: 5000 });
const growth = fc.double({ min: 0, max: 1, noNaN: true });

test('a box that turned five times slower is known as such, within a third, after thirty answers beside as many', () => {
  fc.assert(
    fc.property(alone, growth, numbers, fc.nat(16), seed, (aloneMs, more, met, since, from) => {
      const after = boxOf(5 * aloneMs, more);
      const speed = afterChange(boxOf(aloneMs, more), [...met, since], after, since, chance(from));
      expectNear(
        speed,
        after,
        { others: since, promptBytes: 500, tokens: 100, cold: false, stream: true },
        0.3,
      );
    }),
  );
});

test('so is one that turned five times faster, where nobody had met it beside fewer', () => {
  fc.assert(
    fc.property(alone, growth, fc.nat(16), seed, (aloneMs, more, since, from) => {
      const after = boxOf(aloneMs / 5, more);
      const speed = afterChange(boxOf(aloneMs, more), [since], after, since, chance(from));
      expectNear(
        speed,
        after,
        { others: since, promptBytes: 500, tokens: 100, cold: false, stream: true },
        0.3,
      );
    }),
  );
});

test('what was learned beside other numbers follows such a change', () => {
  const factor = fc.constantFrom(5, 1 / 5);
  fc.assert(
    fc.property(alone, growth, numbers, factor, fc.nat(16), seed, (aloneMs, more, met, by, since, from) => {
      const before = boxOf(aloneMs, more);
      const speed = afterChange(before, [...met, since], boxOf(by * aloneMs, more), since, chance(from));
      for (const others of met) {
        const asking = { others, promptBytes: 500, tokens: 100, cold: false, stream: true };
        const change = told(speed, asking) / takes(before, asking);
        if (by > 1) expect(change).toBeGreaterThan(1.5);
        else expect(change).toBeLessThan(0.8);
      }
    }),
  );
});

test('whatever the samples, more requests in flight never take less time, and no time is negative or endless', () => {
  const many = fc.array(samples, { maxLength: 40, size: 'max' });
  const at = fc.oneof(fc.nat(100), fc.double({ min: 0, max: 100, noNaN: true }));
  const asked = fc.record({ unread: fc.nat(1_000_000), tokens: fc.nat(10_000), cold: fc.boolean() });
  fc.assert(
    fc.property(many, at, at, asked, (list, a, b, { unread, tokens, cold }) => {
      const speed = list.reduce(learnSpeed, NEW_SPEED);
      const of = (others: number) => forecast(speed, others, unread, tokens, cold);
      const [less, more] = [of(Math.min(a, b)), of(Math.max(a, b))];
      for (const part of ['waitMs', 'loadMs', 'prefillMs', 'decodeMs'] as const) {
        expect(less[part]).toBeGreaterThanOrEqual(0);
        expect(Number.isFinite(more[part])).toBe(true);
        expect(less[part]).toBeLessThanOrEqual(more[part] * (1 + 1e-12));
      }
    }),
    { numRuns: 1000 },
  );
});

test('a curve goes through what was met exactly, and rises at every step of its table', () => {
  const points = fc.uniqueArray(fc.constantFrom(0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48), { minLength: 1 });
  fc.assert(
    fc.property(points, alone, growth, (met, aloneMs, more) => {
      const { tokenMs } = boxOf(aloneMs, more);
      const curve = met.reduce((known, at) => known.with(at, tokenMs(at), false), new Curve());
      for (const at of met) expect(curve.valueAt(at)).toBeCloseTo(tokenMs(at), 6);
      for (let n = 0; n < 200; n += 1) {
        const [less, next] = [curve.valueAt(n) as number, curve.valueAt(n + 1) as number];
        expect(less).toBeGreaterThan(0);
        expect(less).toBeLessThanOrEqual(next * (1 + 1e-12));
      }
    }),
  );
});

test('beside fewer than were ever met it hopes for less time, and beside more it expects each to take its share', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 24 }), alone, (at, took) => {
      const curve = new Curve().with(at, took, true);
      const value = (n: number) => curve.valueAt(n) as number;
      expect(value(0)).toBeLessThan(took);
      expect(value(0)).toBeGreaterThanOrEqual(took / (at + 1));
      expect(value(2 * at + 1)).toBeCloseTo(2 * took, 6);
      expect(value(200)).toBeCloseTo((201 / (at + 1)) * took, 6);
    }),
  );
});

test('nothing is known of what never answered, or too little to predict by, and something of what wrote at length', () => {
  let known = 0;
  fc.assert(
    fc.property(fc.array(samples, { maxLength: 8 }), (list) => {
      const speed = list.reduce(learnSpeed, NEW_SPEED);
      if (list.length === 0) expect(isMeasured(speed)).toBe(false);
      if (isMeasured(speed)) expect(speed.wait.isEmpty && speed.token.isEmpty).toBe(false);
      if (!list.some(({ stream, outputTokens }) => stream && (outputTokens ?? 0) >= 4)) return;
      expect(isMeasured(speed)).toBe(true);
      known += 1;
    }),
    { numRuns: 300 },
  );
  expect(known).toBeGreaterThan(50);
});

test('the mean length of answers is that of all that had one', () => {
  fc.assert(
    fc.property(fc.array(samples, { maxLength: 40, size: 'max' }), (list) => {
      const speed = list.reduce(learnSpeed, NEW_SPEED);
      const lengths = list.flatMap(({ outputTokens }) =>
        outputTokens === null || outputTokens === 0 ? [] : [outputTokens],
      );
      expect(speed.answers).toBe(lengths.length);
      const mean = lengths.reduce((sum, one) => sum + one, 0) / Math.max(1, lengths.length);
      expect(speed.answerTokens).toBeCloseTo(mean, 6);
    }),
  );
});

test('what is learned of one model at an endpoint changes nothing that is known of another', () => {
  const NAMES = ['m', 'm:latest', 'constructor', '__proto__'];
  const events = fc.array(
    fc.record({
      modelId: fc.constantFrom(...NAMES),
      what: fc.constantFrom('success' as const, 'success' as const, 'answer' as const, 'rest' as const),
      sample: fc.option(samples, { freq: 4 }),
    }),
    { maxLength: 30, size: 'max' },
  );
  const start = { ...newEndpointSeed(), ...nothingLearned(), loaded: [] } as unknown as EndpointContext;
  let taught = 0;
  fc.assert(
    fc.property(events, (list) => {
      let context = start;
      for (const event of list) {
        const before = NAMES.map((name) => ofModel(context.paces, name));
        const mono = event.sample?.mono ?? 0;
        const after = afterEvidence(context, { type: 'evidence', mono, chance: 0.5, restMs: 10, ...event });
        context = { ...context, ...after };
        for (const [i, name] of NAMES.entries()) {
          if (name === event.modelId) continue;
          expect(ofModel(context.paces, name)).toBe(before[i]);
        }
        const own = ofModel(context.paces, event.modelId);
        if (event.what !== 'rest' && event.sample !== null) {
          expect(own?.speed).toEqual(
            learnSpeed(before[NAMES.indexOf(event.modelId)]?.speed ?? NEW_SPEED, event.sample),
          );
          taught += 1;
        }
      }
    }),
  );
  expect(taught).toBeGreaterThan(200);
});

test('an exact answer is forecast exactly', () => {
  fc.assert(
    fc.property(alone, growth, fc.nat(16), (aloneMs, more, others) => {
      const truth = boxOf(aloneMs, more);
      const asking = { others, promptBytes: 0, tokens: 100, cold: false, stream: true };
      expect(told(learned(truth, [others]), asking)).toBeCloseTo(takes(truth, asking), 6);
    }),
  );
});
