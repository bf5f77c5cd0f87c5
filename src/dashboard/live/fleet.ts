import { computed, shallowRef, triggerRef } from 'vue';
import { get } from '../api/http.js';
import type {
  Endpoint,
  EndpointTps,
  HistoryPoint,
  Overview,
  Problem,
  Rate,
  RequestRow,
  Stats,
} from '../api/shapes.js';
import { feedOf } from './feed.js';
import { tellRecords } from './records.js';

/** What changes on the server, as it is pushed: one copy for all pages. Applied once a frame, however much comes. */

const FRAME_MS = 100;

const byId = shallowRef(new Map<string, Endpoint>());
const tpsById = shallowRef(new Map<string, EndpointTps>());
export const stats = shallowRef<Stats | null>(null);
export const history = shallowRef<HistoryPoint[]>([]);
export const problems = shallowRef<Problem[]>([]);
/** The zone that the server counts days in. */
export const serverZone = shallowRef<string | null>(null);
/** When the last word of the server came, wall clock ms. */
export const heardAt = shallowRef<number | null>(null);

export const endpoints = computed(() => [...byId.value.values()]);
export const endpointById = (id: string): Endpoint | undefined => byId.value.get(id);
/** The circuit of a model there; what an endpoint tells is the worst of its own and those of all its models. */
export function circuitOf(id: string, model: string): Endpoint['circuit'] {
  const worst = byId.value.get(id)?.circuit ?? 'closed';
  const open = problems.value.filter((one) => one.code === 'circuit_open' && one.endpoint_id === id);
  // Until it is told which one it is, it may be this.
  const isMeant = open.length === 0 || open.some(({ detail }) => detail === null || detail === model);
  return isMeant ? worst : 'closed';
}
/** Today's tokens per second there. */
export const tpsOf = (id: string): EndpointTps | undefined => tpsById.value.get(id);
/** Counts changes of rates by endpoint: whoever shows them by model asks again. */
export const rateChanges = shallowRef(new Map<string, number>());

/** Everything the server has, in the place of what was known. */
function takeOverview(overview: Overview): void {
  byId.value = new Map(overview.endpoints.map((one) => [one.id, one]));
  stats.value = overview.stats;
  history.value = overview.history;
  problems.value = overview.problems ?? [];
  tpsById.value = new Map(overview.endpoint_tps.map((one) => [one.endpoint_id, one]));
  serverZone.value = overview.time_zone;
  heardAt.value = Date.now();
}

const waiting: (() => void)[] = [];
let frame: ReturnType<typeof setTimeout> | null = null;

/** A frame of the server is many events; the page is drawn once for all of them. */
function soon(change: () => void): void {
  waiting.push(change);
  if (frame === null) frame = setTimeout(apply, FRAME_MS);
}

function apply(): void {
  frame = null;
  for (const change of waiting.splice(0)) change();
  triggerRef(byId);
  triggerRef(tpsById);
  triggerRef(rateChanges);
  heardAt.value = Date.now();
}

let hasHeard = false;

/** What came before a snapshot is in it. */
function snapshot(overview: Overview): void {
  waiting.length = 0;
  takeOverview(overview);
  // What ended while nobody was listening is not in it.
  if (hasHeard) tellRecords([], 1);
  hasHeard = true;
}

export const feed = feedOf({
  url: '/api/dashboard/events',
  events: {
    snapshot,
    endpoint: (one: Endpoint) =>
      soon(() => {
        byId.value.set(one.id, one);
      }),
    removed: ({ endpoint_id }: { endpoint_id: string }) =>
      soon(() => {
        byId.value.delete(endpoint_id);
      }),
    endpoint_tps: (one: EndpointTps) =>
      soon(() => {
        tpsById.value.set(one.endpoint_id, one);
      }),
    tps: ({ endpoint_id }: Rate) =>
      soon(() => {
        rateChanges.value.set(endpoint_id, (rateChanges.value.get(endpoint_id) ?? 0) + 1);
      }),
    stats: (fresh: Stats) =>
      soon(() => {
        stats.value = fresh;
      }),
    history: (fresh: HistoryPoint[]) =>
      soon(() => {
        history.value = fresh;
      }),
    problems: (fresh: Problem[]) =>
      soon(() => {
        problems.value = fresh;
      }),
    request: ({ records, omitted }: { records: RequestRow[]; omitted: number }) =>
      tellRecords(records, omitted),
  },
  poll: async (signal) => {
    const overview = await get<Overview>('/api/dashboard/overview', signal);
    return () => takeOverview(overview);
  },
});

/** What the answer to a change does not tell. */
const NOTHING_YET = { total_requests: 0, successful_requests: 0, failed_requests: 0, active_requests: 0 };

/** After a change of ours: the answer is the newest there is. */
export function noteEndpoint(one: Endpoint): void {
  byId.value.set(one.id, { ...NOTHING_YET, ...byId.value.get(one.id), ...one });
  triggerRef(byId);
}

export function noteRemoval(id: string): void {
  byId.value.delete(id);
  triggerRef(byId);
}
