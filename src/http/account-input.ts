import { z } from 'zod';
import type { KeyInput } from '../access/accounts.js';
import { NEW_KEY_PERMISSIONS, PERMISSIONS, type Permission } from '../access/permissions.js';
import type { RateLimit } from '../access/rate-limits.js';
import { toldWith } from './input.js';

/** As long as a passphrase needs; longer ones only cost time. */
const MOST_PASSWORD_CHARS = 1024;
const LEAST_PASSWORD_CHARS = 8;

const username = z
  .string()
  .trim()
  .min(1, 'must not be empty')
  .max(100, 'is longer than 100 characters')
  .refine((value) => /^[\p{L}\p{N}\p{P}\p{S} ]+$/u.test(value), 'holds characters that a name cannot have');
const role = z.enum(['admin', 'viewer'], 'must be admin or viewer');
const password = z.string().max(MOST_PASSWORD_CHARS, `is longer than ${MOST_PASSWORD_CHARS} characters`);

export const loginInput = z.object({ username: z.string().max(1000), password });

export const passwordInput = z.object({
  current_password: password,
  new_password: password.min(LEAST_PASSWORD_CHARS, `must have at least ${LEAST_PASSWORD_CHARS} characters`),
});

/** POST /api/users. */
export const userInput = z.strictObject({
  ...toldWith('id', 'created_at', 'last_login', 'must_change_password'),
  username,
  role,
});

/** PUT /api/users/{id}: what is absent stays. */
export const userChange = userInput.partial().extend({ reset_password: z.boolean().optional() });

const limit = z.int().min(1, 'must be at least 1').max(1_000_000_000_000).nullish();
const rateLimit = z.strictObject({
  requests_per_minute: limit.refine((value) => (value ?? 1) <= 1_000_000, 'must be at most 1000000'),
  tokens_per_minute: limit,
  concurrent: limit,
  tokens_per_day: limit,
  tokens_per_month: limit,
});
const timestamp = z
  .string()
  .refine((value) => /^\d{4}-\d{2}-\d{2}/.test(value) && !Number.isNaN(Date.parse(value)), {
    message: 'must be an RFC 3339 time such as 2026-01-31T12:00:00Z',
  })
  .transform((value) => Date.parse(value));
const permissions = z
  .array(z.enum(PERMISSIONS, `must be of ${PERMISSIONS.join(', ')}`))
  .min(1, 'must name at least one')
  .transform((list) => [...new Set<Permission>(list)]);
const models = z
  .array(z.string().min(1, 'must not be empty').max(300, 'is longer than 300 characters'))
  .min(1, 'must name at least one, or be null for all')
  .max(100, 'has more than 100 entries');

/** POST …/api-keys. An unknown field is an error: a mistyped `expires_at` must not make a key that never ends. */
export const keyInput = z.strictObject({
  ...toldWith('id', 'key_prefix', 'created_by', 'created_at'),
  name: z
    .string()
    .trim()
    .min(1, 'must not be empty')
    .max(200, 'is longer than 200 characters')
    .refine((value) => /^\P{C}+$/u.test(value), 'must not contain control characters'),
  expires_at: timestamp.nullish(),
  permissions: permissions.nullish(),
  models: models.nullish(),
  rate_limit: rateLimit.nullish(),
  priority: z.int().min(0).max(1000).nullish(),
});

/** PUT …/api-keys/{id}: what is absent stays, `null` clears. */
export const keyChange = keyInput.partial();

export function newKey(input: z.infer<typeof keyInput>): KeyInput {
  return {
    name: input.name,
    expiresAt: input.expires_at ?? null,
    permissions: input.permissions ?? [...NEW_KEY_PERMISSIONS],
    models: input.models ?? null,
    rateLimit: rateLimitOf(input.rate_limit),
    priority: input.priority ?? 0,
  };
}

export function changedKey(change: z.infer<typeof keyChange>): Partial<KeyInput> {
  const whole = newKey({ name: '', ...change });
  const named: Partial<KeyInput> = {};
  if (change.name !== undefined) named.name = whole.name;
  if (change.expires_at !== undefined) named.expiresAt = whole.expiresAt;
  if (change.permissions !== undefined) named.permissions = whole.permissions;
  if (change.models !== undefined) named.models = whole.models;
  if (change.rate_limit !== undefined) named.rateLimit = whole.rateLimit;
  if (change.priority !== undefined) named.priority = whole.priority;
  return named;
}

function rateLimitOf(input: z.infer<typeof rateLimit> | null | undefined): RateLimit {
  return {
    requestsPerMinute: input?.requests_per_minute ?? null,
    tokensPerMinute: input?.tokens_per_minute ?? null,
    concurrent: input?.concurrent ?? null,
    tokensPerDay: input?.tokens_per_day ?? null,
    tokensPerMonth: input?.tokens_per_month ?? null,
  };
}
