import { onTestFinished } from 'vitest';
import { type AnyActorRef, type InspectionEvent, SimulatedClock } from 'xstate';
import { Directory } from '../../src/access/directory.js';
import { Vault } from '../../src/access/vault.js';
import type { Block } from '../../src/actors/blocks.js';
import { Books, newEndpointSeed } from '../../src/actors/books.js';
import { buildHouse, type HouseDeps, type Tamper } from '../../src/actors/house.js';
import { LeaseTable } from '../../src/actors/leases.js';
import { treeOf } from '../../src/actors/tree.js';
import { viewsOf } from '../../src/actors/view.js';
import type { CheckResult } from '../../src/engines/check.js';
import type { RequestRecord } from '../../src/machines/records.js';
import type { AccessStore } from '../../src/persistence/access-store.js';
import { type EndpointConfig, type OpenReport, type Store, StoreError } from '../../src/persistence/store.js';
import { pause } from './server.js';

/** Noon, so that no test crosses midnight by the minute it takes. */
export const START = Date.UTC(2026, 0, 15, 12);

export const HEALTHY: CheckResult = {
  ok: true,
  latencyMs: 7,
  engineType: 'ollama',
  models: [{ modelId: 'm', capabilities: null, maxTokens: null }],
  loaded: null,
  load: null,
};

export interface HouseOptions {
  /** Names of the endpoints that are stored, `online` with the model `m`. */
  endpoints?: string[];
  tamper?: Tamper;
  check?: HouseDeps['check'];
  store?: MemoryStore;
  /** Called with everything that happens inside. */
  inspect?: (event: InspectionEvent) => void;
  /** Wall clock, ms; goes with the timers unless told. */
  wall?: () => number;
}

/** The actors without a server around them: memory for a store, and a clock that only the test moves. */
export async function startHouse(options: HouseOptions = {}) {
  const { endpoints = [], tamper = {}, check, wall } = options;
  const timers = new SimulatedClock();
  const clock = { now: wall ?? (() => START + timers.now()), mono: () => timers.now() };
  const books = new Books('run');
  const leases = new LeaseTable(() => timers.now());
  const store = options.store ?? new MemoryStore(endpoints);
  const house = buildHouse({
    clock,
    random: () => 0.5,
    books,
    leases,
    store,
    directory: new Directory(null),
    vault: new Vault(),
    sweep: async () => {},
    policy: 'least-busy',
    overflowMs: 1000,
    healthIntervalMs: 10_000,
    retentionDays: 30,
    unsavedFile: '/nowhere/unsaved',
    recreated: () => [],
    check: check ?? (async () => HEALTHY),
    log: { info() {}, warn() {}, error() {} },
    tamper,
    timers,
  });
  const live = liveActors(house.root);
  if (options.inspect !== undefined) house.root.system.inspect(options.inspect);
  house.root.start();
  onTestFinished(() => {
    house.root.stop();
  });
  while (!house.root.getSnapshot().matches('running')) await pause(1);
  const views = viewsOf({
    house,
    books,
    leases,
    clock,
    healthIntervalMs: 10_000,
    problems: () => [],
    outputTps: () => 0,
  });
  const tree = treeOf({ house, books, leases });
  const pending = () => (timers as unknown as { timeouts: Map<number, unknown> }).timeouts.size;
  const actor = (name: string) => house.system.get(name) as AnyActorRef | undefined;
  /** Moves the clock in steps that no chain of delays can outrun. */
  const pass = (ms: number) => {
    for (let left = ms; left > 0; left -= 50) timers.increment(Math.min(50, left));
  };
  return { house, books, leases, store, clock, timers, pending, views, tree, live, actor, pass };
}

/** Every actor that was started and has neither ended nor crashed, orphans too. */
function liveActors(root: { system: object }): ReadonlySet<AnyActorRef> {
  const live = new Set<AnyActorRef>();
  const system = root.system as unknown as {
    _register(id: string, actor: AnyActorRef): string;
    _unregister(actor: AnyActorRef): void;
  };
  const { _register: register, _unregister: unregister } = system;
  system._register = (id, actor) => {
    live.add(actor);
    return register(id, actor);
  };
  system._unregister = (actor) => {
    live.delete(actor);
    unregister(actor);
  };
  return live;
}

/** A store that only remembers: rows in order, each block once. */
export class MemoryStore implements Store {
  readonly rows: RequestRecord[] = [];
  readonly trouble = null;
  /** Methods that reject as long as they are named here. */
  readonly broken = new Set<'apply' | 'recover' | 'seedSums'>();
  #seq = 0;
  readonly #endpoints: string[];

