import { type Clock, localDate, MINUTE_MS, minuteOf, timestamp } from '../clock.js';
import type { EngineModel } from '../engines/engine.js';
import type { EndpointStatus } from '../machines/candidate.js';
import { worse } from '../machines/circuit.js';
import type { ApiKind, RequestRecord } from '../machines/records.js';
import { type Ring, readRing, type Slot } from '../machines/ring.js';
import { addSums, noSums } from '../machines/sums.js';
import type { TpsState } from '../machines/tps.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { Books, ModelSums } from './books.js';
import type { House } from './house.js';
import type { LeaseTable } from './leases.js';
import { modelStats } from './model-stats.js';
import { actorNamed, names } from './names.js';
import { isOffered } from './offered.js';
import type { Problem } from './problems.js';
import { recordView } from './record-view.js';
import { type EndpointFacts, statusOf } from './roster.js';
import type {
  DailyStatView,
  DashboardEndpointView,
  EndpointModelView,
  EndpointTpsView,
  EndpointView,
  HistoryPointView,
  ModelStatView,
  ModelTpsView,
  RecordView,
  StatsView,
} from './wire-shapes.js';

/** The wire shapes of the dashboard, read from snapshots: no query, nothing kept. */
export interface Views {
  endpoint(config: EndpointConfig): EndpointView;
  endpointModels(id: string): EndpointModelView[];
  /** `known`: what it is made of, where somebody has that already. */
  dashboardEndpoint(config: EndpointConfig, known?: KnownOfEndpoint): DashboardEndpointView;
  dashboardEndpoints(): DashboardEndpointView[];
  /** `endpoints`: all of them, where somebody has their views already. */
  stats(endpoints?: DashboardEndpointView[]): StatsView;
  history(): HistoryPointView[];
  overview(): object;
  modelStats(endpointId?: string): ModelStatView[];
  modelTps(endpointId: string): ModelTpsView[];
  today(endpointId: string): DailyStatView;
  record(record: RequestRecord): RecordView;
}

export interface KnownOfEndpoint {
  facts: EndpointFacts;
  status: EndpointStatus;
  active: number;
}

export interface ViewDeps {
  house: House;
  books: Books;
  leases: LeaseTable;
  clock: Clock;
  healthIntervalMs: number;
  problems: () => Problem[];
  /** Tokens that all endpoints write now, per second. */
  outputTps: () => number;
}

