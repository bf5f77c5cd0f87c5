/** Something with a deadline. `dueAt` is a time of `after`, ms; Infinity is none. */
export interface Watched {
  dueAt: number;
  due(): void;
}

const TICK_MS = 20;

/**
 * The deadlines of everything under way behind one timer: moving one costs an assignment, not a timer. Never early,
 * late by at most a tick. The timer runs while there is something to watch.
 */
class DeadlineWheel {
  readonly #watched = new Set<Watched>();
  #timer: NodeJS.Timeout | null = null;

  watch(one: Watched): void {
    this.#watched.add(one);
    this.#timer ??= setInterval(this.#tick, TICK_MS);
  }

  forget(one: Watched): void {
    this.#watched.delete(one);
  }

  /** The time so many ms from now; 0 ms is never. */
  after(ms: number): number {
    return ms > 0 ? performance.now() + ms : Number.POSITIVE_INFINITY;
  }

  #tick = (): void => {
    if (this.#watched.size === 0) {
      clearInterval(this.#timer as NodeJS.Timeout);
      this.#timer = null;
      return;
    }
    const now = performance.now();
    for (const one of this.#watched) if (one.dueAt <= now) one.due();
  };
}

export const wheel = new DeadlineWheel();
