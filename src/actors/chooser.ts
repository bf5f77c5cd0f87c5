import type { Candidate } from '../machines/candidate.js';
import { type Choice, choose, PLAINLY } from '../machines/choose.js';
import { type Demand, isSurelyLonger, type Pin } from '../machines/demand.js';
import type { PolicyName } from '../machines/policies.js';
import type { Catalogue } from './catalogue.js';
import type { Explorations } from './explorations.js';
import type { Pins } from './pins.js';
import type { Turns } from './turns.js';

/** What is known of a request before it is looked where its conversation was. */
export interface Wanted extends Omit<Demand, 'pin'> {
  readonly model: string;
  /** What its sender says it belongs to. */
  readonly session: string | null;
  /** Its beginnings, shortest first. */
  readonly prefixes: readonly { key: string; bytes: number }[];
}

export interface ChooserDeps {
  catalogue: Catalogue;
  turns: Turns;
  pins: Pins;
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
  look(wanted: Wanted, { tried = NOWHERE, waitedMs = 0 }: Looking = {}): Choice {
    const { catalogue, explorations, policy, overflowMs, random, mono, ahead } = this.#deps;
    const { model } = wanted;
    const now = mono();
    return choose(catalogue.candidates(model, now), this.demandOf(wanted), {
      policy,
      random,
      tried,
      overflowMs,
      waitedMs,
      ahead: ahead(model),
      mono: now,
      mayExplore: policy === 'adaptive' && tried.size === 0 && explorations.mayExplore(model),
    });
  }

  /** The choice of one endpoint that somebody has chosen. */
  only(candidate: Candidate, wanted: Wanted): Choice {
    const { policy, random } = this.#deps;
    const choice = choose([candidate], this.demandOf(wanted), { ...PLAINLY, policy, random });
    return { ...choice, chosen: candidate, trial: false };
  }

  /** It went where the choice says. */
  taken({ chosen, explores, tried }: Choice, wanted: Wanted): void {
    if (chosen === undefined) return;
    const { turns, pins, explorations } = this.#deps;
    const { endpointId, modelId, weight } = chosen;
    turns.note(modelId, endpointId, weight);
    if (tried.size === 0) explorations.note(wanted.model, explores);
    const longest = wanted.prefixes[wanted.prefixes.length - 1];
    if (longest !== undefined) {
      pins.note(keyIn(wanted.model, longest.key), { endpointId, bytes: longest.bytes });
    }
    if (wanted.session !== null) pins.note(keyIn(wanted.model, wanted.session), { endpointId, bytes: 0 });
  }

  /** The largest context there is, in tokens, if the prompt is surely longer; else null. */
  surelyExceeds(wanted: Wanted): number | null {
    const { catalogue, mono } = this.#deps;
    let largest = 0;
    for (const { maxContext } of catalogue.candidates(wanted.model, mono())) {
      if (maxContext === null) return null;
      largest = Math.max(largest, maxContext);
    }
    return largest > 0 && isSurelyLonger(wanted, largest) ? largest : null;
  }

  /** Of an endpoint that is gone. */
  forget(endpointId: string): void {
    this.#deps.turns.forget(endpointId);
    this.#deps.pins.forget(endpointId);
  }

  demandOf(wanted: Wanted): Demand {
    const pin = this.#pinOf(wanted);
    return {
      promptBytes: wanted.promptBytes,
      get textBytes() {
        return wanted.textBytes;
      },
      stream: wanted.stream,
      maxTokens: wanted.maxTokens,
      pin,
    };
  }

  /** Where the longest known beginning was, or the session. */
  #pinOf({ model, prefixes, session }: Wanted): Pin | null {
    const { pins } = this.#deps;
    for (let i = prefixes.length - 1; i >= 0; i -= 1) {
      const pin = pins.get(keyIn(model, (prefixes[i] as { key: string }).key));
      if (pin !== undefined) return pin;
    }
    return session === null ? null : (pins.get(keyIn(model, session)) ?? null);
  }
}

const NOWHERE: ReadonlySet<string> = new Set();

/** An engine's cache is one model's. */
function keyIn(model: string, key: string): string {
  return `${key} ${model}`;
}
