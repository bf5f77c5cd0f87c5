import { JsonProgress, lastMember, topMember } from './json-scan.js';
import { SseCutter } from './sse.js';
import { readId, readUsage, StreamJudge } from './stream-judge.js';

export type TapKind = 'chat_completions' | 'completions' | 'responses' | 'messages' | 'embeddings';

export interface TapOptions {
  kind: TapKind;
  /** What the client asked for. */
  stream: boolean;
  contentType: string;
  contentEncoding: string | undefined;
  contentLength: number | null;
  /** Usage was asked for by us: the event with `usage` and empty `choices` is kept from the client. */
  hideUsage: boolean;
}

/** Watches the bytes of one 2xx answer, judges it, and tells which of them may go to the client now. */
export interface Tap {
  /** Slices that may go on, in order. `ended` is up to date before they are sent. */
  push(chunk: Buffer): Buffer[];
  /** The upstream ended its body in order: the rest that was held, and the verdict. */
  end(): Buffer[];
  /** The outcome is known and will not change. */
  readonly ended: boolean;
  readonly outcome: 'complete' | 'failed' | 'open';
  /** In short words; an error event is told here before the outcome is known. */
  readonly failure: string | null;
  readonly mode: 'sse' | 'json' | 'opaque';
  readonly inputTokens: number | null;
  readonly outputTokens: number | null;
  /** Deltas were counted, for want of a usage report. */
  readonly estimated: boolean;
  /** Deltas with content that have passed. */
  readonly deltas: number;
  /** The id of a whole answer of the responses API, of at most 512 characters. */
  readonly responseId: string | null;
}

export function createTap(options: TapOptions): Tap {
  return new AnswerTap(options);
}

interface Verdict {
  readonly outcome: 'complete' | 'failed' | 'open';
  readonly failure: string | null;
  readonly input: number | null;
  readonly output: number | null;
  /** Null where there are none to count. */
  readonly deltas: number | null;
  readonly responseId: string | null;
}

interface Relay {
  push(chunk: Buffer): Buffer[];
  end(): Buffer[];
}

const UNDECIDED: Verdict = {
  outcome: 'open',
  failure: null,
  input: null,
  output: null,
  deltas: null,
  responseId: null,
};

class AnswerTap implements Tap {
  mode: Tap['mode'];
  #verdict = UNDECIDED;
  #relay: Relay | undefined;
  #seen = 0;
  // The first bytes, until they tell what the answer is.
  #head = '';
  #held: Buffer[] = [];
  readonly #options: TapOptions;

  constructor(options: TapOptions) {
    this.#options = options;
    this.mode = declaredMode(options);
    if (this.mode === 'opaque') this.#open('opaque');
  }

  get outcome(): Tap['outcome'] {
    return this.#verdict.outcome;
  }

  get ended(): boolean {
    return this.#verdict.outcome !== 'open';
  }

  get failure(): string | null {
    return this.#verdict.failure;
  }

  get inputTokens(): number | null {
    return this.#verdict.input;
  }

  get outputTokens(): number | null {
    return this.#verdict.output ?? this.#verdict.deltas;
  }

  get estimated(): boolean {
    return this.#verdict.output === null && this.#verdict.deltas !== null;
  }

  get deltas(): number {
    return this.#verdict.deltas ?? 0;
  }

  get responseId(): string | null {
    return this.#verdict.outcome === 'complete' ? this.#verdict.responseId : null;
  }

