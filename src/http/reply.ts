import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Place } from '../line.js';
import type { KeptAnswer } from './attempt.js';
import type { ApiError, ErrorCode } from './errors.js';
import { pathOf, sendError } from './send.js';
import type { TapKind } from './tap.js';
import { type Watched, wheel } from './wheel.js';

/** A streaming client that has got nothing for so long gets a head and comments, so that nobody in between gives up. */
const PATIENCE_MS = 10_000;
const COMMENT_MS = 10_000;
/** So long a connection lives on after a stream that broke. */
const QUIET_MS = 250;

export interface ReplyOptions {
  kind: TapKind;
  /** The client asked for a stream of events. */
  stream: boolean;
  requestId: string;
  /** Of the moment: how many attempts there were, and how long Troupe itself took, ms. */
  told: () => { attempts: number; overheadMs: number };
  /** What the client's key has left, as headers, flat; and whether there is anything to tell of. */
  limits: () => string[];
  hasLimits: boolean;
}

/** Tells nginx to pass events on as they come. */
export const UNBUFFERED: readonly string[] = ['x-accel-buffering', 'no'];

/** What the client of one request gets: a head once, early or real, and an end in the protocol it speaks. */
export class Reply implements Watched {
  readonly res: ServerResponse;
  /** The response of a pipelined request has no socket, and no `close`, before its turn. */
  readonly socket: Socket;
  /** A head with comments is out: what comes now can only be events. */
  early = false;
  dueAt = Number.POSITIVE_INFINITY;
  readonly #req: IncomingMessage;
  readonly #options: ReplyOptions;
  #watched: Place<Watched> | null = null;

  constructor(req: IncomingMessage, res: ServerResponse, options: ReplyOptions) {
    this.#req = req;
    this.res = res;
    this.socket = req.socket;
    this.#options = options;
    if (!options.stream) return;
    this.dueAt = wheel.after(PATIENCE_MS);
    this.#watched = wheel.watch(this);
  }

  /** The head of ours that goes with an answer, flat. `endpoint` is the name as a header may hold it. */
  headers(endpoint: string | null): string[] {
    const { attempts, overheadMs } = this.#options.told();
    const headers = ['x-request-id', this.#options.requestId];
    if (endpoint !== null) headers.push('x-troupe-endpoint', endpoint);
    headers.push('x-troupe-attempts', String(attempts), 'x-troupe-overhead-ms', overheadMs.toFixed(2));
    const limits = this.#options.limits();
    if (limits.length > 0) headers.push(...limits);
    return headers;
  }

  /** The client's key has limits, which its answers tell of. */
  get hasLimits(): boolean {
    return this.#options.hasLimits;
  }

  /** The client is about to get bytes of an answer: no comments any more. */
  begins(): void {
    wheel.forget(this.#watched);
  }

  due(): void {
    if (this.res.destroyed || (this.res.headersSent && !this.early)) {
      wheel.forget(this.#watched);
      return;
    }
    if (!this.early) {
      this.early = true;
      this.res.writeHead(200, [
        'content-type',
        'text/event-stream',
        'cache-control',
        'no-cache',
        ...UNBUFFERED,
        'x-request-id',
        this.#options.requestId,
        ...this.#options.limits(),
      ]);
    }
    this.res.write(': waiting for an endpoint\n\n');
    this.dueAt = wheel.after(COMMENT_MS);
  }

  /** An error of ours, as an answer or as the last event. */
  error(error: ApiError, endpoint: string | null): void {
    this.begins();
    if (this.early) {
      this.breakOff(error.code, error.message, true);
      return;
    }
    if (this.res.headersSent || this.res.destroyed) return;
    const headers = this.headers(endpoint);
    for (let i = 0; i < headers.length; i += 2) {
      this.res.setHeader(headers[i] as string, headers[i + 1] as string);
    }
    sendError(this.res, pathOf(this.#req), error, this.#options.requestId);
  }

  /** An endpoint's answer that was kept back, as it was; as the last event where a head is out. */
  answer({ status, headers, body }: KeptAnswer, endpoint: string): void {
    this.begins();
    if (this.early) {
      this.breakOff('upstream_broken', `the endpoint answered ${status}`, true);
      return;
    }
    this.res.writeHead(status, [...headers, ...this.headers(endpoint)]);
    this.res.end(body);
  }

  /** Whoever has read the end may send at once on the same connection: it is closed when nothing comes. */
  #closeWhenQuiet(): void {
    // Without a time of Node's a pipelined request has its turn already, or the end is near.
    if (this.socket.timeout) this.socket.setTimeout(QUIET_MS);
  }

  /** Ends what has begun so that it cannot be taken for whole. `events`: the protocol has a word for it. */
  breakOff(code: ErrorCode, message: string, events: boolean): void {
    this.begins();
    if (events) {
      this.res.end(errorEvent(this.#options.kind, code, message), () => this.#closeWhenQuiet());
    } else {
      // An answer that is cut must not look whole: the connection ends without the body's last chunk.
      this.socket.destroySoon();
    }
  }
}

/** The last words of a stream that broke, in the protocol it speaks; the blank line ends an event that is torn. */
function errorEvent(kind: TapKind, code: ErrorCode, message: string): string {
  const error = { message, type: 'upstream_error', param: null, code };
  if (kind === 'responses') {
    return `\n\nevent: error\ndata: ${JSON.stringify({ type: 'error', code, message, param: null, error })}\n\n`;
  }
  if (kind === 'messages') {
    const body = { type: 'error', error: { type: 'api_error', message } };
    return `\n\nevent: error\ndata: ${JSON.stringify(body)}\n\n`;
  }
  return `\n\ndata: ${JSON.stringify({ error })}\n\n`;
}
