import { type Candidate, loadOf, worthOf } from './candidate.js';
import { costOf, crowdMs, type Outlook, writingMs } from './outlook.js';
import { isMeasured } from './speed.js';

/**
 * Which of those that could serve does, undefined if there are none. `random` gives [0, 1); the outlook is what is
 * known of the request.
 */
export type Policy = (
  able: readonly Candidate[],
  random: () => number,
  outlook: Outlook,
) => Candidate | undefined;

/** The least predicted completion for its weight; of those about as good as the best the least busy, ties at random. */
const adaptive: Policy = (able, random, outlook) => {
  const costs = new Float64Array(able.length);
  let least = Number.POSITIVE_INFINITY;
  let best: Candidate | undefined;
  for (let i = 0; i < costs.length; i += 1) {
    const candidate = able[i] as Candidate;
    const cost = costOf(candidate, outlook);
    costs[i] = cost;
    if (cost >= least) continue;
    least = cost;
    best = candidate;
  }
  if (best === undefined) return leastOf(able, loadOf, random);
  const near = Math.max(least * AS_GOOD, least + NEAR_MS / worthOf(best));
  const most = near + unsureMs(best, outlook);
  const isFree = best.active + best.foreign === 0;
  const rank = (candidate: Candidate, i: number) => {
    const cost = costs[i] as number;
    // Doubt is no reason to go to a box of which nothing but hope is known: it may never answer.
    if (cost > (isMeasured(candidate.speed) ? most : near)) return Number.POSITIVE_INFINITY;
    return loadOf(candidate) + (candidate.cold ? COLD_LOAD : 0) + (isFree && cost > near ? DOUBTED_LOAD : 0);
  };
  return leastOf(able, rank, random);
};

/** By how much more the least prediction may be wrong: ms for what the box is worth. */
function unsureMs(best: Candidate, outlook: Outlook): number {
  const waiting = crowdMs(best) * unsureOf(best);
  // What its cache holds is saved however fast it writes.
  const isPinned = outlook.demand.pin?.endpointId === best.endpointId;
  const writing = isPinned
    ? 0
    : (writingMs(best, outlook) * WRITING_UNSURE) / Math.max(1, best.speed.answers);
  return (waiting + writing) / worthOf(best);
}

/** How unsure the waiting for others is, as a share of it: the longer the line, the less it is known. */
function unsureOf({ active, foreign }: Candidate): number {
  const others = active + foreign;
  return others / (others + HALF_SURE);
}

/** Each in turn, as often as its weight says. */
const roundRobin: Policy = (able, random) => leastOf(able, ({ turn }) => turn, random);

/** The fewest requests in flight for its weight, ties at random. */
const leastBusy: Policy = (able, random) => leastOf(able, loadOf, random);

/** Of two at random the less busy one. */
const powerOfTwo: Policy = (able, random) => {
  const one = pickWeighted(able, random);
  const rest = able.filter((candidate) => candidate !== one);
  const other = pickWeighted(rest, random);
  return one === undefined || other === undefined ? one : leastOf([one, other], loadOf, random);
};

/** The most tokens per second for its weight; the unmeasured ones first, the less busy before the busier. */
const fastest: Policy = (able, random) => {
  const unmeasured = able.filter(({ tps }) => tps === null);
  if (unmeasured.length > 0) return leastOf(unmeasured, loadOf, random);
  return leastOf(able, ({ tps, weight }) => -(tps ?? 0) * weight, random);
};

/** At random, in proportion to its weight. */
const weighted: Policy = (able, random) => pickWeighted(able, random);

/** Where the conversation was before, unless that is loaded more than 1.25 times the mean; else the least busy. */
const affinity: Policy = (able, random, { demand }) => {
  const pinned = able.find(({ endpointId }) => endpointId === demand.pin?.endpointId);
  if (pinned !== undefined && busyness(pinned) <= MOST_ABOVE_MEAN * meanBusyness(able)) return pinned;
  return leastOf(able, loadOf, random);
};

export const POLICIES = {
  adaptive,
  'least-busy': leastBusy,
  'round-robin': roundRobin,
  'power-of-two': powerOfTwo,
  fastest,
  weighted,
  affinity,
} satisfies Record<string, Policy>;

export type PolicyName = keyof typeof POLICIES;

/** Predictions this near to each other are equal: what is learned is never exact, and all must not run to one box. */
const AS_GOOD = 1.3;
/** Nobody notices so little, and of answers this fast the first one was mostly slow for another reason. */
const NEAR_MS = 20;
/** After one answer the time for writing may be off by so many times itself, after n answers by an n-th of that. */
const WRITING_UNSURE = 5;
/** Less than any request: while the best has nothing to do, doubt is no reason to go elsewhere. */
const DOUBTED_LOAD = 1e-6;
/** With so many others half of the waiting for them is sure. */
const HALF_SURE = 8;
/** More than any load: of equals one that has the model in memory comes first. */
const COLD_LOAD = 1e6;
const MOST_ABOVE_MEAN = 1.25;

/** The one with the least of something, each of n ties with probability 1/n. */
export function leastOf(
  able: readonly Candidate[],
  measure: (candidate: Candidate, index: number) => number,
  random: () => number,
): Candidate | undefined {
  let best: Candidate | undefined;
  let least = 0;
  let ties = 0;
  for (let i = 0; i < able.length; i += 1) {
    const candidate = able[i] as Candidate;
    const value = measure(candidate, i);
    if (best === undefined || value < least) {
      best = candidate;
      least = value;
      ties = 1;
    } else if (value === least) {
      ties += 1;
      if (random() * ties < 1) best = candidate;
    }
  }
  return best;
}

function pickWeighted(able: readonly Candidate[], random: () => number): Candidate | undefined {
  let left = random() * able.reduce((sum, { weight }) => sum + weight, 0);
  for (const candidate of able) {
    left -= candidate.weight;
    if (left < 0) return candidate;
  }
  return able[able.length - 1];
}

/** What it has in flight for what it is worth; 0 if it has nothing to do. */
function busyness(candidate: Candidate): number {
  return candidate.active / worthOf(candidate);
}

function meanBusyness(able: readonly Candidate[]): number {
  return able.reduce((sum, candidate) => sum + busyness(candidate), 0) / able.length;
}
