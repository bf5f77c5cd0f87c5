import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type Client, type Dispatcher, errors } from 'undici';
import type { Clock } from '../clock.js';
import type { AttemptEnd } from '../machines/classify.js';
import { type Watched, wheel } from './deadlines.js';
import type { ErrorCode } from './errors.js';
import { downstreamHeaders } from './headers.js';
import { type Connection, whenSent } from './sent-on.js';
import { createTap, type Tap, type TapKind } from './tap.js';

/** Deadlines of one attempt, ms; 0 = none. */
export interface AttemptDeadlines {
  connectMs: number;
  firstByteMs: number;
  idleMs: number;
  totalMs: number;
}

export interface AttemptOptions {
  pool: Dispatcher;
  /** A connection of its own for the one retry after a reset of a reused one. */
  fresh: () => Client;
  path: string;
  /** Flat: name, value, name, value … */
  headers: string[];
  body: Buffer;
  /** The same without the spliced `include_usage`, for an endpoint that refuses it; null if nothing was added. */
  plainBody: Buffer | null;
  kind: TapKind;
  stream: boolean;
  deadlines: AttemptDeadlines;
  clock: Clock;
  res: ServerResponse;
  /** Headers of ours for the head, flat. */
  ownHeaders: string[];
  /** Called once, when the end is known and before the bytes that end the answer go out. */
  settle: (end: AttemptEnd, seen: Seen) => void;
  /** The endpoint refuses `include_usage` and answers well without. */
  refusesUsage: () => void;
}

/** What the tap saw; durations in ms from the attempt's start. */
export interface Seen {
  /** What the endpoint answered; null before its head. */
  statusCode: number | null;
  inputTokens: number | null;
  outputTokens: number | null;
  estimated: boolean;
  /** Of a stream: until the first token. */
  firstTokenMs: number | null;
}

/** Nothing was sent to the client: the caller answers. */
export interface Unsent {
  code: ErrorCode;
  message: string;
}

/** After the terminal event an upstream may take so long to end its body. */
const LINGER_MS = 2000;

/**
 * One attempt: forwards the request, relays the answer as it comes, and says how it ended. Resolves when nothing
 * of it is left; with `Unsent` if the client has got nothing yet.
 */
export function relay(options: AttemptOptions): {
  done: Promise<Unsent | null>;
  end: (error: string, code: ErrorCode) => void;
} {
  const attempt = new Attempt(options);
  return { done: attempt.start(), end: (error, code) => attempt.endByUs(error, code) };
}

class Attempt implements Dispatcher.DispatchHandler, Watched {
  readonly #options: AttemptOptions;
  readonly #res: ServerResponse;
  /** The response of a pipelined request has no socket, and no `close`, before its turn. */
  readonly #client: Socket;
  readonly #startedAt: number;
  #controller: Dispatcher.DispatchController | null = null;
  #freshClient: Client | null = null;
  #body: Buffer;
  #plainBody: Buffer | null;
  #resolve: (unsent: Unsent | null) => void = () => {};

  /** True while the answer belongs to an endpoint that refused `include_usage`: it is thrown away. */
  #discarding = false;
  #askedPlain = false;
  #connection: Connection | null = null;
  #retriedFresh = false;

  #status = 0;
  #head: string[] = [];
  #contentLength: number | null = null;
  #received = 0;
  #tap: Tap | null = null;
  #headSent = false;
  #firstTokenAt: number | null = null;
  #settled = false;
  /** Nothing that the upstream does matters any more. */
  #over = false;
  #phase: 'connect' | 'first_byte' | 'idle' | 'linger' = 'connect';
  /** The next of the running deadline and the total one, by the wheel's clock. */
  dueAt = Number.POSITIVE_INFINITY;
  #totalAt = Number.POSITIVE_INFINITY;

  constructor(options: AttemptOptions) {
    this.#options = options;
    this.#res = options.res;
    this.#client = options.res.req.socket;
    this.#body = options.body;
    this.#plainBody = options.plainBody;
    this.#startedAt = options.clock.mono();
  }

