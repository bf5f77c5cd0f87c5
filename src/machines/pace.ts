/** How fast an endpoint answers for one model, learned from its own traffic. Durations in ms, prompts in bytes. */

export interface Pace {
  /** Time to the first byte of streams by prompt size and warmth: counts in buckets that grow by √2 from 1 ms. */
  readonly firstByte: readonly (readonly number[] | undefined)[];
  /** Prompt bytes read per ms; null until a long prompt was answered. */
  readonly prefill: number | null;
  /** What a cold model took longer; null until one was met. */
  readonly loadMs: number | null;
  /** Duration of an answer that does not stream; null before the first. */
  readonly wholeMs: number | null;
}

/** An answer that came: what it was asked for, and how long it took. */
export interface PaceSample {
  promptBytes: number;
  stream: boolean;
  cold: boolean;
  /** From sending it to the first byte of the body. */
  firstByteMs: number;
  /** From sending it to its end. */
  durationMs: number;
}

export type Asked = Pick<PaceSample, 'promptBytes' | 'stream' | 'cold'>;

const SIZES = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
const BUCKETS = 42;
/** So many samples make a percentile; past the limit all counts are halved, so that old times fade. */
const LEARNED = 5;
const MOST_COUNTED = 256;
const WEIGHT = 0.2;
/** Shorter prompts say nothing of the speed of reading them, and need no more time for it. */
const LONG_PROMPT_BYTES = 8 << 10;
/** About 200 tokens a second: a machine without a GPU. */
const SLOW_PREFILL = 0.8;
/** A learned time is a mean; a deadline must not cut off the slower half. */
const MARGIN = 2;

const LEAST_ALLOWED_MS = 2000;
const ALLOWED_UNLEARNED_MS = 30_000;
const PATIENCE = 3;

export const NEW_PACE: Pace = { firstByte: [], prefill: null, loadMs: null, wholeMs: null };

export function learn(pace: Pace, sample: PaceSample): Pace {
  const { firstByteMs, durationMs, promptBytes, stream, cold } = sample;
  if (!stream) return { ...pace, wholeMs: mean(pace.wholeMs, durationMs) };
  const place = placeOf(sample);
  const counts = (pace.firstByte[place] ?? new Array<number>(BUCKETS).fill(0)).slice();
  counts[bucketOf(firstByteMs)] = (counts[bucketOf(firstByteMs)] ?? 0) + 1;
  const firstByte = pace.firstByte.slice();
  firstByte[place] = total(counts) > MOST_COUNTED ? counts.map((count) => count >> 1) : counts;
  if (cold) {
    const warm = percentile(pace.firstByte[placeOf({ ...sample, cold: false })], 0.5) ?? 0;
    return { ...pace, firstByte, loadMs: mean(pace.loadMs, Math.max(0, firstByteMs - warm)) };
  }
  if (promptBytes < LONG_PROMPT_BYTES || firstByteMs <= 0) return { ...pace, firstByte };
  return { ...pace, firstByte, prefill: mean(pace.prefill, promptBytes / firstByteMs) };
}

/** What a deadline to the first byte grows by: a long prompt, a cold model, an answer that comes as a whole. */
export function extraMs(pace: Pace, asked: Asked): number {
  const long = Math.max(0, asked.promptBytes - LONG_PROMPT_BYTES);
  const reading = (MARGIN * long) / (pace.prefill ?? SLOW_PREFILL * MARGIN);
  const loading = asked.cold ? MARGIN * (pace.loadMs ?? 0) : 0;
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

function mean(before: number | null, value: number): number {
  return before === null ? value : before + WEIGHT * (value - before);
}

function total(counts: readonly number[]): number {
  let sum = 0;
  for (const count of counts) sum += count;
  return sum;
}
