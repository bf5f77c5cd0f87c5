import type { AnyActorRef } from 'xstate';
import type { Tracker } from '../machines/box.js';
import type { ApiKind } from '../machines/records.js';
import type { TpsState } from '../machines/tps.js';
import type { Books } from './books.js';
import { actorNamed, names, type System } from './names.js';

/** The trackers a box starts with: one per model × kind that gave a sample today. */
export function trackersOf(books: Books, endpointId: string, today: string): Tracker[] {
  return books
    .modelSums(today, endpointId)
    .filter((row) => row.today.samples > 0)
    .map(({ modelId, kind }) => ({ actorId: names.tps(endpointId, modelId, kind), modelId, kind }));
}

/** In the order in which they tell most of an endpoint's speed. */
const KINDS: readonly ApiKind[] = ['chat_completions', 'responses', 'messages', 'completions'];

/**
 * Reads the output tokens per second of a model at an endpoint again and again: of the first kind that was measured;
 * null: none was.
 */
export function tpsReader(system: () => System, endpointId: string, modelId: string): () => number | null {
  const [first, ...others] = KINDS.map((kind) => names.tps(endpointId, modelId, kind)) as [
    string,
    ...string[],
  ];
  let actor: AnyActorRef | undefined;
  return () => {
    const known = emaOf(actor);
    if (known !== null) return known;
    // It was restarted, is away, or has not come yet.
    actor = actorNamed(system(), first);
    let ema = emaOf(actor);
    for (let i = 0; ema === null && i < others.length; i += 1) {
      ema = emaOf(actorNamed(system(), others[i] as string));
    }
    return ema;
  };
}

function emaOf(actor: AnyActorRef | undefined): number | null {
  const snapshot = actor?.getSnapshot();
  return snapshot?.status === 'active' ? (snapshot.context as TpsState).ema : null;
}
