import type { Vault } from '../access/vault.js';
import type { Candidate } from '../machines/candidate.js';
import { failureRate, freshFailureRate, NEW_CIRCUIT, worse } from '../machines/circuit.js';
import { ofModel } from '../machines/endpoint.js';
import type { LeaseTable } from './leases.js';
import type { Roster } from './roster.js';
import type { Turns } from './turns.js';

/** Where a model lives: an endpoint and the name it has there. */
export interface Place {
  endpointId: string;
  modelId: string;
}

export interface CatalogueDeps {
  roster: Roster;
  leases: LeaseTable;
  vault: Vault;
  turns: Turns;
  /** Tokens per second of a place, as far as the policy asks for it. */
  tps: (place: Place) => number | null;
}

export interface Catalogue {
  /** Every place that lists the model; a name without a tag also means `NAME:latest`. */
  places(model: string): readonly Place[];
  /** What the chooser sees of them; `mono` is monotonic, ms. */
  candidates(model: string, mono: number): Candidate[];
  candidate(place: Place, mono: number): Candidate;
  /** Every model that any endpoint lists, by its listed name, sorted. */
  models(): string[];
  /** A list or the set of endpoints has changed: the index is made anew when it is next asked. */
  touch(): void;
}

export function catalogueOf({ roster, leases, vault, turns, tps }: CatalogueDeps): Catalogue {
  let index: Map<string, Place[]> | undefined;

  function places(model: string): readonly Place[] {
    index ??= indexOf(roster);
    const exact = index.get(model) ?? [];
    if (model.includes(':')) return exact;
    const latest = index.get(`${model}:latest`);
    if (latest === undefined) return exact;
    const there = new Set(exact.map(({ endpointId }) => endpointId));
    return [...exact, ...latest.filter(({ endpointId }) => !there.has(endpointId))];
  }

  function candidate({ endpointId, modelId }: Place, mono: number): Candidate {
    const { circuit, modelCircuits, resting } = roster.facts(endpointId);
    const config = roster.config(endpointId);
    const there = ofModel(modelCircuits, modelId) ?? NEW_CIRCUIT;
    return {
      endpointId,
      modelId,
      // Without its key there is no use in asking it.
      status: vault.isLost(endpointId) ? 'offline' : roster.status(endpointId),
      active: leases.count(endpointId),
      maxConcurrency: config?.maxConcurrency ?? null,
      weight: config?.weight ?? 1,
      priority: config?.priority ?? 0,
      tps: tps({ endpointId, modelId }),
      turn: turns.of(modelId, endpointId),
      circuit: worse(circuit.state, there.state),
      onTrial: leases.isOnTrial(endpointId),
      proven: circuit.seen > 0 && circuit.streak === 0 && there.streak === 0,
      failureRate: Math.max(failureRate(circuit), failureRate(there)),
      freshFailureRate: Math.max(freshFailureRate(circuit, mono), freshFailureRate(there, mono)),
      restMs: Math.max(0, (ofModel(resting, modelId) ?? 0) - mono),
      hung: leases.isHung(endpointId, mono),
    };
  }

  return {
    places,
    candidate,
    candidates: (model, mono) =>
      places(model)
        // One that was removed while its supervisor was away is in the index until that is back.
        .filter(({ endpointId }) => roster.config(endpointId) !== undefined)
        .map((place) => candidate(place, mono)),
    models() {
      index ??= indexOf(roster);
      return [...index.keys()].sort();
    },
    touch() {
      index = undefined;
    },
  };
}

function indexOf(roster: Roster): Map<string, Place[]> {
  const index = new Map<string, Place[]>();
  for (const { id } of roster.configs()) {
    for (const { modelId } of roster.facts(id).models) {
      const places = index.get(modelId);
      const place = { endpointId: id, modelId };
      if (places === undefined) index.set(modelId, [place]);
      else places.push(place);
    }
  }
  return index;
}
