import type { Candidate } from '../machines/candidate.js';
import { type Circuit, failureRate, freshFailureRate, NEW_CIRCUIT, worse } from '../machines/circuit.js';
import { ofModel } from '../machines/endpoint.js';
import { glanceAt, UNSEEN } from '../machines/glance.js';
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
  /** Its stored key cannot be read: there is no use in asking it. Null: every key can. */
  isLocked: (() => boolean) | null;
  /** Null: nobody looks at it. */
  tps: (() => number | null) | null;
  turn: (() => number) | null;
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
  glance = UNSEEN;
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
  restIsAsked = false;
  hung = false;
  readonly #facts: SeatDeps['facts'];
  readonly #standing: Standing;
  readonly #isQuarantined: boolean;
  readonly #isLocked: SeatDeps['isLocked'];
  readonly #tps: SeatDeps['tps'];
  readonly #turn: SeatDeps['turn'];
  readonly #isLimited: boolean;
  #isTroubled = false;
  #sawWaiting = false;
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
    const own = ofModel(config.modelSettings, modelId);
    this.weight = own?.weight ?? config.weight;
    this.priority = own?.priority ?? config.priority;
    this.#maxContext = config.maxContext;
    this.#most = config.maxConcurrency;
    this.#mostOfModel = own?.max_concurrency ?? null;
    this.#facts = deps.facts;
    this.#standing = deps.standing;
    this.#isQuarantined = deps.isQuarantined;
    this.#isLocked = deps.isLocked;
    this.#tps = deps.tps;
    this.#turn = deps.turn;
    this.#isLimited = this.#most !== null || this.#mostOfModel !== null;
  }

  /** `mono`: monotonic, ms. */
  update(mono: number): void {
    this.#look();
    const standing = this.#standing;
    this.active = standing.active;
    this.glance = glanceAt(this);
    this.onTrial = standing.trials > 0;
    if (this.#isLimited) this.room = this.#roomIn(standing);
    if (standing.oldest !== undefined) this.#readWaiting(standing, mono);
    else if (this.#sawWaiting) this.#readNobody();
    if (this.#isTroubled) this.#readTrouble(mono);
    if (this.#isLocked !== null) this.status = this.#isLocked() ? 'offline' : this.#health;
    if (this.#tps !== null) this.tps = this.#tps();
    if (this.#turn !== null) this.turn = this.#turn();
  }

  get context(): number | null {
    this.#look();
    return this.maxContext;
  }

  #look(): void {
    const facts = this.#facts();
    if (facts !== this.#seen) this.#read(facts);
  }

  /** Somebody there has no byte yet. */
  #readWaiting(standing: Standing, mono: number): void {
    this.#sawWaiting = true;
    this.hung = standing.isHung(mono);
    this.overdueMs = standing.overdueMs(mono);
    const since = this.cold ? standing.waitingSince(this.modelId) : null;
    this.loadingMs = since === null ? 0 : Math.max(0, mono - since);
  }

  #readNobody(): void {
    this.#sawWaiting = false;
    this.hung = false;
    this.overdueMs = 0;
    this.loadingMs = 0;
  }

  /** It has failed, or asked to be left alone: both are over in time. */
  #readTrouble(mono: number): void {
    const [own, ofModelThere] = this.#circuits;
    this.restMs = Math.max(0, this.#restUntil - mono);
    this.freshFailureRate = Math.max(freshFailureRate(own, mono), freshFailureRate(ofModelThere, mono));
  }

  #read(facts: EndpointFacts): void {
    const { health, draining, circuit, modelCircuits, resting, paces, loaded, models, foreign } = facts;
    const { modelId } = this;
    const there = ofModel(modelCircuits, modelId) ?? NEW_CIRCUIT;
    this.#seen = facts;
    this.#health = this.#isQuarantined ? 'quarantined' : draining ? 'draining' : health;
    this.#circuits = [circuit, there];
    const rest = ofModel(resting, modelId);
    this.#restUntil = rest?.until ?? 0;
    this.restIsAsked = rest?.isAsked ?? false;
    this.circuit = worse(circuit.state, there.state);
    this.proven = circuit.seen > 0 && circuit.streak === 0 && there.streak === 0;
    this.failureRate = Math.max(failureRate(circuit), failureRate(there));
    this.#isTroubled = this.failureRate > 0 || this.#restUntil > 0;
    if (!this.#isTroubled) {
      this.restMs = 0;
      this.freshFailureRate = 0;
    }
    this.status = this.#health;
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
