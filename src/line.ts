/** Where something stands in a line. */
export interface Place<T> {
  readonly item: T;
  before: Place<T> | null;
  after: Place<T> | null;
  /** The line it is in; null once it has left. */
  line: Line<T> | null;
}

/**
 * What is there now, oldest first; each member leaves by its place. For what comes and goes with every request: a
 * `Set` that churns is copied again and again, and every copy left behind keeps its members until a full collection.
 * While it is walked nothing may leave.
 */
export class Line<T> implements Iterable<T> {
  #first: Place<T> | null = null;
  #last: Place<T> | null = null;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get first(): T | undefined {
    return this.#first?.item;
  }

  add(item: T): Place<T> {
    const place: Place<T> = { item, before: this.#last, after: null, line: this };
    if (this.#last === null) this.#first = place;
    else this.#last.after = place;
    this.#last = place;
    this.#size += 1;
    return place;
  }

  /** False if it had left, or is in another line. */
  remove(place: Place<T>): boolean {
    if (place.line !== this) return false;
    const { before, after } = place;
    if (before === null) this.#first = after;
    else before.after = after;
    if (after === null) this.#last = before;
    else after.before = before;
    // Whoever still holds the place holds nothing else by it.
    place.before = null;
    place.after = null;
    place.line = null;
    this.#size -= 1;
    return true;
  }

  *places(): Generator<Place<T>, undefined> {
    for (let place = this.#first; place !== null; place = place.after) yield place;
    return undefined;
  }

  *[Symbol.iterator](): Generator<T, undefined> {
    for (const { item } of this.places()) yield item;
    return undefined;
  }
}
