import { appendFile, readFile, rename, rm } from 'node:fs/promises';
import type { EngineModel } from '../engines/engine.js';
import type { Tally } from '../machines/histogram.js';
import type { HourHistogram } from '../machines/hour-histograms.js';
import type { RequestRecord } from '../machines/records.js';
import type { Counters, DailySums, MinuteSums } from '../machines/sums.js';
import type { DailyUsage } from '../machines/usage.js';
import type { EndpointConfig, Store } from '../persistence/store.js';
import { type Block, renameEndpoint } from './blocks.js';
import type { Books, HealthState } from './books.js';
import { createdAtStart } from './endpoint-audit.js';

/** One line of `troupe.unsaved.ndjson`: a block with the run and the numbers its cursor is tested by. */
interface SavedBlock {
  run: string;
  firstSeq: number;
  lastSeq: number;
  rows: RequestRecord[];
  counters: [string, Counters][];
  daily: [string, DailySums][];
  minutes: [string, MinuteSums][];
  /** A file of an earlier version has neither of these two. */
  usage?: [string, DailyUsage][];
  histograms?: [string, SavedHistogram][];
  health: [string, HealthState][];
  models: [string, EngineModel[]][];
  /** Endpoints that had no row in the store when the block was saved. */
  provisional: EndpointConfig[];
}

type SavedHistogram = Omit<HourHistogram, 'histogram'> & { histogram: [number, Tally][] };

/** Appends what could not be written to the database. */
export async function saveUnsaved(file: string, books: Books): Promise<void> {
  const provisional = books.provisional();
  const lines = books.pendingBlocks().map((block) => {
    const saved: SavedBlock = {
      run: block.run,
      firstSeq: block.firstSeq,
      lastSeq: block.lastSeq,
      rows: block.rows,
      counters: [...block.delta.counters],
      daily: [...block.delta.daily],
      minutes: [...block.delta.minutes],
      usage: [...block.delta.usage],
      histograms: [...block.delta.histograms].map(([key, row]) => [
        key,
        { ...row, histogram: [...row.histogram] },
      ]),
      health: [...block.health],
      models: [...block.models],
      provisional,
    };
    return `${JSON.stringify(saved)}\n`;
  });
  await appendFile(file, lines.join(''), { mode: 0o600 });
}

/**
 * Writes what an earlier run saved, then removes the file; answers the number of records. A line that was written
 * already is left out by its cursor; one that was cut short cannot be read, and its file is kept under another name.
 * The file stays as it is if the store fails.
 */
export async function importUnsaved(file: string, store: Store): Promise<Imported> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  const imported: Imported = { records: 0, unreadable: 0 };
  if (text === '') return imported;
  for (const line of text.split('\n').filter((one) => one !== '')) {
    const saved = parse(line);
    if (saved === undefined) {
      imported.unreadable += 1;
      continue;
    }
    const block = blockOf(saved);
    await giveRows(saved.provisional, block, store);
    await store.apply(block);
    imported.records += block.rows.length;
  }
  if (imported.unreadable > 0) await rename(file, `${file}.unreadable-${Date.now()}`);
  else await rm(file);
  return imported;
}

export interface Imported {
  records: number;
  unreadable: number;
}

/** What an endpoint of an earlier version does not say. */
const SINCE_ADDED = {
  weight: 1,
  priority: 0,
  maxContext: null,
  modelsAllow: null,
  modelsDeny: null,
  modelSettings: {},
};

/** What the minutes of an earlier version do not say. */
const SINCE_COUNTED = { ttftCount: 0, ttftMs: 0, sampleTokens: 0, sampleMs: 0 };

/** Endpoints that had no row get one; where their URL has one by now, the block is for that endpoint. */
async function giveRows(provisional: EndpointConfig[], block: Block, store: Store): Promise<void> {
  if (provisional.length === 0) return;
  const stored = await store.seedEndpoints();
  for (const saved of provisional) {
    const config = { ...SINCE_ADDED, ...saved };
    const there = stored.find((one) => one.config.baseUrl === config.baseUrl);
    if (there === undefined) await store.insertEndpoint(config, null, createdAtStart(config));
    else if (there.config.id !== config.id) renameEndpoint(block, config.id, there.config.id);
  }
}

function parse(line: string): SavedBlock | undefined {
  try {
    return JSON.parse(line) as SavedBlock;
  } catch {
    return undefined;
  }
}

function blockOf(saved: SavedBlock): Block {
  return {
    run: saved.run,
    firstSeq: saved.firstSeq,
    lastSeq: saved.lastSeq,
    // Rows of an earlier version say nothing of whose they were.
    rows: saved.rows.map((row) => ({ ...row, keyId: row.keyId ?? null, userId: row.userId ?? null })),
    delta: {
      counters: new Map(saved.counters),
      daily: new Map(saved.daily),
      minutes: new Map(saved.minutes.map(([key, row]) => [key, { ...SINCE_COUNTED, ...row }])),
      usage: new Map(saved.usage ?? []),
      histograms: new Map(
        (saved.histograms ?? []).map(([key, row]) => [key, { ...row, histogram: new Map(row.histogram) }]),
      ),
    },
    health: new Map(saved.health),
    models: new Map(saved.models),
    bytes: 0,
    sealed: true,
  };
}
