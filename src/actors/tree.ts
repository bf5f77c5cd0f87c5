import type { AnyActorRef } from 'xstate';
import { timestamp } from '../clock.js';
import type { RosterEntry } from '../machines/endpoints.js';
import type { RootContext } from '../machines/root.js';
import { type ChildRecord, type ChildStatus, newChild, type Transition } from '../machines/supervision.js';
import type { Books } from './books.js';
import { describe } from './describe.js';
import type { House } from './house.js';
import type { LeaseTable } from './leases.js';
import { actorNamed, kindOf, names } from './names.js';

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

export interface Tree {
  root(): ActorView;
  actor(id: string): ActorDetail | undefined;
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

  function view(id: string, record: ChildRecord, children: ActorView[]): ActorView {
    const ref = id === 'root' ? (house.root as AnyActorRef) : actorNamed(house.system, id);
    const snapshot = ref?.getSnapshot();
    const alive = snapshot?.status === 'active';
    return {
      id,
      kind: kindOf(id),
      state: alive ? stateOf(snapshot) : null,
      status: alive || record.status !== 'active' ? record.status : 'stopped',
      context: alive ? describe(kindOf(id), snapshot, deps) : {},
      restarts: record.restarts,
      last_error: record.lastError,
      children,
    };
  }

  function box(id: string, entry: RosterEntry): ActorView {
    const name = names.box(id);
    const down = entry.status === 'running' ? undefined : entry.status;
    const settled = (record: ChildRecord) => (down === undefined ? record : { ...record, status: down });
    const children = Object.entries(entry.actors)
      .filter(([actorId]) => actorId !== name)
      .map(([actorId, record]) => view(actorId, settled(record), probes(actorId)));
    return view(name, settled(entry.actors[name] ?? newChild('box')), children);
  }

  /** The running probe is its endpoint's only child. */
  function probes(actorId: string): ActorView[] {
    const snapshot = actorNamed(house.system, actorId)?.getSnapshot();
    return Object.keys(snapshot?.children ?? {}).map((id) => ({
      id,
      kind: kindOf(id),
      state: null,
      status: 'active',
      context: {},
      restarts: 0,
      last_error: null,
      children: [],
    }));
  }

  function root(): ActorView {
    const context = rootContext();
    const children = Object.entries(context.children).map(([id, record]) =>
      view(
        id,
        record,
        id === names.endpoints ? rosterEntries().map(([boxId, entry]) => box(boxId, entry)) : [],
      ),
    );
    return view('root', context.self, children);
  }

  function transitionsOf(id: string): Transition[] {
    const context = rootContext();
    if (id === 'root') return context.self.transitions;
    const own = context.children[id];
    if (own !== undefined) return own.transitions;
    return rosterEntries().flatMap(([, entry]) => entry.actors[id]?.transitions ?? []);
  }

  return {
    root,
    actor(id) {
      const found = find(root(), id);
      if (found === undefined) return undefined;
      const transitions = transitionsOf(id).map(({ at, ...rest }) => ({ at: timestamp(at), ...rest }));
      return { ...found, transitions };
    },
  };
}

function find(actor: ActorView, id: string): ActorView | undefined {
  if (actor.id === id) return actor;
  for (const child of actor.children) {
    const found = find(child, id);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Leaf states joined by `, `; null for an actor without states. */
function stateOf(snapshot: { value?: unknown }): string | null {
  return snapshot.value === undefined ? null : leaves(snapshot.value).join(', ');
}

function leaves(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return Object.entries(value as Record<string, unknown>).flatMap(([state, inner]) => {
    const below = leaves(inner);
    return below.length === 0 ? [state] : below;
  });
}
