import { AdmissionLog } from './admission-log.js';
import { TokenSeconds } from './token-seconds.js';

/** What an API key may use; null is no limit. */
export interface RateLimit {
  requestsPerMinute: number | null;
  tokensPerMinute: number | null;
  /** Requests open at a time. */
  concurrent: number | null;
  tokensPerDay: number | null;
  tokensPerMonth: number | null;
}

export const NO_LIMITS: RateLimit = {
  requestsPerMinute: null,
  tokensPerMinute: null,
  concurrent: null,
  tokensPerDay: null,
  tokensPerMonth: null,
};

/** Tokens a key has used today and this month (server-local). */
export interface Spent {
  today: number;
  month: number;
}

/** The limit with the longest wait, whole seconds. */
export type Refusal = { limit: keyof RateLimit; retryAfterSecs: number; message: string };

const WINDOW_MS = 60_000;
const SECOND_MS = 1000;
/** More than the one key that an admission can add, so that sweeping keeps up. */
const SWEPT_PER_ADMIT = 2;

/**
 * The use of API keys against their limits. `mono` is monotonic ms, never less than one given before; `now` is wall
 * clock ms. What happens to a key is counted from the first request it makes under any limit.
 */
export class RateLimits {
  readonly #keys = new Map<string, KeyUse>();
  #round = this.#keys.values();

  /** How many keys are remembered. */
  get size(): number {
    return this.#keys.size;
  }

  /** Takes a place for a request or says why not. Counts nothing when it refuses. */
  admit(keyId: string, limit: RateLimit, spent: () => Spent, mono: number, now: number): Refusal | null {
    this.#sweep(mono);
    if (isUnlimited(limit)) return null;
    let use = this.#keys.get(keyId);
    const refusal = refusalOf(use ?? UNUSED, limit, spent, mono, now);
    if (refusal !== null) return refusal;
    if (use === undefined) {
      use = new KeyUse(keyId);
      this.#keys.set(keyId, use);
    }
    use.open += 1;
    if (limit.requestsPerMinute !== null) use.requests.note(mono, limit.requestsPerMinute);
    return null;
  }

  /** A request that was admitted under limits has ended: frees its place, once for each admission. */
  release(keyId: string): void {
    const use = this.#keys.get(keyId);
    // A request from before the key had limits, or was forgotten, took no place.
    if (use !== undefined && use.open > 0) use.open -= 1;
  }

  /** Counts the whole tokens of a request; before its release, as a key without an open one may be swept. */
  charge(keyId: string, tokens: number, mono: number): void {
    this.#keys.get(keyId)?.tokens.add(tokens, mono);
  }

  /** The x-ratelimit-* headers OpenAI clients know, flat name, value, …; empty without a per-minute limit. */
  headers(keyId: string, limit: RateLimit, mono: number): string[] {
    const { requests, tokens } = this.#keys.get(keyId) ?? UNUSED;
    const headers: string[] = [];
    const { requestsPerMinute, tokensPerMinute } = limit;
    if (requestsPerMinute !== null) {
      addHeaders(headers, 'requests', requestsPerMinute, requests.count(mono), requests.emptyInMs(mono));
    }
    if (tokensPerMinute !== null) {
      addHeaders(headers, 'tokens', tokensPerMinute, tokens.sum(mono), tokens.emptyInMs(mono));
    }
    return headers;
  }

  /** For a key that is gone: its open requests count no more. */
  forget(keyId: string): void {
    this.#keys.delete(keyId);
  }

  #sweep(mono: number): void {
    for (let i = 0; i < SWEPT_PER_ADMIT && this.#keys.size > 0; i += 1) {
      const next = this.#round.next();
      if (next.done) this.#round = this.#keys.values();
      else if (next.value.isIdle(mono)) this.#keys.delete(next.value.keyId);
    }
  }
}

/** Whether there are headers that tell of it. */
export function isTold({ requestsPerMinute, tokensPerMinute }: RateLimit): boolean {
  return requestsPerMinute !== null || tokensPerMinute !== null;
}

export function isUnlimited(limit: RateLimit): boolean {
  return (
    limit.requestsPerMinute === null &&
    limit.tokensPerMinute === null &&
    limit.concurrent === null &&
    limit.tokensPerDay === null &&
    limit.tokensPerMonth === null
  );
}

