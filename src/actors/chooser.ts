import type { Candidate } from '../machines/candidate.js';
import { type Choice, choose, PLAINLY } from '../machines/choose.js';
import { type Demand, isSurelyLonger, type Pin } from '../machines/demand.js';
import type { PolicyName } from '../machines/policies.js';
import type { StoredResponse } from '../machines/records.js';
import type { Catalogue } from './catalogue.js';
import type { Explorations } from './explorations.js';
import type { Pins } from './pins.js';
import type { Turns } from './turns.js';

/** What is known of a request before it is looked where its conversation was. */
export interface Wanted extends Omit<Demand, 'pin' | 'room'> {
  readonly model: string;
  /** What its sender calls the conversation, and who is said to have it. */
  readonly session: string | null;
  readonly user: string | null;
  /** The response, by its id, that it goes on from. */
  readonly previous: string | null;
  /** Its beginnings, shortest first. */
  readonly prefixes: readonly { key: string; bytes: number }[];
}

export interface ChooserDeps {
  catalogue: Catalogue;
  turns: Turns;
  pins: Pins;
  /** Where responses are stored, by their ids. */
  responses: Pins;
  explorations: Explorations;
  policy: PolicyName;
  overflowMs: number;
  random: () => number;
  mono: () => number;
  /** How many wait for the model. */
  ahead: (model: string) => number;
}

/** A request that has been somewhere, or has waited. */
export interface Looking {
  tried?: ReadonlySet<string>;
  waitedMs?: number;
  /** How many have their turn before it; those who wait for the model unless told. */
  ahead?: number;
}

/** Looks at the endpoints of a model and says where a request is to go; remembers what later choices depend on. */
export class Chooser {
  readonly #deps: ChooserDeps;

  constructor(deps: ChooserDeps) {
    this.#deps = deps;
  }

  get policy(): PolicyName {
    return this.#deps.policy;
  }

