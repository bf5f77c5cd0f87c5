import { type Candidate, loadOf } from './candidate.js';

/** Which of those that could serve does, undefined if there are none. `random` gives [0, 1). */
export type Policy = (able: readonly Candidate[], random: () => number) => Candidate | undefined;

/** Each in turn, as often as its weight says. */
export const roundRobin: Policy = (able, random) => leastOf(able, ({ turn }) => turn, random);

/** The fewest requests in flight for its weight, ties at random. */
export const leastBusy: Policy = (able, random) => leastOf(able, loadOf, random);

/** Of two at random the less busy one. */
export const powerOfTwo: Policy = (able, random) => {
  const one = weighted(able, random);
  const rest = able.filter((candidate) => candidate !== one);
  const other = weighted(rest, random);
  return one === undefined || other === undefined ? one : leastBusy([one, other], random);
};

/** The most tokens per second for its weight; the unmeasured ones first, the less busy before the busier. */
export const fastest: Policy = (able, random) => {
  const unmeasured = able.filter(({ tps }) => tps === null);
  if (unmeasured.length > 0) return leastBusy(unmeasured, random);
  return leastOf(able, ({ tps, weight }) => -(tps ?? 0) * weight, random);
};

/** At random, in proportion to its weight. */
export const weighted: Policy = (able, random) => {
  let left = random() * able.reduce((sum, { weight }) => sum + weight, 0);
  for (const candidate of able) {
    left -= candidate.weight;
    if (left < 0) return candidate;
  }
  return able[able.length - 1];
};

export const POLICIES = {
  'least-busy': leastBusy,
  'round-robin': roundRobin,
  'power-of-two': powerOfTwo,
  fastest,
  weighted,
} satisfies Record<string, Policy>;

export type PolicyName = keyof typeof POLICIES;

/** The one with the least of something, each of n ties with probability 1/n. */
export function leastOf(
  able: readonly Candidate[],
  measure: (candidate: Candidate) => number,
  random: () => number,
): Candidate | undefined {
  let best: Candidate | undefined;
  let least = 0;
  let ties = 0;
  for (const candidate of able) {
    const value = measure(candidate);
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
