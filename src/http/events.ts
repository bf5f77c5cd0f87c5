import type { Books } from '../actors/books.js';
import type { House } from '../actors/house.js';
import type { LeaseTable } from '../actors/leases.js';
import type { Problems } from '../actors/problems.js';
import type { Tree } from '../actors/tree.js';
import type { Views } from '../actors/view.js';
import type { Watching } from '../actors/watching.js';
import { actorChanges } from './actor-changes.js';
import type { EventPath } from './doorways.js';
import { ApiError } from './errors.js';
import { EventStream, type EventStreamDeps, type Source } from './event-stream.js';
import type { LiveRequest } from './inference.js';
import { liveChanges } from './live-changes.js';
import { overviewChanges } from './overview-changes.js';
import { treeChanges } from './tree-changes.js';

export interface EventsDeps extends EventStreamDeps {
  house: House;
  books: Books;
  leases: LeaseTable;
  views: Views;
  tree: Tree;
  watching: Watching;
  problems: Problems;
  live: () => LiveRequest[];
}

export interface Events {
  /** The stream of a path; throws where its actor is not. */
  at(path: EventPath, id: string): EventStream;
  closeAll(): void;
}

/** Everything that is pushed to whoever looks. */
export function eventsOf(deps: EventsDeps): Events {
  const { tree, watching, live } = deps;
  const streamOf = (source: Source) => new EventStream(source, deps);
  const overview = streamOf(overviewChanges(deps));
  const actors = streamOf(treeChanges(tree));
  const requests = streamOf(liveChanges(live));
  /** Those that somebody looks at. */
  const ofActors = new Map<string, EventStream>();

  function ofActor(id: string): EventStream {
    if (tree.alone(id) === undefined) throw new ApiError('not_found', `no actor has the id ${id}`);
    const known = ofActors.get(id);
    if (known !== undefined) return known;
    const source = actorChanges(id, tree, watching);
    const stream = streamOf({
      ...source,
      start() {
        ofActors.set(id, stream);
        source.start();
      },
      stop() {
        ofActors.delete(id);
        source.stop();
      },
    });
    return stream;
  }

  return {
    at(path, id) {
      switch (path) {
        case '/api/dashboard/events':
          return overview;
        case '/api/dashboard/actors/events':
          return actors;
        case '/api/dashboard/actors/:id/events':
          return ofActor(id);
        case '/api/dashboard/requests/live/events':
          return requests;
      }
    },

    closeAll() {
      for (const stream of [overview, actors, requests, ...ofActors.values()]) stream.closeAll();
    },
  };
}
