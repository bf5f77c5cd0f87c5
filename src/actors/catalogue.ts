import type { Candidate } from '../machines/choose.js';
import type { LeaseTable } from './leases.js';
import type { Roster } from './roster.js';

/** Where a model lives: an endpoint and the name it has there. */
export interface Place {
  endpointId: string;
  modelId: string;
}

export interface Catalogue {
  /** Every place that lists the model; a name without a tag also means `NAME:latest`. */
  places(model: string): readonly Place[];
  candidates(model: string): Candidate[];
  /** Every model that any endpoint lists, by its listed name, sorted. */
  models(): string[];
  /** A list or the set of endpoints has changed: the index is made anew when it is next asked. */
  touch(): void;
}

export function catalogueOf(roster: Roster, leases: LeaseTable): Catalogue {
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

  return {
    places,
    candidates: (model) =>
      places(model)
        // One that was removed while its supervisor was away is in the index until that is back.
        .filter(({ endpointId }) => roster.config(endpointId) !== undefined)
        .map(({ endpointId, modelId }) => ({
          endpointId,
          modelId,
          status: roster.status(endpointId),
          active: leases.count(endpointId),
        })),
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
