import type { ApiKey } from '../persistence/access-store.js';
import type { RateLimit } from './rate-limits.js';

/** A key's limits as the API and the audit log write them. */
export function toldLimits(limit: RateLimit): object {
  return {
    requests_per_minute: limit.requestsPerMinute,
    tokens_per_minute: limit.tokensPerMinute,
    concurrent: limit.concurrent,
    tokens_per_day: limit.tokensPerDay,
    tokens_per_month: limit.tokensPerMonth,
  };
}

/** A key as the audit log may show it. */
export function toldKey(key: ApiKey): object {
  return {
    name: key.name,
    expires_at: key.expiresAt === null ? null : new Date(key.expiresAt).toISOString(),
    permissions: key.permissions,
    models: key.models,
    rate_limit: toldLimits(key.rateLimit),
    priority: key.priority,
  };
}
