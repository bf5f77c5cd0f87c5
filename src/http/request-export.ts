import type { Books } from '../actors/books.js';
import { recordView } from '../actors/record-view.js';
import type { RecordView } from '../actors/wire-shapes.js';
import { type Clock, timestamp } from '../clock.js';
import type { RequestRecord } from '../machines/records.js';
import type { RequestFilter, Store } from '../persistence/store.js';
import { type Cell, csvOf } from './csv.js';
import { oneOf } from './query.js';
import { fitsFilter, requestFilterOf } from './request-filter.js';
import { Answer, type Route } from './routes.js';

export interface RequestExportRoutesDeps {
  books: Books;
  store: Store;
  clock: Clock;
  /** Waits a little for the ledger: true once everything up to now is in the store. */
  caughtUp: () => Promise<boolean>;
  log: { warn(details: object, message: string): void };
}

const FORMATS = ['csv', 'json'] as const;
const SLICE_ROWS = 500;

/** All requests that fit a filter as one file, in slices: none is in memory for longer than it takes to send it. */
export function requestExportRoutes({
  books,
  store,
  clock,
  caughtUp,
  log,
}: RequestExportRoutesDeps): Route[] {
  /** Newest first: those that the store does not have yet, then its own. */
  async function* slices(filter: RequestFilter): AsyncGenerator<RequestRecord[], void> {
    const waiting = (await caughtUp())
      ? []
      : books
          .pendingRows()
          .filter((row) => fitsFilter(row, filter))
          .reverse();
    const waited = new Set(waiting.map(({ id }) => id));
    // A store that is away is an answer of its own as long as nothing has been sent.
    let slice = await store.requestSlice(filter, null, SLICE_ROWS);
    while (waiting.length > 0) yield waiting.splice(0, SLICE_ROWS);
    for (;;) {
      yield slice.records.filter(({ id }) => !waited.has(id));
      if (slice.next === null) return;
      slice = await store.requestSlice(filter, slice.next, SLICE_ROWS);
    }
  }

  return [
    {
      method: 'GET',
      path: '/api/dashboard/requests/export',
      access: 'dashboard.read',
      run: async ({ query }) => {
        const format = oneOf(query, 'format', FORMATS) ?? 'csv';
        const rows = slices(requestFilterOf(query));
        const first = await rows.next();
        const time = timestamp(clock.now()).replace(/\.\d+|[-:]/g, '');
        const body = streamOf(WRITERS[format](first.value ?? [], rows), (error) =>
          log.warn({ reason: error.message }, 'an export was cut short'),
        );
        return new Answer(200, body, {
          'content-type': TYPES[format],
          'content-disposition': `attachment; filename="troupe-requests-${time}.${format}"`,
        });
      },
    },
  ];
}

const TYPES = { csv: 'text/csv; charset=utf-8', json: 'application/json' };
const WRITERS = { csv: csvTexts, json: jsonTexts };

type Slices = AsyncGenerator<RequestRecord[], void>;

const COLUMNS: [name: string, of: (record: RecordView) => Cell][] = [
  ['id', ({ id }) => id],
  ['request_id', ({ request_id }) => request_id],
  ['timestamp', ({ timestamp }) => timestamp],
  ['completed_at', ({ completed_at }) => completed_at],
  ['request_type', ({ request_type }) => request_type],
  ['model', ({ model }) => model],
  ['endpoint_id', ({ endpoint_id }) => endpoint_id],
  ['endpoint_name', ({ endpoint_name }) => endpoint_name],
  ['client_ip', ({ client_ip }) => client_ip],
  ['key_id', ({ key_id }) => key_id],
  ['user_id', ({ user_id }) => user_id],
  ['status', ({ status }) => status.type],
  ['error', ({ status }) => (status.type === 'error' ? status.message : null)],
  ['outcome', ({ outcome }) => outcome],
  ['status_code', ({ status_code }) => status_code],
  ['duration_ms', ({ duration_ms }) => duration_ms],
  ['ttft_ms', ({ ttft_ms }) => ttft_ms],
  ['input_tokens', ({ input_tokens }) => input_tokens],
  ['output_tokens', ({ output_tokens }) => output_tokens],
  ['total_tokens', ({ total_tokens }) => total_tokens],
  ['tokens_estimated', ({ tokens_estimated }) => tokens_estimated],
  ['attempts', ({ attempts }) => attempts.length],
];

async function* csvTexts(first: RequestRecord[], rest: Slices): AsyncGenerator<string, void> {
  const lines = (rows: RequestRecord[]) =>
    csvOf(rows.map(recordView).map((record) => COLUMNS.map(([, of]) => of(record))));
  try {
    yield csvOf([COLUMNS.map(([name]) => name)]) + lines(first);
    for await (const rows of rest) if (rows.length > 0) yield lines(rows);
  } finally {
    await rest.return();
  }
}

async function* jsonTexts(first: RequestRecord[], rest: Slices): AsyncGenerator<string, void> {
  const items = (rows: RequestRecord[]) => rows.map((row) => JSON.stringify(recordView(row))).join(',\n');
  let isEmpty = first.length === 0;
  try {
    yield `[${items(first)}`;
    for await (const rows of rest) {
      if (rows.length === 0) continue;
      yield (isEmpty ? '' : ',\n') + items(rows);
      isEmpty = false;
    }
    yield ']\n';
  } finally {
    await rest.return();
  }
}

/** Asks for the next text when the one before is on its way; an error breaks the answer off. */
function streamOf(
  texts: AsyncGenerator<string, void>,
  failed: (error: Error) => void,
): ReadableStream<Uint8Array> {
  return new ReadableStream(
    {
      async pull(controller) {
        try {
          const { done, value } = await texts.next();
          if (done) controller.close();
          else controller.enqueue(Buffer.from(value));
        } catch (error) {
          failed(error as Error);
          throw error;
        }
      },
      async cancel() {
        await texts.return();
      },
    },
    { highWaterMark: 0 },
  );
}
