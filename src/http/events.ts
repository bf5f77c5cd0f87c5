import { createEventStream, type EventStream, type H3Event } from 'h3';
import type { Directory } from '../access/directory.js';
import type { Principal } from '../access/principal.js';
import type { Books } from '../actors/books.js';
import type { House } from '../actors/house.js';
import type { Views } from '../actors/view.js';
import type { DashboardEndpointView, ModelTpsView, StatsView } from '../actors/wire-shapes.js';
import type { Clock } from '../clock.js';
import type { RequestRecord } from '../machines/records.js';

/** At most four frames a second. */
const FRAME_MS = 250;
const COMMENT_MS = 15_000;
const MOST_RECORDS = 50;
/** A reader this many frames behind is let go: it comes back and gets a fresh snapshot. */
const MOST_UNSENT = 200;

export interface EventsDeps {
  directory: Directory;
  clock: Clock;
  house: House;
  books: Books;
  views: Views;
}

export interface Events {
  /** The stream for one reader. */
  open(event: H3Event, principal: Principal): unknown;
  closeAll(): void;
}

interface Reader {
  principal: Principal;
  stream: EventStream;
  unsent: number;
}

interface Message {
  event: string;
  data: string;
}

/** What changes, pushed: made once for all readers, and only while there are any. */
export function eventsOf({ directory, clock, house, books, views }: EventsDeps): Events {
  const readers = new Set<Reader>();
  let nextId = 1;
  let timer: NodeJS.Timeout | null = null;
  let lastComment = 0;
  let endpoints = new Map<string, string>();
  let rates = new Map<string, string>();
  let stats = '';
  let records: RequestRecord[] = [];
  let omitted = 0;
  let stopListening = () => {};

  function start(): void {
    endpoints = new Map(views.dashboardEndpoints().map((view) => [view.id, JSON.stringify(view)]));
    rates = new Map(ratesNow().map(([key, view]) => [key, JSON.stringify(view)]));
    stats = JSON.stringify(views.stats());
    records = [];
    omitted = 0;
    stopListening = books.onAppend((record) => {
      if (records.length < MOST_RECORDS) records.push(record);
      else omitted += 1;
    });
    timer = setInterval(frame, FRAME_MS);
  }

  function stop(): void {
    if (timer !== null) clearInterval(timer);
    timer = null;
    stopListening();
  }

  function ratesNow(): [string, ModelTpsView & { endpoint_id: string }][] {
    return house.roster
      .configs()
      .flatMap(({ id }) =>
        views
          .modelTps(id)
          .map((view): [string, ModelTpsView & { endpoint_id: string }] => [
            `${id}\n${view.api_kind}\n${view.model_id}`,
            { endpoint_id: id, ...view },
          ]),
      );
  }

  /** A session that has ended, or a key that was revoked or may no longer, sees nothing more. */
  function dismiss(): void {
    const now = clock.now();
    for (const reader of readers) {
      if (directory.current(reader.principal, now)?.permissions.has('dashboard.read')) continue;
      readers.delete(reader);
      reader.stream.close().catch(() => {});
    }
  }

  /** Everything that differs from the frame before. */
  function frame(): void {
    dismiss();
    const messages: Message[] = [
      ...changes(
        'endpoint',
        endpoints,
        views.dashboardEndpoints().map((view) => [view.id, view]),
      ),
      ...changes('tps', rates, ratesNow()),
    ];
    const newStats = JSON.stringify(views.stats());
    if (newStats !== stats) messages.push({ event: 'stats', data: newStats });
    stats = newStats;
    if (records.length > 0) {
      const data = JSON.stringify({ records: records.map(views.record), omitted });
      messages.push({ event: 'request', data });
      records = [];
      omitted = 0;
    }
    if (messages.length > 0) {
      const framed = messages.map((message) => ({ ...message, id: String(nextId++) }));
      for (const reader of readers) push(reader, framed);
    }
    lastComment += FRAME_MS;
    if (lastComment < COMMENT_MS) return;
    lastComment = 0;
    for (const { stream } of readers) stream.pushComment('still here').catch(() => {});
  }

  function push(reader: Reader, messages: (Message & { id: string })[]): void {
    if (reader.unsent > MOST_UNSENT) {
      reader.stream.close().catch(() => {});
      return;
    }
    reader.unsent += 1;
    const sent = () => {
      reader.unsent -= 1;
    };
    reader.stream.push(messages).then(sent, sent);
  }

  return {
    open(event, principal) {
      const stream = createEventStream(event);
      const reader = { principal, stream, unsent: 0 };
      if (timer === null) start();
      readers.add(reader);
      stream.onClosed(() => {
        readers.delete(reader);
        if (readers.size === 0) stop();
      });
      push(reader, [{ event: 'snapshot', data: JSON.stringify(views.overview()), id: String(nextId++) }]);
      return stream;
    },

    closeAll() {
      for (const { stream } of readers) stream.close().catch(() => {});
      stop();
    },
  };
}

/** One message for each view that is new or differs; `known` is brought up to date. */
function changes(
  event: string,
  known: Map<string, string>,
  now: [string, DashboardEndpointView | ModelTpsView | StatsView][],
): Message[] {
  const messages: Message[] = [];
  for (const [key, view] of now) {
    const data = JSON.stringify(view);
    if (known.get(key) === data) continue;
    known.set(key, data);
    messages.push({ event, data });
  }
  return messages;
}
