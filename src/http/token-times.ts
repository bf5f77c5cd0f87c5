import { addValue, type Histogram } from '../machines/histogram.js';

/** When the output tokens of one stream came: the first of them, and the gaps between the others. */
export class TokenTimes {
  /** Monotonic, ms; null before the first. */
  firstAt: number | null = null;
  #tokens = 0;
  #lastAt = 0;
  readonly #gaps: Histogram = new Map();

  get tokens(): number {
    return this.#tokens;
  }

  /** Ms; null where there are none. */
  get gaps(): Histogram | null {
    return this.#gaps.size === 0 ? null : this.#gaps;
  }

  /** A chunk has come that makes so many; those that came in it share the gap before it. */
  note(tokens: number, mono: number): void {
    const more = tokens - this.#tokens;
    if (this.firstAt === null) this.firstAt = mono;
    else addValue(this.#gaps, (mono - this.#lastAt) / more, more);
    this.#tokens = tokens;
    this.#lastAt = mono;
  }
}
