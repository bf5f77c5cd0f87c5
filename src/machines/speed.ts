import { Curve } from './curve.js';

/** How fast an endpoint answers for one model, as far as its own traffic tells. Durations in ms, prompts in bytes. */
export interface Speed {
  /** To the first byte, but for reading the prompt and loading the model: by the others in flight when it was sent. */
  readonly wait: Curve;
  /** For one token of an answer: by the others in flight meanwhile. */
  readonly token: Curve;
  /** Prompt bytes read per ms; null until a long prompt was answered. */
  readonly prefill: number | null;
  /** What a cold model took longer; null until one was met. */
  readonly loadMs: number | null;
  /** Mean length of its answers in tokens, and of how many. */
  readonly answerTokens: number;
  readonly answers: number;
  /** When the newest sample came, monotonic ms; -Infinity while there is none to predict by. */
  readonly measuredAt: number;
}

/** An answer that came: what it was asked for, and how long it took. */
export interface SpeedSample {
  promptBytes: number;
  /** How many of them it probably had in its cache. */
  cachedBytes: number;
  stream: boolean;
  cold: boolean;
  /** Others in flight there: when it was sent, and on average until it was answered. */
  ahead: number;
  beside: number;
  /** From sending it to the first byte of the body. */
  firstByteMs: number;
  /** From sending it to its end. */
  durationMs: number;
  /** Null: not known. */
  outputTokens: number | null;
  /** When it ended, monotonic ms. */
  mono: number;
}

/** Where the time of a request will go, ms. */
export interface Forecast {
  waitMs: number;
  loadMs: number;
  prefillMs: number;
  decodeMs: number;
}

/** Shorter prompts say nothing of the speed of reading them, and need no more time for it. */
export const LONG_PROMPT_BYTES = 8 << 10;
const WEIGHT = 0.2;
/** Shorter answers say little of the speed of writing. */
const LEAST_TOKENS = 4;
/** Of an answer that came as a whole at least this share was writing it. */
const LEAST_WRITING = 0.1;
const MOST_ANSWERS = 256;
const UNKNOWN_LOAD_MS = 5000;

export const NEW_SPEED: Speed = {
  wait: new Curve(),
  token: new Curve(),
  prefill: null,
  loadMs: null,
  answerTokens: 0,
  answers: 0,
  measuredAt: Number.NEGATIVE_INFINITY,
};

export function learnSpeed(speed: Speed, sample: SpeedSample): Speed {
  const { outputTokens, mono } = sample;
  // Embeddings have no tokens, or none, as it is told.
  const hasTokens = outputTokens !== null && outputTokens > 0;
  const timed = sample.stream || !hasTokens ? withFirstByte(speed, sample) : withWhole(speed, sample);
  if (!hasTokens) return { ...timed, measuredAt: timed.wait.isEmpty ? timed.measuredAt : mono };
  const answers = Math.min(MOST_ANSWERS, timed.answers + 1);
  const weight = 1 / answers;
  const answerTokens = timed.answerTokens + weight * (outputTokens - timed.answerTokens);
  const token = withTokens(timed, sample, outputTokens);
  // Of an answer too short to tell how fast it was written nothing can be predicted yet.
  const measuredAt = token.isEmpty ? timed.measuredAt : mono;
  return { ...timed, token, answerTokens, answers, measuredAt };
}

/** What a request will take with so many others there; nothing learned is no time. `unread`: bytes of its prompt. */
export function forecast(
  speed: Speed,
  others: number,
  unread: number,
  tokens: number,
  cold: boolean,
): Forecast {
  return {
    waitMs: waitMs(speed, others),
    loadMs: cold ? loadMs(speed) : 0,
    prefillMs: prefillMs(speed, unread),
    decodeMs: decodeMs(speed, others, tokens),
  };
}

export function waitMs({ wait }: Speed, others: number): number {
  return wait.valueAt(others) ?? 0;
}

export function loadMs(speed: Speed): number {
  return speed.loadMs ?? UNKNOWN_LOAD_MS;
}

