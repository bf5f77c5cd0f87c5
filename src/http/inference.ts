import type { IncomingMessage, ServerResponse } from 'node:http';
import { globsAllow } from '../access/globs.js';
import type { Principal } from '../access/principal.js';
import { isTold, type Refusal } from '../access/rate-limits.js';
import { digestOf } from '../access/tokens.js';
import { localDate } from '../clock.js';
import { timeOrderedId } from '../ids.js';
import { Line, type Place } from '../line.js';
import type { ApiKind } from '../machines/records.js';
import { ClientRequest, type InferenceRoute, type Phase } from './client-request.js';
import type { Discovery } from './discovery.js';
import { ApiError } from './errors.js';
import { type FailoverDeps, failoverOf } from './failover.js';
import { saneRequestId } from './headers.js';
import { type Received, readBody } from './read-body.js';
import { Reply } from './reply.js';
import type { Access } from './routes.js';
import { scanned, wantedOf } from './wanted.js';

export const INFERENCE_ROUTES: readonly InferenceRoute[] = [
  { path: '/v1/chat/completions', kind: 'chat_completions', requestType: 'chat' },
  { path: '/v1/completions', kind: 'completions', requestType: 'completion' },
  { path: '/v1/embeddings', kind: 'embeddings', requestType: 'embeddings' },
  { path: '/v1/responses', kind: 'responses', requestType: 'responses' },
];

export interface InferenceDeps extends FailoverDeps {
  discovery: Discovery;
  /** Why new requests are refused, if they are. */
  closed: () => ApiError | null;
  /** Throws unless whoever was let in at the head of the request may still do it. */
  recheck: (principal: Principal, access: Access) => void;
  addressOf: (req: IncomingMessage) => string | null;
}

export interface Inference {
  /** A client's request by its model. */
  handle(
    req: IncomingMessage,
    res: ServerResponse,
    route: InferenceRoute,
    principal: Principal,
  ): Promise<void>;
  /** Straight to one endpoint, for trying it out: in flight like any other, counted nowhere. */
  tryOut(req: IncomingMessage, res: ServerResponse, endpointId: string, principal: Principal): Promise<void>;
  /** Requests that are not answered yet. */
  readonly open: number;
  /** Those of them whose bodies are there, oldest first. */
  live(): LiveRequest[];
  /** Ends everything in flight; each client is told in its protocol. */
  endAll(message: string): void;
}

/** A request under way as the dashboard shows it. */
export interface LiveRequest {
  id: string;
  request_id: string;
  model: string;
  endpoint_id: string | null;
  phase: Phase;
  age_ms: number;
  output_tokens: number;
  attempts: number;
}

interface Identity {
  id: string;
  requestId: string;
  /** Wall clock and monotonic, ms. */
  acceptedAt: number;
  startedAt: number;
}