  push(chunk: Buffer): Buffer[] {
    if (chunk.length === 0) return [];
    this.#seen += chunk.length;
    const out = this.#relay ? this.#relay.push(chunk) : this.#sniff(chunk);
    const { contentLength } = this.#options;
    if (contentLength !== null && this.#seen >= contentLength) for (const rest of this.end()) out.push(rest);
    return out;
  }

  end(): Buffer[] {
    if (this.ended) return [];
    const relay = this.#relay ?? this.#open(this.mode);
    return [...this.#flush(relay), ...relay.end()];
  }

  /** White space goes on at once: some servers keep a connection alive with it, before JSON too. */
  #sniff(chunk: Buffer): Buffer[] {
    if (this.#held.length === 0 && chunk[0] === BRACE) return this.#open('json').push(chunk);
    let from = 0;
    if (this.#head === '') while (from < chunk.length && isBlank(chunk[from])) from++;
    if (from === chunk.length) return [chunk];
    const rest = from === 0 ? chunk : chunk.subarray(from);
    this.#held.push(rest);
    this.#head += rest.toString('latin1', 0, LONGEST_MARK);
    const out = from === 0 ? [] : [chunk.subarray(0, from)];
    const mode = modeOf(this.#head, this.mode);
    if (mode !== undefined) out.push(...this.#flush(this.#open(mode)));
    return out;
  }

  #open(mode: Tap['mode']): Relay {
    this.mode = mode;
    if (mode === 'sse') {
      const judge = new StreamJudge(this.#options.kind, this.#options.hideUsage);
      this.#verdict = judge;
      this.#relay = new SseCutter(judge);
      return this.#relay;
    }
    const answer = mode === 'json' ? new JsonAnswer(this.#options.kind) : new OpaqueAnswer();
    this.#verdict = answer;
    this.#relay = answer;
    return answer;
  }

  #flush(relay: Relay): Buffer[] {
    if (this.#held.length === 0) return this.#held;
    const out = this.#held.flatMap((chunk) => relay.push(chunk));
    this.#held = [];
    return out;
  }
}

const WHOLE_LIMIT = 1024 * 1024;
const TAIL = 16 * 1024;

/** A JSON answer passes as it comes; its usage is read at the end. */
class JsonAnswer implements Verdict, Relay {
  outcome: Tap['outcome'] = 'open';
  failure: string | null = null;
  input: number | null = null;
  output: number | null = null;
  readonly deltas = null;
  responseId: string | null = null;
  readonly #hasId: boolean;
  readonly #progress = new JsonProgress();
  readonly #chunks: Buffer[] = [];
  #kept = 0;
  #whole = true;

  constructor(kind: TapKind) {
    this.#hasId = kind === 'responses';
  }

  push(chunk: Buffer): Buffer[] {
    // An answer in one piece, as most are, is read once, at its end.
    if (this.#chunks.length === 1 && this.#whole) this.#progress.push(this.#chunks[0] as Buffer);
    if (this.#chunks.length > 0) this.#progress.push(chunk);
    this.#chunks.push(chunk);
    this.#kept += chunk.length;
    if (this.#kept > WHOLE_LIMIT && this.#chunks.length > 1) this.#keepTail();
    return [chunk];
  }

  end(): Buffer[] {
    const bytes = this.#chunks.length === 1 ? (this.#chunks[0] as Buffer) : Buffer.concat(this.#chunks);
    const member = this.#whole ? topMember(bytes, 'usage') : null;
    if (member === null && this.#whole && this.#chunks.length === 1) this.#progress.push(bytes);
    if (member !== null || this.#progress.complete) {
      this.outcome = 'complete';
      const usage = this.#whole ? member?.value : lastMember(bytes.subarray(-TAIL), 'usage');
      ({ input: this.input, output: this.output } = readUsage(usage));
      if (this.#hasId && this.#whole) this.responseId = readId(topMember(bytes, 'id')?.value);
    } else {
      this.outcome = 'failed';
      this.failure = this.#progress.wrong ? 'the answer is not one JSON value' : 'the JSON is not complete';
    }
    this.#chunks.length = 0;
    return [];
  }

  #keepTail(): void {
    this.#whole = false;
    let spare = 0;
    while (this.#kept - (this.#chunks[spare]?.length ?? 0) >= TAIL) {
      this.#kept -= this.#chunks[spare]?.length ?? 0;
      spare++;
    }
    if (spare > 0) this.#chunks.splice(0, spare);
  }
}

/** A coded answer is not looked into: an orderly end makes it complete. */
class OpaqueAnswer implements Verdict, Relay {
  outcome: Tap['outcome'] = 'open';
  readonly failure = null;
  readonly input = null;
  readonly output = null;
  readonly deltas = null;
  readonly responseId = null;

  push(chunk: Buffer): Buffer[] {
    return [chunk];
  }

  end(): Buffer[] {
    this.outcome = 'complete';
    return [];
  }
}

/** Whether a `content-encoding` hides what the answer says. */
export function isCoded(contentEncoding: string | undefined): boolean {
  const coding = (contentEncoding ?? '').trim().toLowerCase();
  return coding !== '' && coding !== 'identity' && coding !== 'none';
}

function declaredMode({ contentEncoding, contentType, stream }: TapOptions): Tap['mode'] {
  if (isCoded(contentEncoding)) return 'opaque';
  const type = contentType.toLowerCase();
  if (type.includes('text/event-stream')) return 'sse';
  if (type.includes('json')) return 'json';
  return stream ? 'sse' : 'json';
}

const BRACE = 0x7b;
const SSE_MARKS = ['data:', 'event:', 'id:', 'retry:'];
const LONGEST_MARK = 6;

/** What the first bytes say; content types lie. Undefined while they may still become a mark. */
function modeOf(head: string, declared: Tap['mode']): Tap['mode'] | undefined {
  if (head.startsWith('{') || head.startsWith('[')) return 'json';
  if (head.startsWith(':') || SSE_MARKS.some((mark) => head.startsWith(mark))) return 'sse';
  return SSE_MARKS.some((mark) => mark.startsWith(head)) ? undefined : declared;
}

/** White space, and the bytes of a byte order mark. */
function isBlank(c: number | undefined): boolean {
  return c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09 || c === 0xef || c === 0xbb || c === 0xbf;
}
