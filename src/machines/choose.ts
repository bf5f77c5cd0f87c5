import { type Candidate, worthOf } from './candidate.js';
import { type Demand, isProbablyLonger, NO_DEMAND } from './demand.js';
import { forecastOf, type Outlook, outlookOf } from './outlook.js';
import { leastOf, POLICIES, type PolicyName } from './policies.js';
import { isMeasured, totalMs, waitMs } from './speed.js';

/** Why a candidate was not taken into account. */
export type Rejection =
  | 'tried'
  | 'pending'
  | 'offline'
  | 'error'
  | 'draining'
  | 'quarantined'
  | 'resting'
  | 'lacks_response'
  | 'circuit_open'
  | 'on_trial'
  | 'hung'
  | 'context_too_small'
  | 'at_capacity'
  | 'overloaded'
  | 'later_priority';

export interface Judged {
  candidate: Candidate;
  /** Null: it could have been chosen. */
  reason: Rejection | null;
}

/** How one is to be chosen. */
export interface Choosing {
  policy: PolicyName;
  /** Gives [0, 1). */
  random: () => number;
  /** Endpoints the request was at already. */
  tried: ReadonlySet<string>;
  /** A predicted wait past this many ms makes the next priority serve. */
  overflowMs: number;
  /** How long the request has waited for its turn, ms, and how many have theirs before it. */
  waitedMs: number;
  ahead: number;
  /** Monotonic, ms. */
  mono: number;
  /** The only endpoint that can go on from where the request does, as if nobody else were; null: anybody can. */
  keeper: string | null;
  /** It may go to where nothing was measured for long. */
  mayExplore: boolean;
}

export interface Choice {
  policy: PolicyName;
  chosen: Candidate | undefined;
  /** The request is the trial of a half-open circuit. */
  trial: boolean;
  /** It goes where it goes only to measure that. */
  explores: boolean;
  /** Nothing speaks against any of the candidates. */
  anybody: boolean;
  /** Nobody is chosen, but somebody would serve as soon as a request there ends. */
  full: boolean;
  outlook: Outlook;
  candidates: readonly Candidate[];
  tried: ReadonlySet<string>;
  keeper: string | null;
  /** Those who are equally well, and of these whom the policy had to choose from. */
  best: readonly Candidate[];
  able: readonly Candidate[];
  trials: readonly Candidate[];
  tier: number;
  /** The priority that serves, or is waited for. */
  served: number;
  overflowMs: number;
}

const NOBODY: ReadonlySet<string> = new Set();

/** A new request that may take what there is. */
export const PLAINLY: Choosing = {
  policy: 'least-busy',
  random: () => 0,
  tried: NOBODY,
  overflowMs: 0,
  waitedMs: 0,
  ahead: 0,
  mono: 0,
  keeper: null,
  mayExplore: false,
};

/**
 * Of the endpoints that serve, those of the first priority there is: which of them the policy says. Hung ones, then
 * those in `error`, then those whose context is probably too small, then those that rest, only where no other serves;
 * those behind an open circuit, the least bad first, as the last resort. A half-open circuit gets the next new request,
 * one at a time. Where the best there are have no room, or are to be waited for too long, those of the next priority
 * serve, and where nobody has any room the request waits.
 */
export function choose(
  candidates: readonly Candidate[],
  demand: Demand = NO_DEMAND,
  choosing: Choosing = PLAINLY,
): Choice {
  const { policy, random, tried, keeper } = choosing;
  const anybody = areAlike(candidates, demand, choosing);
  const { tier, best, trials } = anybody ? allOf(candidates) : bestOf(candidates, demand, choosing);
  const outlook = outlookOf(best, demand);
  const { able, served } = anybody ? allAbleOf(candidates) : firstWithRoom(best, outlook, choosing);
  // One in `error` has no trial while another is online, nor one of a later priority while it is not needed. A retry is
  // none either, but as a last resort.
  const nobodyOnline = tier < 0 || tier >= IN_ERROR;
  const isDue = ({ status, priority }: Candidate) => status === 'online' && priority <= served;
  const trial = trials.find(isDue) ?? (nobodyOnline ? firstOf(trials) : undefined);
  const isTrial = trial !== undefined && (tried.size === 0 || tier < 0 || tier === LAST_RESORT);
  const stale = isTrial || !choosing.mayExplore ? undefined : longestUnmeasured(able, choosing.mono);
  const chosen = isTrial
    ? trial
    : (stale ??
      (tier === LAST_RESORT
        ? leastOf(able, ({ failureRate }) => failureRate, random)
        : POLICIES[policy](able, random, outlook)));
  return {
    policy,
    chosen,
    trial: chosen?.circuit === 'half_open' && !chosen.onTrial,
    explores: stale !== undefined,
    anybody,
    full: chosen === undefined && best.length > 0,
    outlook,
    candidates,
    tried,
    keeper,
    best,
    able,
    trials,
    tier,
    served,
    overflowMs: choosing.overflowMs,
  };
}