export function inferenceOf(deps: InferenceDeps): Inference {
  const { house, books, rateLimits, clock } = deps;
  const failover = failoverOf(deps);
  const running = new Line<ClientRequest>();
  /** Requests that came in and are not answered yet, forwarded or not. */
  let open = 0;

  /** What makes a request one: known before anything can go wrong with it. */
  function identify(req: IncomingMessage): Identity {
    const acceptedAt = clock.now();
    const id = timeOrderedId(acceptedAt);
    const requestId = saneRequestId(req.headers['x-request-id']) ?? id;
    return { id, requestId, acceptedAt, startedAt: clock.mono() };
  }

  /** Reads the request, runs it and sees to what is left of it. An error's answer carries the id that its row has. */
  async function admit(
    req: IncomingMessage,
    res: ServerResponse,
    route: InferenceRoute,
    principal: Principal,
    access: Access,
    run: (request: ClientRequest, closed: ApiError | null) => Promise<void>,
  ): Promise<void> {
    const identity = identify(req);
    open += 1;
    let request: ClientRequest | undefined;
    let place: Place<ClientRequest> | undefined;
    let release = () => {};
    try {
      release = takePlace(principal, identity);
      // Whoever comes before the door is shut is let in, however long the body takes.
      const closed = deps.closed();
      const received = await readBody(req, res);
      deps.recheck(principal, access);
      request = newRequest(req, res, route, principal, identity, received, release);
      refuseForbidden(principal, request.accepted.scanned.model);
      place = running.add(request);
      await run(request, closed);
    } catch (error) {
      nameError(res, principal, identity);
      if (request?.settled !== true && error instanceof ApiError)
        tellRefused(error, identity, route, principal, request?.accepted.scanned.model ?? null);
      throw error;
    } finally {
      open -= 1;
      release();
      if (request !== undefined) {
        if (place !== undefined) running.remove(place);
        request.freeBody();
        request.reply.begins();
      }
    }
  }

  /** What was refused before anybody was asked has no row, and this line alone. */
  function tellRefused(
    { status, code, message }: ApiError,
    { requestId }: Identity,
    route: InferenceRoute,
    principal: Principal,
    model: string | null,
  ): void {
    const line = {
      request_id: requestId,
      type: route.requestType,
      // Nobody has this model: its name may be anything.
      model: model?.slice(0, MOST_TOLD_CHARS) ?? null,
      key_id: principal.keyId,
      status,
      code,
      error: message.slice(0, MOST_TOLD_CHARS),
    };
    deps.log.info(line, 'refused');
  }

  function nameError(res: ServerResponse, principal: Principal, { requestId, startedAt }: Identity): void {
    if (res.headersSent) return;
    const limits = limitHeaders(principal);
    for (let i = 0; i < limits.length; i += 2) res.setHeader(limits[i] as string, limits[i + 1] as string);
    res.setHeader('x-request-id', requestId);
    res.setHeader('x-troupe-attempts', '0');
    res.setHeader('x-troupe-overhead-ms', (clock.mono() - startedAt).toFixed(2));
  }

  /** Takes the key's place for the request, or says when to come back. The answer gives the place back, once. */
  function takePlace({ keyId, rateLimit }: Principal, { acceptedAt, startedAt }: Identity): () => void {
    if (keyId === null || rateLimit === null) return NOTHING_TAKEN;
    const spent = () => {
      const { today, month } = books.usage(keyId, localDate(acceptedAt));
      return {
        today: today.inputTokens + today.outputTokens,
        month: month.inputTokens + month.outputTokens,
      };
    };
    const refusal = rateLimits.admit(keyId, rateLimit, spent, startedAt, acceptedAt);
    if (refusal !== null) throw overLimit(refusal);
    let taken = true;
    return () => {
      if (taken) rateLimits.release(keyId);
      taken = false;
    };
  }

  function limitHeaders({ keyId, rateLimit }: Principal): string[] {
    if (keyId === null || rateLimit === null) return NO_HEADERS;
    return rateLimits.headers(keyId, rateLimit, clock.mono());
  }

  function newRequest(
    req: IncomingMessage,
    res: ServerResponse,
    route: InferenceRoute,
    principal: Principal,
    identity: Identity,
    received: Received,
    release: () => void,
  ): ClientRequest {
    const { body } = received;
    const asked = scanned(body);
    const { rawHeaders } = req;
    const clientIp = deps.addressOf(req);
    const { id, requestId, acceptedAt, startedAt } = identity;
    // How long the client took to send it is not Troupe's time.
    const readAt = clock.mono();
    const request = new ClientRequest({
      id,
      requestId,
      acceptedAt,
      startedAt,
      route,
      received,
      scanned: asked,
      clientIp,
      rawHeaders,
      principal,
      release,
      key: () => keyOf(principal, req),
    });
    const session = req.headers['x-session-id'];
    request.wanted = wantedOf(asked, body.length, () => request.body, session, house.chooser.policy);
    request.reply = new Reply(req, res, {
      kind: route.kind,
      stream: asked.stream && route.kind !== 'embeddings',
      requestId,
      limits: () => limitHeaders(principal),
      hasLimits: principal.rateLimit !== null && isTold(principal.rateLimit),
      told: () => ({
        attempts: request.tried.size,
        overheadMs: Math.max(0, clock.mono() - readAt - request.atEndpointsMs(clock.mono())),
      }),
    });
    return request;
  }

  /** An unknown model is looked for once before it is refused. */
  async function refuseUnknown(model: string): Promise<void> {
    await deps.discovery.look();
    if (house.catalogue.candidates(model, clock.mono()).length > 0) return;
    throw new ApiError(
      'model_not_found',
      `the model ${JSON.stringify(model)} does not exist on any endpoint`,
      { param: 'model' },
    );
  }

  /** An estimate only steers; what no endpoint can hold is refused before anybody is asked. */
  function refuseTooLong({ wanted, accepted }: ClientRequest): void {
    const largest = house.chooser.surelyExceeds(wanted);
    if (largest === null) return;
    throw new ApiError(
      'context_too_long',
      `the prompt is longer than any endpoint of the model ${JSON.stringify(wanted.model)} can hold: the largest context there is has ${largest} tokens`,
      { param: PROMPT_OF[accepted.route.kind] },
    );
  }

  /** The client's leaving ends what runs for it. */
  async function whileThere(request: ClientRequest, run: () => Promise<void>): Promise<void> {
    const { socket } = request.reply;
    const onClose = () => {
      request.left = true;
      request.gone = true;
      request.running?.clientLeft();
    };
    // Half-closed it has left too: without this its `close` would wait until it has read what is on its way.
    const onEnd = () => socket.destroy();
    socket.on('close', onClose);
    socket.on('end', onEnd);
    try {
      await run();
    } finally {
      socket.off('close', onClose);
      socket.off('end', onEnd);
    }
  }

  return {
    handle(req, res, route, principal) {
      return admit(req, res, route, principal, 'openai.inference', async (request, closed) => {
        if (closed !== null) {
          failover.finish(request, { how: 'broken', status: closed.status, error: closed.message });
          throw closed;
        }
        const { model } = request.accepted.scanned;
        if (house.catalogue.places(model).length === 0) await refuseUnknown(model);
        refuseTooLong(request);
        if (req.socket.destroyed) {
          failover.finish(request, { how: 'left', status: null });
          return;
        }
        await whileThere(request, () => failover.serve(request));
      });
    },

    tryOut(req, res, endpointId, principal) {
      return admit(
        req,
        res,
        INFERENCE_ROUTES[0] as InferenceRoute,
        principal,
        'endpoints.manage',
        async (request, closed) => {
          if (house.roster.config(endpointId) === undefined) {
            throw new ApiError('not_found', `no endpoint has the id ${endpointId}`);
          }
          if (closed !== null) throw closed;
          if (deps.vault.isLost(endpointId)) {
            throw new ApiError(
              'upstream_unreachable',
              'the stored key of the endpoint cannot be read: set it again',
            );
          }
          if (req.socket.destroyed) return;
          const { model } = request.accepted.scanned;
          const place = house.catalogue.places(model).find((one) => one.endpointId === endpointId);
          const modelId = place?.modelId ?? model;
          const candidate = house.catalogue.candidate({ endpointId, modelId }, clock.mono());
          await whileThere(request, () => failover.tryOut(request, candidate));
        },
      );
    },

    get open() {
      return open;
    },

    live() {
      const now = clock.mono();
      return [...running].map((request) => ({
        id: request.accepted.id,
        request_id: request.accepted.requestId,
        model: request.accepted.scanned.model,
        endpoint_id: request.endpointId,
        phase: request.phase,
        age_ms: Math.round(now - request.accepted.startedAt),
        output_tokens: request.running?.outputTokens ?? 0,
        attempts: request.tried.size,
      }));
    },

    endAll(message) {
      house.waiting.closeAll();
      for (const request of [...running]) {
        request.gone = true;
        request.running?.end(message, 'shutting_down');
      }
    },
  };
}

