/** So far back "now" reaches, ms. */
export const WINDOW_MS = 10_000;

/** An answer as far as it is written. Monotonic, ms; tokens that were written between the two. */
export interface Writing {
  startedAt: number;
  endedAt: number;
  tokens: number;
}

/**
 * How many tokens a second all endpoints write now: those of the last ten seconds, each answer's spread evenly over
 * the time it took.
 */
export class Throughput {
  #finished: Writing[] = [];
  #first = 0;

  note(writing: Writing): void {
    if (writing.tokens === 0) return;
    this.#forget(writing.endedAt);
    this.#finished.push(writing);
  }

  /** `running`: the answers that are being written, up to now. */
  tokensPerSecond(now: number, running: Iterable<Writing>): number {
    this.#forget(now);
    let tokens = 0;
    for (let at = this.#first; at < this.#finished.length; at++) {
      tokens += within(this.#finished[at] as Writing, now);
    }
    for (const writing of running) tokens += within(writing, now);
    return (tokens * 1000) / WINDOW_MS;
  }

  #forget(now: number): void {
    while ((this.#finished[this.#first]?.endedAt ?? Number.POSITIVE_INFINITY) <= now - WINDOW_MS)
      this.#first++;
    if (this.#first < 1000 || this.#first * 2 < this.#finished.length) return;
    this.#finished = this.#finished.slice(this.#first);
    this.#first = 0;
  }
}

/** The tokens of an answer that fall into the window. */
function within({ startedAt, endedAt, tokens }: Writing, now: number): number {
  const from = Math.max(startedAt, now - WINDOW_MS);
  const to = Math.min(endedAt, now);
  if (to < from) return 0;
  return endedAt <= startedAt ? tokens : (tokens * (to - from)) / (endedAt - startedAt);
}
