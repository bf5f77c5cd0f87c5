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

/** Output tokens per second of a model at an endpoint, of the first kind that was measured; null: none was. */
export function tpsOf(system: System, endpointId: string, modelId: string): number | null {
  for (const kind of KINDS) {
    const snapshot = actorNamed(system, names.tps(endpointId, modelId, kind))?.getSnapshot();
    const ema = snapshot?.status === 'active' ? (snapshot.context as TpsState).ema : null;
    if (ema !== null) return ema;
  }
  return null;
}
