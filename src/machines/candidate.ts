import type { CircuitState } from './circuit.js';
import type { Glance } from './glance.js';
import type { Speed } from './speed.js';

/** What the chooser sees of an endpoint. */
export interface Candidate {
  endpointId: string;
  /** The name under which this endpoint lists the model. */
  modelId: string;
  status: EndpointStatus;
  /** Requests in flight there, and how many more there may be (of this model). */
  active: number;
  room: number;
  /** What others have in flight there, as far as the engine told. */
  foreign: number;
  /** How much of the load it is to have beside the others; 1 unless told. */
  weight: number;
  /** 0 is first; those of a larger one serve where nobody of a smaller one can. */
  priority: number;
  /** Tokens of a prompt and its answer that fit; null: not known. */
  maxContext: number | null;
  /** Output tokens per second for this model; null: unmeasured, or not asked for. */
  tps: number | null;
  /** When its next turn is, as turns go round for this model. */
  turn: number;
  /** What is learned of its speed for this model. */
  speed: Speed;
  /** What that says at its load, kept for `glanceAt`; where it does not fit it does no harm but costs time. */
  glance: Glance;
  /** It does not hold the model in memory. */
  cold: boolean;
  /** Loading it would probably push another one out. */
  displaces: boolean;
  /** How long it has been loading the model, ms; 0 if it is not. */
  loadingMs: number;
  /** How much longer than expected a request there has been without its first byte, ms. */
  overdueMs: number;
  /** The worse of the endpoint's circuit and that of this model there. */
  circuit: CircuitState;
  /** A trial of a half-open circuit is under way. */
  onTrial: boolean;
  /** Share of failures in the last twenty outcomes; and the same while it is fresh, else 0. */
  failureRate: number;
  freshFailureRate: number;
  /** Its newest outcome was a success. */
  proven: boolean;
  /** ms for which it is better left alone; 0 if it need not. */
  restMs: number;
  /** It said for how long. */
  restIsAsked: boolean;
  /** Its oldest request without a byte has waited too long. */
  hung: boolean;
}

export type EndpointStatus = 'pending' | 'online' | 'offline' | 'error' | 'draining' | 'quarantined';

/** A box that fails all the time counts as this much busier than it is. */
const MOST_BURDEN = 10;

/**
 * How busy it is for its weight. Failing fast is not being free, so what fails counts as if it were still there.
 */
export function loadOf(candidate: Candidate): number {
  return (candidate.active + 1) / worthOf(candidate) - 1;
}

/** What a request there is worth: its weight, less what is to be done again elsewhere. */
export function worthOf({ weight, freshFailureRate }: Candidate): number {
  return weight * Math.max(1 / MOST_BURDEN, 1 - freshFailureRate);
}
