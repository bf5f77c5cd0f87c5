import type { EndpointStatus } from '../machines/candidate.js';
import { type EndpointContext, nothingLearned } from '../machines/endpoint.js';
import type { EndpointsContext, RosterEntry } from '../machines/endpoints.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { Books, EndpointSeed } from './books.js';
import { actorNamed, names, type System } from './names.js';

/** An endpoint as everybody reads it: the actor's snapshot, or its exact seed while the actor is away. */
export type EndpointFacts = Pick<
  EndpointContext,
  | 'health'
  | 'draining'
  | 'success'
  | 'failed'
  | 'engineType'
  | 'latencyMs'
  | 'lastSeen'
  | 'lastError'
  | 'errorCount'
  | 'models'
  | 'loaded'
  | 'circuit'
  | 'modelCircuits'
  | 'resting'
  | 'paces'
  | 'foreign'
>;

export interface Roster {
  configs(): EndpointConfig[];
  config(id: string): EndpointConfig | undefined;
  entry(id: string): RosterEntry | undefined;
  /** All of them, for whoever goes through them. */
  entries(): Readonly<Record<string, RosterEntry>>;
  facts(id: string): EndpointFacts;
  /** Reads the facts of one endpoint again and again: the same object as long as nothing changed. */
  reader(id: string): () => EndpointFacts;
  status(id: string): EndpointStatus;
}

export function rosterOf(system: () => System, books: Books, empty: EndpointSeed): Roster {
  /** The supervisor's context; the last one it had while it is being restarted. */
  let last: EndpointsContext = { roster: {} };

  function context(): EndpointsContext {
    const snapshot = actorNamed(system(), names.endpoints)?.getSnapshot();
    if (snapshot?.status === 'active') last = snapshot.context as EndpointsContext;
    return last;
  }

  function facts(id: string): EndpointFacts {
    const snapshot = actorNamed(system(), names.endpoint(id))?.getSnapshot();
    if (snapshot?.status === 'active') return snapshot.context as EndpointContext;
    return { ...(books.endpoint(id) ?? empty), ...nothingLearned() };
  }

  function entry(id: string): RosterEntry | undefined {
    return context().roster[id];
  }

  return {
    configs: () => books.configs(),
    config: (id) => books.config(id),
    entry,
    entries: () => context().roster,
    facts,
    reader(id) {
      let actor = actorNamed(system(), names.endpoint(id));
      return () => {
        const snapshot = actor?.getSnapshot();
        if (snapshot?.status === 'active') return snapshot.context as EndpointContext;
        // It was restarted, or is away.
        actor = actorNamed(system(), names.endpoint(id));
        return facts(id);
      };
    },
    status: (id) => statusOf(entry(id), facts(id)),
  };
}

/** Quarantined if its actor crashed too often, else draining, else its health. */
export function statusOf(
  entry: RosterEntry | undefined,
  { health, draining }: Pick<EndpointFacts, 'health' | 'draining'>,
): EndpointStatus {
  if (entry?.status === 'quarantined') return 'quarantined';
  return draining ? 'draining' : health;
}
