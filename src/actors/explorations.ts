/** Of so many requests for a model one may go to where nothing was measured for long. */
const EACH = 50;

/** Counts a model's requests, so that at most one in fifty goes somewhere only to measure it. */
export class Explorations {
  /** Requests since the last exploration, by model; no more than matter. */
  readonly #since = new Map<string, number>();

  mayExplore(model: string): boolean {
    return (this.#since.get(model) ?? 0) >= EACH - 1;
  }

  note(model: string, explored: boolean): void {
    this.#since.set(model, explored ? 0 : Math.min(EACH, (this.#since.get(model) ?? 0) + 1));
  }
}