  /** What the choice refers to is good until the next look. */
  look(wanted: Wanted, { tried = NOWHERE, waitedMs = 0, ahead }: Looking = {}): Choice {
    const { catalogue, explorations, policy, overflowMs, random, mono } = this.#deps;
    const { model } = wanted;
    const now = mono();
    const candidates = catalogue.candidates(model, now);
    return choose(candidates, this.#demandOf(wanted, candidates), {
      policy,
      random,
      tried,
      overflowMs,
      waitedMs,
      ahead: ahead ?? this.#deps.ahead(model),
      mono: now,
      keeper: this.#keeperOf(wanted, candidates),
      mayExplore: policy === 'adaptive' && tried.size === 0 && explorations.mayExplore(model),
    });
  }

  /** The choice of one endpoint that somebody has chosen. */
  only(candidate: Candidate, wanted: Wanted): Choice {
    const { policy, random } = this.#deps;
    const choice = choose([candidate], this.#demandOf(wanted, [candidate]), { ...PLAINLY, policy, random });
    return { ...choice, chosen: candidate, trial: false };
  }

  /** It went where the choice says. */
  taken({ chosen, explores, tried }: Choice, wanted: Wanted): void {
    if (chosen === undefined) return;
    const { turns, pins, explorations } = this.#deps;
    const { endpointId, modelId, weight } = chosen;
    turns.note(modelId, endpointId, weight);
    if (tried.size === 0) explorations.note(wanted.model, explores);
    // All of it, and what a text that goes on from it shares with it.
    for (const { key, bytes } of wanted.prefixes.slice(-2)) {
      pins.note(keyIn(wanted.model, key), { endpointId, bytes });
    }
    const { session, user } = wanted;
    if (session !== null) pins.note(keyIn(wanted.model, session), { endpointId, bytes: 0 });
    if (user !== null) pins.note(keyIn(wanted.model, user), { endpointId, bytes: 0 });
  }

  /** A response that its endpoint may have stored. */
  answered(responseId: string, endpointId: string): void {
    this.#deps.responses.note(responseId, { endpointId, bytes: 0 });
  }

  /** Those of earlier runs, oldest first; one that has been given since is where it was given last. */
  seedResponses(rows: readonly StoredResponse[]): void {
    for (const { id, endpointId } of rows) {
      if (this.#deps.responses.get(id) === undefined) this.answered(id, endpointId);
    }
  }

  /** The largest context there is, in tokens, if the prompt is surely longer; else null. */
  surelyExceeds(wanted: Wanted): number | null {
    let largest = 0;
    // One that may hold it is enough, and mostly the first.
    for (const { context } of this.#deps.catalogue.places(wanted.model)) {
      if (context === null || !isSurelyLonger(wanted, context)) return null;
      largest = Math.max(largest, context);
    }
    return largest > 0 ? largest : null;
  }

  /** Of an endpoint that is gone, or is elsewhere now: it may still have the responses that it gave. */
  forget(endpointId: string): void {
    this.#deps.turns.forget(endpointId);
    this.#deps.pins.forget(endpointId);
  }

  /** The one endpoint that has the response a request goes on from, as long as it is there and has the model. */
  #keeperOf({ previous }: Wanted, candidates: readonly Candidate[]): string | null {
    if (previous === null) return null;
    const keeper = this.#deps.responses.get(previous)?.endpointId;
    return candidates.find(({ endpointId }) => endpointId === keeper)?.endpointId ?? null;
  }

  #demandOf(wanted: Wanted, candidates: readonly Candidate[]): Demand {
    const { maxTokens } = wanted;
    const room = maxTokens === null ? 0 : roomFor(maxTokens, candidates);
    return new DemandOf(wanted, room, this.#pinOf(wanted, candidates));
  }

  /**
   * Of the endpoints that may serve it now, the one that had the longest known beginning, else the session, else the
   * user. Who follows whatever it costs follows the name first: a short beginning may be anybody's.
   */
  #pinOf({ model, prefixes, session, user }: Wanted, candidates: readonly Candidate[]): Pin | null {
    const { pins, policy } = this.#deps;
    const servingPin = (key: string | null): Pin | null => {
      const pin = key === null ? undefined : pins.get(keyIn(model, key));
      if (pin === undefined) return null;
      const { endpointId } = pin;
      return candidates.some((one) => one.endpointId === endpointId && one.status === 'online') ? pin : null;
    };
    const named = servingPin(session);
    const home = policy === 'affinity' ? (named?.endpointId ?? null) : null;
    for (let i = prefixes.length - 1; i >= 0; i -= 1) {
      const pin = servingPin((prefixes[i] as { key: string }).key);
      if (pin !== null && (home === null || pin.endpointId === home)) return pin;
    }
    return named ?? servingPin(user);
  }
}

/** What is wanted, at the endpoints there are; its text is looked for only if somebody asks how long it is. */
class DemandOf implements Demand {
  readonly promptBytes: number;
  readonly stream: boolean;
  readonly maxTokens: number | null;
  readonly room: number;
  readonly pin: Pin | null;
  readonly #wanted: Wanted;

  constructor(wanted: Wanted, room: number, pin: Pin | null) {
    this.promptBytes = wanted.promptBytes;
    this.stream = wanted.stream;
    this.maxTokens = wanted.maxTokens;
    this.room = room;
    this.pin = pin;
    this.#wanted = wanted;
  }

  get textBytes(): number {
    return this.#wanted.textBytes;
  }
}

/** The part of a context that an answer needs, as far as any endpoint has it: a wish for more says nothing of this one. */
function roomFor(maxTokens: number, candidates: readonly Candidate[]): number {
  const fits = ({ maxContext }: Candidate) => maxContext === null || maxContext > maxTokens;
  return candidates.some(fits) ? maxTokens : 0;
}

const NOWHERE: ReadonlySet<string> = new Set();

/** An engine's cache is one model's. */
function keyIn(model: string, key: string): string {
  return `${key} ${model}`;
}
