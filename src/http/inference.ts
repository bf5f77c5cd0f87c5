import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Books } from '../actors/books.js';
import type { House } from '../actors/house.js';
import type { LeaseTable } from '../actors/leases.js';
import { settle } from '../actors/settle.js';
import { type Clock, wholeMs } from '../clock.js';
import type { Deadlines } from '../config.js';
import { timeOrderedId } from '../ids.js';
import { type Candidate, choose } from '../machines/choose.js';
import { type AttemptEnd, classify } from '../machines/classify.js';
import type { ApiKind, AttemptRecord, RequestRecord } from '../machines/records.js';
import type { EndpointConfig } from '../persistence/store.js';
import { BodyError, type RequestBody, rewriteBody, scanBody } from './body.js';
import type { Discovery } from './discovery.js';
import { ApiError } from './errors.js';
import { headerSafe, saneRequestId, upstreamHeaders } from './headers.js';
import { readBody } from './read-body.js';
import { relay, type Seen } from './relay.js';
import { pathOf, sendError } from './send.js';
import type { Upstreams } from './upstreams.js';

export interface InferenceRoute {
  path: string;
  kind: ApiKind;
  requestType: string;
}

export const INFERENCE_ROUTES: readonly InferenceRoute[] = [
  { path: '/v1/chat/completions', kind: 'chat_completions', requestType: 'chat' },
  { path: '/v1/completions', kind: 'completions', requestType: 'completion' },
  { path: '/v1/embeddings', kind: 'embeddings', requestType: 'embeddings' },
  { path: '/v1/responses', kind: 'responses', requestType: 'responses' },
];

export interface InferenceDeps {
  house: House;
  books: Books;
  leases: LeaseTable;
  upstreams: Upstreams;
  discovery: Discovery;
  clock: Clock;
  random: () => number;
  deadlines: Deadlines;
  log: { info(details: object, message: string): void };
  /** Why new requests are refused, if they are. */
  closed: () => ApiError | null;
}

export interface Inference {
  /** A client's request by its model. */
  handle(req: IncomingMessage, res: ServerResponse, route: InferenceRoute): Promise<void>;
  /** Straight to one endpoint, for trying it out: in flight like any other, counted nowhere. */
  tryOut(req: IncomingMessage, res: ServerResponse, endpointId: string): Promise<void>;
  /** Requests that are not answered yet. */
  readonly open: number;
  /** Ends everything in flight; each client is told in its protocol. */
  endAll(message: string): void;
}

interface Identity {
  id: string;
  requestId: string;
  /** Wall clock and monotonic, ms. */
  acceptedAt: number;
  startedAt: number;
}

/** What is known of a request before it is sent anywhere. */
interface Accepted extends Identity {
  route: InferenceRoute;
  body: Buffer;
  scanned: RequestBody;
  clientIp: string | null;
  /** Why it was refused when it came, if it was. */
  closed: ApiError | null;
}

interface Tried {
  config: EndpointConfig;
  modelId: string;
  /** Monotonic, ms. */
  startedAt: number;
}

type Finish = (end: AttemptEnd, seen: Seen, tried: Tried | null) => void;

const NOTHING_SEEN: Seen = {
  statusCode: null,
  inputTokens: null,
  outputTokens: null,
  estimated: false,
  firstTokenMs: null,
};