/** Why each of the candidates could have been chosen, or not. */
export function judge(choice: Choice): Judged[] {
  return choice.candidates.map((candidate) => ({ candidate, reason: reasonOf(candidate, choice) }));
}

export function reasonOf(candidate: Candidate, choice: Choice): Rejection | null {
  if (choice.anybody) return null;
  const { chosen, best, trials, tier, served, outlook, overflowMs } = choice;
  const out = excluded(candidate, choice);
  if (out !== null || candidate === chosen) return out;
  if (trials.includes(candidate)) return 'circuit_open';
  if (tierOf(candidate, outlook.demand) === tier) {
    if (tier === TOO_SMALL && !best.includes(candidate)) return 'context_too_small';
    if (tier === RESTING && !best.includes(candidate)) return 'resting';
    if (candidate.room <= 0) return 'at_capacity';
    if (candidate.priority === served) return null;
    if (candidate.priority > served) return 'later_priority';
    return waitOf(candidate, outlook) > overflowMs ? 'overloaded' : 'at_capacity';
  }
  if (candidate.restMs > 0) return 'resting';
  if (candidate.circuit !== 'closed') return candidate.onTrial ? 'on_trial' : 'circuit_open';
  if (isTooSmall(candidate, outlook.demand)) return 'context_too_small';
  return candidate.hung ? 'hung' : 'error';
}

const HUNG = 1;
const IN_ERROR = 2;
const TOO_SMALL = 4;
const RESTING = 5;
const LAST_RESORT = 6;
/** What was measured so long ago may be different now. */
const STALE_MS = 30_000;

/** 0 serves; 1 is hung; 2 and 3 the same in `error`; 4 has too small a context; 5 rests; 6 is behind a circuit. */
function tierOf(candidate: Candidate, demand: Demand): number {
  const { circuit, restMs } = candidate;
  if (circuit !== 'closed') return LAST_RESORT;
  return restMs > 0 ? RESTING : restedTierOf(candidate, demand);
}

/** Whatever its circuit is, and as if it did not rest. */
function restedTierOf(candidate: Candidate, demand: Demand): number {
  const { status, hung } = candidate;
  if (isTooSmall(candidate, demand)) return TOO_SMALL;
  return (status === 'error' ? IN_ERROR : 0) + (hung ? HUNG : 0);
}

function isTooSmall({ maxContext }: Candidate, demand: Demand): boolean {
  return maxContext !== null && isProbablyLonger(demand, maxContext);
}

interface Best {
  /** -1: nobody serves. */
  tier: number;
  best: readonly Candidate[];
  /** Half-open ones that may have their trial. */
  trials: readonly Candidate[];
}

/** All serve, and have room and the same priority. Most fleets are so most of the time: nobody has to be set apart. */
function areAlike(candidates: readonly Candidate[], demand: Demand, bounds: Bounds): boolean {
  const first = candidates[0]?.priority;
  for (const one of candidates) {
    if (one.room <= 0 || one.priority !== first) return false;
    if (excluded(one, bounds) !== null || tierOf(one, demand) !== 0) return false;
  }
  return first !== undefined;
}

function allOf(candidates: readonly Candidate[]): Best {
  return { tier: 0, best: candidates, trials: NO_TRIALS };
}

function bestOf(candidates: readonly Candidate[], demand: Demand, bounds: Bounds): Best {
  const tiers: Candidate[][] = [[], [], [], [], [], [], []];
  const trials: Candidate[] = [];
  for (const candidate of candidates) {
    if (excluded(candidate, bounds) !== null) continue;
    if (mayBeTried(candidate, demand)) trials.push(candidate);
    else (tiers[tierOf(candidate, demand)] as Candidate[]).push(candidate);
  }
  const tier = tiers.findIndex((one) => one.length > 0);
  const best = tiers[tier] ?? [];
  if (tier === TOO_SMALL) return { tier, best: ofLargestContext(best), trials };
  return { tier, best: tier === RESTING ? ofLowestTier(best, demand) : best, trials };
}

/** Those that would serve first if none of them rested. */
function ofLowestTier(resting: readonly Candidate[], demand: Demand): Candidate[] {
  const lowest = Math.min(...resting.map((one) => restedTierOf(one, demand)));
  return resting.filter((one) => restedTierOf(one, demand) === lowest);
}

