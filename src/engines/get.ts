import { type Dispatcher, errors, request } from 'undici';
import type { Get, Reply } from './engine.js';

const MIB = 1024 * 1024;
const MAX_BYTES = { json: 4 * MIB, text: MIB };
const ACCEPT = { json: 'application/json', text: 'text/plain' };

type Form = keyof typeof MAX_BYTES;

/** Why there is no reply; the message is for people and never holds URL, key or stack. */
export class NoReply extends Error {
  /** `foreign`: something answers, but not in HTTP or not within bounds. */
  readonly reason: 'unreachable' | 'timeout' | 'foreign';

  constructor(reason: NoReply['reason'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

interface GetOptions {
  baseUrl: string;
  apiKey: string | null;
  headers: Record<string, string>;
  dispatcher: Dispatcher;
  /** Monotonic, ms. */
  mono: () => number;
  /** Ends every request; its reason is a `NoReply`. */
  signal: AbortSignal;
}

/** A `Get` that remembers what it was told, for the length of one check. */
export function createGet(options: GetOptions): Get {
  const replies = new Map<string, Promise<Reply>>();
  return (path, as = 'json') => {
    const key = `${as} ${path}`;
    const earlier = replies.get(key);
    if (earlier) return earlier;
    const reply = untilAborted(ask(path, as, options), options.signal);
    // A probe may fail after everybody has stopped waiting for it.
    reply.catch(() => undefined);
    replies.set(key, reply);
    return reply;
  };
}

async function ask(path: string, as: Form, options: GetOptions): Promise<Reply> {
  try {
    const { head, headMs } = await askHead(path, as, options);
    const reply = { path, status: head.statusCode, headers: head.headers, headMs };
    if (head.statusCode !== 200) {
      // The status says it all: the rest is drained, and cut off when the check ends.
      void head.body.dump({ limit: MAX_BYTES[as] }).catch(() => undefined);
      return { ...reply, json: undefined };
    }
    const text = await textOf(head.body, path, MAX_BYTES[as]);
    return as === 'text' ? { ...reply, json: undefined, text } : { ...reply, json: parsed(text) };
  } catch (error) {
    throw noReply(error);
  }
}

async function askHead(path: string, as: Form, options: GetOptions, attempt = 1) {
  const started = options.mono();
  try {
    const head = await request(options.baseUrl + path, {
      dispatcher: options.dispatcher,
      signal: options.signal,
      headers: headersOf(options, as),
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    return { head, headMs: options.mono() - started };
  } catch (error) {
    // The engine may have just closed the idle connection this went out on.
    const maySucceed = attempt === 1 && !options.signal.aborted && RESETS.has(codeOf(error));
    if (maySucceed) return askHead(path, as, options, 2);
    throw error;
  }
}

function headersOf({ apiKey, headers }: GetOptions, as: Form): Record<string, string> {
  const own = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  return {
    ...(apiKey === null ? {} : { authorization: `Bearer ${apiKey}` }),
    ...Object.fromEntries(own),
    accept: ACCEPT[as],
    'accept-encoding': 'identity',
  };
}

async function textOf(body: Dispatcher.ResponseData['body'], path: string, most: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > most) {
      throw new NoReply('foreign', `answered GET ${path} with more than ${most / MIB} MiB`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** undici holds a request back while its connection is being made and does not let go of it on abort. */
function untilAborted(reply: Promise<Reply>, signal: AbortSignal): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    reply.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

const RESETS = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET']);

const UNREACHABLE: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EPIPE: 'connection reset',
  UND_ERR_SOCKET: 'connection closed before the answer was complete',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'connection closed before the answer was complete',
  ENOTFOUND: 'host name not found',
  EAI_AGAIN: 'host name lookup failed',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to the network',
  ETIMEDOUT: 'connection attempt timed out',
  UND_ERR_CONNECT_TIMEOUT: 'connection attempt timed out',
  EPROTO: 'TLS handshake failed',
  ERR_ADDRESS_NOT_ALLOWED: 'its name leads to an address that is not allowed (link-local or cloud metadata)',
  UND_ERR_INVALID_ARG: 'the request cannot be sent with this URL, key and headers',
};

function noReply(error: unknown): NoReply {
  if (error instanceof NoReply) return error;
  // undici 7.30 leaves the HPE_* code of a parser error undefined.
  if (error instanceof errors.HTTPParserError) return foreign('what it sends is not HTTP', error);
  const code = codeOf(error);
  if (code === 'UND_ERR_HEADERS_OVERFLOW') return foreign('its response head is too long', error);
  return new NoReply('unreachable', UNREACHABLE[code] ?? otherwiseUnreachable(code), { cause: error });
}

function foreign(message: string, cause: unknown): NoReply {
  return new NoReply('foreign', message, { cause });
}

function otherwiseUnreachable(code: string): string {
  if (code.startsWith('ERR_SSL_')) return 'TLS handshake failed';
  const what = /CERT|SIGNATURE/.test(code) ? 'its TLS certificate is not accepted' : 'cannot be reached';
  return code === '' ? what : `${what} (${code})`;
}

function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : '';
}