function prefillMs({ prefill }: Speed, unread: number): number {
  return prefill === null ? 0 : unread / prefill;
}

function decodeMs({ token }: Speed, others: number, tokens: number): number {
  return tokens * (token.valueAt(others) ?? 0);
}

export function totalMs(told: Forecast): number {
  return told.waitMs + told.loadMs + told.prefillMs + told.decodeMs;
}

/** Until the first byte: an answer that comes as a whole has it at its end. */
export function firstByteMs(told: Forecast, stream: boolean): number {
  return stream ? told.waitMs + told.loadMs + told.prefillMs : totalMs(told);
}

/** Whether anything was learned of it. */
export function isMeasured({ measuredAt }: Speed): boolean {
  return measuredAt !== Number.NEGATIVE_INFINITY;
}

/** From the time to a stream's first byte: of loading, of reading a long prompt, or of waiting. */
function withFirstByte(speed: Speed, sample: SpeedSample): Speed {
  const { cachedBytes, cold, ahead, firstByteMs } = sample;
  const unread = unreadOf(sample);
  const reading = prefillMs(speed, unread);
  if (cold) return withLoad(speed, firstByteMs - waitMs(speed, ahead) - reading);
  const isLong = sample.stream && unread >= LONG_PROMPT_BYTES;
  // Beside others a long prompt tells of waiting, if it is known how fast it is read.
  if (isLong && firstByteMs > 0 && (ahead === 0 || speed.prefill === null)) {
    const took = firstByteMs - Math.min(firstByteMs / 2, waitMs(speed, ahead));
    // The mean of times: one that was read from a cache unseen is soon outweighed.
    const before = speed.prefill === null ? null : 1 / speed.prefill;
    return { ...speed, prefill: 1 / mean(before, took / unread) };
  }
  const waited = Math.max(0, firstByteMs - reading);
  // What was thought to be in the cache may have been read anew: that is no waiting.
  const known = cachedBytes >= LONG_PROMPT_BYTES ? speed.wait.valueAt(ahead) : null;
  return { ...speed, wait: speed.wait.with(ahead, Math.min(waited, known ?? waited), false) };
}

/** Of an answer that came as a whole only loading can be told apart. */
function withWhole(speed: Speed, sample: SpeedSample): Speed {
  if (!sample.cold) return speed;
  const { ahead, beside, durationMs, outputTokens } = sample;
  const unread = unreadOf(sample);
  const writing = decodeMs(speed, beside, outputTokens ?? 0);
  return withLoad(speed, durationMs - waitMs(speed, ahead) - prefillMs(speed, unread) - writing);
}

function withLoad(speed: Speed, took: number): Speed {
  return { ...speed, loadMs: mean(speed.loadMs, Math.max(0, took)) };
}

function withTokens(speed: Speed, sample: SpeedSample, tokens: number): Curve {
  const { stream, cold, ahead, beside, firstByteMs, durationMs } = sample;
  if (tokens < LEAST_TOKENS) return speed.token;
  if (stream) {
    return speed.token.with(beside, Math.max(0, durationMs - firstByteMs) / (tokens - 1), true);
  }
  // Loading and writing cannot be told apart.
  if (cold) return speed.token;
  const unread = unreadOf(sample);
  // Reading and writing cannot be told apart either, while it is not known how fast it reads.
  if (unread >= LONG_PROMPT_BYTES && speed.prefill === null) return speed.token;
  const before = waitMs(speed, ahead) + prefillMs(speed, unread);
  const writing = Math.max(LEAST_WRITING * durationMs, durationMs - before);
  return speed.token.with(beside, writing / tokens, true);
}

function unreadOf({ promptBytes, cachedBytes }: SpeedSample): number {
  return Math.max(0, promptBytes - cachedBytes);
}

/** A mean that the newest value moves by a fifth. */
export function mean(before: number | null, value: number): number {
  return before === null ? value : before + WEIGHT * (value - before);
}
