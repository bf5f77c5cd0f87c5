import type { Clock } from '../clock.js';
import { addMinutes, type Range, type SeriesFilter, type Steps, spanOf } from '../machines/series.js';
import type { Store } from '../persistence/store.js';
import type { Block } from './blocks.js';
import type { Books } from './books.js';

/** The sums of a range's steps, everything included that a client has got an answer to. */
export type ReadSeries = (range: Range, filter: SeriesFilter) => Promise<Steps>;

/** One page asks for several metrics at once, and again every few seconds. */
const KEPT_MS = 10_000;
const MOST_KEPT = 64;

/** What was read of the store, kept up with what is written after. */
interface Kept {
  range: Range;
  filter: SeriesFilter;
  first: number;
  until: number;
  /** Blocks that were written while it was being read: some are in it, some are not. */
  meanwhile: Block[];
  /** Null until it is read. */
  stored: { seq: number; steps: Steps } | null;
  whole: Promise<unknown>;
}

export interface SeriesDeps {
  books: Books;
  store: Store;
  clock: Clock;
}

export function seriesOf({ books, store, clock }: SeriesDeps): ReadSeries {
  const kept = new Map<string, Kept>();

  books.onCommit((block) => {
    dropOld();
    for (const one of kept.values()) {
      if (one.stored === null) one.meanwhile.push(block);
      else addBlock(one, block);
    }
  });

  function dropOld(): void {
    const now = clock.mono();
    for (const [key, { until, stored }] of kept) if (stored !== null && until < now) kept.delete(key);
  }

  /** One that is being read is told of what is written meanwhile, so it stays. */
  function dropOldest(): void {
    for (const [key, { stored }] of kept) {
      if (stored !== null) {
        kept.delete(key);
        return;
      }
    }
  }

  function read(key: string, range: Range, filter: SeriesFilter): Kept {
    const { first, last } = spanOf(range, clock.now());
    const one: Kept = {
      range,
      filter,
      first,
      until: clock.mono() + KEPT_MS,
      meanwhile: [],
      stored: null,
      whole: store.series({ ...filter, range, first, last, run: books.run }).then(
        (stored) => {
          one.stored = stored;
          for (const block of one.meanwhile.splice(0)) addBlock(one, block);
        },
        (error) => {
          if (kept.get(key) === one) kept.delete(key);
          throw error;
        },
      ),
    };
    kept.delete(key);
    kept.set(key, one);
    if (kept.size > MOST_KEPT) dropOldest();
    return one;
  }

  return async (range, filter) => {
    dropOld();
    const key = JSON.stringify([range, filter.endpointId, filter.model]);
    const there = kept.get(key);
    // A wall clock that was set back asks for what was not read.
    const isFit = there !== undefined && there.first <= spanOf(range, clock.now()).first;
    const one = isFit ? there : read(key, range, filter);
    await one.whole;
    const { seq, steps: stored } = one.stored as NonNullable<Kept['stored']>;
    const steps: Steps = new Map([...stored].map(([step, sums]) => [step, { ...sums }]));
    for (const block of books.pendingBlocks()) {
      if (block.lastSeq > seq) addMinutes(steps, range, filter, block.delta.minutes.values());
    }
    return steps;
  };
}

/** A block is in the store as a whole or not at all. */
function addBlock({ stored, range, filter }: Kept, { lastSeq, delta }: Block): void {
  if (stored === null || lastSeq <= stored.seq) return;
  addMinutes(stored.steps, range, filter, delta.minutes.values());
  stored.seq = lastSeq;
}
