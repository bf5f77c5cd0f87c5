import { LONG_PROMPT_BYTES, learnSpeed, mean, NEW_SPEED, type Speed, type SpeedSample } from './speed.js';

/** How long an endpoint may need for one model, learned from its own traffic. Durations in ms, prompts in bytes. */
export interface Pace {
  readonly speed: Speed;
  /** Time to the first byte of streams by prompt size and warmth: counts in buckets that grow by √2 from 1 ms. */
  readonly firstByte: readonly (readonly number[] | undefined)[];
  /** Duration of an answer that does not stream; null before the first. */
  readonly wholeMs: number | null;
}

export type Asked = Pick<SpeedSample, 'promptBytes' | 'stream' | 'cold'>;

const SIZES = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
const BUCKETS = 42;
/** So many samples make a percentile; past the limit all counts are halved, so that old times fade. */
const LEARNED = 5;
const MOST_COUNTED = 256;
/** About 200 tokens a second: a machine without a GPU. */
const SLOW_PREFILL = 0.8;
/** A learned time is a mean; a deadline must not cut off the slower half. */
const MARGIN = 2;

const LEAST_ALLOWED_MS = 2000;
const ALLOWED_UNLEARNED_MS = 30_000;
const PATIENCE = 3;

export const NEW_PACE: Pace = { speed: NEW_SPEED, firstByte: [], wholeMs: null };

export function learn(pace: Pace, sample: SpeedSample): Pace {
  const { firstByteMs, durationMs, stream } = sample;
  const speed = learnSpeed(pace.speed, sample);
  if (!stream) return { ...pace, speed, wholeMs: mean(pace.wholeMs, durationMs) };
  const place = placeOf(sample);
  const counts = (pace.firstByte[place] ?? new Array<number>(BUCKETS).fill(0)).slice();
  counts[bucketOf(firstByteMs)] = (counts[bucketOf(firstByteMs)] ?? 0) + 1;
  const firstByte = pace.firstByte.slice();
  firstByte[place] = total(counts) > MOST_COUNTED ? counts.map((count) => count >> 1) : counts;
  return { ...pace, speed, firstByte };
}

/** What a deadline to the first byte grows by: a long prompt, a cold model, an answer that comes as a whole. */
export function extraMs(pace: Pace, asked: Asked): number {
  const long = Math.max(0, asked.promptBytes - LONG_PROMPT_BYTES);
  const { prefill, loadMs } = pace.speed;
  const reading = (MARGIN * long) / (prefill ?? SLOW_PREFILL * MARGIN);
  const loading = asked.cold ? MARGIN * (loadMs ?? 0) : 0;
  return reading + loading + (asked.stream ? 0 : MARGIN * (pace.wholeMs ?? 0));
}

/** How long a request may wait for its first byte before its endpoint counts as hung. */
export function allowanceMs(pace: Pace, asked: Asked): number {
  const learned = asked.stream ? percentile(pace.firstByte[placeOf(asked)], 0.99) : pace.wholeMs;
  // Nothing is known of such requests but that they need longer.
  if (learned === null) return ALLOWED_UNLEARNED_MS + extraMs(pace, asked);
  return Math.max(LEAST_ALLOWED_MS, PATIENCE * learned);
}

/** The upper edge of the bucket in which the percentile lies; null while too little is known. */
export function percentile(counts: readonly number[] | undefined, share: number): number | null {
  const all = total(counts ?? []);
  if (counts === undefined || all < LEARNED) return null;
  let left = Math.ceil(all * share);
  for (let i = 0; i < counts.length; i++) {
    left -= counts[i] ?? 0;
    if (left <= 0) return 2 ** (i / 2);
  }
  return 2 ** (BUCKETS / 2);
}

function placeOf({ promptBytes, cold }: Pick<Asked, 'promptBytes' | 'cold'>): number {
  const size = SIZES.findIndex((limit) => promptBytes < limit);
  return 2 * (size === -1 ? SIZES.length : size) + (cold ? 1 : 0);
}

function bucketOf(ms: number): number {
  return Math.min(BUCKETS - 1, Math.max(0, Math.ceil(2 * Math.log2(Math.max(1, ms)))));
}

function total(counts: readonly number[]): number {
  let sum = 0;
  for (const count of counts) sum += count;
  return sum;
}
