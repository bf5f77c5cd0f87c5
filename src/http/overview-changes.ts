import type { Books } from '../actors/books.js';
import type { House } from '../actors/house.js';
import type { LeaseTable } from '../actors/leases.js';
import { errorsFirst, type Problem, type Problems } from '../actors/problems.js';
import { type EndpointFacts, statusOf } from '../actors/roster.js';
import type { Views } from '../actors/view.js';
import type { DashboardEndpointView, EndpointTpsView, ModelTpsView } from '../actors/wire-shapes.js';
import { type Clock, localDate } from '../clock.js';
import type { RosterEntry } from '../machines/endpoints.js';
import type { RequestRecord } from '../machines/records.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { Message, Source } from './event-stream.js';

const MOST_RECORDS = 50;

export interface OverviewChangesDeps {
  clock: Clock;
  house: House;
  books: Books;
  leases: LeaseTable;
  views: Views;
  problems: Problems;
}

/** What an endpoint's view was made of, and the view: as long as the former is the same, so is the latter. */
interface Known {
  read: () => EndpointFacts;
  config: EndpointConfig;
  facts: EndpointFacts;
  entry: RosterEntry | undefined;
  active: number;
  view: DashboardEndpointView;
  text: string;
  problems: Problem[];
  /** The texts of its rates, by model and kind. */
  rates: Map<string, string>;
}

/** The overview first, then each of its parts that changes. */
export function overviewChanges({
  clock,
  house,
  books,
  leases,
  views,
  problems,
}: OverviewChangesDeps): Source {
  const { roster } = house;
  const known = new Map<string, Known>();
  /** Endpoints whose rates a finished request has moved. */
  let moved = new Set<string>();
  let records: RequestRecord[] = [];
  let omitted = 0;
  let date = '';
  let unseeded: unknown;
  let stats = '';
  let history = '';
  let troubles = '';
  let stopListening = () => {};

  function endpoints(): Message[] {
    const messages: Message[] = [];
    const configs = roster.configs();
    const entries = roster.entries();
    // With another day, or with what was seeded late, every rate may be another.
    const today = localDate(clock.now());
    const missing = house.root.getSnapshot().context.unseeded;
    const isNewDay = today !== date || missing !== unseeded;
    date = today;
    unseeded = missing;
    for (const config of configs) {
      const before = known.get(config.id);
      const entry = entries[config.id];
      const now = look(config, entry, before);
      const ratesMayDiffer = isNewDay || entry !== before?.entry || moved.has(config.id);
      if (now !== before) known.set(config.id, now);
      if (now.text !== before?.text) messages.push({ event: 'endpoint', data: now.text });
      if (ratesMayDiffer) messages.push(...rates(config.id, now.rates));
    }
    if (known.size > configs.length) messages.push(...removed());
    moved = new Set();
    return messages;
  }

  function look(config: EndpointConfig, entry: RosterEntry | undefined, before: Known | undefined): Known {
    const read = before?.read ?? roster.reader(config.id);
    const facts = read();
    const active = leases.count(config.id);
    if (
      before !== undefined &&
      before.facts === facts &&
      before.config === config &&
      before.entry === entry &&
      before.active === active
    )
      return before;
    const view = views.dashboardEndpoint(config, { facts, status: statusOf(entry, facts), active });
    return {
      read,
      config,
      facts,
      entry,
      active,
      view,
      text: JSON.stringify(view),
      problems: problems.ofEndpoint(config, facts, entry),
      rates: before?.rates ?? new Map(),
    };
  }

  /** Its rates that changed, and what they come to. */
  function rates(id: string, texts: Map<string, string>): Message[] {
    const messages: Message[] = [];
    const all = views.modelTps(id);
    // At midnight some of them have nothing any more.
    const isFewer = all.length < texts.size;
    if (isFewer) texts.clear();
    for (const view of all) {
      const key = `${view.api_kind}\n${view.model_id}`;
      const data = JSON.stringify({ endpoint_id: id, ...view });
      if (texts.get(key) === data) continue;
      texts.set(key, data);
      messages.push({ event: 'tps', data });
    }
    if (messages.length > 0 || isFewer)
      messages.push({ event: 'endpoint_tps', data: JSON.stringify(summed(id, all)) });
    return messages;
  }

  function removed(): Message[] {
    const messages: Message[] = [];
    for (const id of known.keys()) {
      if (roster.config(id) !== undefined) continue;
      known.delete(id);
      messages.push({ event: 'removed', data: JSON.stringify({ endpoint_id: id }) });
    }
    return messages;
  }

  function statsNow(): Message[] {
    const all: DashboardEndpointView[] = [];
    for (const { view } of known.values()) all.push(view);
    const data = JSON.stringify(views.stats(all));
    if (data === stats) return [];
    stats = data;
    return [{ event: 'stats', data }];
  }

  function historyNow(): Message[] {
    const data = JSON.stringify(views.history());
    if (data === history) return [];
    history = data;
    return [{ event: 'history', data }];
  }

  function problemsNow(): Message[] {
    const found = problems.ofHouse();
    for (const one of known.values()) if (one.problems.length > 0) found.push(...one.problems);
    const data = JSON.stringify(errorsFirst(found));
    if (data === troubles) return [];
    troubles = data;
    return [{ event: 'problems', data }];
  }

  function recordsNow(): Message[] {
    if (records.length === 0) return [];
    const data = JSON.stringify({ records: records.map(views.record), omitted });
    records = [];
    omitted = 0;
    return [{ event: 'request', data }];
  }

  function next(): Message[] {
    return [...endpoints(), ...statsNow(), ...historyNow(), ...problemsNow(), ...recordsNow()];
  }

  return {
    start() {
      stopListening = books.onAppend((record) => {
        for (const { endpointId } of record.attempts) moved.add(endpointId);
        if (records.length < MOST_RECORDS) records.push(record);
        else omitted += 1;
      });
      // What is so already is in the overview.
      next();
    },

    stop() {
      stopListening();
      known.clear();
      moved.clear();
      records = [];
      omitted = 0;
    },

    first: () => [{ event: 'snapshot', data: JSON.stringify(views.overview()) }],
    next,
  };
}

/** Today's samples of an endpoint, over its models and kinds. */
function summed(id: string, rates: ModelTpsView[]): EndpointTpsView {
  const models = new Set<string>();
  let samples = 0;
  let tokens = 0;
  let ms = 0;
  for (const rate of rates) {
    if (rate.request_count === 0) continue;
    models.add(rate.model_id);
    samples += rate.request_count;
    tokens += rate.total_output_tokens;
    // The mean of whole ms.
    ms += Math.round((rate.average_duration_ms ?? 0) * rate.request_count);
  }
  return {
    endpoint_id: id,
    model_count: models.size,
    aggregate_tps: ms === 0 ? null : (tokens * 1000) / ms,
    total_output_tokens: tokens,
    total_requests: samples,
  };
}
