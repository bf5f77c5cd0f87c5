import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Answer,
  type ApiKind,
  errorAnswer,
  inferenceAnswer,
  isRecord,
  jsonAnswer,
  type RequestBody,
  responseId,
  textAnswer,
  tokenLimit,
} from './simulated-answers.js';
import { catalogueEntry, type EngineKind, engineHeaders, isModelList } from './simulated-catalogue.js';
import { type Fault, type Faults, type Step, stepsFor } from './simulated-faults.js';

/** Every field may change while the engine runs, `port` aside; a request keeps what it started with. */
export interface SimulatedEngineOptions {
  /** 0, the default, picks a free one. */
  port?: number;
  /** Default `['sim-small']`. */
  models?: string[];
  /** Default 0: as fast as the client reads. */
  tokensPerSecond?: number;
  /** Default 0. A stream has sent its head before this delay, as real engines do. */
  firstTokenMs?: number;
  /** Default 12; a request's own limit lowers it. */
  outputTokens?: number;
  /** Whose own routes and marks it shows; default `openai_compatible`. */
  engine?: EngineKind;
  /** When set, a request without it as bearer token gets 401. */
  apiKey?: string;
  random?: () => number;
  /** Share of inference requests answered with 500, from 0 to 1, where no other fault is due. */
  failureRate?: number;
  /** Delay before a model list is answered. */
  healthDelayMs?: number;
}

/** `aborted`: the peer went away before its answer was complete. `body` stays empty where none was read. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: string[];
  body: string;
  readonly at: number;
  aborted: boolean;
}

export interface SimulatedEngine {
  readonly url: string;
  readonly port: number;
  faults: Faults;
  options: SimulatedEngineOptions;
  /** Oldest first, the newest 1000; those met by a reset are in it too. */
  readonly requests: SeenRequest[];
  /** Inference requests being served now. */
  readonly active: number;
  /** Lets every request go on that hangs or stalls now. */
  release(): void;
  /** Stops listening and destroys every socket: a killed box. */
  stop(): Promise<void>;
  /** Listens again on the same port. */
  restart(): Promise<void>;
}

interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  path: string;
  kind: ApiKind | undefined;
  seen: SeenRequest;
  /** Aborted when the exchange is over, however it ended. */
  over: AbortSignal;
}

const INFERENCE: Record<string, ApiKind> = {
  '/v1/chat/completions': 'chat',
  '/v1/completions': 'completions',
  '/v1/embeddings': 'embeddings',
  '/v1/responses': 'responses',
};
const SEEN_LIMIT = 1000;
/** Tokens closer than this share a timer and a write. */
const TICK_MS = 10;
const UNPACED_BATCH = 256;
/** An RST may overtake bytes the peer has not read yet; this lets them arrive. */
const BEFORE_RESET_MS = 20;

/** An inference server that can be told to misbehave, on 127.0.0.1; rejects if the port is taken. */
export async function startSimulatedEngine(options: SimulatedEngineOptions = {}): Promise<SimulatedEngine> {
  const engine = new Engine(options);
  await engine.listen(options.port ?? 0);
  return engine;
}

class Engine implements SimulatedEngine {
  faults: Faults = { next: [], always: null, models: null };
  options: SimulatedEngineOptions;
  readonly requests: SeenRequest[] = [];
  active = 0;
  port = 0;
  // Longer than any client keeps an idle connection, so that only faults close one.
  readonly #server = createServer({ keepAliveTimeout: 600_000 });
  readonly #sockets = new Set<Socket>();
  readonly #spoiled = new WeakSet<Socket>();
  readonly #closedHere = new WeakSet<Socket>();
  /** Ids of answers of the responses API, which a request may go on from. */
  readonly #stored = new Set<string>();
  readonly #gate = new EventEmitter().setMaxListeners(0);

