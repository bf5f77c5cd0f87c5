import { type Answer, DONE, errorAnswer } from './simulated-answers.js';

/** One way to misbehave. Those that speak of events leave an answer that is no stream as it is. */
export type Fault =
  /** RST before any answer. A port that is really closed is `stop()`. */
  | { kind: 'refuse' }
  /** Not a byte until the client leaves or `release()`. */
  | { kind: 'hang' }
  /** The head, then not a byte until the client leaves or `release()`. */
  | { kind: 'hang_body' }
  | { kind: 'slow_head'; ms: number }
  /** The head at once, the first byte of the body after `ms`. */
  | { kind: 'slow_body'; ms: number }
  /** `ms` before each token. */
  | { kind: 'slow_chunks'; ms: number }
  /** RST before the head, or after so many tokens (JSON: after its first half). */
  | { kind: 'reset'; afterTokens?: number }
  /** FIN in mid-body, in the middle unless told; JSON is sent by half under its full content-length. */
  | { kind: 'cut'; afterTokens?: number; afterBytes?: number }
  /** A clean end without finish_reason, usage and [DONE]. */
  | { kind: 'end_early'; afterTokens: number }
  /** A clean end with finish_reason but without [DONE] (Responses: without its last event). */
  | { kind: 'no_done' }
  /** Stops sending and keeps the connection, until the client leaves or `release()`. */
  | { kind: 'stall'; afterTokens: number }
  /** 200 and the right content type, but neither JSON nor events. */
  | { kind: 'garbage' }
  /** 200, JSON by its content type, which cleanly ends half-way. */
  | { kind: 'half_json' }
  | { kind: 'status'; status: number; headers?: Record<string, string>; body?: string }
  | { kind: 'redirect'; location: string }
  | { kind: 'no_usage' }
  /** Refuses a body that has `stream_options`, with 400 unless told. */
  | { kind: 'reject_stream_options'; status?: 400 | 422 }
  | { kind: 'error_event'; afterTokens: number; thenDone?: boolean }
  | { kind: 'wrong_content_type'; contentType: string }
  /** Chat and completions answered as Responses, Responses answered as chat. */
  | { kind: 'wrong_protocol' }
  /** The last byte of the content, then the end of the chunked body only after `ms`. */
  | { kind: 'late_end'; ms: number }
  /** A right answer; the next request on the same connection meets an RST before any byte. */
  | { kind: 'close_idle' }
  /** The body in slices of that many bytes with that pause: events arrive torn. */
  | { kind: 'pauses_bytes'; bytes: number; ms: number };

/** What is wrong with an engine now; every field may be set at run time. */
export interface Faults {
  /** Each entry spoils exactly one coming inference request, first in first out, and wins over `always`. */
  next: Fault[];
  /** Spoils every other inference request. */
  always: Fault | null;
  /** Spoils every request that is not inference: model lists and an engine's own routes. */
  models: Fault | null;
}

/** One thing done on the connection; an answer on the wire is a list of them. */
export type Step =
  | { do: 'head'; status: number; headers: Record<string, string> }
  | { do: 'send'; bytes: string | Buffer }
  | { do: 'tokens'; answer: Answer; from: number; to: number }
  | { do: 'pause'; ms: number }
  | { do: 'hang' | 'spoil' | 'reset' | 'close' | 'end' };

type Scripts = { [K in Fault['kind']]: (answer: Answer, fault: Extract<Fault, { kind: K }>) => Step[] };

const HANG: Step = { do: 'hang' };
const SPOIL: Step = { do: 'spoil' };
const RESET: Step = { do: 'reset' };
const CLOSE: Step = { do: 'close' };
const END: Step = { do: 'end' };
// Neither UTF-8 nor a line: nothing a JSON or event parser could take for its own.
const GARBAGE = Buffer.from(Array.from({ length: 64 }, (_, index) => 0x80 + ((index * 37) % 0x80)));

/** How this answer goes out under this fault. `no_usage` and `wrong_protocol` have changed the answer itself. */
export function stepsFor(answer: Answer, fault: Fault | null): Step[] {
  if (fault === null) return whole(answer);
  const script = SCRIPTS[fault.kind] as (answer: Answer, fault: Fault) => Step[];
  return script(answer, fault);
}

