/** Something with a deadline. `dueAt` is a time of the wheel's clock, ms; Infinity is none. */
export interface Watched {
  dueAt: number;
  due(): void;
}

const TICK_MS = 20;

/**
 * The deadlines of all attempts behind one timer: moving one costs an assignment, not a timer. Never early, late by
 * at most two ticks. The timer runs while there is something to watch.
 */
class DeadlineWheel {
  /** Monotonic, ms, as of the last tick; never ahead of time. */
  now = performance.now();
  readonly #watched = new Set<Watched>();
  #timer: NodeJS.Timeout | null = null;

  watch(one: Watched): void {
    this.#watched.add(one);
    if (this.#timer !== null) return;
    this.now = performance.now();
    this.#timer = setInterval(this.#tick, TICK_MS);
  }

  forget(one: Watched): void {
    this.#watched.delete(one);
  }

  /** The time so many ms from now at the earliest; 0 ms is never. */
  after(ms: number): number {
    return ms > 0 ? this.now + ms + TICK_MS : Number.POSITIVE_INFINITY;
  }

  #tick = (): void => {
    this.now = performance.now();
    if (this.#watched.size === 0) {
      clearInterval(this.#timer as NodeJS.Timeout);
      this.#timer = null;
      return;
    }
    for (const one of this.#watched) if (one.dueAt <= this.now) one.due();
  };
}

export const wheel = new DeadlineWheel();
