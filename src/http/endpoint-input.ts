import { X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { addressProblem } from './allowed-address.js';
import { toldWith } from './input.js';

/** The canonical form of an endpoint's URL, or what is wrong with it. */
export function normaliseUrl(input: string): { url: string } | { problem: string } {
  let url: URL;
  try {
    url = new URL(input);
  } catch {
    // It is not repeated: it may hold credentials.
    return { problem: 'this is not a URL: write http://HOST:PORT' };
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    return { problem: 'the URL must begin with http:// or https://' };
  }
  if (url.hostname === '') return { problem: 'the URL has no host' };
  if (url.username !== '' || url.password !== '') {
    return { problem: 'the URL must not carry credentials: use api_key' };
  }
  if (url.search !== '' || url.hash !== '') return { problem: 'the URL must not have a query or a fragment' };
  const problem = addressProblem(url.hostname);
  if (problem !== null) return { problem: `${url.hostname}: ${problem}` };
  const path = url.pathname.replace(/\/+$/, '').replace(/\/v1$/, '').replace(/\/+$/, '');
  return { url: `${url.protocol}//${url.host}${path}` };
}

const name = z
  .string()
  .trim()
  .min(1, 'must not be empty')
  .max(200, 'is longer than 200 characters')
  .refine((value) => !hasControl(value), 'must not contain control characters')
  .refine((value) => !/\p{Surrogate}/u.test(value), 'is not well-formed Unicode');

const baseUrl = z.string().transform((value, context) => {
  const url = normaliseUrl(value.trim());
  if ('url' in url) return url.url;
  context.addIssue({ code: 'custom', message: url.problem });
  return z.NEVER;
});

const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Headers the relay sets itself or must never send. */
const RESERVED = new Set([
  'host',
  'connection',
  'content-length',
  'transfer-encoding',
  'upgrade',
  'expect',
  'te',
  'trailer',
  'keep-alive',
  'proxy-connection',
]);
const headerValue = z
  .string()
  .max(8192)
  .refine((value) => /^[\t\x20-\x7e\x80-\xff]*$/.test(value), 'is no valid header value');
const headers = z
  .record(
    z
      .string()
      .refine((key) => HEADER_NAME.test(key), 'is no valid header name')
      .refine((key) => !RESERVED.has(key.toLowerCase()), 'is set by the relay itself'),
    headerValue,
  )
  .refine((value) => Object.keys(value).length <= 50, 'has more than 50 entries');

const apiKey = z
  .string()
  .max(8192)
  .refine((value) => /^[\x20-\x7e]*$/.test(value), 'must be printable ASCII')
  .transform((value) => (value === '' ? null : value));
const interval = z.number().min(0.01, 'must be at least 0.01').max(86_400, 'must be at most 86400');
const timeout = z.int().min(0).max(2_147_483, 'must be at most 2147483');
const notes = z.string().max(10_000);
const maxConcurrency = z.int().min(1, 'must be at least 1').max(1_000_000);
const weight = z.number().min(0.01, 'must be at least 0.01').max(1000, 'must be at most 1000');
const priority = z.int().min(0, 'must be at least 0').max(1000, 'must be at most 1000');
const maxContext = z.int().min(1, 'must be at least 1').max(1_000_000_000);
const ms = z.int().min(0).max(2_147_483_647);
const deadlineSet = {
  connect_ms: ms.max(60_000).optional(),
  first_byte_ms: ms.optional(),
  idle_ms: ms.optional(),
  total_ms: ms.optional(),
};
const deadlines = z.strictObject({ ...deadlineSet, models: byModel(z.strictObject(deadlineSet)).optional() });
const globs = z
  .array(z.string().min(1, 'must not be empty').max(200, 'is longer than 200 characters'))
  .max(200, 'has more than 200 entries');
const modelSettings = byModel(
  z.strictObject({
    weight: weight.optional(),
    priority: priority.optional(),
    max_concurrency: maxConcurrency.optional(),
  }),
);

const tlsCa = z
  .string()
  .max(100_000, 'is longer than 100000 characters')
  .refine(isCertificates, 'must be one or more certificates in PEM');

const TOLD = toldWith(
  'id',
  'status',
  'endpoint_type',
  'latency_ms',
  'last_seen',
  'last_error',
  'error_count',
  'registered_at',
  'model_count',
  'models',
  'circuit',
  // On the dashboard.
  'total_requests',
  'successful_requests',
  'failed_requests',
  'active_requests',
  // By llmlb, whose clients may send them.
  'capabilities',
  'device_info',
);

/** POST /api/endpoints. A field that nobody knows is a slip of the pen, and refused. */
export const endpointInput = z.strictObject({
  ...TOLD,
  name,
  base_url: baseUrl,
  api_key: apiKey.nullish(),
  health_check_interval_secs: interval.nullish(),
  inference_timeout_secs: timeout.nullish(),
  headers: headers.nullish(),
  notes: notes.nullish(),
  weight: weight.nullish(),
  priority: priority.nullish(),
  max_concurrency: maxConcurrency.nullish(),
  max_context: maxContext.nullish(),
  deadlines: deadlines.nullish(),
  models_allow: globs.nullish(),
  models_deny: globs.nullish(),
  model_settings: modelSettings.nullish(),
  tls_ca: tlsCa.nullish(),
});

/** PUT /api/endpoints/{id}: what is absent stays, `null` clears. */
export const endpointChange = endpointInput.partial();

export type EndpointInput = z.infer<typeof endpointInput>;
export type EndpointChange = z.infer<typeof endpointChange>;

/** By a model's name, which may be `__proto__`: a record of zod would leave that one out. */
function byModel<T extends z.ZodType>(one: T) {
  const entries = z
    .map(z.string().max(1000, 'is longer than 1000 characters'), one, 'must be an object')
    .max(200, 'has more than 200 entries');
  return z
    .preprocess((value) => (isObject(value) ? new Map(Object.entries(value)) : value), entries)
    .transform((map): Record<string, z.infer<T>> => Object.fromEntries(map));
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function hasControl(value: string): boolean {
  for (const char of value) {
    const code = char.codePointAt(0) ?? 0;
    if (code < 32 || code === 127) return true;
  }
  return false;
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

function isCertificates(pem: string): boolean {
  const certificates = pem.match(CERTIFICATE) ?? [];
  try {
    for (const one of certificates) new X509Certificate(one);
    return certificates.length > 0;
  } catch {
    return false;
  }
}