export function viewsOf(deps: ViewDeps): Views {
  const { house, books, leases, clock, healthIntervalMs, problems, outputTps } = deps;
  const { roster } = house;
  const today = () => localDate(clock.now());

  function endpoint(config: EndpointConfig, { facts, status } = knownOf(config.id)): EndpointView {
    return {
      id: config.id,
      name: config.name,
      base_url: config.baseUrl,
      status,
      endpoint_type: facts.engineType ?? 'openai_compatible',
      health_check_interval_secs: (config.healthIntervalMs ?? healthIntervalMs) / 1000,
      inference_timeout_secs: config.inferenceTimeoutSecs,
      latency_ms: facts.latencyMs,
      last_seen: orNull(facts.lastSeen),
      last_error: facts.lastError,
      error_count: facts.errorCount,
      registered_at: timestamp(config.registeredAt),
      notes: config.notes,
      model_count: facts.models.length,
      weight: config.weight,
      priority: config.priority,
      max_concurrency: config.maxConcurrency,
      max_context: config.maxContext,
      models_allow: config.modelsAllow,
      models_deny: config.modelsDeny,
      model_settings: config.modelSettings,
      circuit: Object.values(facts.modelCircuits).reduce(
        (worst, { state }) => worse(worst, state),
        facts.circuit.state,
      ),
    };
  }

  function knownOf(id: string): KnownOfEndpoint {
    const facts = roster.facts(id);
    return { facts, status: statusOf(roster.entry(id), facts), active: leases.count(id) };
  }

  function dashboardEndpoint(config: EndpointConfig, known = knownOf(config.id)): DashboardEndpointView {
    const { success, failed } = known.facts;
    return {
      ...endpoint(config, known),
      total_requests: success + failed,
      successful_requests: success,
      failed_requests: failed,
      active_requests: known.active,
    };
  }

  function dashboardEndpoints(): DashboardEndpointView[] {
    return newestFirst(roster.configs()).map((config) => dashboardEndpoint(config));
  }

  function ring(): Ring {
    const snapshot = actorNamed(house.system, names.history)?.getSnapshot();
    return snapshot?.status === 'active'
      ? (snapshot.context as { ring: Ring }).ring
      : books.ring(minuteOf(clock.now()));
  }

  function slots() {
    return readRing(ring(), minuteOf(clock.now()));
  }

  function tracker(endpointId: string, modelId: string, kind: ApiKind): TpsState | undefined {
    const snapshot = actorNamed(house.system, names.tps(endpointId, modelId, kind))?.getSnapshot();
    return snapshot?.status === 'active' ? (snapshot.context as TpsState) : undefined;
  }

  function modelTps(endpointId: string): ModelTpsView[] {
    const date = today();
    const views: ModelTpsView[] = [];
    for (const { modelId, kind, today: sums } of books.modelSums(date, endpointId)) {
      // A tracker in back-off reads as it will be after its restart.
      const live = tracker(endpointId, modelId, kind);
      if (live === undefined && sums.samples === 0) continue;
      const state = live ?? books.tps(endpointId, modelId, kind, date);
      const counted = state.date === date ? state : { samples: 0, tokens: 0, ms: 0 };
      views.push({
        model_id: modelId,
        api_kind: kind,
        source: 'production',
        tps: state.ema,
        request_count: counted.samples,
        total_output_tokens: counted.tokens,
        average_duration_ms: counted.samples === 0 ? null : counted.ms / counted.samples,
      });
    }
    return views;
  }

  function averageResponseTime(endpoints: DashboardEndpointView[], hour: Slot[]): number | null {
    if (!endpoints.some(({ status }) => status === 'online')) return null;
    let measured = 0;
    let ms = 0;
    for (const slot of hour) {
      measured += slot.measured;
      ms += slot.measuredMs;
    }
    if (measured > 0) return ms / measured;
    const known = endpoints.filter(({ status, latency_ms }) => status === 'online' && latency_ms !== null);
    if (known.length === 0) return null;
    const requests = known.reduce((sum, one) => sum + one.total_requests, 0);
    const weight = (one: DashboardEndpointView) => (requests === 0 ? 1 : one.total_requests);
    const weights = known.reduce((sum, one) => sum + weight(one), 0);
    return known.reduce((sum, one) => sum + (one.latency_ms ?? 0) * weight(one), 0) / weights;
  }

  function stats(endpoints = dashboardEndpoints()): StatsView {
    let online = 0;
    let pending = 0;
    let success = 0;
    let failed = 0;
    let lastSeen: string | null = null;
    let lastRegistered: string | null = null;
    for (const one of endpoints) {
      if (one.status === 'online' || one.status === 'draining') online += 1;
      else if (one.status === 'pending') pending += 1;
      success += one.successful_requests;
      failed += one.failed_requests;
      lastSeen = later(lastSeen, one.last_seen);
      lastRegistered = later(lastRegistered, one.registered_at);
    }
    const tokens = books.tokens();
    const minutes = slots();
    const hour = { success: 0, error: 0 };
    for (const slot of minutes) {
      hour.success += slot.success;
      hour.error += slot.error;
    }
    return {
      total_runtimes: endpoints.length,
      online_runtimes: online,
      pending_runtimes: pending,
      registering_runtimes: 0,
      offline_runtimes: endpoints.length - online - pending,
      total_requests: success + failed,
      successful_requests: success,
      failed_requests: failed,
      total_active_requests: leases.total,
      queued_requests: house.waiting.size,
      requests_60m: hour,
      average_response_time_ms: averageResponseTime(endpoints, minutes),
      output_tps: Math.round(outputTps() * 10) / 10,
      average_gpu_usage: null,
      average_gpu_memory_usage: null,
      last_metrics_updated_at: lastSeen,
      last_registered_at: lastRegistered,
      last_seen_at: lastSeen,
      total_input_tokens: tokens.input,
      total_output_tokens: tokens.output,
      total_tokens: tokens.input + tokens.output,
    };
  }

  function history(): HistoryPointView[] {
    return slots().map(({ minute, success, error }) => ({
      minute: timestamp(minute * MINUTE_MS).replace(/\.\d{3}Z$/, 'Z'),
      success,
      error,
    }));
  }

  function endpointTps(endpoints: DashboardEndpointView[], sums: ModelSums[]): EndpointTpsView[] {
    const byEndpoint = new Map<
      string,
      { samples: number; tokens: number; ms: number; models: Set<string> }
    >();
    for (const { endpointId, modelId, today: of } of sums) {
      if (of.samples === 0) continue;
      const there = byEndpoint.get(endpointId) ?? { samples: 0, tokens: 0, ms: 0, models: new Set() };
      there.samples += of.samples;
      there.tokens += of.sampleTokens;
      there.ms += of.sampleMs;
      there.models.add(modelId);
      byEndpoint.set(endpointId, there);
    }
    return endpoints.map(({ id }) => {
      const there = byEndpoint.get(id);
      return {
        endpoint_id: id,
        model_count: there?.models.size ?? 0,
        aggregate_tps: there === undefined ? null : (there.tokens * 1000) / there.ms,
        total_output_tokens: there?.tokens ?? 0,
        total_requests: there?.samples ?? 0,
      };
    });
  }

  return {
    endpoint: (config) => endpoint(config),
    dashboardEndpoint,
    dashboardEndpoints,
    stats,
    history,
    modelTps,

    endpointModels(id) {
      const config = roster.config(id);
      const { models, lastSeen } = roster.facts(id);
      const offered = ({ modelId }: EngineModel) => config !== undefined && isOffered(config, modelId);
      return models.map((model) => modelView(model, lastSeen, offered(model)));
    },

    overview() {
      const started = clock.mono();
      const endpoints = dashboardEndpoints();
      const sums = books.modelSums(today());
      return {
        endpoints,
        stats: stats(endpoints),
        problems: problems(),
        history: history(),
        endpoint_tps: endpointTps(endpoints, sums),
        time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
        generated_at: timestamp(clock.now()),
        generation_time_ms: clock.mono() - started,
      };
    },

    modelStats: (endpointId) => modelStats(books, today(), endpointId),

    today(endpointId) {
      const sums = noSums();
      for (const { today: of } of books.modelSums(today(), endpointId)) addSums(sums, of);
      return dailyView(today(), sums.success, sums.failed);
    },

    record: recordView,
  };
}

export function dailyView(date: string, success: number, failed: number): DailyStatView {
  return {
    date,
    total_requests: success + failed,
    successful_requests: success,
    failed_requests: failed,
  };
}

export function newestFirst(configs: EndpointConfig[]): EndpointConfig[] {
  return [...configs].reverse().sort((a, b) => b.registeredAt - a.registeredAt);
}

function modelView(
  { modelId, capabilities, maxTokens }: EngineModel,
  lastSeen: number | null,
  offered: boolean,
): EndpointModelView {
  return { model_id: modelId, capabilities, max_tokens: maxTokens, last_checked: orNull(lastSeen), offered };
}

function orNull(at: number | null): string | null {
  return at === null ? null : timestamp(at);
}

/** The later of two timestamps. */
function later(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b;
  return a > b ? a : b;
}
