import type { Accounts } from '../access/accounts.js';
import { type Directory, grantableBy } from '../access/directory.js';
import type { Principal } from '../access/principal.js';
import type { RateLimits } from '../access/rate-limits.js';
import { toldLimits } from '../access/told.js';
import { timestamp } from '../clock.js';
import type { ApiKey } from '../persistence/access-store.js';
import { changedKey, keyChange, keyInput, newKey } from './account-input.js';
import { parsed } from './input.js';
import { type Access, Answer, type Route } from './routes.js';

export interface ApiKeyRoutesDeps {
  accounts: Accounts;
  directory: Directory;
  rateLimits: RateLimits;
}

/** The own keys of whoever asks, and all keys for those who manage users. */
export function apiKeyRoutes({ accounts, directory, rateLimits }: ApiKeyRoutesDeps): Route[] {
  const view = (key: ApiKey) => keyView(key, directory);

  /** `owned`: whose keys somebody may see and change; null: everybody's. */
  function routes(path: string, access: Access, owned: (principal: Principal) => string | null): Route[] {
    return [
      {
        method: 'GET',
        path,
        access,
        run: ({ principal }) => {
          const owner = owned(principal);
          const keys = directory.keys().filter(({ createdBy }) => owner === null || createdBy === owner);
          return { api_keys: keys.map(view) };
        },
      },
      {
        method: 'POST',
        path,
        access,
        run: async ({ json, principal, actor }) => {
          const input = newKey(parsed(keyInput, await json()));
          const { key, secret } = await accounts.createKey(
            principal.userId,
            grantable(principal),
            input,
            actor,
          );
          return new Answer(201, { ...view(key), key: secret });
        },
      },
      {
        method: 'PUT',
        path: `${path}/:id`,
        access,
        run: async ({ params, json, principal, actor }) => {
          const change = changedKey(parsed(keyChange, await json()));
          return view(
            await accounts.updateKey(params.id ?? '', owned(principal), grantable(principal), change, actor),
          );
        },
      },
      {
        method: 'DELETE',
        path: `${path}/:id`,
        access,
        run: async ({ params, principal, actor }) => {
          const { id } = await accounts.revokeKey(params.id ?? '', owned(principal), actor);
          rateLimits.forget(id);
          return new Answer(204, undefined);
        },
      },
    ];
  }

  return [
    ...routes('/api/me/api-keys', 'own-keys', ({ userId }) => userId),
    ...routes('/api/api-keys', 'users.manage', () => null),
  ];
}

/** A key gives no more than it has; a person what the role allows. */
function grantable({ kind, role, permissions }: Principal) {
  return kind === 'api_key' ? permissions : grantableBy(role);
}

function keyView(key: ApiKey, directory: Directory) {
  return {
    id: key.id,
    key_prefix: key.keyPrefix,
    name: key.name,
    created_by: key.createdBy,
    created_at: timestamp(key.createdAt),
    expires_at: key.expiresAt === null ? null : timestamp(key.expiresAt),
    // What it may do now: less than it was given if its owner may do less by now.
    permissions: directory.effective(key),
    models: key.models,
    rate_limit: toldLimits(key.rateLimit),
    priority: key.priority,
  };
}