  constructor(endpoints: string[]) {
    this.#endpoints = endpoints;
  }

  async apply(block: Block): Promise<void> {
    this.#mayFail('apply');
    if (block.lastSeq <= this.#seq) return;
    this.#seq = block.lastSeq;
    this.rows.push(...block.rows);
  }

  cursor = async () => this.#seq;

  seedEndpoints = async () =>
    this.#endpoints.map((id) => ({
      config: configOf(id),
      unreadable: [],
      sealed: null,
      clear: null,
      seed: { ...newEndpointSeed(), health: 'online' as const },
    }));
  seedModels = async () => new Map(this.#endpoints.map((id) => [id, HEALTHY.ok ? HEALTHY.models : []]));
  seedSums = async () => {
    this.#mayFail('seedSums');
    return [];
  };
  seedMinutes = async () => [];
  seedHistograms = async () => [];
  seedResponses = async () => [];
  seedUsage = async () => [];
  sealSecrets = async () => {};
  /** Nobody and nothing. */
  readonly access: AccessStore = {
    seedUsers: async () => [],
    seedKeys: async () => [],
    seedSessions: async () => [],
    putUser: async () => {},
    removeUser: async () => {},
    putKey: async () => {},
    revokeKey: async () => {},
    addSession: async () => {},
    removeSession: async () => {},
    dropSessions: async () => {},
    note: async () => {},
    audits: async () => ({ items: [], total: 0 }),
    verifyAudits: async () => ({ valid: true, checked: 0, firstBad: null }),
    monthlyUsage: async () => [],
    owners: async () => [],
  };
  async betweenWrites<T>(read: () => Promise<T>, then: (value: T) => void): Promise<void> {
    then(await read());
  }
  open = async (): Promise<OpenReport> => ({
    mode: 'read-write',
    recreated: [],
    warnings: [],
  });
  requests = async () => ({ records: this.rows, total: this.rows.length, capped: false });
  requestSlice = async () => ({ records: this.rows.toReversed(), next: null });
  series = async () => ({ seq: this.#seq, steps: new Map() });
  request = async () => undefined;
  dailyStats = async () => [];
  recover = async () => this.#mayFail('recover');
  insertEndpoint = async () => {};
  updateEndpoint = async () => {};
  deleteEndpoint = async () => {};
  setDraining = async () => {};
  expireRequests = async () => 0;
  trimDecisions = async () => 0;
  foldMinutes = async () => 0;
  expireHistograms = async () => 0;
  expireResponses = async () => 0;
  checkpoint = async () => {};
  close = async () => {};

  #mayFail(method: 'apply' | 'recover' | 'seedSums'): void {
    if (this.broken.has(method)) throw new StoreError('busy', `${method} is broken`);
  }
}

export function configOf(id: string): EndpointConfig {
  return {
    id,
    name: id,
    baseUrl: `http://${id}`,
    healthIntervalMs: null,
    inferenceTimeoutSecs: 0,
    notes: null,
    maxConcurrency: null,
    deadlines: {},
    modelsAllow: null,
    modelsDeny: null,
    modelSettings: {},
    tlsCa: null,
    weight: 1,
    priority: 0,
    maxContext: null,
    registeredAt: START,
  };
}

let serial = 0;

/** A finished request of one endpoint: a success of 100 tokens in 2 s unless told. */
export function finished(endpointId: string, at: number, failed = false): RequestRecord {
  serial += 1;
  return {
    id: `r${serial}`,
    requestId: `r${serial}`,
    kind: 'chat_completions',
    requestType: 'chat',
    model: 'm',
    clientIp: null,
    keyId: null,
    userId: null,
    acceptedAt: at - 2000,
    completedAt: at,
    durationMs: 2000,
    ttftMs: null,
    outcome: failed ? 'failure' : 'success',
    timeline: failed ? 'error' : 'success',
    error: failed ? 'no' : null,
    statusCode: failed ? 500 : 200,
    tokensEstimated: false,
    decision: null,
    attempts: [
      {
        endpointId,
        endpointName: endpointId,
        modelId: 'm',
        counted: failed ? 'failure' : 'success',
        statusCode: failed ? 500 : 200,
        error: failed ? 'no' : null,
        durationMs: 2000,
        predictedMs: null,
        inputTokens: 10,
        outputTokens: failed ? null : 100,
        sampled: !failed,
      },
    ],
  };
}
