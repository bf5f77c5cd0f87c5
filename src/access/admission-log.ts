const WINDOW_MS = 60_000;
const FIRST_CAPACITY = 8;

/** When requests were admitted within the last 60 s: a ring that grows with their number, up to their limit. */
export class AdmissionLog {
  #times = new Float64Array(0);
  #oldest = 0;
  #count = 0;

  count(mono: number): number {
    while (this.#count > 0 && this.#newest(this.#count) + WINDOW_MS <= mono) {
      this.#oldest = (this.#oldest + 1) % this.#times.length;
      this.#count -= 1;
    }
    return this.#count;
  }

  /** 0 if one more is within the limit, else the ms until it is. */
  waitMs(mono: number, limit: number): number {
    if (this.count(mono) < limit) return 0;
    return limit > 0 ? this.#newest(limit) + WINDOW_MS - mono : WINDOW_MS;
  }

  emptyInMs(mono: number): number {
    return this.count(mono) > 0 ? this.#newest(1) + WINDOW_MS - mono : 0;
  }

  /** Adds an admission for which `waitMs` was 0. */
  note(mono: number, limit: number): void {
    if (this.#count === this.#times.length) {
      this.#resize(Math.min(limit, Math.max(FIRST_CAPACITY, 2 * this.#count)));
    }
    this.#times[(this.#oldest + this.#count) % this.#times.length] = mono;
    this.#count += 1;
  }

  /** The time of the nth newest, from 1. */
  #newest(n: number): number {
    return this.#times[(this.#oldest + this.#count - n) % this.#times.length] as number;
  }

  #resize(capacity: number): void {
    const times = new Float64Array(capacity);
    for (let i = 0; i < this.#count; i += 1) times[i] = this.#newest(this.#count - i);
    this.#times = times;
    this.#oldest = 0;
  }
}