  constructor(options: SimulatedEngineOptions) {
    this.options = options;
    this.#server.on('connection', (socket: Socket) => this.#track(socket));
    this.#server.on('request', (request, response) => this.#accept(request, response));
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  release(): void {
    this.#gate.emit('release');
  }

  async listen(port: number): Promise<void> {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.port = (this.#server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = [this.#server, ...this.#sockets].map(closeOf);
    this.#server.close();
    for (const socket of this.#sockets) this.#end(socket, 'destroy');
    await Promise.all(closed);
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.listen(this.port);
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  #end(socket: Socket, how: 'destroy' | 'destroySoon' | 'resetAndDestroy'): void {
    this.#closedHere.add(socket);
    socket[how]();
  }

  #accept(request: IncomingMessage, response: ServerResponse): void {
    const exchange = this.#open(request, response);
    this.#serve(exchange).catch((error: Error) => {
      if (exchange.over.aborted) return;
      process.emitWarning(error);
      this.#end(request.socket, 'destroy');
    });
  }

  #open(request: IncomingMessage, response: ServerResponse): Exchange {
    const seen = this.#record(request);
    const path = seen.path.split('?', 1)[0] ?? '';
    const kind = request.method === 'POST' && Object.hasOwn(INFERENCE, path) ? INFERENCE[path] : undefined;
    const over = new AbortController();
    const { socket } = request;
    const weight = kind === undefined ? 0 : 1;
    this.active += weight;
    response.once('close', () => {
      this.active -= weight;
      seen.aborted = !response.writableFinished && !this.#closedHere.has(socket);
      over.abort();
    });
    return { request, response, path, kind, seen, over: over.signal };
  }

  #record({ method = '', url = '', headers, rawHeaders }: IncomingMessage): SeenRequest {
    const seen = { method, path: url, headers, rawHeaders, body: '', at: Date.now(), aborted: false };
    this.requests.push(seen);
    if (this.requests.length > SEEN_LIMIT) this.requests.shift();
    return seen;
  }

  async #serve(exchange: Exchange): Promise<void> {
    const { request, seen, kind } = exchange;
    if (this.#spoiled.has(request.socket)) return this.#end(request.socket, 'resetAndDestroy');
    const allowed = this.#isAllowed(request.headers.authorization);
    const fault = allowed ? this.#dueFault(kind) : null;
    if (fault?.kind === 'refuse') return this.#end(request.socket, 'resetAndDestroy');
    seen.body = await readBody(request);
    const answer = allowed ? this.#answer(exchange, fault) : errorAnswer(401, 'the API key is wrong');
    const headers = { ...engineHeaders(this.options.engine ?? 'openai_compatible'), ...answer.headers };
    for (const step of stepsFor({ ...answer, headers }, fault)) await this.#play(exchange, step);
  }

  #isAllowed(authorization: string | undefined): boolean {
    const { apiKey } = this.options;
    return apiKey === undefined || authorization === `Bearer ${apiKey}`;
  }

  #dueFault(kind: ApiKind | undefined): Fault | null {
    if (kind === undefined) return this.faults.models;
    const fault = this.faults.next.shift() ?? this.faults.always;
    if (fault !== null) return fault;
    const { failureRate = 0, random = Math.random } = this.options;
    return failureRate > 0 && random() < failureRate ? { kind: 'status', status: 500 } : null;
  }

  #answer({ kind, path, request, seen }: Exchange, fault: Fault | null): Answer {
    if (kind !== undefined) return this.#infer(kind, seen.body, fault);
    const { engine = 'openai_compatible', healthDelayMs = 0 } = this.options;
    const entry =
      request.method === 'GET' ? catalogueEntry(engine, path, this.#models(), this.active) : undefined;
    if (entry === undefined) return errorAnswer(404, `no route ${request.method} ${path}`);
    if (typeof entry === 'string') return textAnswer(entry);
    return { ...jsonAnswer(200, entry), firstTokenMs: isModelList(path) ? healthDelayMs : 0 };
  }

  #infer(kind: ApiKind, text: string, fault: Fault | null): Answer {
    const body = parse(text);
    if (body === undefined) return errorAnswer(400, 'the body is not a JSON object');
    const { model } = body;
    if (typeof model !== 'string') return errorAnswer(400, 'a model is missing', 'model');
    if (!this.#models().includes(model)) return errorAnswer(404, `no model '${model}'`, 'model');
    const { previous_response_id: previous } = body;
    if (kind === 'responses' && typeof previous === 'string' && !this.#stored.has(previous)) {
      return errorAnswer(404, `no response '${previous}'`, 'previous_response_id');
    }
    const { outputTokens = 12, firstTokenMs = 0, tokensPerSecond = 0 } = this.options;
    const draft = {
      request: body,
      id: randomUUID(),
      created: Math.floor(Date.now() / 1000),
      model,
      outputTokens: Math.min(outputTokens, tokenLimit(body)),
      reportUsage: fault?.kind !== 'no_usage',
    };
    if (kind === 'responses' && body.store !== false) this.#store(responseId(draft));
    const protocol = fault?.kind === 'wrong_protocol' ? otherProtocol(kind) : kind;
    return { ...inferenceAnswer(protocol, draft), firstTokenMs, tokensPerSecond };
  }

  #store(id: string): void {
    this.#stored.add(id);
    if (this.#stored.size > SEEN_LIMIT) this.#stored.delete(this.#stored.values().next().value as string);
  }

  #models(): readonly string[] {
    return this.options.models ?? ['sim-small'];
  }

  async #play(exchange: Exchange, step: Step): Promise<unknown> {
    const { response, over, request } = exchange;
    switch (step.do) {
      case 'head':
        return response.writeHead(step.status, step.headers);
      case 'send':
        return send(exchange, step.bytes);
      case 'tokens':
        return step.answer.gapMs > 0 ? sendOneByOne(exchange, step) : sendPaced(exchange, step);
      case 'pause':
        return pause(exchange, step.ms);
      case 'hang':
        flushHead(response);
        return once(this.#gate, 'release', { signal: over });
      case 'spoil':
        return this.#spoiled.add(request.socket);
      case 'reset':
        if (response.headersSent) await pause(exchange, BEFORE_RESET_MS);
        return this.#end(request.socket, 'resetAndDestroy');
      case 'close':
        flushHead(response);
        return this.#end(request.socket, 'destroySoon');
      case 'end':
        return response.end();
    }
  }
}