  start(): Promise<Unsent | null> {
    wheel.watch(this);
    this.#totalAt = wheel.after(this.#options.deadlines.totalMs);
    this.#client.on('close', this.#onClientClose);
    this.#res.on('drain', this.#onDrain);
    const done = new Promise<Unsent | null>((resolve) => {
      this.#resolve = resolve;
    });
    this.#dispatch(this.#options.pool);
    return done;
  }

  /** Troupe itself ends the request. */
  endByUs(message: string, code: ErrorCode): void {
    if (this.#over) return;
    if (this.#settled) this.#finish();
    else
      this.#breakOff(code, message, {
        how: 'ended',
        status: this.#headSent ? this.#status : code === 'shutting_down' ? 503 : 502,
        error: message,
      });
  }

  // What undici calls.

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#over) {
      controller.abort(new Error('the request is over'));
      return;
    }
    whenSent((connection) => {
      this.#connection = connection;
    });
    this.#arm('first_byte', this.#options.deadlines.firstByteMs);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (this.#over || status < 200) return;
    if ((status === 400 || status === 422) && this.#plainBody !== null && !this.#askedPlain) {
      this.#discarding = true;
      return;
    }
    this.#status = status;
    if (status >= 300 && status < 400) {
      this.#fail(
        'upstream_broken',
        `the endpoint answered with a redirect (${status}), which is not followed`,
      );
      return;
    }
    if (this.#askedPlain && status < 300) this.#options.refusesUsage();
    const length = headers['content-length'];
    this.#contentLength = typeof length === 'string' && /^\d+$/.test(length) ? Number(length) : null;
    if (status < 300) {
      this.#tap = createTap({
        kind: this.#options.kind,
        stream: this.#options.stream,
        contentType: String(headers['content-type'] ?? ''),
        contentEncoding: headers['content-encoding']?.toString(),
        contentLength: this.#contentLength,
        hideUsage: this.#plainBody !== null && !this.#askedPlain,
      });
    }
    // An event may be taken out of a stream or added to it, so its length is not promised.
    const keepLength = status >= 300 || !this.#options.stream;
    this.#head = downstreamHeaders(headers, keepLength);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over || this.#discarding) return;
    if (this.#received === 0) {
      // From here on nobody else is asked: the body is not needed again.
      this.#body = NOTHING;
      this.#plainBody = null;
    }
    this.#received += chunk.length;
    const slices = this.#tap === null ? [chunk] : this.#tap.push(chunk);
    if (this.#tap?.mode === 'json' && this.#tap.outcome === 'failed') {
      // Its last byte is here and it is not whole: the client must not take it for an answer.
      this.#fail('upstream_broken', `the endpoint broke its answer off: ${this.#tap.failure}`);
      return;
    }
    this.#judge();
    this.#touch();
    if (!this.#send(slices)) {
      controller.pause();
      this.#disarm();
    }
  }

  onResponseEnd(): void {
    if (this.#over) return;
    if (this.#discarding) {
      this.#askPlain();
      return;
    }
    // Its own error event is with the client, who needs no second one.
    const told = this.#tap?.mode === 'sse' ? this.#tap.failure : null;
    const rest = this.#tap?.end() ?? [];
    if (told !== null) {
      this.#settleAs({ how: 'broken', status: this.#status, error: told });
      this.#send(rest);
      this.#finish(true);
      return;
    }
    const broken = this.#tap !== null && this.#tap.outcome !== 'complete' && !this.#settled;
    if (broken) {
      const why = this.#tap?.failure ?? 'the answer is not complete';
      this.#fail('upstream_broken', `the endpoint broke its answer off: ${why}`);
      return;
    }
    this.#settleAs(
      this.#status < 300
        ? { how: 'complete', status: this.#status }
        : { how: 'refused', status: this.#status },
    );
    this.#send(rest);
    this.#finish(true);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#over) return;
    if (this.#settled) {
      // The answer was whole before the connection broke.
      this.#finish();
      return;
    }
    if (this.#mayRetryFresh(error)) {
      this.#retriedFresh = true;
      this.#freshClient = this.#options.fresh();
      this.#dispatch(this.#freshClient);
      return;
    }
    if (error instanceof errors.ConnectTimeoutError)
      this.#deadline('timeout_connect', this.#options.deadlines.connectMs);
    else if (this.#phase === 'connect') {
      this.#fail('upstream_unreachable', `the endpoint could not be reached: ${plainWords(error)}`);
    } else this.#fail('upstream_broken', `the connection to the endpoint broke: ${plainWords(error)}`);
  }

  // The request.

  #dispatch(dispatcher: Dispatcher): void {
    this.#controller = null;
    this.#connection = null;
    this.#arm('connect', this.#options.deadlines.connectMs);
    try {
      dispatcher.dispatch(
        { method: 'POST', path: this.#options.path, headers: this.#options.headers, body: this.#body },
        this,
      );
    } catch (error) {
      this.#fail('upstream_unreachable', `the request could not be sent: ${plainWords(error as Error)}`);
    }
  }

  /** The endpoint refused the addition: the client's own bytes, within the same attempt. */
  #askPlain(): void {
    this.#discarding = false;
    this.#askedPlain = true;
    this.#body = this.#plainBody ?? this.#body;
    this.#dispatch(this.#freshClient ?? this.#options.pool);
  }

  /** An idle connection may have been dead when the request went out on it. */
  #mayRetryFresh(error: Error): boolean {
    const code = (error as { code?: string }).code;
    const reset = code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE';
    const connection = this.#connection;
    if (!reset || connection === null || this.#retriedFresh) return false;
    return connection.reused && connection.socket.bytesRead === connection.readBefore;
  }

  // The answer.

  /** Settles as soon as the tap, or the length, says that this chunk is the last that matters. */
  #judge(): void {
    const { clock } = this.#options;
    const tap = this.#tap;
    if (tap === null) {
      if (this.#contentLength !== null && this.#received >= this.#contentLength) {
        this.#settleAs({ how: 'refused', status: this.#status });
      }
      return;
    }
    if (this.#firstTokenAt === null && this.#options.stream && tap.sawToken)
      this.#firstTokenAt = clock.mono();
    if (!tap.ended || this.#settled) return;
    if (tap.outcome === 'complete') this.#settleAs({ how: 'complete', status: this.#status });
    else
      this.#settleAs({
        how: 'broken',
        status: this.#status,
        error: tap.failure ?? 'the answer is not complete',
      });
    this.#arm('linger', LINGER_MS);
  }

  /** Writes the head, if it is still held, and the slices. False: the client is slower than the endpoint. */
  #send(slices: readonly Buffer[]): boolean {
    const res = this.#res;
    this.#sendHead();
    let free = true;
    for (const slice of slices) free = res.write(slice);
    return free;
  }

  #sendHead(): void {
    if (this.#headSent) return;
    this.#headSent = true;
    this.#res.writeHead(this.#status, [...this.#head, ...this.#options.ownHeaders]);
  }

  #settleAs(end: AttemptEnd): void {
    if (this.#settled) return;
    this.#settled = true;
    const tap = this.#tap;
    this.#options.settle(end, {
      statusCode: this.#status === 0 ? null : this.#status,
      inputTokens: tap?.inputTokens ?? null,
      outputTokens: tap?.outputTokens ?? null,
      estimated: tap?.estimated ?? false,
      firstTokenMs: this.#firstTokenAt === null ? null : this.#firstTokenAt - this.#startedAt,
    });
  }

  // The ways it can go wrong.

  #deadline(
    code: 'timeout_connect' | 'timeout_first_byte' | 'timeout_idle' | 'timeout_total',
    ms: number,
  ): void {
    if (this.#over) return;
    if (this.#settled) this.#finish();
    else this.#fail(code, `${DEADLINE_WORDS[code]} within ${ms} ms`);
  }

  #fail(code: ErrorCode, message: string): void {
    const status = this.#headSent ? this.#status : code.startsWith('timeout_') ? 504 : 502;
    this.#breakOff(code, message, { how: 'broken', status, error: message });
  }

  /** Ends both sides: the endpoint is aborted, the client gets its protocol's error event, or the caller's answer. */
  #breakOff(code: ErrorCode, message: string, end: AttemptEnd): void {
    const sent = this.#headSent;
    this.#settleAs(end);
    this.#over = true;
    this.#abort(message);
    if (!sent) {
      this.#cleanUp({ code, message });
      return;
    }
    if (this.#tap?.mode === 'sse') {
      this.#res.end(errorEvent(this.#options.kind, code, message), () => this.#client.destroySoon());
    } else {
      // An answer that is cut must not look whole: the connection ends without the body's last chunk.
      this.#client.destroySoon();
    }
    this.#cleanUp(null);
  }

  #onClientClose = (): void => {
    if (this.#over) return;
    this.#over = true;
    const failure = this.#tap?.failure ?? null;
    const status = this.#headSent ? this.#status : null;
    // An error event was in what the client got: its leaving does not make that a success.
    if (failure !== null) this.#settleAs({ how: 'broken', status: this.#status, error: failure });
    else this.#settleAs({ how: 'left', status });
    this.#abort('the client left');
    this.#cleanUp(null);
  };

  #onDrain = (): void => {
    if (this.#over) return;
    this.#controller?.resume();
    if (this.#phase === 'linger') this.#arm('linger', LINGER_MS);
    else this.#touch();
  };

  /** The answer is whole. An upstream that has not ended its body is not waited for. */
  #finish(upstreamEnded = false): void {
    this.#over = true;
    if (!upstreamEnded) this.#abort('the answer is whole');
    this.#res.end();
    this.#cleanUp(null);
  }

  #abort(reason: string): void {
    if (this.#controller !== null && !this.#controller.aborted) this.#controller.abort(new Error(reason));
  }

  #cleanUp(unsent: Unsent | null): void {
    wheel.forget(this);
    this.#client.off('close', this.#onClientClose);
    this.#res.off('drain', this.#onDrain);
    this.#body = NOTHING;
    this.#freshClient?.close().catch(() => {});
    this.#resolve(unsent);
  }

  // The one running deadline: connect, then first byte, then idle.

  #arm(phase: 'connect' | 'first_byte' | 'idle' | 'linger', ms: number): void {
    this.#phase = phase;
    this.dueAt = Math.min(wheel.after(ms), this.#totalAt);
  }

  /** A byte came. */
  #touch(): void {
    if (this.#phase !== 'linger') this.#arm('idle', this.#options.deadlines.idleMs);
  }

  #disarm(): void {
    this.dueAt = this.#totalAt;
  }

  due(): void {
    const { connectMs, firstByteMs, idleMs, totalMs } = this.#options.deadlines;
    if (this.#totalAt <= wheel.now) this.#deadline('timeout_total', totalMs);
    else if (this.#phase === 'connect') this.#deadline('timeout_connect', connectMs);
    else if (this.#phase === 'first_byte') this.#deadline('timeout_first_byte', firstByteMs);
    else if (this.#phase === 'idle') this.#deadline('timeout_idle', idleMs);
    else this.#finish();
  }
}

const NOTHING = Buffer.alloc(0);

const DEADLINE_WORDS = {
  timeout_connect: 'no connection to the endpoint',
  timeout_first_byte: 'the endpoint sent no byte of an answer',
  timeout_idle: 'the endpoint sent nothing more',
  timeout_total: 'the endpoint did not finish',
};

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

/** An error of a socket in words without addresses. */
function plainWords(error: Error): string {
  if (error instanceof errors.HTTPParserError) return 'it does not speak HTTP';
  const code = (error as { code?: string }).code ?? '';
  return SOCKET_WORDS[code] ?? (code === '' ? 'an unknown error' : code);
}

const SOCKET_WORDS: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EPIPE: 'connection closed',
  UND_ERR_SOCKET: 'connection closed',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'the host name could not be looked up',
  ETIMEDOUT: 'no answer',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to the network',
};
