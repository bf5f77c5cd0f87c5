import type { Candidate } from './candidate.js';
import { leastOf, POLICIES, type PolicyName } from './policies.js';

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
  | 'at_capacity'
  | 'later_priority';

export interface Judged {
  candidate: Candidate;
  /** Null: it could have been chosen. */
  reason: Rejection | null;
}

export interface Choice {
  policy: PolicyName;
  chosen: Candidate | undefined;
  /** The request is the trial of a half-open circuit. */
  trial: boolean;
  /** Nobody is chosen, but somebody would serve as soon as a request there ends. */
  full: boolean;
  judged: readonly Judged[];
}

/**
 * Of the endpoints that serve, those of the first priority there is: which of them the policy says. Hung ones, then
 * those in `error`, only where no other serves; those behind an open circuit, the least bad first, as the last resort.
 * A half-open circuit gets the next new request, one at a time. Where the best there are have no room those of the next
 * priority serve, and where nobody has any the request waits. `random` gives [0, 1).
 */
export function choose(
  candidates: readonly Candidate[],
  random: () => number,
  tried: ReadonlySet<string> = NOBODY,
  policy: PolicyName = 'least-busy',
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
  const able = firstOf(best.filter(hasRoom));
  const chosen =
    trial !== undefined && chooseTrial
      ? trial
      : bestTier === LAST_RESORT
        ? leastOf(able, ({ failureRate }) => failureRate, random)
        : POLICIES[policy](able, random);
  return {
    policy,
    chosen,
    trial: chosen !== undefined && chosen === trial,
    full: chosen === undefined && best.length > 0,
    judged: candidates.map((candidate) => ({
      candidate,
      reason: excluded(candidate, tried) ?? outranked(candidate, chosen, trials, bestTier, able),
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
  able: readonly Candidate[],
): Rejection | null {
  if (candidate === chosen) return null;
  if (trials.includes(candidate)) return 'circuit_open';
  const tier = tierOf(candidate);
  if (tier === bestTier) {
    if (!hasRoom(candidate)) return 'at_capacity';
    return candidate.priority === able[0]?.priority ? null : 'later_priority';
  }
  if (candidate.circuit !== 'closed') return candidate.onTrial ? 'on_trial' : 'circuit_open';
  return candidate.hung ? 'hung' : 'error';
}

function hasRoom({ active, maxConcurrency }: Candidate): boolean {
  return maxConcurrency === null || active < maxConcurrency;
}

/** Those of the first priority. */
function firstOf(candidates: Candidate[]): Candidate[] {
  let first = Number.POSITIVE_INFINITY;
  for (const { priority } of candidates) if (priority < first) first = priority;
  return candidates.filter(({ priority }) => priority === first);
}
