import { type Clock, hourOf, minuteOf } from '../clock.js';
import { type Store, StoreError } from '../persistence/store.js';
import type { Books } from './books.js';

const CHECKPOINT_EVERY_MS = 1000;
const RETENTION_EVERY_MS = 60_000;
/** A slice of old rows is followed by the next after this pause, as long as slices are full. */
const SLICE_PAUSE_MS = 200;
const SLICE_ROWS = 500;
const MINUTES_KEPT = 2 * 24 * 60;
const HOURS_KEPT = 8 * 24;
const DECISIONS_KEPT = 10_000;
const DAY_MS = 86_400_000;

export interface HousekeepingDeps {
  store: Store;
  books: Books;
  clock: Clock;
  /** 0 = for ever. */
  retentionDays: number;
  /** Forgets what is over in the directory of users, keys and sessions. */
  sweep: () => Promise<void>;
  log: { warn(details: object, message: string): void };
}

/** Checkpoints, retention and roll-up; called with every tick, does what is due and never waits. */
export function housekeeping({
  store,
  books,
  clock,
  retentionDays,
  sweep,
  log,
}: HousekeepingDeps): () => void {
  let nextCheckpoint = 0;
  let nextSlice = 0;
  let busy = false;

  function warn(error: Error, message: string): void {
    // It was closed meanwhile: the server ends.
    if (error instanceof StoreError && error.code === 'closed') return;
    log.warn({ reason: error.message }, message);
  }

  async function slice(): Promise<boolean> {
    const now = clock.now();
    let more = false;
    await sweep();
    if (retentionDays > 0) {
      const before = now - retentionDays * DAY_MS;
      more = (await store.expireRequests(before, SLICE_ROWS)) >= SLICE_ROWS;
      more = (await store.expireResponses(before, SLICE_ROWS)) >= SLICE_ROWS || more;
    }
    more = (await store.trimDecisions(DECISIONS_KEPT, SLICE_ROWS)) >= SLICE_ROWS || more;
    more = (await store.foldMinutes(minuteOf(now) - MINUTES_KEPT, SLICE_ROWS)) >= SLICE_ROWS || more;
    return (await store.expireHistograms(hourOf(now) - HOURS_KEPT, SLICE_ROWS)) >= SLICE_ROWS || more;
  }

  return () => {
    const mono = clock.mono();
    if (mono >= nextCheckpoint) {
      nextCheckpoint = mono + CHECKPOINT_EVERY_MS;
      store.checkpoint().catch((error: Error) => warn(error, 'checkpoint failed'));
    }
    // Old rows wait while batches do.
    if (busy || mono < nextSlice || books.pending.rows > 0 || store.trouble !== null) return;
    busy = true;
    slice()
      .then(
        (more) => {
          nextSlice = clock.mono() + (more ? SLICE_PAUSE_MS : RETENTION_EVERY_MS);
        },
        (error: Error) => {
          nextSlice = clock.mono() + RETENTION_EVERY_MS;
          warn(error, 'old rows could not be cleared');
        },
      )
      .finally(() => {
        busy = false;
      });
  };
}
