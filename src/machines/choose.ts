import type { CircuitState } from './circuit.js';

/** What the chooser sees of an endpoint. */
export interface Candidate {
  endpointId: string;
  /** The name under which this endpoint lists the model. */
  modelId: string;
  status: EndpointStatus;
  /** Requests in flight there, and how many there may be. */
  active: number;
  maxConcurrency: number | null;
  /** The worse of the endpoint's circuit and that of this model there. */
  circuit: CircuitState;
  /** A trial of a half-open circuit is under way. */
  onTrial: boolean;
  /** Share of failures in the last twenty outcomes; and the same while it is fresh, else 0. */
  failureRate: number;
  freshFailureRate: number;
  /** Its newest outcome was a success. */
  proven: boolean;
  /** ms for which it asked to be left alone; 0 if it did not. */
  restMs: number;
  /** Its oldest request without a byte has waited too long. */
  hung: boolean;
}

export type EndpointStatus = 'pending' | 'online' | 'offline' | 'error' | 'draining' | 'quarantined';

/** Why a candidate was not taken into account. */
export type Rejection =
  | 'tried'
  | 'pending'
  | 'offline'
  | 'error'
  | 'draining'
  | 'quarantined'
  | 'resting'
  | 'circuit_open'
  | 'on_trial'
  | 'hung'
  | 'at_capacity';

export interface Judged {
  candidate: Candidate;
  /** Null: it could have been chosen. */
  reason: Rejection | null;
}

export interface Choice {
  chosen: Candidate | undefined;
  /** The request is the trial of a half-open circuit. */
  trial: boolean;
  /** Nobody is chosen, but somebody would serve as soon as a request there ends. */
  full: boolean;
  judged: readonly Judged[];
}

/** A box that fails all the time counts as this much busier than it is. */
const MOST_BURDEN = 10;

/**
 * Least busy: of the endpoints that serve the one with the fewest requests in flight, ties at random. Hung ones,
 * then those in `error`, only where no other serves; those behind an open circuit, the least bad first, as the last
 * resort. A half-open circuit gets the next new request, one at a time. Where the best there are have no room the
 * request waits for them. `random` gives [0, 1).
 */
export function choose(
  candidates: readonly Candidate[],
  random: () => number,
  tried: ReadonlySet<string> = NOBODY,
): Choice {
  const tiers: Candidate[][] = [[], [], [], [], []];
  const trials: Candidate[] = [];
  for (const candidate of candidates) {
    if (excluded(candidate, tried) !== null) continue;
    if (candidate.circuit === 'half_open' && !candidate.onTrial && hasRoom(candidate)) trials.push(candidate);
    else (tiers[tierOf(candidate)] as Candidate[]).push(candidate);
  }
  const best = tiers.find((tier) => tier.length > 0) ?? [];
  const bestTier = tiers.indexOf(best);
  // An endpoint in `error` is no trial while another is online. A retry is none either, but as a last resort.
  const nobodyOnline = bestTier < 0 || bestTier >= IN_ERROR;
  const trial = trials.find(({ status }) => status === 'online') ?? (nobodyOnline ? trials[0] : undefined);
  const chooseTrial = tried.size === 0 || bestTier < 0 || bestTier === LAST_RESORT;
  const chosen =
    trial !== undefined && chooseTrial ? trial : pick(best.filter(hasRoom), random, bestTier === LAST_RESORT);
  return {
    chosen,
    trial: chosen !== undefined && chosen === trial,
    full: chosen === undefined && best.length > 0,
    judged: candidates.map((candidate) => ({
      candidate,
      reason: excluded(candidate, tried) ?? outranked(candidate, chosen, trials, bestTier),
    })),
  };
}

const NOBODY: ReadonlySet<string> = new Set();
const HUNG = 1;
const IN_ERROR = 2;
const LAST_RESORT = 4;

/** 0 serves; 1 is hung; 2 and 3 the same in `error`; 4 is behind a circuit. */
function tierOf({ status, circuit, hung }: Candidate): number {
  if (circuit !== 'closed') return LAST_RESORT;
  return (status === 'error' ? IN_ERROR : 0) + (hung ? HUNG : 0);
}

/** Never chosen, whoever else there is. */
function excluded({ endpointId, status, restMs }: Candidate, tried: ReadonlySet<string>): Rejection | null {
  if (tried.has(endpointId)) return 'tried';
  if (status !== 'online' && status !== 'error') return status;
  return restMs > 0 ? 'resting' : null;
}

function outranked(
  candidate: Candidate,
  chosen: Candidate | undefined,
  trials: Candidate[],
  bestTier: number,
): Rejection | null {
  if (candidate === chosen) return null;
  if (trials.includes(candidate)) return 'circuit_open';
  const tier = tierOf(candidate);
  if (tier === bestTier) return hasRoom(candidate) ? null : 'at_capacity';
  if (candidate.circuit !== 'closed') return candidate.onTrial ? 'on_trial' : 'circuit_open';
  return candidate.hung ? 'hung' : 'error';
}

function hasRoom({ active, maxConcurrency }: Candidate): boolean {
  return maxConcurrency === null || active < maxConcurrency;
}

function pick(tier: Candidate[], random: () => number, byFailures: boolean): Candidate | undefined {
  let best: Candidate | undefined;
  let bestLoad = 0;
  let ties = 0;
  for (const candidate of tier) {
    const load = byFailures ? candidate.failureRate : loadOf(candidate);
    if (best === undefined || load < bestLoad) {
      best = candidate;
      bestLoad = load;
      ties = 1;
    } else if (load === bestLoad) {
      // Each of n ties is taken with probability 1/n, without a list of them.
      ties += 1;
      if (random() * ties < 1) best = candidate;
    }
  }
  return best;
}

/** What least busy compares: failing fast is not being free, so what fails counts as if it were still there. */
export function loadOf({ active, freshFailureRate }: Candidate): number {
  return (active + 1) / Math.max(1 / MOST_BURDEN, 1 - freshFailureRate) - 1;
}
