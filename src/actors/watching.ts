import type { InspectionEvent } from 'xstate';
import type { Transition } from '../machines/supervision.js';
import { actorNamed, type System } from './names.js';
import { stateOf } from './tree.js';

/** What an actor did since it was last asked; past `most` only how many more there were. */
export interface Seen {
  transitions: Transition[];
  omitted: number;
}

export interface Watch {
  /** Since the last call. */
  take(): Seen;
  end(): void;
}

export interface Watching {
  watch(actorId: string, most: number): Watch;
}

interface Snapshot {
  value?: unknown;
  context?: unknown;
}

interface Watched {
  most: number;
  seen: Seen;
  state: string | null;
  context: unknown;
}

/** Of these its supervisor tells. */
const OF_LIFE = new Set(['xstate.init', 'xstate.stop']);

/**
 * Sees each event that changes an actor, not only those its supervisor is told of. The inspector makes every event of
 * the house dearer, so it is there only while somebody watches; it runs within `send`, so nothing in it may throw.
 */
export function watchingOf(system: () => System, now: () => number): Watching {
  const watched = new Map<string, Set<Watched>>();
  let inspector: { unsubscribe(): void } | null = null;

  function inspect(inspected: InspectionEvent): void {
    if (inspected.type !== '@xstate.snapshot') return;
    const { id } = inspected.actorRef as { id?: string };
    for (const one of watched.get(id ?? '') ?? NOBODY)
      note(one, inspected.event.type, inspected.snapshot as Snapshot);
  }

  function note(one: Watched, event: string, { value, context }: Snapshot): void {
    const from = one.state;
    const before = one.context;
    one.state = stateOf({ value });
    one.context = context;
    if (OF_LIFE.has(event) || (from === one.state && before === context)) return;
    if (one.seen.transitions.length >= one.most) one.seen.omitted += 1;
    else one.seen.transitions.push({ at: now(), event, from, to: one.state });
  }

  return {
    watch(actorId, most) {
      const snapshot: Snapshot | undefined = actorNamed(system(), actorId)?.getSnapshot();
      const one: Watched = {
        most,
        seen: { transitions: [], omitted: 0 },
        state: snapshot === undefined ? null : stateOf(snapshot),
        context: snapshot?.context,
      };
      const those = watched.get(actorId) ?? new Set();
      watched.set(actorId, those.add(one));
      inspector ??= system().inspect(inspect);
      return {
        take() {
          const { seen } = one;
          one.seen = { transitions: [], omitted: 0 };
          return seen;
        },
        end() {
          those.delete(one);
          if (those.size === 0 && watched.get(actorId) === those) watched.delete(actorId);
          if (watched.size > 0) return;
          inspector?.unsubscribe();
          inspector = null;
        },
      };
    },
  };
}

const NOBODY: ReadonlySet<Watched> = new Set();
