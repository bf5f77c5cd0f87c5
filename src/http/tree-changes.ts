import type { ActorBrief, Tree } from '../actors/tree.js';
import type { Message, Source } from './event-stream.js';

/** Frames between two passes over the tree: one a second. */
const FRAMES = 4;

/** The tree first; then the actors whose state changed, or the tree anew when one came or went. */
export function treeChanges(tree: Tree): Source {
  let known = new Map<string, ActorBrief>();
  let frame = 0;

  function pass(): Message[] {
    const before = known;
    known = new Map(tree.briefs().map((brief) => [brief.id, brief]));
    const changed: ActorBrief[] = [];
    let isSame = known.size === before.size;
    for (const [id, brief] of known) {
      const was = before.get(id);
      if (was === undefined) isSame = false;
      else if (!isSameBrief(brief, was)) changed.push(brief);
    }
    if (!isSame) return [whole()];
    return changed.length === 0 ? [] : [{ event: 'actors', data: JSON.stringify(changed) }];
  }

  function whole(): Message {
    return { event: 'tree', data: JSON.stringify({ root: tree.lasting() }) };
  }

  return {
    start() {
      frame = 0;
      pass();
    },
    stop() {
      known.clear();
    },
    first: () => [whole()],
    next() {
      frame += 1;
      return frame % FRAMES === 0 ? pass() : [];
    },
  };
}

function isSameBrief(a: ActorBrief, b: ActorBrief): boolean {
  return (
    a.state === b.state && a.status === b.status && a.restarts === b.restarts && a.last_error === b.last_error
  );
}
