const WINDOW_MS = 60_000;
const SECOND_MS = 1000;
/** A window of 60 s touches 61 seconds. */
const BUCKETS = WINDOW_MS / SECOND_MS + 1;

/** Tokens by the second; a second counts until all of it is more than 60 s ago. */
export class TokenSeconds {
  /** By the second modulo their number; made with the first tokens. */
  #buckets: Float64Array | null = null;
  #second = 0;
  #sum = 0;

  add(tokens: number, mono: number): void {
    // What an endpoint reports may be anything, and a NaN would stay in the sum.
    if (!(Number.isSafeInteger(tokens) && tokens > 0)) return;
    this.#buckets ??= new Float64Array(BUCKETS);
    this.#moveTo(secondOf(mono));
    const place = this.#second % BUCKETS;
    this.#buckets[place] = (this.#buckets[place] as number) + tokens;
    this.#sum += tokens;
  }

  sum(mono: number): number {
    this.#moveTo(secondOf(mono));
    return this.#sum;
  }

  /** 0 if the sum is below the limit, else the ms until it is. */
  waitMs(mono: number, limit: number): number {
    let left = this.sum(mono);
    if (left < limit) return 0;
    for (let second = Math.max(0, this.#second - BUCKETS + 1); second <= this.#second; second += 1) {
      left -= this.#at(second);
      if (left < limit) return goneAt(second) - mono;
    }
    return WINDOW_MS;
  }

  emptyInMs(mono: number): number {
    return this.waitMs(mono, 1);
  }

  /** Empties the places of the seconds that have gone by. */
  #moveTo(second: number): void {
    // An earlier one counts as of now.
    if (second <= this.#second) return;
    const first = Math.max(this.#second + 1, second - BUCKETS + 1);
    for (let gone = first; gone <= second && this.#sum > 0; gone += 1) {
      this.#sum -= this.#at(gone);
      if (this.#buckets !== null) this.#buckets[gone % BUCKETS] = 0;
    }
    this.#second = second;
  }

  #at(second: number): number {
    return this.#buckets?.[second % BUCKETS] ?? 0;
  }
}

function secondOf(mono: number): number {
  return Math.floor(mono / SECOND_MS);
}

/** When the last of a second is 60 s ago. */
function goneAt(second: number): number {
  return (second + 1) * SECOND_MS + WINDOW_MS;
}
