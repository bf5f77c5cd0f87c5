import { timestamp } from '../clock.js';
import type { BoxContext } from '../machines/box.js';
import { type Circuit, failureRate } from '../machines/circuit.js';
import type { EndpointContext } from '../machines/endpoint.js';
import type { EndpointsContext } from '../machines/endpoints.js';
import type { LedgerContext } from '../machines/ledger.js';
import { ahead, type QueueState } from '../machines/queue.js';
import type { Ring } from '../machines/ring.js';
import type { RootContext } from '../machines/root.js';
import type { TpsState } from '../machines/tps.js';
import type { TreeDeps } from './tree.js';

/** Models whose learned speed is in an endpoint's summary. */
const LEARNED_SHOWN = 2;

type Describe = (context: never, deps: TreeDeps) => object;

/** Each kind's own summary, at most 2 kB, without credentials. */
const DESCRIPTIONS: Record<string, Describe> = {
  root: (context: RootContext) => ({ unseeded: context.unseeded }),

  ledger: (context: LedgerContext, { books }) => {
    const { rows, bytes, droppedRows } = books.pending;
    return {
      pending_rows: rows,
      pending_bytes: bytes,
      rows_without_detail: droppedRows,
      batches_written: context.batches,
      failures_in_a_row: context.failures,
      last_error: context.lastError,
    };
  },

  history: ({ ring }: { ring: Ring }) => {
    const slots = ring.filter((slot) => slot !== undefined);
    return {
      minutes_with_requests: slots.length,
      success: slots.reduce((sum, slot) => sum + slot.success, 0),
      error: slots.reduce((sum, slot) => sum + slot.error, 0),
    };
  },

  queue: ({ queue }: { queue: QueueState }) => ({
    waiting: queue.size,
    models: [...queue.lanes.keys()]
      .slice(0, 10)
      .map((model) => ({ model: short(model).slice(0, 80), waiting: ahead(queue, model) })),
  }),

  ticker: () => ({}),

  endpoints: ({ roster }: EndpointsContext) => {
    const entries = Object.values(roster);
    const count = (status: string) => entries.filter((entry) => entry.status === status).length;
    return {
      endpoints: entries.length,
      running: count('running'),
      restarting: count('restarting'),
      quarantined: count('quarantined'),
    };
  },

  box: (context: BoxContext) => ({
    endpoint_id: context.id,
    trackers: Object.keys(context.trackers).length,
    in_back_off: Object.keys(context.down).length,
  }),

  endpoint: (context: EndpointContext, { house, leases }) => ({
    endpoint_id: context.id,
    name: short(house.roster.config(context.id)?.name ?? ''),
    engine: context.engineType,
    latency_ms: context.latencyMs,
    last_seen: context.lastSeen === null ? null : timestamp(context.lastSeen),
    last_error: context.lastError === null ? null : short(context.lastError),
    failed_checks_in_a_row: context.errorCount,
    checking: context.checking,
    successful_requests: context.success,
    failed_requests: context.failed,
    active_requests: leases.count(context.id),
    models: context.models.length,
    models_in_memory: context.loaded?.length ?? null,
    load: loadIn(context),
    learned: learnedIn(context),
    circuit: {
      state: context.circuit.state,
      failures_in_a_row: context.circuit.streak,
      failure_rate: failureRate(context.circuit),
    },
    models_with_open_circuit: modelsWith(context, ({ state }) => state !== 'closed'),
  }),

  tps: (context: TpsState) => ({
    tps: context.ema,
    date: context.date,
    samples: context.samples,
    output_tokens: context.tokens,
    duration_ms: context.ms,
  }),
};

export function describe(kind: string, snapshot: { context?: unknown }, deps: TreeDeps): object {
  return DESCRIPTIONS[kind]?.(snapshot.context as never, deps) ?? {};
}

/** Of the models that answered last, how fast they do when nothing else is there: ms, tokens and prompt bytes. */
function learnedIn({ paces }: EndpointContext): object[] {
  return Object.entries(paces)
    .sort(([, a], [, b]) => b.speed.measuredAt - a.speed.measuredAt)
    .slice(0, LEARNED_SHOWN)
    .map(([modelId, { speed }]) => ({
      model: short(modelId).slice(0, 40),
      first_byte_ms: rounded(speed.wait.valueAt(0)),
      token_ms: rounded(speed.token.valueAt(0)),
      prefill_bytes_per_ms: rounded(speed.prefill),
      load_ms: rounded(speed.loadMs),
      output_tokens: rounded(speed.answers === 0 ? null : speed.answerTokens),
    }));
}

function rounded(value: number | null): number | null {
  return value === null ? null : Math.round(100 * value) / 100;
}

/** What its engine told at the newest check; null where it does not tell. */
function loadIn({ load, foreign }: EndpointContext): object | null {
  if (load === null) return null;
  const { running, waiting, slots, cacheUse } = load;
  return { running, waiting, foreign, slots, cache_use: cacheUse };
}

/** At most ten names. */
function modelsWith({ modelCircuits }: EndpointContext, test: (circuit: Circuit) => boolean): string[] {
  const found = Object.entries(modelCircuits).filter(([, circuit]) => test(circuit));
  return found.slice(0, 10).map(([id]) => short(id).slice(0, 80));
}

function short(text: string): string {
  return text.length > 200 ? `${text.slice(0, 199)}…` : text;
}
