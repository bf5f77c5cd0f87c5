import type { House } from '../actors/house.js';
import type { Registry } from '../actors/registry.js';
import { dailyView, newestFirst, type Views } from '../actors/view.js';
import { type Clock, localDate } from '../clock.js';
import { ENGINE_TYPES, type EngineModel } from '../engines/engine.js';
import type { EndpointConfig, Store } from '../persistence/store.js';
import { endpointChange, endpointInput } from './endpoint-input.js';
import { ApiError, type ErrorCode } from './errors.js';
import { parsed } from './input.js';
import { oneOf, wholeNumber } from './query.js';
import { Answer, type Call, type Route } from './routes.js';

export interface EndpointRoutesDeps {
  house: House;
  registry: Registry;
  views: Views;
  store: Store;
  clock: Clock;
  /** Waits a little for the ledger: true once everything up to now is in the store. */
  caughtUp: () => Promise<boolean>;
}

/** A list that could not be read is an error of the endpoint. */
const SYNC_FAILURES: Record<string, ErrorCode> = {
  unreachable: 'upstream_unreachable',
  timeout: 'timeout_total',
};
const STATUSES = ['pending', 'online', 'offline', 'error', 'draining', 'quarantined'] as const;

export function endpointRoutes({
  house,
  registry,
  views,
  store,
  clock,
  caughtUp,
}: EndpointRoutesDeps): Route[] {
  const withModels = (config: EndpointConfig) => ({
    ...views.endpoint(config),
    models: views.endpointModels(config.id),
    deadlines: config.deadlines,
    tls_ca: config.tlsCa,
  });
  const found = ({ params }: Call) => registry.get(params.id ?? '');

  return [
    {
      method: 'GET',
      path: '/api/endpoints',
      access: 'endpoints.read',
      run: ({ query }) => {
        const status = oneOf(query, 'status', STATUSES);
        const type = oneOf(query, 'type', ENGINE_TYPES);
        const endpoints = newestFirst(house.roster.configs())
          .map(views.endpoint)
          .filter((one) => status === undefined || one.status === status)
          .filter((one) => type === undefined || one.endpoint_type === type);
        return { endpoints, total: endpoints.length };
      },
    },
    {
      method: 'POST',
      path: '/api/endpoints',
      access: 'endpoints.manage',
      run: async (call) => {
        const config = await registry.register(parsed(endpointInput, await call.json()), call.actor);
        return new Answer(201, withModels(config));
      },
    },
    {
      method: 'GET',
      path: '/api/endpoints/:id',
      access: 'endpoints.read',
      run: (call) => withModels(found(call)),
    },
    {
      method: 'PUT',
      path: '/api/endpoints/:id',
      access: 'endpoints.manage',
      run: async (call) => {
        found(call);
        const change = parsed(endpointChange, await call.json());
        return withModels(await registry.update(call.params.id ?? '', change, call.actor));
      },
    },
    {
      method: 'DELETE',
      path: '/api/endpoints/:id',
      access: 'endpoints.manage',
      run: async (call) => {
        const force = oneOf(call.query, 'force', ['true', 'false'] as const) === 'true';
        await registry.remove(found(call).id, force, call.actor);
        return new Answer(204, undefined);
      },
    },
    {
      method: 'POST',
      path: '/api/endpoints/:id/test',
      access: 'endpoints.manage',
      run: async (call) => {
        const result = await house.checkNow(found(call));
        return result.ok
          ? {
              success: true,
              latency_ms: result.latencyMs,
              error: null,
              models_found: result.models.map(({ modelId }) => modelId),
            }
          : { success: false, latency_ms: null, error: result.error, models_found: null };
      },
    },
    {
      method: 'POST',
      path: '/api/endpoints/:id/sync',
      access: 'endpoints.manage',
      run: async (call) => {
        const config = found(call);
        const before = house.roster.facts(config.id).models;
        const result = await house.checkNow(config);
        if (!result.ok) {
          const code = SYNC_FAILURES[result.reason] ?? 'upstream_broken';
          throw new ApiError(code, `${config.name}: ${result.error}`);
        }
        return { synced_models: views.endpointModels(config.id), ...difference(before, result.models) };
      },
    },
    {
      method: 'GET',
      path: '/api/endpoints/:id/models',
      access: 'endpoints.read',
      run: (call) => {
        const { id } = found(call);
        return { endpoint_id: id, models: views.endpointModels(id) };
      },
    },
    {
      method: 'POST',
      path: '/api/endpoints/:id/drain',
      access: 'endpoints.manage',
      run: async (call) => views.endpoint(await registry.setDraining(found(call).id, true, call.actor)),
    },
    {
      method: 'POST',
      path: '/api/endpoints/:id/resume',
      access: 'endpoints.manage',
      run: async (call) => views.endpoint(await registry.setDraining(found(call).id, false, call.actor)),
    },
    {
      method: 'GET',
      path: '/api/endpoints/:id/today-stats',
      access: 'endpoints.read',
      run: (call) => views.today(found(call).id),
    },
    {
      method: 'GET',
      path: '/api/endpoints/:id/daily-stats',
      access: 'endpoints.read',
      run: async (call) => {
        const { id } = found(call);
        const days = wholeNumber(call.query, 'days', 1, 365) ?? 7;
        const now = clock.now();
        const from = daysBefore(now, days - 1);
        // Days before today are on disk, yesterday's last batch as well; today is in memory and ahead of the disk.
        await caughtUp();
        const past = await store.dailyStats(id, from, localDate(now));
        const today = views.today(id);
        return [
          ...past.map(({ date, success, failed }) => dailyView(date, success, failed)),
          ...(today.total_requests > 0 ? [today] : []),
        ];
      },
    },
    {
      method: 'GET',
      path: '/api/endpoints/:id/model-stats',
      access: 'endpoints.read',
      run: (call) => views.modelStats(found(call).id),
    },
    {
      method: 'GET',
      path: '/api/endpoints/:id/model-tps',
      access: 'endpoints.read',
      run: (call) => views.modelTps(found(call).id),
    },
  ];
}

function difference(before: EngineModel[], after: EngineModel[]) {
  const old = new Map(before.map((model) => [model.modelId, model]));
  const now = new Set(after.map(({ modelId }) => modelId));
  return {
    added: after.filter(({ modelId }) => !old.has(modelId)).length,
    removed: before.filter(({ modelId }) => !now.has(modelId)).length,
    updated: after.filter((model) => {
      const was = old.get(model.modelId);
      return was !== undefined && JSON.stringify(was) !== JSON.stringify(model);
    }).length,
  };
}

/** The local date so many days before; noon keeps clear of changes to and from summer time. */
function daysBefore(now: number, days: number): string {
  const date = new Date(now);
  date.setHours(12, 0, 0, 0);
  date.setDate(date.getDate() - days);
  return localDate(date.getTime());
}