/** Where a request of that kind has its prompt. */
const PROMPT_OF: Record<ApiKind, string> = {
  chat_completions: 'messages',
  completions: 'prompt',
  embeddings: 'input',
  responses: 'input',
  messages: 'messages',
};

/** Of what a client sent that is written to the log. */
const MOST_TOLD_CHARS = 300;

const NO_HEADERS: string[] = [];
const NOTHING_TAKEN = () => {};

/** A model that the key may not use is refused whether it exists or not. */
function refuseForbidden({ models }: Principal, model: string): void {
  if (models === null || globsAllow(models, model)) return;
  throw new ApiError('model_not_allowed', `this key may not use the model ${JSON.stringify(model)}`, {
    param: 'model',
  });
}

function overLimit({ limit, retryAfterSecs, message }: Refusal): ApiError {
  const retryAfter = { 'retry-after': String(retryAfterSecs) };
  const isBudget = limit === 'tokensPerDay' || limit === 'tokensPerMonth';
  // Clients of OpenAI retry a 429 within seconds unless they are told not to.
  return isBudget
    ? new ApiError('insufficient_quota', message, { headers: { ...retryAfter, 'x-should-retry': 'false' } })
    : new ApiError('rate_limit_exceeded', message, { headers: retryAfter });
}

/** Whose request it is, as far as its turn is concerned; where nobody is asked, what they sent all the same. */
function keyOf({ kind, keyId, userId }: Principal, { headers }: IncomingMessage): string {
  if (kind !== 'anonymous') return keyId ?? userId;
  const credential = headers.authorization ?? headers['x-api-key'];
  return credential === undefined ? '' : digestOf(String(credential));
}
