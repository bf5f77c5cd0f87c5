import type { Candidate } from '../machines/candidate.js';
import { type Circuit, failureRate, freshFailureRate, NEW_CIRCUIT, worse } from '../machines/circuit.js';
import { ofModel } from '../machines/endpoint.js';
import { NEW_SPEED } from '../machines/speed.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { EndpointFacts } from './roster.js';
import type { Standing } from './standing.js';

/** What changes the place of an endpoint among others, from outside of its actor. */
export interface SeatDeps {
  /** The endpoint's snapshot: the same object as long as nothing changed. */
  facts: () => EndpointFacts;
  standing: Standing;
  isQuarantined: boolean;
  /** Its stored key cannot be read. */
  isLocked: () => boolean;
  tps: () => number | null;
  turn: () => number;
}

/**
 * A model at an endpoint as the chooser sees it: one object that is brought up to date at each look, since with
 * hundreds of endpoints making them anew would take longer than choosing.
 */
export class Seat implements Candidate {
  readonly endpointId: string;
  readonly modelId: string;
  readonly weight: number;
  readonly priority: number;
  maxContext: number | null = null;
  status: Candidate['status'] = 'pending';
  active = 0;
  room = Number.POSITIVE_INFINITY;
  foreign = 0;
  tps: number | null = null;
  turn = 0;
  speed = NEW_SPEED;
  measuredMs = Number.POSITIVE_INFINITY;
  cold = false;
  displaces = false;
  loadingMs = 0;
  overdueMs = 0;
  circuit: Candidate['circuit'] = 'closed';
  onTrial = false;
  failureRate = 0;
  freshFailureRate = 0;
  proven = false;
  restMs = 0;
  hung = false;
  readonly #deps: SeatDeps;
  readonly #maxContext: number | null;
  readonly #most: number | null;
  readonly #mostOfModel: number | null;
  #seen: EndpointFacts | null = null;
  #health: Candidate['status'] = 'pending';
  #circuits: [Circuit, Circuit] = [NEW_CIRCUIT, NEW_CIRCUIT];
  #restUntil = 0;

  constructor(config: EndpointConfig, modelId: string, deps: SeatDeps) {
    this.endpointId = config.id;
    this.modelId = modelId;
    this.weight = config.weight;
    this.priority = config.priority;
    this.#maxContext = config.maxContext;
    this.#most = config.maxConcurrency;
    this.#mostOfModel = null;
    this.#deps = deps;
  }

  /** `mono`: monotonic, ms. */
  update(mono: number): void {
    const { facts, standing, isLocked, tps, turn } = this.#deps;
    const now = facts();
    if (now !== this.#seen) this.#read(now);
    // Without its key there is no use in asking it.
    this.status = isLocked() ? 'offline' : this.#health;
    this.active = standing.active;
    this.room = this.#roomIn(standing);
    this.tps = tps();
    this.turn = turn();
    this.measuredMs = mono - this.speed.measuredAt;
    this.restMs = this.#restUntil > mono ? this.#restUntil - mono : 0;
    const [own, ofModelThere] = this.#circuits;
    this.freshFailureRate =
      this.failureRate === 0
        ? 0
        : Math.max(freshFailureRate(own, mono), freshFailureRate(ofModelThere, mono));
    this.onTrial = standing.trials > 0;
    const someWait = standing.waiting.size > 0;
    this.hung = someWait && standing.isHung(mono);
    this.overdueMs = someWait ? standing.overdueMs(mono) : 0;
    const since = someWait && this.cold ? standing.waitingSince(this.modelId) : null;
    this.loadingMs = since === null ? 0 : Math.max(0, mono - since);
  }

  #read(facts: EndpointFacts): void {
    const { health, draining, circuit, modelCircuits, resting, paces, loaded, models, foreign } = facts;
    const { modelId } = this;
    const there = ofModel(modelCircuits, modelId) ?? NEW_CIRCUIT;
    this.#seen = facts;
    this.#health = this.#deps.isQuarantined ? 'quarantined' : draining ? 'draining' : health;
    this.#circuits = [circuit, there];
    this.#restUntil = ofModel(resting, modelId) ?? 0;
    this.circuit = worse(circuit.state, there.state);
    this.proven = circuit.seen > 0 && circuit.streak === 0 && there.streak === 0;
    this.failureRate = Math.max(failureRate(circuit), failureRate(there));
    this.speed = ofModel(paces, modelId)?.speed ?? NEW_SPEED;
    this.cold = loaded !== null && !loaded.includes(modelId);
    this.displaces = this.cold && loaded !== null && loaded.length > 0;
    this.foreign = foreign;
    this.maxContext =
      this.#maxContext ?? models.find((model) => model.modelId === modelId)?.maxTokens ?? null;
  }

  #roomIn(standing: Standing): number {
    const free = this.#most === null ? Number.POSITIVE_INFINITY : this.#most - standing.active;
    if (this.#mostOfModel === null) return free;
    return Math.min(free, this.#mostOfModel - standing.activeOf(this.modelId));
  }
}
