interface Failures {
  key: string;
  /** The newest `limit` failures; once full, a ring whose oldest is at `oldest`. */
  times: number[];
  oldest: number;
  newest: number;
}

/**
 * Failures by key within a sliding window, exact to the ms. Every time is monotonic, in ms, and never less than one
 * given before. Past `maxKeys` the key whose newest failure is oldest is forgotten.
 */
export class FailureWindow {
  readonly #limit: number;
  readonly #windowMs: number;
  readonly #maxKeys: number;
  /** In the order of their newest failure. */
  readonly #keys = new Map<string, Failures>();
  /** Kept, as a new one would pass all the places that were emptied at the front: 10 µs each time in a full map. */
  readonly #inOrder = this.#keys.values();
  /** What `#inOrder` gave last, while it is the oldest. */
  #oldest: Failures | undefined;

  constructor(limit: number, windowMs = 60_000, maxKeys = 10_000) {
    if (!(limit >= 1 && maxKeys >= 1)) throw new RangeError('limit and maxKeys must be at least 1');
    this.#limit = limit;
    this.#windowMs = windowMs;
    this.#maxKeys = maxKeys;
  }

  /** How many keys are remembered. */
  get size(): number {
    return this.#keys.size;
  }

  /** Counts one failure. */
  note(key: string, mono: number): void {
    const known = this.#keys.get(key);
    if (known !== undefined) this.#drop(known);
    this.#sweep(mono);
    const failures = known ?? { key, times: [], oldest: 0, newest: mono };
    failures.newest = mono;
    if (failures.times.length < this.#limit) {
      failures.times.push(mono);
    } else {
      failures.times[failures.oldest] = mono;
      failures.oldest = (failures.oldest + 1) % this.#limit;
    }
    this.#keys.set(key, failures);
  }

  /** Whether `limit` failures lie within the window that ends now. */
  isOver(key: string, mono: number): boolean {
    return this.#freeFrom(key) > mono;
  }

  /** Whole seconds, at least 1, until `isOver` is false, unless failures are added meanwhile. */
  retryAfterSecs(key: string, mono: number): number {
    return Math.max(1, Math.ceil((this.#freeFrom(key) - mono) / 1000));
  }

  forget(key: string): void {
    const failures = this.#keys.get(key);
    if (failures !== undefined) this.#drop(failures);
  }

  /** When the first of the newest `limit` failures leaves the window. */
  #freeFrom(key: string): number {
    const failures = this.#keys.get(key);
    if (failures === undefined || failures.times.length < this.#limit) return Number.NEGATIVE_INFINITY;
    return (failures.times[failures.oldest] as number) + this.#windowMs;
  }

  /** Makes room for one key, and drops those that have nothing left in the window. */
  #sweep(mono: number): void {
    for (let oldest = this.#peek(); oldest !== undefined; oldest = this.#peek()) {
      if (this.#keys.size < this.#maxKeys && oldest.newest + this.#windowMs > mono) return;
      this.#drop(oldest);
    }
  }

  #peek(): Failures | undefined {
    // Whatever is in the map lies ahead of the iterator; at its end, in an empty one, it would stay there.
    if (this.#keys.size > 0) this.#oldest ??= this.#inOrder.next().value;
    return this.#oldest;
  }

  #drop(failures: Failures): void {
    this.#keys.delete(failures.key);
    if (this.#oldest === failures) this.#oldest = undefined;
  }
}