const SCRIPTS: Scripts = {
  refuse: () => [RESET],
  hang: (answer) => [HANG, ...whole(answer)],
  hang_body: (answer) => [head(answer), HANG, think(answer), ...body(answer), END],
  slow_head: (answer, { ms }) => [pause(ms), ...whole(answer)],
  slow_body: (answer, { ms }) => [head(answer), pause(ms), think(answer), ...body(answer), END],
  slow_chunks: (answer, { ms }) => whole({ ...answer, gapMs: ms }),
  reset: (answer, { afterTokens }) => [
    ...(afterTokens === undefined ? [] : until(answer, afterTokens)),
    RESET,
  ],
  cut: (answer, fault) => [...cutPart(answer, fault), CLOSE],
  end_early: (answer, { afterTokens }) =>
    answer.stream ? [...until(answer, afterTokens), END] : whole(answer),
  no_done: (answer) => whole({ ...answer, done: '' }),
  stall: (answer, { afterTokens }) => [
    ...until(answer, afterTokens),
    HANG,
    ...since(answer, afterTokens),
    END,
  ],
  garbage: (answer) => [chunkedHead(answer), send(GARBAGE), END],
  half_json: (answer) => [jsonHead(200), send(half(answer)), END],
  status: (_, { status, headers, body }) => [jsonHead(status, headers), send(body ?? refusal(status)), END],
  redirect: (_, { location }) => [jsonHead(307, { location }), send('{}'), END],
  no_usage: (answer) => whole(answer),
  reject_stream_options: (answer, { status = 400 }) =>
    'stream_options' in answer.request ? [jsonHead(status), send(refusal(status)), END] : whole(answer),
  error_event: (answer, { afterTokens, thenDone }) =>
    answer.stream
      ? [...until(answer, afterTokens), send(answer.failure + (thenDone === true ? DONE : '')), END]
      : whole(answer),
  wrong_content_type: (answer, { contentType }) =>
    whole({ ...answer, headers: { ...answer.headers, 'content-type': contentType } }),
  wrong_protocol: (answer) => whole(answer),
  late_end: (answer, { ms }) => [
    ...(answer.stream ? [chunkedHead(answer), think(answer)] : [think(answer), chunkedHead(answer)]),
    ...body(answer),
    pause(ms),
    END,
  ],
  close_idle: (answer) => [SPOIL, ...whole(answer)],
  pauses_bytes: (answer, { bytes, ms }) => [
    ...start(answer),
    ...slices(Buffer.from(text(answer)), bytes).flatMap((slice) => [send(slice), pause(ms)]),
    END,
  ],
};

function whole(answer: Answer): Step[] {
  return [...start(answer), ...body(answer), END];
}

/** A stream shows its head before it works, a JSON answer only when it has everything. */
function start(answer: Answer): Step[] {
  return answer.stream ? [head(answer), think(answer)] : [think(answer), head(answer)];
}

function until(answer: Answer, count: number): Step[] {
  if (!answer.stream) return [...start(answer), send(half(answer))];
  return [...start(answer), send(answer.opening), tokens(answer, 0, count)];
}

function since(answer: Answer, count: number): Step[] {
  if (!answer.stream) return [send(answer.json.slice(half(answer).length))];
  return [tokens(answer, count, answer.outputTokens), send(answer.finish + answer.usage + answer.done)];
}

function body(answer: Answer): Step[] {
  if (!answer.stream) return [send(answer.json)];
  return [
    send(answer.opening),
    tokens(answer, 0, answer.outputTokens),
    ...since(answer, answer.outputTokens),
  ];
}

function cutPart(answer: Answer, { afterBytes, afterTokens }: Extract<Fault, { kind: 'cut' }>): Step[] {
  if (afterBytes === undefined) return until(answer, afterTokens ?? Math.floor(answer.outputTokens / 2));
  return [...start(answer), send(Buffer.from(text(answer)).subarray(0, afterBytes))];
}

function think(answer: Answer): Step {
  return pause(answer.firstTokenMs + (answer.stream ? 0 : generationMs(answer)));
}

function generationMs({ outputTokens, tokensPerSecond, gapMs }: Answer): number {
  if (gapMs > 0) return outputTokens * gapMs;
  return tokensPerSecond > 0 ? (outputTokens * 1000) / tokensPerSecond : 0;
}

function text(answer: Answer): string {
  if (!answer.stream) return answer.json;
  const said = Array.from({ length: answer.outputTokens }, (_, index) => answer.token(index)).join('');
  return answer.opening + said + answer.finish + answer.usage + answer.done;
}

function half({ json }: Answer): string {
  return json.slice(0, Math.floor(json.length / 2));
}

function slices(bytes: Buffer, size: number): Buffer[] {
  const count = Math.ceil(bytes.length / size);
  return Array.from({ length: count }, (_, index) => bytes.subarray(index * size, (index + 1) * size));
}

function refusal(status: number): string {
  return errorAnswer(status, `the simulated engine answers ${status}`).json;
}

function head(answer: Answer): Step {
  if (answer.stream) return chunkedHead(answer);
  const length = String(Buffer.byteLength(answer.json));
  return { do: 'head', status: answer.status, headers: { ...answer.headers, 'content-length': length } };
}

function chunkedHead({ status, headers }: Answer): Step {
  return { do: 'head', status, headers };
}

function jsonHead(status: number, extra: Record<string, string> = {}): Step {
  const own = Object.entries(extra).map(([name, value]) => [name.toLowerCase(), value]);
  return { do: 'head', status, headers: { 'content-type': 'application/json', ...Object.fromEntries(own) } };
}

function send(bytes: string | Buffer): Step {
  return { do: 'send', bytes };
}

function tokens(answer: Answer, from: number, to: number): Step {
  return { do: 'tokens', answer, from, to: Math.min(to, answer.outputTokens) };
}

function pause(ms: number): Step {
  return { do: 'pause', ms };
}