function refusalOf(
  use: KeyUse,
  limit: RateLimit,
  spent: () => Spent,
  mono: number,
  now: number,
): Refusal | null {
  const { requestsPerMinute, tokensPerMinute, concurrent, tokensPerDay, tokensPerMonth } = limit;
  let refusal: Refusal | null = null;
  if (concurrent !== null && use.open >= concurrent) {
    refusal = longer(refusal, 'concurrent', concurrent, SECOND_MS);
  }
  if (requestsPerMinute !== null) {
    const waitMs = use.requests.waitMs(mono, requestsPerMinute);
    refusal = longer(refusal, 'requestsPerMinute', requestsPerMinute, waitMs);
  }
  if (tokensPerMinute !== null) {
    const waitMs = use.tokens.waitMs(mono, tokensPerMinute);
    refusal = longer(refusal, 'tokensPerMinute', tokensPerMinute, waitMs);
  }
  if (tokensPerDay === null && tokensPerMonth === null) return refusal;
  const { today, month } = spent();
  if (tokensPerDay !== null && today >= tokensPerDay) {
    refusal = longer(refusal, 'tokensPerDay', tokensPerDay, nextDay(now) - now);
  }
  if (tokensPerMonth !== null && month >= tokensPerMonth) {
    refusal = longer(refusal, 'tokensPerMonth', tokensPerMonth, nextMonth(now) - now);
  }
  return refusal;
}

/** Of two refusals the one with the longer wait; a wait of 0 ms is none. */
function longer(
  before: Refusal | null,
  limit: keyof RateLimit,
  most: number,
  waitMs: number,
): Refusal | null {
  if (waitMs <= 0) return before;
  const retryAfterSecs = Math.ceil(waitMs / SECOND_MS);
  if (before !== null && before.retryAfterSecs >= retryAfterSecs) return before;
  return { limit, retryAfterSecs, message: messageOf(limit, most) };
}

function messageOf(limit: keyof RateLimit, most: number): string {
  const [verb, noun, span] = WORDS[limit];
  return `this key may ${verb} ${most} ${noun}${most === 1 ? '' : 's'} ${span}`;
}

const WORDS = {
  requestsPerMinute: ['make', 'request', 'a minute'],
  tokensPerMinute: ['use', 'token', 'a minute'],
  concurrent: ['have', 'request', 'open at a time'],
  tokensPerDay: ['use', 'token', 'a day'],
  tokensPerMonth: ['use', 'token', 'a month'],
} as const satisfies Record<keyof RateLimit, readonly string[]>;

function nextDay(now: number): number {
  return new Date(now).setHours(24, 0, 0, 0);
}

function nextMonth(now: number): number {
  const date = new Date(now);
  return new Date(date.getFullYear(), date.getMonth() + 1).getTime();
}

function addHeaders(
  headers: string[],
  unit: 'requests' | 'tokens',
  most: number,
  used: number,
  resetMs: number,
): void {
  headers.push(`x-ratelimit-limit-${unit}`, String(most));
  headers.push(`x-ratelimit-remaining-${unit}`, String(Math.max(0, most - used)));
  headers.push(`x-ratelimit-reset-${unit}`, goDuration(resetMs));
}

/** As Go writes a duration, in whole ms; no window is long enough for hours. */
function goDuration(ms: number): string {
  const whole = Math.ceil(ms);
  if (whole > 0 && whole < SECOND_MS) return `${whole}ms`;
  const minutes = Math.floor(whole / WINDOW_MS);
  const seconds = `${(whole % WINDOW_MS) / SECOND_MS}s`;
  return minutes > 0 ? `${minutes}m${seconds}` : seconds;
}

class KeyUse {
  readonly keyId: string;
  open = 0;
  readonly requests = new AdmissionLog();
  readonly tokens = new TokenSeconds();

  constructor(keyId: string) {
    this.keyId = keyId;
  }

  isIdle(mono: number): boolean {
    return this.open === 0 && this.requests.count(mono) === 0 && this.tokens.sum(mono) === 0;
  }
}

/** Of a key that is not remembered. */
const UNUSED = new KeyUse('');
