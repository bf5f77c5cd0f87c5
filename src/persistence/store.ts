import type { Block } from '../actors/blocks.js';
import type { EndpointSeed, HealthState, ModelSums } from '../actors/books.js';
import type { EngineModel } from '../engines/engine.js';
import type { ModelHistogram } from '../machines/hour-histograms.js';
import type { RequestRecord, StoredResponse } from '../machines/records.js';
import type { Slot } from '../machines/ring.js';
import type { Range, SeriesFilter, Steps } from '../machines/series.js';
import type { OwnerUsage } from '../machines/usage.js';
import type { AccessStore, AuditEntry } from './access-store.js';

/** What an operator says about an endpoint; its key and headers are secrets and live elsewhere. */
export interface EndpointConfig {
  id: string;
  name: string;
  /** Without trailing `/` or `/v1`, host in lower case. */
  baseUrl: string;
  /** Null: the server's default. */
  healthIntervalMs: number | null;
  /** Total deadline of a request there; 0 = none of its own. */
  inferenceTimeoutSecs: number;
  notes: string | null;
  /** Requests in flight there at most; null: as many as come. */
  maxConcurrency: number | null;
  /** How much of the load it is to have beside the others. */
  weight: number;
  /** 0 is first, larger is later. */
  priority: number;
  /** Tokens of a prompt and its answer that fit; null: not known. */
  maxContext: number | null;
  deadlines: EndpointDeadlines;
  /** Globs of the listed models that are offered; null: all. */
  modelsAllow: string[] | null;
  /** Globs of those that are not, whatever is allowed; null: none. */
  modelsDeny: string[] | null;
  /** By model, as it is listed there. */
  modelSettings: Record<string, ModelSettings>;
  /** Certificates (PEM) that are trusted there besides the system's. */
  tlsCa: string | null;
  /** Wall clock, ms. */
  registeredAt: number;
}

/** Deadlines of an endpoint's own, ms, 0 = none; what is not named is the server's. */
export interface DeadlineSet {
  connect_ms?: number | undefined;
  first_byte_ms?: number | undefined;
  idle_ms?: number | undefined;
  total_ms?: number | undefined;
}

/** Those of a model there come before those of the endpoint. */
export interface EndpointDeadlines extends DeadlineSet {
  models?: Record<string, DeadlineSet> | undefined;
}

/** Weight and priority come before those of the endpoint; both limits of requests in flight hold. */
export interface ModelSettings {
  weight?: number | undefined;
  priority?: number | undefined;
  max_concurrency?: number | undefined;
}

/** What Troupe sends to an endpoint to be let in. */
export interface EndpointSecrets {
  apiKey: string | null;
  headers: Record<string, string>;
}

export interface StoredEndpoint {
  config: EndpointConfig;
  /** Settings that could not be read, by their columns: they are as if nobody had made them. */
  unreadable: string[];
  /** Its secrets as they are stored; null: it has none. */
  sealed: string | null;
  /** Secrets that an earlier version stored as they are. */
  clear: EndpointSecrets | null;
  /** Without models, which are a query of their own. */
  seed: EndpointSeed;
}

export interface DailyStat {
  date: string;
  success: number;
  failed: number;
}

export interface RequestFilter {
  /** Exact, or with `*` for any run of characters. */
  model?: string;
  endpointId?: string;
  status?: 'success' | 'error';
  keyId?: string;
  /** Wall clock, ms, inclusive, of `completed_at`. */
  startTime?: number;
  endTime?: number;
}

export interface RequestPage extends RequestFilter {
  limit: number;
  offset: number;
  /** The row this page follows, by its id. */
  before?: string;
}

export interface RequestList {
  records: RequestRecord[];
  /** Exact up to 10,000. */
  total: number;
  capped: boolean;
}

/** A row's place in the list of requests. */
export interface RequestPlace {
  completedAt: number;
  seq: number;
}

export interface RequestSlice {
  /** Without their decisions. */
  records: RequestRecord[];
  /** Null: there is nothing after these. */
  next: RequestPlace | null;
}

export interface SeriesQuery extends SeriesFilter {
  range: Range;
  /** In steps since the epoch, both inclusive. */
  first: number;
  last: number;
  run: string;
}

export interface StoredSeries {
  /** The last sequence number of the run that is in the sums. */
  seq: number;
  steps: Steps;
}