/** A half-open one that can take the request for its trial. */
function mayBeTried(candidate: Candidate, demand: Demand): boolean {
  const { circuit, onTrial, room, restMs } = candidate;
  return circuit === 'half_open' && !onTrial && room > 0 && restMs === 0 && !isTooSmall(candidate, demand);
}

const NO_TRIALS: readonly Candidate[] = [];

/** Where a request may not go, and where alone it may. */
type Bounds = Pick<Choosing, 'tried' | 'keeper'>;

/** Never chosen, whoever else there is. */
function excluded(candidate: Candidate, { tried, keeper }: Bounds): Rejection | null {
  const { endpointId, status, restMs, restIsAsked } = candidate;
  if (tried.size > 0 && tried.has(endpointId)) return 'tried';
  if (status !== 'online' && status !== 'error') return status;
  // One that did not say how long is asked where nobody else is, but not for somebody who has asked already.
  if (restMs > 0 && (restIsAsked || tried.size > 0)) return 'resting';
  return keeper === null || endpointId === keeper ? null : 'lacks_response';
}

interface Served {
  able: readonly Candidate[];
  served: number;
}

function allAbleOf(candidates: readonly Candidate[]): Served {
  return { able: candidates, served: (candidates[0] as Candidate).priority };
}

/** Of the first priority whose wait is short enough those that have room; nobody if it is worth waiting for them. */
function firstWithRoom(best: readonly Candidate[], outlook: Outlook, choosing: Choosing): Served {
  const first = best[0]?.priority ?? Number.POSITIVE_INFINITY;
  if (best.every(({ priority }) => priority === first)) return { able: roomyOf(best), served: first };
  let shortest: readonly Candidate[] = [];
  let least = Number.POSITIVE_INFINITY;
  for (const priority of prioritiesOf(best)) {
    const group = best.filter((one) => one.priority === priority);
    const roomy = roomyOf(group);
    const wait =
      roomy.length > 0
        ? Math.min(...roomy.map((one) => waitOf(one, outlook)))
        : choosing.waitedMs + Math.min(...group.map((one) => slotWaitOf(one, outlook, choosing.ahead)));
    if (wait <= choosing.overflowMs) return { able: roomy, served: priority };
    if (roomy.length === 0 || wait >= least) continue;
    shortest = roomy;
    least = wait;
  }
  return { able: shortest, served: shortest[0]?.priority ?? prioritiesOf(best)[0] ?? first };
}

/** How long a request will wait there for those before it, ms; what is not known is no wait. */
function waitOf(candidate: Candidate, outlook: Outlook): number {
  if (candidate.active + candidate.foreign === 0) return 0;
  const told = forecastOf(candidate, outlook);
  // The first byte takes its time with nobody there, too.
  return told === null ? 0 : Math.max(0, told.waitMs - waitMs(candidate.speed, 0));
}

/** How long until there is room, ms; for ever where nothing is known. */
function slotWaitOf(candidate: Candidate, outlook: Outlook, ahead: number): number {
  const { active } = candidate;
  // Whoever gets the place has one less beside it than there are now.
  const told = forecastOf({ ...candidate, active: Math.max(0, active - 1) }, outlook);
  return told === null ? Number.POSITIVE_INFINITY : ((ahead + 1) * totalMs(told)) / Math.max(1, active);
}

/** The one of the first priority. */
function firstOf(candidates: readonly Candidate[]): Candidate | undefined {
  return candidates.find(({ priority }) => candidates.every((other) => priority <= other.priority));
}

/** Ascending. */
function prioritiesOf(candidates: readonly Candidate[]): number[] {
  const found: number[] = [];
  for (const { priority } of candidates) if (!found.includes(priority)) found.push(priority);
  return found.sort((a, b) => a - b);
}

function roomyOf(candidates: readonly Candidate[]): readonly Candidate[] {
  return candidates.every(({ room }) => room > 0) ? candidates : candidates.filter(({ room }) => room > 0);
}

function ofLargestContext(candidates: Candidate[]): Candidate[] {
  const largest = Math.max(...candidates.map(({ maxContext }) => maxContext ?? 0));
  return candidates.filter(({ maxContext }) => maxContext === largest);
}

/** Of those that have nothing to do the one whose measure is the oldest, if it is old. */
function longestUnmeasured(able: readonly Candidate[], mono: number): Candidate | undefined {
  let oldest: Candidate | undefined;
  let since = mono - STALE_MS;
  for (const one of able) {
    const { measuredAt } = one.speed;
    if (measuredAt >= since || !isMeasured(one.speed)) continue;
    if (one.active > 0 || one.cold || worthOf(one) < one.weight) continue;
    oldest = one;
    since = measuredAt;
  }
  return oldest;
}
