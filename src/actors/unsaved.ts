import { appendFile, readFile, rm } from 'node:fs/promises';
import type { EngineModel } from '../engines/engine.js';
import type { RequestRecord } from '../machines/records.js';
import type { Counters, DailySums, MinuteSums } from '../machines/sums.js';
import type { Store } from '../persistence/store.js';
import type { Block, HealthState } from './books.js';

/** One line of `troupe.unsaved.ndjson`: a block with the run and the numbers its cursor is tested by. */
interface SavedBlock {
  run: string;
  firstSeq: number;
  lastSeq: number;
  rows: RequestRecord[];
  counters: [string, Counters][];
  daily: [string, DailySums][];
  minutes: [string, MinuteSums][];
  health: [string, HealthState][];
  models: [string, EngineModel[]][];
}

/** Appends what could not be written to the database. */
export async function saveUnsaved(file: string, blocks: readonly Block[]): Promise<void> {
  const lines = blocks.map((block) => {
    const saved: SavedBlock = {
      run: block.run,
      firstSeq: block.firstSeq,
      lastSeq: block.lastSeq,
      rows: block.rows,
      counters: [...block.delta.counters],
      daily: [...block.delta.daily],
      minutes: [...block.delta.minutes],
      health: [...block.health],
      models: [...block.models],
    };
    return `${JSON.stringify(saved)}\n`;
  });
  await appendFile(file, lines.join(''), { mode: 0o600 });
}

/**
 * Writes what an earlier run saved, then removes the file; answers the number of records. A line that was
 * written already is left out by its cursor. The file stays as it is if the store fails.
 */
export async function importUnsaved(file: string, store: Store): Promise<number> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  let records = 0;
  for (const line of text.split('\n')) {
    const block = blockOf(line);
    if (block === undefined) continue;
    await store.apply(block);
    records += block.rows.length;
  }
  if (text !== '') await rm(file);
  return records;
}

/** A line that was cut short while it was written is no block. */
function blockOf(line: string): Block | undefined {
  if (line === '') return undefined;
  try {
    const saved = JSON.parse(line) as SavedBlock;
    return {
      run: saved.run,
      firstSeq: saved.firstSeq,
      lastSeq: saved.lastSeq,
      rows: saved.rows,
      delta: {
        counters: new Map(saved.counters),
        daily: new Map(saved.daily),
        minutes: new Map(saved.minutes),
      },
      health: new Map(saved.health),
      models: new Map(saved.models),
      bytes: 0,
      sealed: true,
    };
  } catch {
    return undefined;
  }
}
