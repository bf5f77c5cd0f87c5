/** A circuit breaker as data: evidence in, state out. Times are monotonic ms, chance is in [0, 1). */

export type CircuitState = 'closed' | 'open' | 'half_open';

export interface Circuit {
  readonly state: CircuitState;
  /** The last outcomes, newest in the lowest bit; 1 is a failure. */
  readonly window: number;
  /** How many outcomes the window holds, at most 20. */
  readonly seen: number;
  /** Failures in a row. */
  readonly streak: number;
  /** Times it opened in a row, for the back-off. */
  readonly opened: number;
  /** When it may be tried again; 0 unless open. */
  readonly retryAt: number;
  /** When it last failed; -Infinity if it never did. */
  readonly failedAt: number;
}

const WINDOW = 20;
const FULL = 2 ** WINDOW - 1;
/** Failures in a row that open it, and the share of failures that does where so many outcomes are known. */
const MOST_STREAK = 3;
const LEAST_SEEN = 10;
const MOST_FAILED = 0.5;
/** Fewer outcomes, or older failures, say too little to keep requests away by. */
const LEAST_WEIGHED = 5;
const FRESH_MS = 10_000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;

export const NEW_CIRCUIT: Circuit = {
  state: 'closed',
  window: 0,
  seen: 0,
  streak: 0,
  opened: 0,
  retryAt: 0,
  failedAt: Number.NEGATIVE_INFINITY,
};

/** Answered as it should. The trial's success closes it; one that was under way when it opened allows the trial. */
export function afterSuccess(circuit: Circuit): Circuit {
  if (circuit.state === 'half_open') return NEW_CIRCUIT;
  if (circuit.state === 'open') return { ...circuit, state: 'half_open', retryAt: 0 };
  const { window, seen, streak } = circuit;
  if (streak === 0 && seen === WINDOW && window === 0) return circuit;
  return { ...circuit, window: (window << 1) & FULL, seen: Math.min(WINDOW, seen + 1), streak: 0 };
}

/** Did not answer as it should. Opens on three in a row, on half of at least ten, and on a failed trial. */
export function afterFailure(circuit: Circuit, now: number, chance: number): Circuit {
  const window = ((circuit.window << 1) | 1) & FULL;
  const seen = Math.min(WINDOW, circuit.seen + 1);
  const noted = { ...circuit, window, seen, streak: circuit.streak + 1, failedAt: now };
  // What was under way when it opened is no news.
  if (circuit.state === 'open') return noted;
  const broken =
    circuit.state === 'half_open' ||
    noted.streak >= MOST_STREAK ||
    (seen >= LEAST_SEEN && failureRate(noted) > MOST_FAILED);
  if (!broken) return noted;
  const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(circuit.opened, 10));
  return {
    ...noted,
    state: 'open',
    opened: circuit.opened + 1,
    retryAt: now + pause * (0.8 + 0.4 * chance),
  };
}

/** An open circuit whose pause is over waits for a trial. */
export function afterTime(circuit: Circuit, now: number): Circuit {
  if (circuit.state !== 'open' || now < circuit.retryAt) return circuit;
  return { ...circuit, state: 'half_open', retryAt: 0 };
}

/** Share of failures in what is known, 0 where nothing is. */
export function failureRate({ window, seen }: Circuit): number {
  if (seen === 0) return 0;
  let failures = 0;
  for (let bits = window; bits !== 0; bits &= bits - 1) failures += 1;
  return failures / seen;
}

/** The same share as long as it is fresh and rests on enough: what a chooser should weigh. */
export function freshFailureRate(circuit: Circuit, now: number): number {
  return circuit.seen >= LEAST_WEIGHED && now - circuit.failedAt < FRESH_MS ? failureRate(circuit) : 0;
}

/** The worse of two states. */
export function worse(a: CircuitState, b: CircuitState): CircuitState {
  if (a === 'open' || b === 'open') return 'open';
  return a === 'half_open' || b === 'half_open' ? 'half_open' : 'closed';
}
