import { fromStore } from '@xstate/store';
import { addToRing, type Ring, type Slot } from './ring.js';

/** The actor of the timeline and of the average response time. */
export const historyLogic = fromStore({
  context: (input: { ring: Ring }) => ({ ring: input.ring }),
  on: {
    finished: (context, event: { slot: Slot }) => addFinished(context, event),
    reseed: (_context, event: { ring: Ring }) => ({ ring: event.ring }),
  },
});

export function addFinished({ ring }: { ring: Ring }, { slot }: { slot: Slot }): { ring: Ring } {
  return { ring: addToRing(ring, slot) };
}
