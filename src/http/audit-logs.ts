import { timestamp } from '../clock.js';
import type { AccessStore, AuditFilter } from '../persistence/access-store.js';
import { time, wholeNumber } from './query.js';
import type { Route } from './routes.js';

const MOST_SKIPPED = 1_000_000;

/** Who changed what, when and from where; nothing of it can be changed here. */
export function auditLogRoutes(store: AccessStore): Route[] {
  return [
    {
      method: 'GET',
      path: '/api/dashboard/audit-logs',
      access: 'logs.read',
      run: async ({ query }) => {
        const perPage = wholeNumber(query, 'per_page', 1, 100) ?? 50;
        const page = wholeNumber(query, 'page', 1, MOST_SKIPPED) ?? 1;
        const { items, total } = await store.audits(filterOf(query), perPage, (page - 1) * perPage);
        return {
          items: items.map((item) => ({
            id: item.id,
            at: timestamp(item.at),
            actor: item.actor,
            actor_type: item.actorType,
            action: item.action,
            target: item.target,
            client_ip: item.clientIp,
            detail: item.detail,
          })),
          total,
          page,
          per_page: perPage,
        };
      },
    },
    {
      method: 'POST',
      path: '/api/dashboard/audit-logs/verify',
      access: 'logs.read',
      run: async () => {
        const { valid, checked, firstBad } = await store.verifyAudits();
        return { valid, checked, first_bad: firstBad };
      },
    },
  ];
}

function filterOf(query: URLSearchParams): AuditFilter {
  const filter: AuditFilter = {};
  const actor = query.get('actor');
  const action = query.get('action');
  const from = time(query, 'time_from');
  const to = time(query, 'time_to');
  if (actor !== null && actor !== '') filter.actor = actor;
  if (action !== null && action !== '') filter.action = action;
  if (from !== undefined) filter.timeFrom = from;
  if (to !== undefined) filter.timeTo = to;
  return filter;
}