type TokenStep = Extract<Step, { do: 'tokens' }>;

async function sendOneByOne(exchange: Exchange, { answer, from, to }: TokenStep): Promise<void> {
  for (let index = from; index < to; index += 1) {
    await pause(exchange, answer.gapMs);
    await send(exchange, answer.token(index));
  }
}

/** Each token is due at a time counted from the first, so that late timers do not add up. */
async function sendPaced(exchange: Exchange, { answer, from, to }: TokenStep): Promise<void> {
  const { token, tokensPerSecond: rate } = answer;
  const startedAt = performance.now();
  let next = from;
  while (next < to) {
    const elapsed = performance.now() - startedAt;
    const due = rate > 0 ? from + Math.floor((elapsed * rate) / 1000) : next + UNPACED_BATCH;
    const batch = Math.max(0, Math.min(due, to) - next);
    const first = next;
    next += batch;
    await send(exchange, Array.from({ length: batch }, (_, index) => token(first + index)).join(''));
    if (rate > 0 && next < to)
      await pause(exchange, Math.max(TICK_MS, ((next + 1 - from) * 1000) / rate - elapsed));
  }
}

async function send({ response, over }: Exchange, bytes: string | Buffer): Promise<void> {
  over.throwIfAborted();
  if (bytes.length > 0 && !response.write(bytes)) await once(response, 'drain', { signal: over });
}

async function pause({ response, over }: Exchange, ms: number): Promise<void> {
  if (ms <= 0) return;
  flushHead(response);
  await sleep(ms, undefined, { signal: over });
}

/** Node keeps the head back until the first byte of the body, which may be long in coming. */
function flushHead(response: ServerResponse): void {
  if (response.headersSent) response.flushHeaders();
}

/** Unlike `once` it does not mind an error on the way. */
function closeOf(emitter: EventEmitter): Promise<unknown> {
  return new Promise((resolve) => emitter.once('close', resolve));
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function parse(text: string): RequestBody | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function otherProtocol(kind: ApiKind): ApiKind {
  if (kind === 'embeddings') return kind;
  return kind === 'responses' ? 'chat' : 'responses';
}
