import type { IncomingMessage, ServerResponse } from 'node:http';

/** Only what this server itself serves, and nothing inline. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * What a browser must know of every answer that is no model's. No HSTS: it holds for every port of the host, and an
 * inference box has others that speak plain HTTP.
 */
const SECURITY: readonly [string, string][] = [
  ['content-security-policy', CONTENT_SECURITY_POLICY],
  ['x-content-type-options', 'nosniff'],
  ['x-frame-options', 'DENY'],
  ['referrer-policy', 'no-referrer'],
  ['cross-origin-opener-policy', 'same-origin'],
  ['cross-origin-resource-policy', 'same-origin'],
];

export function addSecurityHeaders(res: ServerResponse): void {
  for (const [name, value] of SECURITY) res.setHeader(name, value);
}

const EXPOSED = [
  'retry-after',
  'x-request-id',
  'x-troupe-endpoint',
  'x-troupe-attempts',
  'x-troupe-overhead-ms',
  'x-ratelimit-limit-requests',
  'x-ratelimit-remaining-requests',
  'x-ratelimit-reset-requests',
  'x-ratelimit-limit-tokens',
  'x-ratelimit-remaining-tokens',
  'x-ratelimit-reset-tokens',
].join(', ');

const HEADER_LIST = /^[\w!#$%&'*+.^`|~-]+(?: *, *[\w!#$%&'*+.^`|~-]+)*$/;

/** Pages of other origins that may use `/v1`; none unless told. `*`: all. */
export function corsOf(origins: readonly string[]) {
  const allowed = new Set(origins);

  return {
    /** Lets the page of an allowed origin read the answer. True: the request was a preflight and is answered. */
    handle(req: IncomingMessage, res: ServerResponse): boolean {
      const { origin } = req.headers;
      if (origin === undefined || !(allowed.has(origin) || allowed.has('*'))) return false;
      res.setHeader('access-control-allow-origin', origin);
      res.setHeader('vary', 'Origin');
      if (req.method !== 'OPTIONS' || req.headers['access-control-request-method'] === undefined) {
        res.setHeader('access-control-expose-headers', EXPOSED);
        return false;
      }
      const wanted = req.headers['access-control-request-headers'] ?? '';
      res.writeHead(204, {
        'access-control-allow-methods': 'GET, POST',
        'access-control-max-age': '600',
        ...(HEADER_LIST.test(wanted) ? { 'access-control-allow-headers': wanted } : {}),
      });
      res.end();
      return true;
    },
  };
}

export type Cors = ReturnType<typeof corsOf>;
