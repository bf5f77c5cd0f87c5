import type { EngineModel, EngineType } from '../engines/engine.js';
import type { ModelHistogram } from '../machines/hour-histograms.js';
import type { ApiKind, RequestRecord } from '../machines/records.js';
import { RING_MINUTES, type Ring, ringOf, type Slot } from '../machines/ring.js';
import { addSums, type Counters, type DailySums, type Delta, noSums, type Sums } from '../machines/sums.js';
import { type TpsState, tpsSeed } from '../machines/tps.js';
import { addDay, emptyOwnerUsage, type OwnerUsage, onDate } from '../machines/usage.js';
import type { EndpointConfig } from '../persistence/store.js';
import { type Block, type BlockLimits, Blocks, renameEndpoint } from './blocks.js';
import { addMetric, type HistogramsByModel, ModelHistograms } from './model-histograms.js';

export type Health = 'pending' | 'online' | 'error' | 'offline';

/** The last health result of an endpoint, as it is stored. */
export interface HealthState {
  health: Health;
  engineType: EngineType | null;
  latencyMs: number | null;
  /** Wall clock, ms. */
  lastSeen: number | null;
  lastError: string | null;
  errorCount: number;
}

/** Everything an endpoint's actor starts from. */
export interface EndpointSeed extends HealthState, Counters {
  draining: boolean;
  models: EngineModel[];
}

/** The all-time and today's sums of one endpoint × model × kind. */
export interface ModelSums {
  endpointId: string;
  modelId: string;
  kind: ApiKind;
  total: Sums;
  /** The server-local date `today` belongs to. */
  date: string;
  today: Sums;
}

/**
 * What outlives a crash of any actor: the committed state, and the queue of what is not yet written. The seed
 * of a (re)started actor is committed + fold(pending), read in the same synchronous step as the spawn.
 */
export class Books {
  /** Random name of this process's sequence of records. */
  readonly run: string;
  readonly #configs = new Map<string, EndpointConfig>();
  /** Moves with each new URL or key of an endpoint. */
  readonly #versions = new Map<string, number>();
  readonly #endpoints = new Map<string, EndpointSeed>();
  readonly #sums = new Map<string, Map<string, ModelSums>>();
  readonly #histograms = new ModelHistograms();
  readonly #minutes = new Map<number, Slot>();
  readonly #usage = new Map<string, OwnerUsage>();
  /** Endpoints that serve but have no row in the store yet. */
  readonly #provisional = new Map<string, EndpointConfig>();
  /** False while the stored endpoints could not be read: until then no sum has a place. */
  endpointsKnown = false;
  /** Provisional ids → the stored id of the same URL, found late. */
  readonly #aliases = new Map<string, string>();
  readonly #listeners = new Set<(record: RequestRecord) => void>();
  readonly #commitListeners = new Set<(block: Block) => void>();
  readonly #blocks: Blocks;

  constructor(run: string, limits?: BlockLimits) {
    this.run = run;
    this.#blocks = new Blocks(run, limits);
  }

