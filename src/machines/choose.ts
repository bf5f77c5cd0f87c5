/** What the chooser sees of an endpoint. */
export interface Candidate {
  endpointId: string;
  /** The name under which this endpoint lists the model. */
  modelId: string;
  status: EndpointStatus;
  active: number;
}

export type EndpointStatus = 'pending' | 'online' | 'offline' | 'error' | 'draining' | 'quarantined';

/**
 * Least busy: of the online endpoints the one with the fewest requests in flight, ties at random; one in
 * `error` only where none is online; undefined means nobody can serve. `random` gives [0, 1).
 */
export function choose(candidates: readonly Candidate[], random: () => number): Candidate | undefined {
  return leastBusy(candidates, 'online', random) ?? leastBusy(candidates, 'error', random);
}

function leastBusy(
  candidates: readonly Candidate[],
  status: EndpointStatus,
  random: () => number,
): Candidate | undefined {
  let best: Candidate | undefined;
  let ties = 0;
  for (const candidate of candidates) {
    if (candidate.status !== status) continue;
    if (best === undefined || candidate.active < best.active) {
      best = candidate;
      ties = 1;
    } else if (candidate.active === best.active) {
      // Each of n ties is taken with probability 1/n, without a list of them.
      ties += 1;
      if (random() * ties < 1) best = candidate;
    }
  }
  return best;
}
