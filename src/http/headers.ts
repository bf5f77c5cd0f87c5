import type { EndpointSecrets } from '../persistence/store.js';

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
  // Whose page it is is Troupe's business; engines refuse pages they do not know.
  'origin',
  'x-csrf-token',
]);

const NOT_DOWNSTREAM = new Set([...HOP_BY_HOP, 'set-cookie', 'set-cookie2', 'x-request-id']);

const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const PRINTABLE = /^[\x20-\x7e]*$/;
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;

/** The client's headers as the endpoint gets them, flat: name, value, name, value … */
export function upstreamHeaders(
  rawHeaders: readonly string[],
  secrets: EndpointSecrets,
  requestId: string,
): string[] {
  let named = NONE;
  const own = Object.entries(secrets.headers);
  const replaced = own.length === 0 ? NONE : new Set(own.map(([name]) => name.toLowerCase()));
  const headers: string[] = ['accept-encoding', 'identity', 'x-request-id', requestId];
  if (secrets.apiKey !== null && !replaced.has('authorization')) {
    headers.push('authorization', `Bearer ${secrets.apiKey}`);
  }
  const from = headers.length;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string;
    const use = useOf(name);
    if (use === 'connection') named = joined(named, tokensOf(rawHeaders[i + 1]));
    if (use === 'upstream') headers.push(name, rawHeaders[i + 1] as string);
  }
  if (named !== NONE || replaced !== NONE) leaveOut(headers, from, named, replaced);
  for (const [name, value] of own) headers.push(name, value);
  return headers;
}

/**
 * The endpoint's headers as the client gets them, flat. `keepLength` false: the body may change on its way.
 * `hasLimits`: the client is told of limits of its own.
 */
export function downstreamHeaders(
  headers: Record<string, string | string[] | undefined>,
  keepLength: boolean,
  hasLimits: boolean,
): string[] {
  const named = tokensOf(headers.connection);
  const kept: string[] = [];
  for (const name of Object.keys(headers)) {
    const value = headers[name];
    if (value === undefined || NOT_DOWNSTREAM.has(name) || named.has(name)) continue;
    if (isOurs(name, hasLimits)) continue;
    if (name === 'content-length' && !keepLength) continue;
    for (const one of Array.isArray(value) ? value : [value]) {
      // Node refuses to write what is not Latin-1; one bad header must not cost the answer.
      if (HEADER_VALUE.test(one)) kept.push(name, one);
    }
  }
  return kept;
}

/** The header must be printable ASCII: everything else is percent-encoded. */
export function headerSafe(text: string): string {
  return PRINTABLE.test(text) ? text : text.replace(/[^\x20-\x7e]+/g, encodeURIComponent);
}

/** The client's own id for the request, if it is a sane one. */
export function saneRequestId(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' && REQUEST_ID.test(value) ? value : undefined;
}

/** Whose page may read the answer is not the endpoint's to say; nor, where the client's key has limits, are they. */
function isOurs(name: string, hasLimits: boolean): boolean {
  if (name.startsWith('x-troupe-') || name.startsWith('access-control-')) return true;
  return hasLimits && name.startsWith('x-ratelimit-');
}

type Use = 'upstream' | 'connection' | 'none';

const USES = new Map<string, Use>();
const MOST_USES = 1000;

/** What becomes of a client's header, by its name as it was written; clients send few different ones. */
function useOf(name: string): Use {
  const known = USES.get(name);
  if (known !== undefined) return known;
  const lower = name.toLowerCase();
  const left = NOT_UPSTREAM.has(lower) || lower.startsWith('x-troupe-');
  const use = lower === 'connection' ? 'connection' : left ? 'none' : 'upstream';
  if (USES.size < MOST_USES) USES.set(name, use);
  return use;
}

/** Takes the named ones out of a flat list, from a place on. */
function leaveOut(headers: string[], from: number, ...names: Set<string>[]): void {
  for (let i = headers.length - 2; i >= from; i -= 2) {
    const lower = (headers[i] as string).toLowerCase();
    if (names.some((set) => set.has(lower))) headers.splice(i, 2);
  }
}

const NONE: Set<string> = new Set();

function joined(a: Set<string>, b: Set<string>): Set<string> {
  return b === NONE ? a : new Set([...a, ...b]);
}

const PLAIN_CONNECTION = /^(keep-alive|close)$/i;

function tokensOf(value: string | string[] | undefined): Set<string> {
  // Nearly always one of these, which name no header.
  if (value === undefined || PLAIN_CONNECTION.test(String(value))) return NONE;
  return new Set(
    String(value)
      .toLowerCase()
      .split(',')
      .map((token) => token.trim()),
  );
}
