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
  /** How much of the load it is to have beside the others; 1 unless told. */
  weight: number;
  /** 0 is first; those of a larger one serve where nobody of a smaller one can. */
  priority: number;
  /** Output tokens per second for this model; null: unmeasured, or not asked for. */
  tps: number | null;
  /** When its next turn is, as turns go round for this model. */
  turn: number;
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

/** A box that fails all the time counts as this much busier than it is. */
const MOST_BURDEN = 10;

/**
 * How busy it is for its weight. Failing fast is not being free, so what fails counts as if it were still there.
 */
export function loadOf({ active, weight, freshFailureRate }: Candidate): number {
  return (active + 1) / (weight * Math.max(1 / MOST_BURDEN, 1 - freshFailureRate)) - 1;
}
