import type { EngineModel } from '../engines/engine.js';
import { hourKey } from '../machines/hour-histograms.js';
import type { RequestRecord } from '../machines/records.js';
import { type Delta, emptyDelta, foldDelta, foldRecord } from '../machines/sums.js';
import type { HealthState } from './books.js';

/** Records that are written together, once: all of them or none. */
export interface Block {
  run: string;
  firstSeq: number;
  lastSeq: number;
  rows: RequestRecord[];
  delta: Delta;
  health: Map<string, HealthState>;
  models: Map<string, EngineModel[]>;
  bytes: number;
  /** A sealed block is being written; it does not change any more. */
  sealed: boolean;
}

export interface BlockLimits {
  /** Rows of one block, so of one transaction. */
  blockRows: number;
  /** Memory for rows that wait; past it the oldest lose their detail, never their sums. */
  maxBytes: number;
}

const BLOCK_LIMITS: BlockLimits = { blockRows: 1000, maxBytes: 64 * 1024 * 1024 };

/** What is not yet written, oldest first: the ledger's queue. */
export class Blocks {
  readonly #run: string;
  readonly #limits: BlockLimits;
  #blocks: Block[] = [];
  #seq = 0;
  #bytes = 0;
  #droppedRows = 0;

  constructor(run: string, limits: BlockLimits = BLOCK_LIMITS) {
    this.#run = run;
    this.#limits = limits;
  }

  append(record: RequestRecord): void {
    const block = this.open();
    block.rows.push(record);
    foldRecord(block.delta, record);
    // They are in the sums now, and belong in no row.
    for (const attempt of record.attempts) attempt.samples = undefined;
    const bytes = roughBytes(record);
    block.bytes += bytes;
    this.#bytes += bytes;
    if (this.#bytes > this.#limits.maxBytes) this.#shed();
  }

  /** The block for what comes now. */
  open(): Block {
    this.#seq += 1;
    const last = this.#blocks[this.#blocks.length - 1];
    if (last !== undefined && !last.sealed && last.rows.length < this.#limits.blockRows) {
      last.lastSeq = this.#seq;
      return last;
    }
    const block: Block = {
      run: this.#run,
      firstSeq: this.#seq,
      lastSeq: this.#seq,
      rows: [],
      delta: emptyDelta(),
      health: new Map(),
      models: new Map(),
      bytes: 0,
      sealed: false,
    };
    this.#blocks.push(block);
    return block;
  }

  /** The oldest, sealed, or undefined when all is written. */
  seal(): Block | undefined {
    const block = this.#blocks[0];
    if (block !== undefined) block.sealed = true;
    return block;
  }

  /** Takes out everything up to `seq`. */
  takeThrough(seq: number): Block[] {
    const taken: Block[] = [];
    while (this.#blocks[0] !== undefined && this.#blocks[0].lastSeq <= seq) {
      const block = this.#blocks.shift() as Block;
      this.#bytes -= block.bytes;
      taken.push(block);
    }
    return taken;
  }

  get all(): readonly Block[] {
    return this.#blocks;
  }

  get stats(): { blocks: number; rows: number; bytes: number; droppedRows: number; lastSeq: number } {
    let rows = 0;
    for (const block of this.#blocks) rows += block.rows.length;
    return {
      blocks: this.#blocks.length,
      rows,
      bytes: this.#bytes,
      droppedRows: this.#droppedRows,
      lastSeq: this.#seq,
    };
  }

  /** Past the memory limit the oldest unsealed block gives up its rows; its sums join the block after it. */
  #shed(): void {
    for (let i = 0; i < this.#blocks.length - 1 && this.#bytes > this.#limits.maxBytes; ) {
      const block = this.#blocks[i] as Block;
      if (block.sealed) {
        i += 1;
        continue;
      }
      this.#droppedRows += block.rows.length;
      this.#bytes -= block.bytes;
      this.#blocks.splice(i, 1);
      const next = this.#blocks[i] as Block;
      next.firstSeq = block.firstSeq;
      foldDelta(block.delta, next.delta);
      next.delta = block.delta;
      next.health = new Map([...block.health, ...next.health]);
      next.models = new Map([...block.models, ...next.models]);
    }
  }
}

/** What a block says of one endpoint becomes another's, in place. */
export function renameEndpoint(block: Block, from: string, to: string): void {
  for (const { attempts } of block.rows) {
    for (const attempt of attempts) if (attempt.endpointId === from) attempt.endpointId = to;
  }
  block.delta = renamed(block.delta, from, to);
  rename(block.health, from, to);
  rename(block.models, from, to);
}

function rename<V>(map: Map<string, V>, from: string, to: string): void {
  const value = map.get(from);
  if (value === undefined) return;
  map.delete(from);
  map.set(to, value);
}

function renamed(delta: Delta, from: string, to: string): Delta {
  const result = { ...emptyDelta(), usage: delta.usage };
  const name = (id: string) => (id === from ? to : id);
  for (const [id, counters] of delta.counters) {
    foldDelta(result, { ...emptyDelta(), counters: new Map([[name(id), counters]]) });
  }
  for (const row of delta.daily.values()) {
    const moved = { ...row, endpointId: name(row.endpointId) };
    const key = `${moved.date}\n${moved.endpointId}\n${moved.kind}\n${moved.modelId}`;
    foldDelta(result, { ...emptyDelta(), daily: new Map([[key, moved]]) });
  }
  for (const row of delta.minutes.values()) {
    const moved = { ...row, endpointId: name(row.endpointId) };
    const key = `${moved.minute}\n${moved.endpointId}\n${moved.kind}\n${moved.modelId}`;
    foldDelta(result, { ...emptyDelta(), minutes: new Map([[key, moved]]) });
  }
  for (const row of delta.histograms.values()) {
    const moved = { ...row, endpointId: name(row.endpointId) };
    foldDelta(result, { ...emptyDelta(), histograms: new Map([[hourKey(moved), moved]]) });
  }
  return result;
}

/** A row's share of the memory limit: its texts and a fixed part for the rest. */
function roughBytes(record: RequestRecord): number {
  let chars = record.model.length + record.requestId.length + (record.error?.length ?? 0);
  for (const attempt of record.attempts) chars += 300 + attempt.modelId.length + (attempt.error?.length ?? 0);
  return 600 + 2 * chars;
}
