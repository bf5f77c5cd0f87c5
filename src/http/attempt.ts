import type { Client, Dispatcher } from 'undici';
import type { Clock } from '../clock.js';
import type { AttemptEnd } from '../machines/classify.js';
import type { Histogram } from '../machines/histogram.js';
import type { ErrorCode } from './errors.js';
import type { Reply } from './reply.js';
import type { TapKind } from './tap.js';

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
  /** The attempt takes this and the next one away when they are not needed any more. */
  body: Buffer;
  /** The same without the spliced `include_usage`, for an endpoint that refuses it; null if nothing was added. */
  plainBody: Buffer | null;
  kind: TapKind;
  stream: boolean;
  /** The answer may be gone on from. */
  stores: boolean;
  deadlines: AttemptDeadlines;
  clock: Clock;
  reply: Reply;
  /** Headers of ours for the head, flat. */
  ownHeaders: () => string[];
  /** Whether an answer with this status is kept back, because somebody else may do better. */
  keepsBack: (status: number) => boolean;
  /** The request is on its way on a connection. */
  sent: () => void;
  /** A byte of the answer came. */
  byteCame: (first: boolean) => void;
  /** From here on nobody else is asked: the client is about to get the first byte. */
  begins: () => void;
  /**
   * Called once, when the end is known and before the bytes that end the answer go out. `final` false: the client has
   * got nothing of this attempt, and `done` tells what it was.
   */
  settle: (end: AttemptEnd, seen: Seen, final: boolean) => void;
  /** The endpoint refuses `include_usage` and answers well without, or answers so that it cannot be taken out again. */
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
  /** Of a stream: the times between its tokens, ms. */
  gaps: Histogram | null;
  /** Until the request was on its way, and until the first byte of the answer's body. */
  sentMs: number | null;
  firstByteMs: number | null;
  /** The header of that name, as the endpoint sent it. */
  retryAfter: string | null;
  /** Of an answer of the responses API, to go on from. */
  responseId: string | null;
}

/** Nothing was sent to the client: the caller asks somebody else, or answers. */
export interface Unsent {
  code: ErrorCode;
  message: string;
  /** The answer that was kept back. */
  answer: KeptAnswer | null;
  /** It was taken away from the endpoint, which has not failed. */
  moved: boolean;
  /** Troupe itself ended the request: nobody else is to be asked. */
  ended: boolean;
}

/** An answer of an endpoint as it would have gone to the client; headers flat. */
export interface KeptAnswer {
  status: number;
  headers: string[];
  body: Buffer;
}

/** An attempt under way. */
export interface RunningAttempt {
  /** Resolves when nothing of it is left; with `Unsent` if the client has got nothing of it. */
  done: Promise<Unsent | null>;
  /** Troupe itself ends the request. */
  end(message: string, code: ErrorCode): void;
  /** Takes the request away, if not a byte has come. */
  move(reason: string): void;
  /** The client is gone. */
  clientLeft(): void;
  /** So far. */
  readonly outputTokens: number;
}
