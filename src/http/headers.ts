import type { EndpointConfig } from '../persistence/store.js';

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** What a client sends that an endpoint must not see, or that the relay sets itself. */
const NOT_UPSTREAM = new Set([
  ...HOP_BY_HOP,
  'authorization',
  'x-api-key',
  'cookie',
  'host',
  'expect',
  'content-length',
  'accept-encoding',
  'x-request-id',
]);

const NOT_DOWNSTREAM = new Set([...HOP_BY_HOP, 'set-cookie', 'set-cookie2', 'x-request-id']);

const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;

/** The client's headers as the endpoint gets them, flat: name, value, name, value … */
export function upstreamHeaders(
  rawHeaders: readonly string[],
  config: EndpointConfig,
  requestId: string,
): string[] {
  const named = connectionTokens(rawHeaders);
  const own = Object.entries(config.headers);
  const replaced = own.length === 0 ? NONE : new Set(own.map(([name]) => name.toLowerCase()));
  const headers: string[] = ['accept-encoding', 'identity', 'x-request-id', requestId];
  if (config.apiKey !== null && !replaced.has('authorization')) {
    headers.push('authorization', `Bearer ${config.apiKey}`);
  }
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string;
    const lower = name.toLowerCase();
    if (NOT_UPSTREAM.has(lower) || lower.startsWith('x-troupe-')) continue;
    if (named.has(lower) || replaced.has(lower)) continue;
    headers.push(name, rawHeaders[i + 1] as string);
  }
  for (const [name, value] of own) headers.push(name, value);
  return headers;
}

/** The endpoint's headers as the client gets them, flat. `keepLength` false: the body may change on its way. */
export function downstreamHeaders(
  headers: Record<string, string | string[] | undefined>,
  keepLength: boolean,
): string[] {
  const named = tokensOf(headers.connection);
  const kept: string[] = [];
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || NOT_DOWNSTREAM.has(name) || named.has(name)) continue;
    if (name.startsWith('x-troupe-') || (name === 'content-length' && !keepLength)) continue;
    for (const one of Array.isArray(value) ? value : [value]) {
      // Node refuses to write what is not Latin-1; one bad header must not cost the answer.
      if (HEADER_VALUE.test(one)) kept.push(name, one);
    }
  }
  return kept;
}

/** Where the header must be printable ASCII, everything else is percent-encoded. */
export function headerSafe(text: string): string {
  return text.replace(/[^\x20-\x7e]+/g, encodeURIComponent);
}

/** The client's own id for the request, if it is a sane one. */
export function saneRequestId(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' && REQUEST_ID.test(value) ? value : undefined;
}

/** Names that `connection` headers make hop-by-hop. */
function connectionTokens(rawHeaders: readonly string[]): Set<string> {
  let named = NONE;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() !== 'connection') continue;
    const tokens = tokensOf(rawHeaders[i + 1]?.toLowerCase());
    if (tokens !== NONE) named = new Set([...named, ...tokens]);
  }
  return named;
}

const NONE: Set<string> = new Set();

function tokensOf(value: string | string[] | undefined): Set<string> {
  // Nearly always one of these, which name no header.
  if (value === undefined || value === 'keep-alive' || value === 'close') return NONE;
  return new Set(
    String(value)
      .toLowerCase()
      .split(',')
      .map((token) => token.trim()),
  );
}
