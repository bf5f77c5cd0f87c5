import type { Tree } from '../actors/tree.js';
import type { Watch, Watching } from '../actors/watching.js';
import { timestamp } from '../clock.js';
import { SUPERVISED, type Transition } from '../machines/supervision.js';
import type { Message, Source } from './event-stream.js';

const MOST_TRANSITIONS = 50;

/** One actor: as it is, and each step that it takes. */
export function actorChanges(id: string, tree: Tree, watching: Watching): Source {
  let watch: Watch | null = null;
  let shown = '';
  /** The newest that its supervisor had noted. */
  let noted: Transition | undefined;

  function detail(): Message {
    return { event: 'actor', data: JSON.stringify(tree.actor(id)) };
  }

  /** The actor sees neither its crash nor its restart. */
  function ofSupervisor(): Transition[] {
    const all = tree.transitions(id);
    const since = noted === undefined ? 0 : all.lastIndexOf(noted) + 1;
    noted = all.at(-1);
    return all.slice(since).filter(({ event }) => SUPERVISED.has(event));
  }

  function steps(): Message[] {
    const seen = watch?.take() ?? { transitions: [], omitted: 0 };
    const all = [...ofSupervisor(), ...seen.transitions].sort((a, b) => a.at - b.at);
    const told = all.slice(0, MOST_TRANSITIONS);
    const omitted = seen.omitted + all.length - told.length;
    return told.map(({ at, event, from, to }, i) => ({
      event: 'transition',
      data: JSON.stringify({
        at: timestamp(at),
        event,
        from,
        to,
        omitted: i === told.length - 1 ? omitted : 0,
      }),
    }));
  }

  return {
    start() {
      watch = watching.watch(id, MOST_TRANSITIONS);
      noted = tree.transitions(id).at(-1);
      shown = JSON.stringify(tree.alone(id));
    },
    stop() {
      watch?.end();
      watch = null;
    },
    first: () => [detail()],
    next() {
      const now = tree.alone(id);
      if (now === undefined) return null;
      const messages = steps();
      const text = JSON.stringify(now);
      if (text !== shown) messages.push(detail());
      shown = text;
      return messages;
    },
    last: { event: 'gone', data: JSON.stringify({ id }) },
  };
}
