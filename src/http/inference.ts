import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { timeOrderedId } from '../ids.js';
import { BodyError, type RequestBody, scanBody } from './body.js';
import { ClientRequest, type InferenceRoute, type Phase } from './client-request.js';
import type { Discovery } from './discovery.js';
import { ApiError } from './errors.js';
import { type FailoverDeps, failoverOf } from './failover.js';
import { saneRequestId } from './headers.js';
import { readBody } from './read-body.js';
import { Reply } from './reply.js';

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
}

export interface Inference {
  /** A client's request by its model. */
  handle(req: IncomingMessage, res: ServerResponse, route: InferenceRoute): Promise<void>;
  /** Straight to one endpoint, for trying it out: in flight like any other, counted nowhere. */
  tryOut(req: IncomingMessage, res: ServerResponse, endpointId: string): Promise<void>;
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
  const { house, clock } = deps;
  const failover = failoverOf(deps);
  const running = new Set<ClientRequest>();
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
    run: (request: ClientRequest, closed: ApiError | null) => Promise<void>,
  ): Promise<void> {
    const identity = identify(req);
    open += 1;
    let request: ClientRequest | undefined;
    try {
      // Whoever comes before the door is shut is let in, however long the body takes.
      const closed = deps.closed();
      const body = await readBody(req, res);
      request = newRequest(req, res, route, identity, body);
      running.add(request);
      await run(request, closed);
    } catch (error) {
      nameError(res, identity);
      throw error;
    } finally {
      open -= 1;
      if (request !== undefined) {
        running.delete(request);
        request.freeBody();
        request.reply.begins();
      }
    }
  }

  function nameError(res: ServerResponse, { requestId, startedAt }: Identity): void {
    if (res.headersSent) return;
    res.setHeader('x-request-id', requestId);
    res.setHeader('x-troupe-attempts', '0');
    res.setHeader('x-troupe-overhead-ms', (clock.mono() - startedAt).toFixed(2));
  }

  function newRequest(
    req: IncomingMessage,
    res: ServerResponse,
    route: InferenceRoute,
    identity: Identity,
    body: Buffer,
  ): ClientRequest {
    const scanned = scan(body);
    const { rawHeaders } = req;
    const clientIp = addressOf(req);
    const { id, requestId, acceptedAt, startedAt } = identity;
    // How long the client took to send it is not Troupe's time.
    const readAt = clock.mono();
    const request = new ClientRequest({
      id,
      requestId,
      acceptedAt,
      startedAt,
      route,
      body,
      scanned,
      clientIp,
      rawHeaders,
      key: () => keyOf(req),
    });
    request.reply = new Reply(req, res, {
      kind: route.kind,
      stream: scanned.stream && route.kind !== 'embeddings',
      requestId,
      told: () => ({
        attempts: request.tried.size,
        overheadMs: Math.max(0, clock.mono() - readAt - request.atEndpointsMs(clock.mono())),
      }),
    });
    return request;
  }

  /** An unknown model is looked for once before it is refused. */
  async function refuseUnknown(model: string): Promise<void> {
    if (house.catalogue.places(model).length > 0) return;
    await deps.discovery.look();
    if (house.catalogue.candidates(model, clock.mono()).length > 0) return;
    throw new ApiError(
      'model_not_found',
      `the model ${JSON.stringify(model)} does not exist on any endpoint`,
      { param: 'model' },
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
    socket.on('close', onClose);
    try {
      await run();
    } finally {
      socket.off('close', onClose);
    }
  }

  return {
    handle(req, res, route) {
      return admit(req, res, route, async (request, closed) => {
        if (closed !== null) {
          failover.finish(request, { how: 'broken', status: closed.status, error: closed.message });
          throw closed;
        }
        await refuseUnknown(request.accepted.scanned.model);
        if (req.socket.destroyed) {
          failover.finish(request, { how: 'left', status: null });
          return;
        }
        await whileThere(request, () => failover.serve(request));
      });
    },

    tryOut(req, res, endpointId) {
      return admit(req, res, INFERENCE_ROUTES[0] as InferenceRoute, async (request, closed) => {
        if (house.roster.config(endpointId) === undefined) {
          throw new ApiError('not_found', `no endpoint has the id ${endpointId}`);
        }
        if (closed !== null) throw closed;
        if (req.socket.destroyed) return;
        const { model } = request.accepted.scanned;
        const place = house.catalogue.places(model).find((one) => one.endpointId === endpointId);
        const modelId = place?.modelId ?? model;
        const candidate = house.catalogue.candidate({ endpointId, modelId }, clock.mono());
        await whileThere(request, () => failover.tryOut(request, candidate));
      });
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

function scan(body: Buffer): RequestBody {
  try {
    return scanBody(body);
  } catch (error) {
    if (!(error instanceof BodyError)) throw error;
    const code = error.param === null ? 'invalid_json' : 'invalid_request';
    throw new ApiError(code, error.message, { param: error.param, cause: error });
  }
}

/** Whose request it is, as far as its turn is concerned; the credential itself is not kept. */
function keyOf({ headers }: IncomingMessage): string {
  const credential = headers.authorization ?? headers['x-api-key'];
  if (credential === undefined) return '';
  return createHash('sha256').update(String(credential)).digest('hex').slice(0, 16);
}

function addressOf(req: IncomingMessage): string | null {
  return req.socket.remoteAddress?.replace(/^::ffff:/, '') ?? null;
}
