import type { Candidate } from './candidate.js';
import { isMeasured, NEW_SPEED, type Speed, waitMs } from './speed.js';

/**
 * A speed at one load, in plain numbers. Candidates keep it: where hundreds have the model, looking it up anew would be
 * most of choosing.
 */
export class Glance {
  readonly speed: Speed;
  readonly others: number;
  readonly isMeasured: boolean;
  readonly answers: number;
  /** Tokens of all these answers. */
  readonly written: number;
  /** To the first byte, but for reading the prompt and loading the model, ms. */
  readonly waitMs: number;
  /** For one token of the answer, ms. */
  readonly tokenMs: number;
  /** Both if nobody else were there. */
  readonly aloneWaitMs: number;
  readonly aloneTokenMs: number;
  /** For one byte of the prompt, ms. */
  readonly byteMs: number;

  constructor(speed: Speed, others: number) {
    this.speed = speed;
    this.others = others;
    this.isMeasured = isMeasured(speed);
    this.answers = speed.answers;
    this.written = speed.answers * speed.answerTokens;
    this.waitMs = waitMs(speed, others);
    this.tokenMs = speed.token.valueAt(others) ?? 0;
    this.aloneWaitMs = waitMs(speed, 0);
    this.aloneTokenMs = speed.token.valueAt(0) ?? 0;
    this.byteMs = speed.prefill === null ? 0 : 1 / speed.prefill;
  }
}

export const UNSEEN = new Glance(NEW_SPEED, 0);

/** The one it keeps, or a new one if its speed or its load has changed since. */
export function glanceAt({ glance, speed, active, foreign }: Candidate): Glance {
  const others = active + foreign;
  return glance.speed === speed && glance.others === others ? glance : new Glance(speed, others);
}