/** What opening found and did; each line is worth a warning. */
export interface OpenReport {
  mode: 'read-write' | 'read-only';
  /** Tables that were missing in a store that had others, or that was lost as a whole; made again empty. */
  recreated: string[];
  warnings: string[];
}

export type StoreErrorCode =
  | 'busy'
  | 'full'
  | 'readonly'
  | 'corrupt'
  | 'moved'
  | 'closed'
  | 'newer'
  | 'conflict'
  | 'unusable'
  | 'failed';

/** `newer` and `unusable` end the start; all others mean "away for now". */
export class StoreError extends Error {
  readonly code: StoreErrorCode;

  constructor(code: StoreErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'StoreError';
    this.code = code;
  }
}

/** The store as a port of intentions. Nothing on a request's path waits for it; SQL lives behind it only. */
export interface Store {
  /** Opens, repairs and migrates; may be called again after a failure. */
  open(): Promise<OpenReport>;
  /** After a failed write: makes the store usable again if it can be. Rejects while it cannot. */
  recover(): Promise<void>;
  /** One line a person can act on; null while everything is well. */
  readonly trouble: string | null;

  /** Writes a block once, however often it is asked to. */
  apply(block: Block): Promise<void>;
  /** The last sequence number of a run that is written; 0 before the first. */
  cursor(run: string): Promise<number>;

  seedEndpoints(): Promise<StoredEndpoint[]>;
  seedModels(): Promise<Map<string, EngineModel[]>>;
  seedSums(today: string): Promise<ModelSums[]>;
  /** Over all hours, those that are deleted too. */
  seedHistograms(): Promise<ModelHistogram[]>;
  /** The newest 20,000, oldest first. */
  seedResponses(): Promise<StoredResponse[]>;
  seedUsage(today: string): Promise<OwnerUsage[]>;
  seedMinutes(fromMinute: number, toMinute: number): Promise<Slot[]>;
  /** Runs `read` between two writes and `then` with its answer before the next one. */
  betweenWrites<T>(read: () => Promise<T>, then: (value: T) => void): Promise<void>;

  readonly access: AccessStore;

  /** `sealed`: its secrets; null: it has none. The line in the audit log is written with the change. */
  insertEndpoint(config: EndpointConfig, sealed: string | null, audit: AuditEntry | null): Promise<void>;
  /** `sealed`: null leaves them as they are. `reset`: the health columns of an endpoint with a new URL. */
  updateEndpoint(
    config: EndpointConfig,
    sealed: { text: string | null } | null,
    reset: HealthState | null,
    audit: AuditEntry | null,
  ): Promise<void>;
  deleteEndpoint(id: string, audit: AuditEntry | null): Promise<void>;
  setDraining(id: string, draining: boolean, audit: AuditEntry | null): Promise<void>;
  /** Puts sealed secrets in the place of those that were stored as they are, and leaves nothing of these on disk. */
  sealSecrets(sealed: Map<string, string>): Promise<void>;

  /** Days in [from, before), ascending, only those with requests. */
  dailyStats(endpointId: string, from: string, before: string): Promise<DailyStat[]>;
  requests(page: RequestPage): Promise<RequestList>;
  /** What fits of the next `limit` rows after a place, newest first. */
  requestSlice(filter: RequestFilter, after: RequestPlace | null, limit: number): Promise<RequestSlice>;
  /** Minutes and hours summed up by step, and how far they hold what the run has appended. */
  series(query: SeriesQuery): Promise<StoredSeries>;
  /** By its id or its request id. */
  request(id: string): Promise<RequestRecord | undefined>;

  /** Deletes at most `limit` request rows completed before `before` (wall clock, ms); says how many. */
  expireRequests(before: number, limit: number): Promise<number>;
  /** Forgets the decisions of successes but for the newest `keep` rows, at most `limit` rows a call; says how many. */
  trimDecisions(keep: number, limit: number): Promise<number>;
  /** Folds minute rows older than `before` (minutes since the epoch) into hours; says how many. */
  foldMinutes(before: number, limit: number): Promise<number>;
  /** Deletes at most `limit` histogram rows of hours before `before` (hours since the epoch); says how many. */
  expireHistograms(before: number, limit: number): Promise<number>;
  /** Forgets where at most `limit` responses completed before `before` (wall clock, ms) are; says how many. */
  expireResponses(before: number, limit: number): Promise<number>;
  /** Syncs what is committed to the disk, without waiting for anybody. */
  checkpoint(): Promise<void>;
  close(): Promise<void>;
}
