import { Line, type Place } from '../line.js';

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
  readonly #watched = new Line<Watched>();
  #timer: NodeJS.Timeout | null = null;

  watch(one: Watched): Place<Watched> {
    this.#timer ??= setInterval(this.#tick, TICK_MS);
    return this.#watched.add(one);
  }

  forget(place: Place<Watched> | null): void {
    if (place !== null) this.#watched.remove(place);
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
    let due: Place<Watched>[] | null = null;
    for (const place of this.#watched.places()) {
      if (place.item.dueAt > now) continue;
      due ??= [];
      due.push(place);
    }
    // One that is due may take others along, or move them.
    for (const place of due ?? []) {
      if (place.line !== null && place.item.dueAt <= now) place.item.due();
    }
  };
}

export const wheel = new DeadlineWheel();