export function inferenceOf(deps: InferenceDeps): Inference {
  const { house, books, leases, upstreams, clock, deadlines } = deps;
  /** What ends each request in flight. */
  const running = new Set<(message: string) => void>();
  /** Requests that came in and are not answered yet, forwarded or not. */
  let open = 0;
  /** Endpoints (by URL) that refuse `include_usage` and answer well without. */
  const refusesUsage = new Set<string>();

  /** What makes a request one: known before anything can go wrong with it. */
  function identify(req: IncomingMessage): Identity {
    const acceptedAt = clock.now();
    const id = timeOrderedId(acceptedAt);
    const requestId = saneRequestId(req.headers['x-request-id']) ?? id;
    return { id, requestId, acceptedAt, startedAt: clock.mono() };
  }

  async function accept(
    req: IncomingMessage,
    res: ServerResponse,
    route: InferenceRoute,
    identity: Identity,
  ): Promise<Accepted> {
    const closed = deps.closed();
    const body = await readBody(req, res);
    const { id, requestId, acceptedAt, startedAt } = identity;
    const clientIp = addressOf(req);
    return { id, requestId, acceptedAt, startedAt, route, body, scanned: scan(body), clientIp, closed };
  }

  /** An error's answer carries the id that its row has. */
  async function named(
    res: ServerResponse,
    { requestId }: Identity,
    run: () => Promise<void>,
  ): Promise<void> {
    open += 1;
    try {
      await run();
    } catch (error) {
      if (!res.headersSent) {
        res.setHeader('x-request-id', requestId);
        res.setHeader('x-troupe-attempts', '0');
      }
      throw error;
    } finally {
      open -= 1;
    }
  }

  /** Forwards to the chosen endpoint and sees it through. */
  async function attempt(
    req: IncomingMessage,
    res: ServerResponse,
    accepted: Accepted,
    candidate: Candidate,
    finish: Finish,
  ): Promise<void> {
    const config = house.roster.config(candidate.endpointId) as EndpointConfig;
    const { scanned, body, route } = accepted;
    const startedAt = clock.mono();
    const model = candidate.modelId === scanned.model ? {} : { model: candidate.modelId };
    const addUsage =
      scanned.stream &&
      asksUsage(route.kind) &&
      scanned.usage !== 'asked' &&
      !refusesUsage.has(config.baseUrl);
    const plain = joined(rewriteBody(body, scanned, model));
    let ended: ((message: string, code: 'upstream_broken' | 'shutting_down') => void) | undefined;
    const lease = leases.open({
      endpointId: config.id,
      abort: () => ended?.('the endpoint was removed', 'upstream_broken'),
    });
    const onShutdown = (message: string) => ended?.(message, 'shutting_down');
    running.add(onShutdown);
    const attemptDeadlines = {
      connectMs: deadlines.connectMs,
      firstByteMs: scanned.stream ? deadlines.firstByteMs : deadlines.firstByteWholeMs,
      idleMs: deadlines.idleMs,
      totalMs: config.inferenceTimeoutSecs > 0 ? config.inferenceTimeoutSecs * 1000 : deadlines.totalMs,
    };
    const { pool, prefix } = upstreams.target(config.id, config.baseUrl);
    const { done, end } = relay({
      pool,
      fresh: () => upstreams.fresh(config.baseUrl),
      path: prefix + route.path,
      headers: upstreamHeaders(req.rawHeaders, config, accepted.requestId),
      body: addUsage ? joined(rewriteBody(body, scanned, { ...model, addUsage })) : plain,
      plainBody: addUsage ? plain : null,
      kind: route.kind,
      stream: scanned.stream,
      deadlines: attemptDeadlines,
      clock,
      res,
      ownHeaders: [
        'x-request-id',
        accepted.requestId,
        'x-troupe-endpoint',
        headerSafe(config.name),
        'x-troupe-attempts',
        '1',
      ],
      settle: (how, seen) => {
        running.delete(onShutdown);
        lease.close();
        finish(how, seen, { config, modelId: candidate.modelId, startedAt });
      },
      refusesUsage: () => refusesUsage.add(config.baseUrl),
    });
    ended = end;
    const unsent = await done;
    if (unsent === null) return;
    res.setHeader('x-request-id', accepted.requestId);
    res.setHeader('x-troupe-endpoint', headerSafe(config.name));
    res.setHeader('x-troupe-attempts', '1');
    sendError(
      res,
      pathOf(req),
      new ApiError(unsent.code, `${config.name}: ${unsent.message}`),
      accepted.requestId,
    );
  }

  /** The record of a request, and its settling. */
  function finisher(accepted: Accepted): Finish {
    return (end, seen, tried) => {
      const record = recordOf(accepted, end, seen, tried);
      settle(house.system, books, record);
      deps.log.info(logLine(record), 'request');
    };
  }

  function recordOf(accepted: Accepted, end: AttemptEnd, seen: Seen, tried: Tried | null): RequestRecord {
    const now = clock.mono();
    const { counted, outcome, timeline, statusCode, error } = classify(end);
    const attempts: AttemptRecord[] = [];
    let ttftMs: number | null = null;
    if (tried !== null) {
      const durationMs = wholeMs(now - tried.startedAt);
      if (seen.firstTokenMs !== null) {
        ttftMs = wholeMs(tried.startedAt - accepted.startedAt + seen.firstTokenMs);
      }
      attempts.push({
        endpointId: tried.config.id,
        endpointName: tried.config.name,
        modelId: tried.modelId,
        counted,
        statusCode: seen.statusCode,
        error,
        durationMs,
        inputTokens: seen.inputTokens,
        outputTokens: seen.outputTokens,
        // An embedding has no rate of output.
        sampled:
          counted === 'success' && accepted.route.kind !== 'embeddings' && (seen.outputTokens ?? 0) > 0,
      });
    }
    return {
      id: accepted.id,
      requestId: accepted.requestId,
      kind: accepted.route.kind,
      requestType: accepted.route.requestType,
      model: accepted.scanned.model,
      clientIp: accepted.clientIp,
      acceptedAt: accepted.acceptedAt,
      completedAt: clock.now(),
      durationMs: wholeMs(now - accepted.startedAt),
      ttftMs,
      outcome,
      timeline,
      error,
      statusCode,
      tokensEstimated: seen.estimated,
      attempts,
    };
  }

  /** Who could serve the model; an unknown one is looked for once before it is refused. */
  async function candidatesFor(model: string): Promise<Candidate[]> {
    if (house.catalogue.places(model).length === 0) await deps.discovery.look();
    const candidates = house.catalogue.candidates(model);
    if (candidates.length > 0) return candidates;
    throw new ApiError(
      'model_not_found',
      `the model ${JSON.stringify(model)} does not exist on any endpoint`,
      {
        param: 'model',
      },
    );
  }

  return {
    handle(req, res, route) {
      const identity = identify(req);
      return named(res, identity, async () => {
        const accepted = await accept(req, res, route, identity);
        const finish = finisher(accepted);
        if (accepted.closed !== null) refuse(accepted.closed, finish);
        const candidates = await candidatesFor(accepted.scanned.model);
        if (req.socket.destroyed) {
          finish({ how: 'left', status: null }, NOTHING_SEEN, null);
          return;
        }
        const chosen = choose(candidates, deps.random);
        if (chosen === undefined) return refuse(nobody(accepted.scanned.model, candidates), finish);
        await attempt(req, res, accepted, chosen, finish);
      });
    },

    tryOut(req, res, endpointId) {
      const identity = identify(req);
      return named(res, identity, async () => {
        if (house.roster.config(endpointId) === undefined) {
          throw new ApiError('not_found', `no endpoint has the id ${endpointId}`);
        }
        const accepted = await accept(req, res, INFERENCE_ROUTES[0] as InferenceRoute, identity);
        if (accepted.closed !== null) throw accepted.closed;
        if (req.socket.destroyed) return;
        const { model } = accepted.scanned;
        const place = house.catalogue.places(model).find((one) => one.endpointId === endpointId);
        const candidate: Candidate = {
          endpointId,
          modelId: place?.modelId ?? model,
          status: house.roster.status(endpointId),
          active: leases.count(endpointId),
        };
        await attempt(req, res, accepted, candidate, () => {});
      });
    },

    get open() {
      return open;
    },

    endAll(message) {
      for (const end of [...running]) end(message);
    },
  };
}

