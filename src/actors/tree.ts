import type { AnyActorRef } from 'xstate';
import { timestamp } from '../clock.js';
import type { RosterEntry } from '../machines/endpoints.js';
import type { RootContext } from '../machines/root.js';
import { type ChildRecord, type ChildStatus, newChild, type Transition } from '../machines/supervision.js';
import type { Books } from './books.js';
import { describe } from './describe.js';
import type { House } from './house.js';
import type { LeaseTable } from './leases.js';
import { actorNamed, endpointOf, kindOf, names } from './names.js';

export interface ActorView {
  id: string;
  kind: string;
  state: string | null;
  status: ChildStatus;
  context: object;
  restarts: number;
  last_error: string | null;
  children: ActorView[];
}

export interface ActorDetail extends ActorView {
  transitions: { at: string; event: string; from: string | null; to: string | null }[];
}

/** An actor without its summary and those below it. */
export type ActorBrief = Omit<ActorView, 'kind' | 'context' | 'children'>;

export interface Tree {
  root(): ActorView;
  actor(id: string): ActorDetail | undefined;
  /** The actor alone, without those below it. */
  alone(id: string): ActorView | undefined;
  /** What its supervisor noted of it, newest last. */
  transitions(id: string): readonly Transition[];
  /** Every actor but the probes, which come and go with each check. */
  briefs(): ActorBrief[];
  /** The tree without the probes. */
  lasting(): ActorView;
}

export interface TreeDeps {
  house: House;
  books: Books;
  leases: LeaseTable;
}

/** The supervision tree as it lives: snapshots for what runs, the supervisors' records for what does not. */
export function treeOf(deps: TreeDeps): Tree {
  const { house } = deps;

  function rootContext(): RootContext {
    return house.root.getSnapshot().context;
  }

  function rosterEntries(): [string, RosterEntry][] {
    return house.roster.configs().flatMap(({ id }): [string, RosterEntry][] => {
      const entry = house.roster.entry(id);
      return entry === undefined ? [] : [[id, entry]];
    });
  }

  /** What its supervisor keeps of an actor; a child of a box that is away shares its fate. */
  function recordOf(id: string): ChildRecord | undefined {
    if (id === 'root') return rootContext().self;
    const endpointId = endpointOf(id);
    if (endpointId === null) {
      const { children } = rootContext();
      return Object.hasOwn(children, id) ? children[id] : undefined;
    }
    const entry = house.roster.entry(endpointId);
    if (entry === undefined || house.roster.config(endpointId) === undefined) return undefined;
    if (id === names.box(endpointId)) return settled(entry, entry.actors[id] ?? newChild('box'));
    const record = entry.actors[id];
    return record === undefined ? undefined : settled(entry, record);
  }

  function brief(id: string, record: ChildRecord): { brief: ActorBrief; snapshot: Snapshot | undefined } {
    const ref = id === 'root' ? (house.root as AnyActorRef) : actorNamed(house.system, id);
    const snapshot = ref?.getSnapshot();
    const alive = snapshot?.status === 'active';
    return {
      snapshot: alive ? snapshot : undefined,
      brief: {
        id,
        state: alive ? stateOf(snapshot) : null,
        status: alive || record.status !== 'active' ? record.status : 'stopped',
        restarts: record.restarts,
        last_error: record.lastError,
      },
    };
  }

  function view(id: string, record: ChildRecord, children: ActorView[]): ActorView {
    const { brief: known, snapshot } = brief(id, record);
    const { state, status, restarts, last_error } = known;
    const kind = kindOf(id);
    const context = snapshot === undefined ? {} : describe(kind, snapshot, deps);
    return { id, kind, state, status, context, restarts, last_error, children };
  }

  function box(id: string, entry: RosterEntry, probes: Probes): ActorView {
    const name = names.box(id);
    const children = Object.entries(entry.actors)
      .filter(([actorId]) => actorId !== name)
      .map(([actorId, record]) => view(actorId, settled(entry, record), probes(actorId)));
    return view(name, settled(entry, entry.actors[name] ?? newChild('box')), children);
  }

  /** The running probe is its endpoint's only child. */
  function probesOf(actorId: string): ActorView[] {
    const snapshot = actorNamed(house.system, actorId)?.getSnapshot();
    return Object.keys(snapshot?.children ?? {}).map(probe);
  }

  function whole(probes: Probes): ActorView {
    const context = rootContext();
    const children = Object.entries(context.children).map(([id, record]) =>
      view(id, record, id === names.endpoints ? boxes(probes) : []),
    );
    return view('root', context.self, children);
  }

  function boxes(probes: Probes): ActorView[] {
    return rosterEntries().map(([id, entry]) => box(id, entry, probes));
  }

  function runningProbe(id: string): ActorView | undefined {
    const endpointId = endpointOf(id);
    if (kindOf(id) !== 'probe' || endpointId === null) return undefined;
    return probesOf(names.endpoint(endpointId)).find((one) => one.id === id);
  }

  function alone(id: string): ActorView | undefined {
    const record = recordOf(id);
    return record === undefined ? runningProbe(id) : view(id, record, []);
  }

  function below(id: string): ActorView[] {
    if (id === 'root') return whole(probesOf).children;
    if (id === names.endpoints) return boxes(probesOf);
    const endpointId = endpointOf(id);
    const entry = endpointId === null ? undefined : house.roster.entry(endpointId);
    if (endpointId === null || entry === undefined) return [];
    if (id === names.box(endpointId)) return box(endpointId, entry, probesOf).children;
    return id === names.endpoint(endpointId) ? probesOf(id) : [];
  }

  const transitions = (id: string): readonly Transition[] => recordOf(id)?.transitions ?? [];

  return {
    root: () => whole(probesOf),
    lasting: () => whole(() => []),
    alone,
    transitions,

    briefs() {
      const context = rootContext();
      const all = [brief('root', context.self).brief];
      for (const [id, record] of Object.entries(context.children)) all.push(brief(id, record).brief);
      for (const [id, entry] of rosterEntries()) {
        const name = names.box(id);
        if (entry.actors[name] === undefined) all.push(brief(name, settled(entry, newChild('box'))).brief);
        for (const [actorId, record] of Object.entries(entry.actors)) {
          all.push(brief(actorId, settled(entry, record)).brief);
        }
      }
      return all;
    },

    actor(id) {
      const found = alone(id);
      if (found === undefined) return undefined;
      const told = transitions(id).map(({ at, ...rest }) => ({ at: timestamp(at), ...rest }));
      return { ...found, children: below(id), transitions: told };
    },
  };
}

type Probes = (actorId: string) => ActorView[];
type Snapshot = ReturnType<AnyActorRef['getSnapshot']>;

/** As long as a box is away those below it are so too. */
function settled({ status }: RosterEntry, record: ChildRecord): ChildRecord {
  return status === 'running' ? record : { ...record, status };
}

function probe(id: string): ActorView {
  const nothing = { state: null, context: {}, restarts: 0, last_error: null, children: [] };
  return { id, kind: kindOf(id), status: 'active', ...nothing };
}

/** Leaf states joined by `, `; null for an actor without states. */
export function stateOf(snapshot: { value?: unknown }): string | null {
  return snapshot.value === undefined ? null : leaves(snapshot.value).join(', ');
}

function leaves(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return Object.entries(value as Record<string, unknown>).flatMap(([state, inner]) => {
    const below = leaves(inner);
    return below.length === 0 ? [state] : below;
  });
}
