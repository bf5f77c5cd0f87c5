const WINDOW_SECONDS = 10;
const WINDOW_MS = WINDOW_SECONDS * 1000;
/** Retries a window may have however few requests it saw. */
const LEAST_RETRIES = 10;
/** One retry for this many requests: 20 %. */
const REQUESTS_PER_RETRY = 5;

interface Second {
  second: number;
  requests: number;
}

/**
 * Retries within the last 10 s: at most 10, or 20 % of the requests of that time if that is more. Every time is
 * monotonic, in ms. Mutable, because each request passes here.
 */
export class RetryBudget {
  /** Newest last, at most ten. By the second, as requests are many; they count for 9 to 10 s, never longer. */
  readonly #seconds: Second[] = [];
  /** When each retry was, newest last. To the ms, or a burst at the edge of a second would pass twice. */
  readonly #retries: number[] = [];

  /** Counts one request. */
  noteRequest(mono: number): void {
    const second = secondOf(mono);
    const newest = this.#seconds.at(-1);
    if (newest?.second === second) {
      newest.requests += 1;
      return;
    }
    this.#seconds.push({ second, requests: 1 });
    if (this.#seconds.length > WINDOW_SECONDS) this.#seconds.shift();
  }

  /** Counts one retry. */
  noteRetry(mono: number): void {
    this.#retries.push(mono);
    const kept = this.#retries.findIndex((at) => at + WINDOW_MS > mono);
    this.#retries.splice(0, kept);
  }

  /** Whether one more retry is within the budget. */
  mayRetry(mono: number): boolean {
    return this.#freeFrom(mono) <= mono;
  }

  /** When enough retries have left the window for the budget of this moment. */
  #freeFrom(mono: number): number {
    const oldest = secondOf(mono) - WINDOW_SECONDS + 1;
    let requests = 0;
    for (const each of this.#seconds) if (each.second >= oldest) requests += each.requests;
    const allowed = Math.max(LEAST_RETRIES, Math.floor(requests / REQUESTS_PER_RETRY));
    // While all of the last `allowed` retries are in the window it is full, so the first of them has to leave.
    const first = this.#retries.at(-allowed);
    return first === undefined ? Number.NEGATIVE_INFINITY : first + WINDOW_MS;
  }
}

function secondOf(mono: number): number {
  return Math.floor(mono / 1000);
}
