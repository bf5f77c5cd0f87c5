import { assign, fromPromise, sendParent, setup } from 'xstate';
import { backoffMs } from './backoff.js';

export interface LedgerContext {
  /** Failures in a row. */
  failures: number;
  lastError: string | null;
  batches: number;
}

export type LedgerEvent = { type: 'appended' };

/** Told to the root whenever the ledger moves. */
export interface LedgerMoved {
  type: 'moved';
  actorId: 'ledger';
  event: string;
  to: string;
}

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MOST_MS = 2000;

/** Finished requests → batches in the store. One batch at a time; what waits lies in the books, not here. */
export const ledgerMachine = setup({
  types: { context: {} as LedgerContext, events: {} as LedgerEvent },
  actors: {
    /** Writes the oldest block and tells the books. Provided by the wiring. */
    write: fromPromise<void>(async () => {}),
    /** Makes the store usable again, or rejects. Provided by the wiring. */
    recover: fromPromise<void>(async () => {}),
  },
  actions: {
    announce: sendParent(({ event }, params: { to: string }): LedgerMoved => {
      return { type: 'moved', actorId: 'ledger', event: event.type, to: params.to };
    }),
    noteWritten: assign(({ context }) => ({
      failures: 0,
      lastError: null,
      batches: context.batches + 1,
    })),
    noteFailure: assign(({ context, event }) => ({
      failures: context.failures + 1,
      lastError: 'error' in event && event.error instanceof Error ? event.error.message : 'unknown error',
    })),
  },
  guards: {
    /** True while the books hold something unwritten. Provided by the wiring. */
    hasPending: () => false,
  },
  delays: {
    backoff: ({ context }) => backoffMs(context.failures, BACKOFF_FIRST_MS, BACKOFF_MOST_MS),
  },
}).createMachine({
  id: 'ledger',
  context: { failures: 0, lastError: null, batches: 0 },
  initial: 'idle',
  states: {
    idle: {
      entry: { type: 'announce', params: { to: 'idle' } },
      always: { guard: 'hasPending', target: 'writing' },
      on: { appended: 'writing' },
    },
    writing: {
      entry: { type: 'announce', params: { to: 'writing' } },
      initial: 'batch',
      states: {
        batch: {
          invoke: {
            src: 'write',
            onDone: [
              { guard: 'hasPending', target: 'batch', reenter: true, actions: 'noteWritten' },
              { target: '#ledger.idle', actions: 'noteWritten' },
            ],
            onError: { target: '#ledger.backing off', actions: 'noteFailure' },
          },
        },
      },
    },
    'backing off': {
      entry: { type: 'announce', params: { to: 'backing off' } },
      initial: 'waiting',
      states: {
        waiting: { after: { backoff: 'recovering' } },
        recovering: {
          invoke: {
            src: 'recover',
            onDone: '#ledger.writing',
            onError: { target: 'waiting', actions: 'noteFailure' },
          },
        },
      },
    },
  },
});
