import type { Tracker } from '../machines/box.js';
import type { Books } from './books.js';
import { names } from './names.js';

/** The trackers a box starts with: one per model × kind that gave a sample today. */
export function trackersOf(books: Books, endpointId: string, today: string): Tracker[] {
  return books
    .modelSums(today, endpointId)
    .filter((row) => row.today.samples > 0)
    .map(({ modelId, kind }) => ({ actorId: names.tps(endpointId, modelId, kind), modelId, kind }));
}
