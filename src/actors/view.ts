import { type Clock, localDate, MINUTE_MS, minuteOf, timestamp } from '../clock.js';
import type { EngineModel } from '../engines/engine.js';
import { worse } from '../machines/circuit.js';
import type { ApiKind, RequestRecord } from '../machines/records.js';
import { type Ring, readRing } from '../machines/ring.js';
import { addSums, noSums } from '../machines/sums.js';
import type { TpsState } from '../machines/tps.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { Books, ModelSums } from './books.js';
import type { House } from './house.js';
import type { LeaseTable } from './leases.js';
import { modelStats } from './model-stats.js';
import { actorNamed, names } from './names.js';
import { isOffered } from './offered.js';
import { recordView } from './record-view.js';
import type {
  DailyStatView,
  DashboardEndpointView,
  EndpointModelView,
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
  dashboardEndpoint(config: EndpointConfig): DashboardEndpointView;
  dashboardEndpoints(): DashboardEndpointView[];
  stats(): StatsView;
  history(): HistoryPointView[];
  overview(): object;
  modelStats(endpointId?: string): ModelStatView[];
  modelTps(endpointId: string): ModelTpsView[];
  today(endpointId: string): DailyStatView;
  record(record: RequestRecord): RecordView;
}

export interface ViewDeps {
  house: House;
  books: Books;
  leases: LeaseTable;
  clock: Clock;
  healthIntervalMs: number;
}

export function viewsOf({ house, books, leases, clock, healthIntervalMs }: ViewDeps): Views {
  const { roster } = house;
  const today = () => localDate(clock.now());

  function endpoint(config: EndpointConfig): EndpointView {
    const facts = roster.facts(config.id);
    return {
      id: config.id,
      name: config.name,
      base_url: config.baseUrl,
      status: roster.status(config.id),
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

  function dashboardEndpoint(config: EndpointConfig): DashboardEndpointView {
    const { success, failed } = roster.facts(config.id);
    return {
      ...endpoint(config),
      total_requests: success + failed,
      successful_requests: success,
      failed_requests: failed,
      active_requests: leases.count(config.id),
    };
  }

  function dashboardEndpoints(): DashboardEndpointView[] {
    return newestFirst(roster.configs()).map(dashboardEndpoint);
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

  function averageResponseTime(endpoints: DashboardEndpointView[]): number | null {
    const online = endpoints.filter(({ status }) => status === 'online');
    if (online.length === 0) return null;
    let measured = 0;
    let ms = 0;
    for (const slot of slots()) {
      measured += slot.measured;
      ms += slot.measuredMs;
    }
    if (measured > 0) return ms / measured;
    const known = online.filter(({ latency_ms }) => latency_ms !== null);
    if (known.length === 0) return null;
    const requests = known.reduce((sum, one) => sum + one.total_requests, 0);
    const weight = (one: DashboardEndpointView) => (requests === 0 ? 1 : one.total_requests);
    const weights = known.reduce((sum, one) => sum + weight(one), 0);
    return known.reduce((sum, one) => sum + (one.latency_ms ?? 0) * weight(one), 0) / weights;
  }

  function statsFor(endpoints: DashboardEndpointView[], sums: ModelSums[]): StatsView {
    const count = (...wanted: string[]) => endpoints.filter(({ status }) => wanted.includes(status)).length;
    const sum = (pick: (one: DashboardEndpointView) => number) =>
      endpoints.reduce((all, one) => all + pick(one), 0);
    const onlineCount = count('online', 'draining');
    const pending = count('pending');
    const totals = noSums();
    for (const { total } of sums) addSums(totals, total);
    const hour = { success: 0, error: 0 };
    for (const { success, error } of slots()) {
      hour.success += success;
      hour.error += error;
    }
    const lastSeen = newest(endpoints.map((one) => one.last_seen));
    return {
      total_runtimes: endpoints.length,
      online_runtimes: onlineCount,
      pending_runtimes: pending,
      registering_runtimes: 0,
      offline_runtimes: endpoints.length - onlineCount - pending,
      total_requests: sum((one) => one.total_requests),
      successful_requests: sum((one) => one.successful_requests),
      failed_requests: sum((one) => one.failed_requests),
      total_active_requests: leases.total,
      queued_requests: house.waiting.size,
      requests_60m: hour,
      average_response_time_ms: averageResponseTime(endpoints),
      average_gpu_usage: null,
      average_gpu_memory_usage: null,
      last_metrics_updated_at: lastSeen,
      last_registered_at: newest(endpoints.map((one) => one.registered_at)),
      last_seen_at: lastSeen,
      total_input_tokens: totals.inputTokens,
      total_output_tokens: totals.outputTokens,
      total_tokens: totals.inputTokens + totals.outputTokens,
    };
  }

  function history(): HistoryPointView[] {
    return slots().map(({ minute, success, error }) => ({
      minute: timestamp(minute * MINUTE_MS).replace(/\.\d{3}Z$/, 'Z'),
      success,
      error,
    }));
  }

  function endpointTps(endpoints: DashboardEndpointView[], sums: ModelSums[]): object[] {
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
    endpoint,
    dashboardEndpoint,
    dashboardEndpoints,
    history,
    modelTps,

    endpointModels(id) {
      const config = roster.config(id);
      const { models, lastSeen } = roster.facts(id);
      const offered = ({ modelId }: EngineModel) => config !== undefined && isOffered(config, modelId);
      return models.map((model) => modelView(model, lastSeen, offered(model)));
    },

    stats() {
      return statsFor(dashboardEndpoints(), books.modelSums(today()));
    },

    overview() {
      const started = clock.mono();
      const endpoints = dashboardEndpoints();
      const sums = books.modelSums(today());
      return {
        endpoints,
        stats: statsFor(endpoints, sums),
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

function newest(times: (string | null)[]): string | null {
  return times.reduce((best, at) => (at !== null && (best === null || at > best) ? at : best), null);
}
