import type { ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { type Client, type Dispatcher, errors } from 'undici';
import type { Place } from '../line.js';
import type { AttemptEnd } from '../machines/classify.js';
import type { AttemptOptions, RunningAttempt, Seen, Unsent } from './attempt.js';
import { NOTHING } from './body.js';
import type { ErrorCode } from './errors.js';
import { downstreamHeaders } from './headers.js';
import { plainWords } from './plain-words.js';
import { UNBUFFERED } from './reply.js';
import { type Connection, whenSent } from './sent-on.js';
import { createTap, isCoded, type Tap } from './tap.js';
import { TokenTimes } from './token-times.js';
import { type Watched, wheel } from './wheel.js';

/** After the terminal event an upstream may take so long to end its body. */
const LINGER_MS = 2000;

/** From this size on a body is worth letting go of while its answer runs, bytes. */
const LARGE = 64 * 1024;

/** A head and so much of a body go out in one write, bytes. */
const MOST_COPIED = 8 * 1024;

/** Larger answers are not kept back: they go to the client. */
const MOST_KEPT = 1024 * 1024;

/** One attempt: forwards the request, relays the answer as it comes, and says how it ended. */
export function relay(options: AttemptOptions): RunningAttempt {
  const attempt = new Attempt(options);
  attempt.start();
  return attempt;
}

class Attempt implements Dispatcher.DispatchHandler, Watched, RunningAttempt {
  readonly done: Promise<Unsent | null>;
  readonly #options: AttemptOptions;
  readonly #res: ServerResponse;
  readonly #startedAt: number;
  #controller: Dispatcher.DispatchController | null = null;
  #freshClient: Client | null = null;
  #resolve: (unsent: Unsent | null) => void = () => {};

  /** True while the answer belongs to an endpoint that refused `include_usage`: it is thrown away. */
  #discarding = false;
  #askedPlain = false;
  #connection: Connection | null = null;
  #retriedFresh = false;

  #status = 0;
  #head: string[] = [];
  #contentLength: number | null = null;
  #keepsLength = false;
  #retryAfter: string | null = null;
  #received = 0;
  #tap: Tap | null = null;
  /** What is kept back of an answer that may not be the last word. */
  #kept: Buffer[] | null = null;
  #headSent = false;
  #sentAt: number | null = null;
  #firstByteAt: number | null = null;
  readonly #tokens: TokenTimes | null;
  #settled = false;
  /** Nothing that the upstream does matters any more. */
  #over = false;
  #phase: 'connect' | 'first_byte' | 'idle' | 'linger' = 'connect';
  /** The next of the running deadline and the total one. */
  dueAt = Number.POSITIVE_INFINITY;
  #totalAt = Number.POSITIVE_INFINITY;
  #watched: Place<Watched> | null = null;

  constructor(options: AttemptOptions) {
    this.#options = options;
    this.#res = options.reply.res;
    this.done = new Promise<Unsent | null>((resolve) => {
      this.#resolve = resolve;
    });
    this.#tokens = options.stream ? new TokenTimes() : null;
    this.#startedAt = options.clock.mono();
  }

  start(): void {
    this.#watched = wheel.watch(this);
    this.#totalAt = wheel.after(this.#options.deadlines.totalMs);
    this.#dispatch(this.#options.pool);
  }

  get outputTokens(): number {
    return this.#tap?.outputTokens ?? 0;
  }

  end(message: string, code: ErrorCode): void {
    if (this.#over) return;
    if (this.#settled) this.#finish();
    else {
      const status = this.#headSent ? this.#status : code === 'shutting_down' ? 503 : 502;
      this.#breakOff(code, message, { how: 'ended', status, error: message });
    }
  }

  move(reason: string): void {
    if (this.#over || this.#received > 0) return;
    this.#breakOff('upstream_broken', reason, { how: 'moved', error: reason });
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
    this.#sentAt = this.#options.clock.mono();
    this.#options.sent();
    this.#arm('first_byte', this.#options.deadlines.firstByteMs);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (this.#over || status < 200) return;
    if ((status === 400 || status === 422) && this.#options.plainBody !== null && !this.#askedPlain) {
      this.#discarding = true;
      return;
    }
    this.#status = status;
    if (status >= 300 && status < 400) {
      this.#fail(
        'upstream_broken',
        `the endpoint answered with a redirect (${status}), which is not followed`,
        true,
      );
      return;
    }
    if (status === 204 && this.#options.stream) {
      this.#fail('upstream_broken', 'the endpoint answered without content, not with a stream', true);
      return;
    }
    if (this.#askedPlain && status < 300) this.#options.refusesUsage();
    if (status >= 400) this.#retryAfter = headers['retry-after']?.toString() ?? null;
    const length = headers['content-length'];
    this.#contentLength = typeof length === 'string' && /^\d+$/.test(length) ? Number(length) : null;
    // Of no content there is nothing to judge.
    if (status < 300 && status !== 204) {
      const { plainBody } = this.#options;
      const coding = headers['content-encoding']?.toString();
      // What cannot be read cannot be kept from the client either.
      if (plainBody !== null && isCoded(coding)) this.#options.refusesUsage();
      this.#tap = createTap({
        kind: this.#options.kind,
        stream: this.#options.stream,
        contentType: String(headers['content-type'] ?? ''),
        contentEncoding: coding,
        contentLength: this.#contentLength,
        hideUsage: plainBody !== null && !this.#askedPlain,
      });
    }
    // An event may be taken out of a stream or added to it, so its length is not promised.
    this.#keepsLength = status >= 300 || !this.#options.stream;
    this.#head = downstreamHeaders(headers, this.#keepsLength, this.#options.reply.hasLimits);
    if (!this.#keepsLength && headers['x-accel-buffering'] === undefined) this.#head.push(...UNBUFFERED);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over || this.#discarding) return;
    const first = this.#received === 0;
    if (first) {
      this.#firstByteAt = this.#options.clock.mono();
      if (this.#status >= 300 && this.#mayKeepBack()) this.#kept = [];
    }
    this.#options.byteCame(first);
    this.#received += chunk.length;
    if (this.#kept !== null) {
      this.#keepBack(this.#kept, chunk);
      return;
    }
    const slices = this.#tap === null ? [chunk] : this.#tap.push(chunk);
    if (this.#tap?.mode === 'json' && this.#tap.outcome === 'failed') {
      // Its last byte is here and it is not whole: the client must not take it for an answer.
      this.#fail('upstream_broken', `the endpoint broke its answer off: ${this.#tap.failure}`, true);
      return;
    }
    if (this.#isNoStream()) return;
    this.#judge();
    this.#touch();
    if (!this.#send(slices)) this.#waitForClient(controller);
  }

  onResponseEnd(): void {
    if (this.#over) return;
    if (this.#discarding) {
      this.#askPlain();
      return;
    }
    if (this.#kept !== null || (this.#received === 0 && this.#status >= 300 && this.#mayKeepBack())) {
      this.#giveBack(this.#kept ?? []);
      return;
    }
    const told = this.#tap?.mode === 'sse' ? this.#tap.failure : null;
    const rest = this.#tap?.end() ?? [];
    if (this.#isNoStream()) return;
    if (told !== null) {
      // Its own error event is with the client, who needs no second one.
      this.#settleAs({ how: 'broken', status: this.#status, error: told, answered: true });
      this.#send(rest);
      this.#finish(true);
      return;
    }
    const broken = this.#tap !== null && this.#tap.outcome !== 'complete' && !this.#settled;
    if (broken) {
      const why = this.#tap?.failure ?? 'the answer is not complete';
      this.#fail('upstream_broken', `the endpoint broke its answer off: ${why}`, true);
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
      dispatcher.dispatch(requestOf(this.#options), this);
    } catch (error) {
      // Such as a header of the client that cannot be sent: no fault of the endpoint's.
      const message = `the request could not be sent: ${plainWords(error as Error)}`;
      const status = 502;
      this.#breakOff('upstream_unreachable', message, {
        how: 'broken',
        status,
        error: message,
        unsent: true,
      });
    }
  }

  /** The endpoint refused the addition: the client's own bytes, within the same attempt. */
  #askPlain(): void {
    this.#discarding = false;
    this.#askedPlain = true;
    this.#options.body = this.#options.plainBody ?? this.#options.body;
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

  /** After an early head only a stream can follow: anything else has failed. */
  #isNoStream(): boolean {
    if (this.#headSent || !this.#options.reply.early || this.#tap?.mode === 'sse') return false;
    this.#fail('upstream_broken', 'the endpoint did not answer with a stream', true);
    return true;
  }

  /** Settles as soon as the tap, or the length, says that this chunk is the last that matters. */
  #judge(): void {
    const tap = this.#tap;
    if (tap === null) {
      if (this.#contentLength !== null && this.#received >= this.#contentLength) {
        this.#settleAs({ how: 'refused', status: this.#status });
      }
      return;
    }
    const tokens = this.#tokens;
    if (tokens !== null && tap.deltas > tokens.tokens) tokens.note(tap.deltas, this.#options.clock.mono());
    if (!tap.ended || this.#settled) return;
    if (tap.outcome === 'complete') this.#settleAs({ how: 'complete', status: this.#status });
    else
      this.#settleAs({
        how: 'broken',
        status: this.#status,
        error: tap.failure ?? 'the answer is not complete',
        answered: true,
      });
    this.#arm('linger', LINGER_MS);
  }

  /** Whether this answer is not the client's yet: another endpoint may do better, or its head cannot be sent any more. */
  #mayKeepBack(): boolean {
    return this.#options.reply.early || this.#options.keepsBack(this.#status);
  }

  #keepBack(kept: Buffer[], chunk: Buffer): void {
    this.#touch();
    if (this.#received <= MOST_KEPT) {
      kept.push(chunk);
      return;
    }
    if (this.#options.reply.early) {
      // What is left of it would only be told in an event.
      this.#abort('the answer is too long to be kept');
      this.#giveBack(kept);
      return;
    }
    this.#kept = null;
    this.#judge();
    if (!this.#send([...kept, chunk])) this.#waitForClient(this.#controller);
  }

  #waitForClient(controller: Dispatcher.DispatchController | null): void {
    controller?.pause();
    this.#disarm();
    this.#res.once('drain', this.#onDrain);
  }

  /** An answer that was kept back is whole: it goes to the caller. */
  #giveBack(kept: Buffer[]): void {
    const message = `the endpoint answered ${this.#status}`;
    this.#settleAs({ how: 'refused', status: this.#status }, false);
    this.#over = true;
    const answer = { status: this.#status, headers: this.#head, body: Buffer.concat(kept) };
    this.#cleanUp({ code: 'upstream_broken', message, answer, moved: false, ended: false });
  }

  /** Writes the head, if it is still held, and the slices. False: the client is slower than the endpoint. */
  #send(slices: readonly Buffer[]): boolean {
    const res = this.#res;
    const isAll = !this.#headSent && this.#isShort();
    this.#sendHead();
    let free = true;
    if (isAll && slices.length === 1) {
      // As text and at once: Node puts a head and a text into one write, a head and bytes into several.
      free = res.write((slices[0] as Buffer).toString('latin1'), 'latin1');
      res.socket?.uncork();
      return free;
    }
    for (const slice of slices) free = res.write(slice);
    return free;
  }

  /** Whether this is all of an answer whose length is told, and little enough to be copied. */
  #isShort(): boolean {
    return this.#keepsLength && this.#received === this.#contentLength && this.#received <= MOST_COPIED;
  }

  #sendHead(): void {
    if (this.#headSent) return;
    this.#headSent = true;
    this.#freeBodies();
    this.#options.begins();
    if (this.#options.reply.early) return;
    this.#res.writeHead(this.#status, [...this.#head, ...this.#options.ownHeaders()]);
  }

  #freeBodies(): void {
    this.#options.body = NOTHING;
    this.#options.plainBody = null;
  }

  #settleAs(end: AttemptEnd, final = true): void {
    if (this.#settled) return;
    this.#settled = true;
    const tap = this.#tap;
    const seen: Seen = {
      statusCode: this.#status === 0 ? null : this.#status,
      inputTokens: tap?.inputTokens ?? null,
      outputTokens: tap?.outputTokens ?? null,
      estimated: tap?.estimated ?? false,
      firstTokenMs: this.#since(this.#tokens?.firstAt ?? null),
      gaps: this.#tokens?.gaps ?? null,
      sentMs: this.#since(this.#sentAt),
      firstByteMs: this.#since(this.#firstByteAt),
      retryAfter: this.#retryAfter,
      responseId: this.#options.stores ? (tap?.responseId ?? null) : null,
    };
    this.#options.settle(end, seen, final);
  }

  #since(at: number | null): number | null {
    return at === null ? null : at - this.#startedAt;
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

  /** `answered`: an answer came, but it is none. */
  #fail(code: ErrorCode, message: string, answered = false): void {
    const status = this.#headSent ? this.#status : code.startsWith('timeout_') ? 504 : 502;
    this.#breakOff(code, message, { how: 'broken', status, error: message, answered });
  }

  /** Ends both sides: the endpoint is aborted, the client gets its protocol's error event, or the caller's answer. */
  #breakOff(code: ErrorCode, message: string, end: AttemptEnd): void {
    const sent = this.#headSent;
    this.#settleAs(end, sent);
    this.#over = true;
    this.#abort(message);
    if (!sent) {
      this.#cleanUp({ code, message, answer: null, moved: end.how === 'moved', ended: end.how === 'ended' });
      return;
    }
    this.#options.reply.breakOff(code, message, this.#tap?.mode === 'sse');
    this.#cleanUp(null);
  }

  clientLeft(): void {
    if (this.#over) return;
    this.#over = true;
    const failure = this.#tap?.failure ?? null;
    const status = this.#headSent ? this.#status : null;
    // An error event was in what the client got: its leaving does not make that a success.
    if (failure !== null)
      this.#settleAs({ how: 'broken', status: this.#status, error: failure, answered: true });
    else this.#settleAs({ how: 'left', status });
    this.#abort('the client left');
    this.#cleanUp(null);
  }

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
    wheel.forget(this.#watched);
    this.#res.off('drain', this.#onDrain);
    this.#freeBodies();
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
    if (this.#totalAt <= this.dueAt) this.#deadline('timeout_total', totalMs);
    else if (this.#phase === 'connect') this.#deadline('timeout_connect', connectMs);
    else if (this.#phase === 'first_byte') this.#deadline('timeout_first_byte', firstByteMs);
    else if (this.#phase === 'idle') this.#deadline('timeout_idle', idleMs);
    else this.#finish();
  }
}

function requestOf({ path, headers, body }: AttemptOptions): Dispatcher.DispatchOptions {
  if (body.length < LARGE) return { method: 'POST', path, headers, body };
  return {
    method: 'POST',
    path,
    headers: [...headers, 'content-length', String(body.length)],
    // An iterable will do, which the types do not say.
    body: handOver([body]) as unknown as Readable,
  };
}

/** undici holds bytes until the answer has ended, and of this nothing once they are sent. */
function* handOver(bodies: Buffer[]): Generator<Buffer> {
  for (let body = bodies.pop(); body !== undefined; body = bodies.pop()) yield body;
}

const DEADLINE_WORDS = {
  timeout_connect: 'no connection to the endpoint',
  timeout_first_byte: 'the endpoint sent no byte of an answer',
  timeout_idle: 'the endpoint sent nothing more',
  timeout_total: 'the endpoint did not finish',
};
