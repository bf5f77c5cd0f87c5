import fc from 'fast-check';
import { learnSpeed, NEW_SPEED, type Speed, type SpeedSample } from '../../src/machines/speed.js';

/** What a machine really needs, in ms: the first byte by the others ahead, a token by the others beside. */
export interface Box {
  waitMs: (ahead: number) => number;
  tokenMs: (beside: number) => number;
  /** Prompt bytes read per ms. */
  prefill: number;
  loadMs: number;
}

export interface Asking {
  others: number;
  promptBytes: number;
  tokens: number;
  cold: boolean;
  stream: boolean;
}

/** Mulberry32: a reproducible chance in [0, 1). */
export function chance(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Until the answer is complete, if the same number of others is there all the time. */
export function takes(box: Box, { others, promptBytes, tokens, cold }: Asking): number {
  const reading = promptBytes / box.prefill + (cold ? box.loadMs : 0);
  return box.waitMs(others) + reading + tokens * box.tokenMs(others);
}

/** What an answer of the box tells; each part of its time is off by a factor of `noise()`. */
export function answerOf(box: Box, asking: Asking, noise: () => number = () => 1): SpeedSample {
  const { others, promptBytes, tokens, cold, stream } = asking;
  const loading = cold ? box.loadMs * noise() : 0;
  const firstByteMs = box.waitMs(others) * noise() + (promptBytes / box.prefill) * noise() + loading;
  const durationMs = firstByteMs + (tokens - 1) * box.tokenMs(others) * noise();
  return {
    promptBytes,
    cachedBytes: 0,
    stream,
    cold,
    ahead: others,
    beside: others,
    firstByteMs: stream ? firstByteMs : durationMs,
    durationMs,
    outputTokens: tokens,
    mono: 1,
  };
}

/** What is learned from one exact answer of 100 tokens to a short prompt at each of these numbers of others. */
export function learned(box: Box, others: readonly number[], measuredAt = 1): Speed {
  const asking = { promptBytes: 0, tokens: 101, cold: false, stream: true };
  return others.reduce(
    (speed, at) => learnSpeed(speed, { ...answerOf(box, { ...asking, others: at }), mono: measuredAt }),
    NEW_SPEED,
  );
}

/** A box that needs so many ms for an answer of 100 tokens alone, and `growth` of that more for each other one. */
export function boxOf(aloneMs: number, growth: number): Box {
  return {
    waitMs: (ahead) => 0.1 * aloneMs * (1 + growth * ahead),
    tokenMs: (beside) => 0.009 * aloneMs * (1 + growth * beside),
    prefill: 1e9,
    loadMs: 10 * aloneMs,
  };
}

/** No clock tells less than a microsecond. */
const ms = fc.oneof(
  fc.constant(0),
  fc.double({ min: 0, max: 1e6, noNaN: true }).map((one) => Math.round(one * 1000) / 1000),
  fc.nat(5000),
);
const others = fc.oneof(fc.nat(70), fc.double({ min: 0, max: 70, noNaN: true }));

/** Whatever may come of an answer. */
export const samples: fc.Arbitrary<SpeedSample> = fc
  .record({
    promptBytes: fc.oneof(fc.nat(10_000), fc.nat(1_000_000)),
    cachedShare: fc.constantFrom(0, 0, 0.5, 1),
    stream: fc.boolean(),
    cold: fc.constantFrom(false, false, true),
    ahead: others,
    beside: others,
    firstByteMs: ms,
    moreMs: ms,
    outputTokens: fc.oneof(fc.constant(null), fc.nat(8), fc.nat(4000)),
    mono: fc.nat(200_000),
  })
  .map(({ cachedShare, moreMs, ...one }) => ({
    ...one,
    ahead: Math.floor(one.ahead),
    cachedBytes: Math.floor(cachedShare * one.promptBytes),
    durationMs: one.firstByteMs + moreMs,
  }));

/** Of a place that has answered some requests, or none. */
export const speeds: fc.Arbitrary<Speed> = fc
  .array(samples, { maxLength: 6 })
  .map((list) => list.reduce(learnSpeed, NEW_SPEED));