/** Nobody was asked: a failure of the client's request all the same. */
function refuse(error: ApiError, finish: Finish): never {
  finish({ how: 'broken', status: error.status, error: error.message }, NOTHING_SEEN, null);
  throw error;
}

function scan(body: Buffer): RequestBody {
  try {
    return scanBody(body);
  } catch (error) {
    if (!(error instanceof BodyError)) throw error;
    const code = error.param === null ? 'invalid_json' : 'invalid_request';
    throw new ApiError(code, error.message, { param: error.param, cause: error });
  }
}

function asksUsage(kind: ApiKind): boolean {
  return kind === 'chat_completions' || kind === 'completions';
}

function joined(slices: Buffer[]): Buffer {
  return slices.length === 1 ? (slices[0] as Buffer) : Buffer.concat(slices);
}

function addressOf(req: IncomingMessage): string | null {
  return req.socket.remoteAddress?.replace(/^::ffff:/, '') ?? null;
}

function nobody(model: string, candidates: Candidate[]): ApiError {
  const told = new Map<string, number>();
  for (const { status } of candidates) told.set(status, (told.get(status) ?? 0) + 1);
  const why = [...told].map(([status, count]) => `${count} ${status}`).join(', ');
  return new ApiError(
    'no_endpoint_available',
    `no endpoint can serve the model ${JSON.stringify(model)} now (${why})`,
    { param: 'model', headers: { 'retry-after': '5' } },
  );
}

function logLine(record: RequestRecord): object {
  const attempt = record.attempts[0];
  return {
    request_id: record.requestId,
    type: record.requestType,
    model: record.model,
    endpoint: attempt?.endpointName ?? null,
    outcome: record.outcome,
    status: record.statusCode,
    duration_ms: record.durationMs,
    ttft_ms: record.ttftMs,
    input_tokens: attempt?.inputTokens ?? null,
    output_tokens: attempt?.outputTokens ?? null,
    ...(record.error === null ? {} : { error: record.error }),
  };
}
