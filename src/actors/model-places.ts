import type { ApiKind } from '../machines/records.js';
import type { House } from './house.js';
import type { Views } from './view.js';

/** A model at one endpoint; its name, status and what runs there are in the endpoint's own view. */
export interface ModelPlaceView {
  endpoint_id: string;
  offered: boolean;
  /** Null: its engine does not tell. */
  warm: boolean | null;
  total_requests: number;
  successful_requests: number;
  /** Moving average over whole requests, of the API that is used most. */
  tps: number | null;
  decode_tps: number | null;
  ttft_p50_ms: number | null;
}

export interface ModelView {
  model_id: string;
  capabilities: string[] | null;
  max_tokens: number | null;
  places: ModelPlaceView[];
}

/** Every model that an endpoint lists, and how it does there. Sorted by name. */
export function modelPlaces(house: House, views: Views): ModelView[] {
  const byModel = new Map<string, ModelView>();
  for (const { id } of house.roster.configs()) {
    const { loaded } = house.roster.facts(id);
    const stats = new Map(views.modelStats(id).map((stat) => [stat.model_id, stat]));
    const rates = busiest(views.modelTps(id));
    for (const { model_id, capabilities, max_tokens, offered } of views.endpointModels(id)) {
      const model = byModel.get(model_id) ?? { model_id, capabilities, max_tokens, places: [] };
      byModel.set(model_id, model);
      model.capabilities ??= capabilities;
      model.max_tokens = larger(model.max_tokens, max_tokens);
      const stat = stats.get(model_id);
      model.places.push({
        endpoint_id: id,
        offered,
        warm: loaded === null ? null : loaded.includes(model_id),
        total_requests: stat?.total_requests ?? 0,
        successful_requests: stat?.successful_requests ?? 0,
        tps: rates.get(model_id) ?? null,
        decode_tps: stat?.decode_tps ?? null,
        ttft_p50_ms: stat?.ttft_ms?.p50 ?? null,
      });
    }
  }
  return [...byModel.values()].sort((a, b) => (a.model_id < b.model_id ? -1 : 1));
}

function busiest(
  rates: { model_id: string; api_kind: ApiKind; tps: number | null; request_count: number }[],
): Map<string, number | null> {
  const sorted = rates.toSorted((a, b) => a.request_count - b.request_count);
  return new Map(sorted.map(({ model_id, tps }) => [model_id, tps]));
}

function larger(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.max(a, b);
}
