import type { Books } from '../actors/books.js';
import type { Wanted } from '../actors/chooser.js';
import { definition, mermaid } from '../actors/diagram.js';
import type { House } from '../actors/house.js';
import type { Restarts } from '../actors/restarts.js';
import type { Tree } from '../actors/tree.js';
import type { Views } from '../actors/view.js';
import { reasonOf } from '../machines/choose.js';
import { candidateRecord } from '../machines/decision.js';
import type { RequestRecord } from '../machines/records.js';
import type { RequestList, RequestPage, Store } from '../persistence/store.js';
import { ApiError } from './errors.js';
import type { LiveRequest } from './inference.js';
import { oneOf, wholeNumber } from './query.js';
import { fitsFilter, requestFilterOf } from './request-filter.js';
import { Answer, type Route } from './routes.js';
import { scanned, wantedOf } from './wanted.js';

export interface DashboardRoutesDeps {
  house: House;
  books: Books;
  store: Store;
  views: Views;
  tree: Tree;
  restarts: Restarts;
  /** Waits a little for the ledger: true once everything up to now is in the store. */
  caughtUp: () => Promise<boolean>;
  /** The requests under way. */
  live: () => LiveRequest[];
}

const PAGE_SIZES = ['10', '25', '50', '100'] as const;
const MOST_SKIPPED = 100_000;

export function dashboardRoutes({
  house,
  books,
  store,
  views,
  tree,
  restarts,
  caughtUp,
  live,
}: DashboardRoutesDeps): Route[] {
  const read = (path: string, run: Route['run']): Route => ({
    method: 'GET',
    path: `/api/dashboard/${path}`,
    access: 'dashboard.read',
    run,
  });

  /** The store's rows, with those in front that it does not have yet. */
  async function list(page: RequestPage): Promise<RequestList> {
    if (await caughtUp()) return store.requests(page);
    const waiting =
      page.before === undefined
        ? books
            .pendingRows()
            .filter((row) => fitsFilter(row, page))
            .reverse()
        : [];
    const first = waiting.slice(page.offset, page.offset + page.limit);
    const stored = await store.requests({
      ...page,
      offset: Math.max(0, page.offset - waiting.length),
      limit: page.limit - first.length,
    });
    return { ...stored, records: [...first, ...stored.records], total: stored.total + waiting.length };
  }

  async function record(id: string): Promise<RequestRecord | undefined> {
    return (
      books.pendingRows().findLast((row) => row.id === id || row.requestId === id) ??
      (await store.request(id))
    );
  }

  /** Where a request would go now, and why; nothing is sent, and nobody's turn is over. */
  function explain(wanted: Wanted) {
    const choice = house.chooser.look(wanted);
    if (choice.candidates.length === 0) {
      throw new ApiError('model_not_found', `no endpoint lists the model ${JSON.stringify(wanted.model)}`, {
        param: 'model',
      });
    }
    const nameOf = (id: string) => house.roster.config(id)?.name ?? id;
    const isRefused = house.chooser.surelyExceeds(wanted) !== null;
    return {
      choice: isRefused ? null : (choice.chosen?.endpointId ?? null),
      candidates: choice.candidates.map((candidate) => {
        const reason = isRefused ? 'context_too_small' : reasonOf(candidate, choice);
        return candidateRecord(candidate, reason, choice, nameOf);
      }),
    };
  }

  return [
    read('overview', () => views.overview()),
    read('endpoints', () => views.dashboardEndpoints()),
    read('stats', () => views.stats()),
    read('request-history', () => views.history()),
    read('model-stats', () => views.modelStats()),
    read('request-responses', async ({ query }) => {
      const page = pageOf(query);
      const { records, total, capped } = await list(page);
      return {
        records: records.map(views.record),
        total_count: total,
        total_is_capped: capped,
        page: Math.floor(page.offset / page.limit) + 1,
        per_page: page.limit,
      };
    }),
    read('request-responses/:id', async ({ params }) => {
      const found = await record(params.id ?? '');
      if (found === undefined) throw new ApiError('not_found', `no request has the id ${params.id}`);
      return { ...views.record(found), decision: found.decision };
    }),
    read('requests/live', () => live()),
    {
      method: 'POST',
      path: '/api/dashboard/explain',
      access: 'dashboard.read',
      run: async ({ bytes, req }) => {
        const body = await bytes();
        const session = req.headers['x-session-id'];
        return explain(wantedOf(scanned(body), body.length, () => body, session, house.chooser.policy));
      },
    },
    read('actors', () => ({ root: tree.root() })),
    read('actors/:id', ({ params }) => {
      const actor = tree.actor(params.id ?? '');
      if (actor === undefined) throw new ApiError('not_found', `no actor has the id ${params.id}`);
      return actor;
    }),
    {
      method: 'POST',
      path: '/api/dashboard/actors/:id/restart',
      access: 'endpoints.manage',
      run: async ({ params, actor }) => {
        await restarts.restart(params.id ?? '', actor);
        return new Answer(202, undefined);
      },
    },
    read('machines', () =>
      Object.entries(house.machines).map(([id, machine]) => ({
        id,
        definition: definition(machine),
        mermaid: mermaid(machine),
      })),
    ),
  ];
}

function pageOf(query: URLSearchParams): RequestPage {
  const limit = wholeNumber(query, 'limit', 1, 100) ?? Number(oneOf(query, 'per_page', PAGE_SIZES) ?? 10);
  const page = wholeNumber(query, 'page', 1, Number.MAX_SAFE_INTEGER) ?? 1;
  const offset = wholeNumber(query, 'offset', 0, Number.MAX_SAFE_INTEGER) ?? (page - 1) * limit;
  if (offset > MOST_SKIPPED) {
    throw new ApiError(
      'invalid_request',
      `page, offset: at most ${MOST_SKIPPED} rows can be skipped; use before=<id>`,
      {
        param: 'offset',
      },
    );
  }
  const before = query.get('before') || undefined;
  return { ...requestFilterOf(query), limit, offset, ...(before === undefined ? {} : { before }) };
}
