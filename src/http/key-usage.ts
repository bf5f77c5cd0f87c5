import type { Directory } from '../access/directory.js';
import { NOBODY } from '../access/principal.js';
import type { Books } from '../actors/books.js';
import { type Clock, localDate, timestamp } from '../clock.js';
import { monthOf, type Usage } from '../machines/usage.js';
import type { AccessStore, MonthlyUsage, Owner } from '../persistence/access-store.js';
import { type Cell, csvOf } from './csv.js';
import { ApiError } from './errors.js';
import { Answer, type Route } from './routes.js';

export interface KeyUsageRoutesDeps {
  books: Books;
  directory: Directory;
  store: AccessStore;
  clock: Clock;
  /** Waits a little for the ledger: true once everything up to now is in the store. */
  caughtUp: () => Promise<boolean>;
}

const ENVIRONMENT = { id: NOBODY, name: 'TROUPE_API_KEY', keyPrefix: '' };
const COLUMNS = [
  'month',
  'kind',
  'id',
  'name',
  'key_prefix',
  'requests',
  'errors',
  'input_tokens',
  'output_tokens',
];

/** What each key has used. */
export function keyUsageRoutes(deps: KeyUsageRoutesDeps): Route[] {
  const { books, directory, store, clock, caughtUp } = deps;

  function keys() {
    const today = localDate(clock.now());
    const known = directory.keys().map(({ id, name, keyPrefix }) => ({ id, name, keyPrefix }));
    return [...(directory.hasEnvironmentKey ? [ENVIRONMENT] : []), ...known].map(
      ({ id, name, keyPrefix }) => {
        const usage = books.usage(id, today);
        return {
          id,
          name,
          key_prefix: keyPrefix,
          today: usageView(usage.today),
          total: usageView(usage.total),
          last_used_at: usage.lastUsedAt === 0 ? null : timestamp(usage.lastUsedAt),
        };
      },
    );
  }

  return [
    { method: 'GET', path: '/api/dashboard/keys', access: 'dashboard.read', run: keys },
    {
      method: 'GET',
      path: '/api/dashboard/keys/usage.csv',
      access: 'dashboard.read',
      run: async ({ query }) => {
        const to = month(query, 'to') ?? monthOf(localDate(clock.now()));
        const from = month(query, 'from') ?? '0000-01';
        await caughtUp();
        const [rows, owners] = [await store.monthlyUsage(from, to), await store.owners()];
        return new Answer(200, csvOf(lines(rows, owners)), {
          'content-type': 'text/csv; charset=utf-8',
          'content-disposition': 'attachment; filename="troupe-usage.csv"',
        });
      },
    },
  ];
}

function usageView({ requests, errors, inputTokens, outputTokens }: Usage) {
  return { requests, errors, input_tokens: inputTokens, output_tokens: outputTokens };
}

function month(query: URLSearchParams, name: string): string | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  if (/^\d{4}-(0[1-9]|1[0-2])$/.test(text)) return text;
  throw new ApiError('invalid_request', `${name}: a month such as 2026-01`, { param: name });
}

function lines(rows: MonthlyUsage[], owners: Owner[]): Cell[][] {
  const names = new Map(owners.map((owner) => [owner.ownerId, owner]));
  const found = rows.map((row) => {
    const owner = names.get(row.ownerId);
    const isEnvironment = row.ownerId === NOBODY;
    return [
      row.month,
      owner?.kind ?? (isEnvironment ? 'key' : 'user'),
      row.ownerId,
      owner?.name ?? (isEnvironment ? ENVIRONMENT.name : ''),
      owner?.keyPrefix ?? '',
      row.requests,
      row.errors,
      row.inputTokens,
      row.outputTokens,
    ];
  });
  return [COLUMNS, ...found];
}