  /** Appends a finished request. Synchronous and total: nothing can be lost between here and the disk. */
  append(record: RequestRecord): void {
    for (const attempt of record.attempts) {
      attempt.endpointId = this.resolve(attempt.endpointId);
    }
    this.#blocks.append(record);
    for (const listener of this.#listeners) listener(record);
  }

  /** The newest health result waits for the next batch; an older unsaved one is replaced. */
  noteHealth(id: string, health: HealthState): void {
    const { health: state, engineType, latencyMs, lastSeen, lastError, errorCount } = health;
    this.#blocks
      .open()
      .health.set(id, { health: state, engineType, latencyMs, lastSeen, lastError, errorCount });
  }

  noteModels(id: string, models: EngineModel[]): void {
    this.#blocks.open().models.set(id, models);
  }

  /** The oldest block, sealed, or undefined when all is written. */
  seal(): Block | undefined {
    return this.#blocks.seal();
  }

  /** Everything up to `seq` of this run is on disk. Idempotent. */
  commitThrough(seq: number): void {
    for (const block of this.#blocks.takeThrough(seq)) {
      this.#commit(block);
      for (const listener of this.#commitListeners) listener(block);
    }
  }

  /** Calls back with each appended record; returns the way to stop that. */
  onAppend(listener: (record: RequestRecord) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls back with each block that is on disk; returns the way to stop that. */
  onCommit(listener: (block: Block) => void): () => void {
    this.#commitListeners.add(listener);
    return () => this.#commitListeners.delete(listener);
  }

  /** True while nothing waits for the store. */
  get isEmpty(): boolean {
    return this.#blocks.all.length === 0;
  }

  get pending(): Blocks['stats'] {
    return this.#blocks.stats;
  }

  /** Rows that are not on disk yet, oldest first. */
  pendingRows(): RequestRecord[] {
    return this.#blocks.all.flatMap((block) => block.rows);
  }

  /** What is not written, for the file of saved records. */
  pendingBlocks(): readonly Block[] {
    return this.#blocks.all;
  }

  // Seeds of the committed state.

  /** A stored endpoint, or a new one with `newEndpointSeed()`. */
  seedEndpoint(config: EndpointConfig, seed: EndpointSeed): void {
    this.#configs.set(config.id, config);
    this.#endpoints.set(config.id, { ...seed });
  }

  /** An endpoint that could not be stored yet: its row is written before anything that is counted. */
  addProvisional(config: EndpointConfig): void {
    this.#provisional.set(config.id, config);
  }

  provisional(): EndpointConfig[] {
    return [...this.#provisional.values()];
  }

  noteStored(id: string): void {
    this.#provisional.delete(id);
  }

  /** The stored counters of an endpoint, which include what this run has written. */
  seedCounters(id: string, { success, failed }: Counters): void {
    const endpoint = this.#endpoints.get(id);
    if (endpoint !== undefined) Object.assign(endpoint, { success, failed });
  }

  /** A changed endpoint; answers its version, which moves when it points elsewhere or uses another key. */
  setConfig(config: EndpointConfig, newTarget: boolean): number {
    this.#configs.set(config.id, config);
    if (newTarget) this.#versions.set(config.id, this.version(config.id) + 1);
    return this.version(config.id);
  }

  config(id: string): EndpointConfig | undefined {
    return this.#configs.get(id);
  }

  version(id: string): number {
    return this.#versions.get(id) ?? 1;
  }

  seedModels(id: string, models: EngineModel[]): void {
    const endpoint = this.#endpoints.get(id);
    if (endpoint !== undefined) endpoint.models = models;
  }

  seedSums(rows: Iterable<ModelSums>): void {
    this.#sums.clear();
    for (const row of rows) this.#sumsOf(row.endpointId).set(sumKey(row.modelId, row.kind), row);
  }

  seedHistograms(rows: Iterable<ModelHistogram>): void {
    this.#histograms.seed(rows);
  }

  seedMinutes(slots: Iterable<Slot>): void {
    this.#minutes.clear();
    for (const slot of slots) this.#minutes.set(slot.minute, slot);
  }

  seedUsage(rows: Iterable<OwnerUsage>): void {
    this.#usage.clear();
    for (const row of rows) this.#usage.set(row.ownerId, row);
  }

  setDraining(id: string, draining: boolean): void {
    const endpoint = this.#endpoints.get(id);
    if (endpoint !== undefined) endpoint.draining = draining;
  }

  /** Another server behind the same name: pending, and unknown until its first check. */
  resetHealth(id: string): void {
    const endpoint = this.#endpoints.get(id);
    if (endpoint === undefined) return;
    for (const block of this.#blocks.all) block.health.delete(id);
    Object.assign(endpoint, { health: 'pending', engineType: null, lastError: null, errorCount: 0 });
  }

  /** A removed endpoint takes its counters, sums and histograms with it; rows and minutes stay. */
  forget(id: string): void {
    this.#provisional.delete(id);
    this.#configs.delete(id);
    this.#versions.delete(id);
    this.#endpoints.delete(id);
    this.#sums.delete(id);
    this.#histograms.forget(id);
    for (const block of this.#blocks.all) {
      block.health.delete(id);
      block.models.delete(id);
    }
  }

  /** From now on what was counted under `provisional` belongs to `stored`. */
  alias(provisional: string, stored: string): void {
    this.#aliases.set(provisional, stored);
    for (const block of this.#blocks.all) renameEndpoint(block, provisional, stored);
    this.#provisional.delete(provisional);
    this.#configs.delete(provisional);
    this.#endpoints.delete(provisional);
    this.#sums.delete(provisional);
    this.#histograms.forget(provisional);
  }

  /** The id under which an endpoint is counted: the stored one, once that is known. */
  resolve(id: string): string {
    return this.#aliases.get(id) ?? id;
  }

  // Seeds for actors: committed + fold(pending).

  /** Every endpoint there is, in the order of registration. */
  configs(): EndpointConfig[] {
    return [...this.#configs.values()];
  }

  endpoint(id: string): EndpointSeed | undefined {
    const committed = this.#endpoints.get(id);
    if (committed === undefined) return undefined;
    const seed = { ...committed };
    for (const block of this.#blocks.all) {
      Object.assign(seed, block.health.get(id));
      seed.models = block.models.get(id) ?? seed.models;
      const counters = block.delta.counters.get(id);
      seed.success += counters?.success ?? 0;
      seed.failed += counters?.failed ?? 0;
    }
    return seed;
  }

  /** All-time and today's sums by endpoint × model × kind, of one endpoint or of all that exist. */
  modelSums(today: string, endpointId?: string): ModelSums[] {
    const folded = new Map<string, ModelSums>();
    const ids = endpointId === undefined ? this.#sums.keys() : [endpointId];
    for (const id of ids) {
      for (const row of this.#sums.get(id)?.values() ?? []) {
        folded.set(`${id}\n${sumKey(row.modelId, row.kind)}`, onDay(row, today));
      }
    }
    for (const block of this.#blocks.all) {
      for (const row of block.delta.daily.values()) {
        if (endpointId !== undefined && row.endpointId !== endpointId) continue;
        if (!this.#endpoints.has(row.endpointId)) continue;
        const key = `${row.endpointId}\n${sumKey(row.modelId, row.kind)}`;
        let sums = folded.get(key);
        if (sums === undefined) {
          sums = emptyModelSums(row, today);
          folded.set(key, sums);
        }
        addSums(sums.total, row);
        if (row.date === today) addSums(sums.today, row);
      }
    }
    return [...folded.values()];
  }

  /** All there ever were, at endpoints that exist. */
  tokens(): { input: number; output: number } {
    const tokens = { input: 0, output: 0 };
    const add = ({ inputTokens, outputTokens }: Sums) => {
      tokens.input += inputTokens;
      tokens.output += outputTokens;
    };
    for (const rows of this.#sums.values()) for (const { total } of rows.values()) add(total);
    for (const block of this.#blocks.all) {
      for (const row of block.delta.daily.values()) if (this.#endpoints.has(row.endpointId)) add(row);
    }
    return tokens;
  }

  /** By model and metric, of one endpoint or over all that exist. */
  histograms(endpointId?: string): HistogramsByModel {
    const folded = this.#histograms.read(endpointId);
    for (const block of this.#blocks.all) {
      for (const row of block.delta.histograms.values()) {
        if (endpointId !== undefined && row.endpointId !== endpointId) continue;
        if (this.#endpoints.has(row.endpointId)) addMetric(folded, row.modelId, row.metric, row.histogram);
      }
    }
    return folded;
  }

  tps(endpointId: string, modelId: string, kind: ApiKind, today: string): TpsState {
    const sums = this.modelSums(today, endpointId).find(
      (row) => row.modelId === modelId && row.kind === kind,
    );
    return tpsOf(today, sums?.today);
  }

  /** The 60 minutes up to `minute`. */
  ring(minute: number): Ring {
    const slots = new Map<number, Slot>([...this.#minutes].map(([minute, slot]) => [minute, { ...slot }]));
    for (const block of this.#blocks.all) addMinutes(slots, block.delta);
    return ringOf(
      [...slots.values()].filter((slot) => slot.minute <= minute && slot.minute > minute - RING_MINUTES),
    );
  }

  /** What an owner has used, as of a day. */
  usage(ownerId: string, today: string): OwnerUsage {
    const usage = onDate(this.#usage.get(ownerId) ?? emptyOwnerUsage(ownerId, today), today);
    for (const block of this.#blocks.all) {
      for (const day of block.delta.usage.values()) if (day.ownerId === ownerId) addDay(usage, day);
    }
    return usage;
  }

  #commit(block: Block): void {
    for (const [id, counters] of block.delta.counters) {
      const endpoint = this.#endpoints.get(id);
      if (endpoint === undefined) continue;
      endpoint.success += counters.success;
      endpoint.failed += counters.failed;
    }
    for (const row of block.delta.daily.values()) this.#commitDaily(row);
    for (const row of block.delta.histograms.values()) {
      if (this.#endpoints.has(row.endpointId)) this.#histograms.add(row);
    }
    addMinutes(this.#minutes, block.delta);
    this.#forgetOldMinutes();
    for (const day of block.delta.usage.values()) {
      const usage = this.#usage.get(day.ownerId) ?? emptyOwnerUsage(day.ownerId, day.date);
      addDay(usage, day);
      this.#usage.set(day.ownerId, usage);
    }
    for (const [id, health] of block.health) {
      const endpoint = this.#endpoints.get(id);
      if (endpoint !== undefined) Object.assign(endpoint, health);
    }
    for (const [id, models] of block.models) {
      const endpoint = this.#endpoints.get(id);
      if (endpoint !== undefined) endpoint.models = models;
    }
  }

  #commitDaily(row: DailySums): void {
    if (!this.#endpoints.has(row.endpointId)) return;
    const sums = this.#sumsOf(row.endpointId);
    const key = sumKey(row.modelId, row.kind);
    let there = sums.get(key);
    if (there === undefined) {
      there = emptyModelSums(row, row.date);
      sums.set(key, there);
    }
    addSums(there.total, row);
    // A record of another day than the sums hold: the later day wins, an older one only counts in the total.
    if (row.date > there.date) Object.assign(there, { date: row.date, today: noSums() });
    if (row.date === there.date) addSums(there.today, row);
  }

  #sumsOf(endpointId: string): Map<string, ModelSums> {
    let sums = this.#sums.get(endpointId);
    if (sums === undefined) {
      sums = new Map();
      this.#sums.set(endpointId, sums);
    }
    return sums;
  }

  #forgetOldMinutes(): void {
    if (this.#minutes.size <= 2 * RING_MINUTES) return;
    const kept = [...this.#minutes.keys()].sort((a, b) => a - b).slice(-RING_MINUTES - 1);
    const oldest = kept[0] ?? 0;
    for (const minute of this.#minutes.keys()) if (minute < oldest) this.#minutes.delete(minute);
  }
}

/** Today's numbers of a model as a tracker starts with them. */
function tpsOf(date: string, today: Sums | undefined): TpsState {
  const sums = today ?? noSums();
  return tpsSeed({ date, samples: sums.samples, tokens: sums.sampleTokens, ms: sums.sampleMs });
}

export function newEndpointSeed(): EndpointSeed {
  return {
    health: 'pending',
    engineType: null,
    latencyMs: null,
    lastSeen: null,
    lastError: null,
    errorCount: 0,
    success: 0,
    failed: 0,
    draining: false,
    models: [],
  };
}

function sumKey(modelId: string, kind: ApiKind): string {
  return `${kind}\n${modelId}`;
}

function emptyModelSums(row: DailySums, date: string): ModelSums {
  const { endpointId, modelId, kind } = row;
  return { endpointId, modelId, kind, total: noSums(), date, today: noSums() };
}

function onDay(row: ModelSums, date: string): ModelSums {
  const today = row.date === date ? { ...row.today } : noSums();
  return { ...row, total: { ...row.total }, date, today };
}

function addMinutes(slots: Map<number, Slot>, delta: Delta): void {
  for (const row of delta.minutes.values()) {
    let slot = slots.get(row.minute);
    if (slot === undefined) {
      slot = { minute: row.minute, success: 0, error: 0, measured: 0, measuredMs: 0 };
      slots.set(row.minute, slot);
    }
    slot.success += row.success;
    slot.error += row.error;
    slot.measured += row.measured;
    slot.measuredMs += row.measuredMs;
  }
}
