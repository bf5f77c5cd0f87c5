import type { Vault } from '../access/vault.js';
import type { Candidate } from '../machines/candidate.js';
import type { PolicyName } from '../machines/policies.js';
import { hasTag } from '../machines/tags.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { LeaseTable } from './leases.js';
import { isOffered } from './offered.js';
import type { Roster } from './roster.js';
import { Seat } from './seat.js';
import type { Turns } from './turns.js';

/** Where a model lives: an endpoint and the name it has there. */
export interface Place {
  readonly endpointId: string;
  readonly modelId: string;
}

/** A place that is there. */
export interface OfferedPlace extends Place {
  /** How much it can hold, in tokens, as of now; null: nobody knows. */
  readonly context: number | null;
}

export interface CatalogueDeps {
  roster: Roster;
  leases: LeaseTable;
  vault: Vault;
  turns: Turns;
  policy: PolicyName;
  /** Reads the tokens per second of a place again and again. */
  tps: (place: Place) => () => number | null;
}

export interface Catalogue {
  /** Every place that offers the model; a name without a tag also means `NAME:latest`. */
  places(model: string): readonly OfferedPlace[];
  /** What the chooser sees of them, good until the next look; `mono` is monotonic, ms. */
  candidates(model: string, mono: number): readonly Candidate[];
  candidate(place: Place, mono: number): Candidate;
  /** Every model that any endpoint offers, by its listed name, sorted. */
  models(): string[];
  /** A list or the set of endpoints has changed: the index is made anew when it is next asked. */
  touch(): void;
}

export function catalogueOf({ roster, leases, vault, turns, policy, tps }: CatalogueDeps): Catalogue {
  let index: Map<string, Seat[]> | undefined;

  function seats(model: string): readonly Seat[] {
    index ??= newIndex();
    const exact = index.get(model) ?? NONE;
    if (hasTag(model)) return exact;
    const latest = index.get(`${model}:latest`);
    if (latest === undefined) return exact;
    const there = new Set(exact.map(({ endpointId }) => endpointId));
    return [...exact, ...latest.filter(({ endpointId }) => !there.has(endpointId))];
  }

  function newIndex(): Map<string, Seat[]> {
    const made = new Map<string, Seat[]>();
    for (const config of roster.configs()) {
      for (const { modelId } of roster.facts(config.id).models) {
        if (!isOffered(config, modelId)) continue;
        const list = made.get(modelId);
        const seat = newSeat(config, modelId);
        if (list === undefined) made.set(modelId, [seat]);
        else list.push(seat);
      }
    }
    return made;
  }

  function newSeat(config: EndpointConfig, modelId: string): Seat {
    const place = { endpointId: config.id, modelId };
    return new Seat(config, modelId, {
      facts: roster.reader(config.id),
      standing: leases.standing(config.id),
      isQuarantined: roster.entry(config.id)?.status === 'quarantined',
      isLocked: vault.isLost(config.id) ? () => vault.isLost(config.id) : null,
      // What no other policy looks at is looked up for the one that does.
      tps: policy === 'fastest' ? tps(place) : null,
      turn: policy === 'round-robin' ? turns.reader(modelId, config.id) : null,
    });
  }

  return {
    places: seats,

    candidates(model, mono) {
      const all = seats(model);
      for (const seat of all) seat.update(mono);
      return all;
    },

    candidate(place, mono) {
      const config = roster.config(place.endpointId);
      if (config === undefined) throw new Error(`no endpoint ${place.endpointId}`);
      const seat = newSeat(config, place.modelId);
      seat.update(mono);
      return seat;
    },

    models() {
      index ??= newIndex();
      return [...index.keys()].sort();
    },

    touch() {
      index = undefined;
    },
  };
}

const NONE: readonly Seat[] = [];
