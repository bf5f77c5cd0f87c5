import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { H3, type H3Event, HTTPError, toNodeHandler } from 'h3';
import { isLoopback } from '../config.js';
import { timeOrderedId } from '../ids.js';
import { StoreError } from '../persistence/store.js';
import type { InferenceRoute } from './client-request.js';
import { ApiError, errorBody } from './errors.js';
import { saneRequestId } from './headers.js';
import { INFERENCE_ROUTES, type Inference } from './inference.js';
import { ClientGone, readBody } from './read-body.js';
import { Answer, type Call, type Route } from './routes.js';
import { pathOf, sendError } from './send.js';

export interface AppDeps {
  routes: Route[];
  inference: Inference;
  events: { open(event: H3Event): unknown };
  /** True until seeding is done: everything but liveness answers 503. */
  starting: () => boolean;
  log: { error(details: object, message: string): void };
}

const LIVENESS = new Set(['/health', '/ready']);
const INFERENCE = new Map<string, InferenceRoute>(INFERENCE_ROUTES.map((route) => [route.path, route]));
const TRY_OUT = /^\/api\/endpoints\/([^/]+)\/chat\/completions$/;
const EVENTS_PATH = '/api/dashboard/events';

/**
 * The front door. Inference goes straight to the relay, which writes the raw response; everything else is a route
 * of h3. One order for all: started? → host → path → method → media type → body.
 */
export function frontDoor(deps: AppDeps): RequestListener {
  const viaH3 = toNodeHandler(h3App(deps));
  const { inference, log } = deps;

  function refuse(req: IncomingMessage, res: ServerResponse, error: unknown): void {
    if (error instanceof ClientGone) return;
    const path = pathOf(req);
    const known = apiError(error) ?? internal(error, path);
    nameRequest(req, res, path);
    sendError(res, path, known, requestIdOf(res));
  }

  function internal(error: unknown, path: string): ApiError {
    log.error({ err: error, path }, 'a request failed unexpectedly');
    return new ApiError('internal_error', 'something went wrong here; the log says what', { cause: error });
  }

  return (req, res) => {
    const path = pathOf(req);
    const problem = LIVENESS.has(path) ? null : refusal(req, deps);
    if (problem !== null) {
      refuse(req, res, problem);
      return;
    }
    // A HEAD is a GET whose body Node leaves out.
    if (req.method === 'HEAD') {
      req.method = 'GET';
      if (path === EVENTS_PATH) {
        // A stream has no end to wait for.
        res.writeHead(200, { 'content-type': 'text/event-stream' }).end();
        return;
      }
    }
    const route = req.method === 'POST' ? INFERENCE.get(path) : undefined;
    if (route !== undefined) {
      const media = mediaProblem(req, false);
      if (media === null) inference.handle(req, res, route).catch((error) => refuse(req, res, error));
      else refuse(req, res, media);
      return;
    }
    const tried = req.method === 'POST' ? TRY_OUT.exec(path) : null;
    if (tried !== null) {
      const media = mediaProblem(req, true);
      if (media === null) {
        inference.tryOut(req, res, decoded(tried[1] ?? '')).catch((error) => refuse(req, res, error));
      } else refuse(req, res, media);
      return;
    }
    nameRequest(req, res, path);
    viaH3(req, res);
  };
}

/** Every answer below `/v1` says which request it belongs to; the relay says it in its own head. */
function nameRequest(req: IncomingMessage, res: ServerResponse, path: string): void {
  if (!path.startsWith('/v1/') || res.hasHeader('x-request-id')) return;
  res.setHeader('x-request-id', saneRequestId(req.headers['x-request-id']) ?? timeOrderedId(Date.now()));
}

function h3App({ routes, events, log }: AppDeps): H3 {
  const app = new H3({
    silent: true,
    // Only what h3 itself refuses comes here, such as a malformed path.
    onError: (error, event) => failed(event, error),
  });

  function failed(event: H3Event, error: unknown): Response {
    const path = event.url.pathname;
    const known = asApiError(error, path);
    const body = JSON.stringify(errorBody(path, known, requestIdOf(nodeOf(event).res)));
    return new Response(body, {
      status: known.status,
      headers: { ...known.headers, 'content-type': 'application/json' },
    });
  }

  function asApiError(error: unknown, path: string): ApiError {
    const known = apiError(error);
    if (known !== null) return known;
    if (error instanceof HTTPError && error.status < 500) {
      const code = error.status === 404 ? 'not_found' : 'invalid_request';
      return new ApiError(code, error.status === 404 ? `nothing is at ${path}` : 'the request is malformed');
    }
    log.error({ err: error, path }, 'a request failed unexpectedly');
    return new ApiError('internal_error', 'something went wrong here; the log says what');
  }

  const allowed = new Map<string, string[]>([
    ...INFERENCE_ROUTES.map(({ path }): [string, string[]] => [path, ['POST']]),
    ['/api/endpoints/:id/chat/completions', ['POST']],
    [EVENTS_PATH, ['GET']],
  ]);
  for (const route of routes) {
    allowed.set(route.path, [...(allowed.get(route.path) ?? []), route.method]);
    app.on(route.method, route.path, async (event) => {
      try {
        return answer(await route.run(callOf(event)));
      } catch (error) {
        return failed(event, error);
      }
    });
  }
  app.get(EVENTS_PATH, (event) => {
    const media = mediaProblem(nodeOf(event).req, true);
    return media === null ? events.open(event) : failed(event, media);
  });
  for (const [path, methods] of allowed) {
    app.all(path, (event) => {
      const allow = methods.join(', ');
      return failed(
        event,
        new ApiError('method_not_allowed', `${event.req.method} does not work here; ${allow} does`, {
          headers: { allow },
        }),
      );
    });
  }
  app.all('/**', (event) => failed(event, new ApiError('not_found', `nothing is at ${event.url.pathname}`)));
  return app;
}

/** What is an answer already; a store that is away is a 503 wherever it is met. */
function apiError(error: unknown): ApiError | null {
  if (error instanceof ApiError) return error;
  if (!(error instanceof StoreError)) return null;
  return new ApiError('store_unavailable', `it cannot be read now: ${error.message}`, { cause: error });
}

function callOf(event: H3Event): Call {
  const params = Object.fromEntries(
    Object.entries(event.context.params ?? {}).map(([name, value]) => [name, decoded(value)]),
  );
  const { req, res } = nodeOf(event);
  // Bodies of routes that take none are judged all the same.
  const media = mediaProblem(req, true);
  if (media !== null) throw media;
  return { params, query: event.url.searchParams, req, res, json: () => jsonOf(req, res) };
}

async function jsonOf(req: IncomingMessage, res: ServerResponse): Promise<unknown> {
  const body = await readBody(req, res);
  if (body.length === 0) throw new ApiError('invalid_json', 'the body is missing');
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new ApiError('invalid_json', 'the body is not valid JSON', { cause: error });
  }
}

function answer(value: unknown): Response {
  const { status, body, headers } = value instanceof Answer ? value : new Answer(200, value);
  if (body === undefined) return new Response(null, { status, headers });
  return new Response(JSON.stringify(body), {
    status,
    headers: { ...headers, 'content-type': 'application/json', 'cache-control': 'no-store' },
  });
}

/** Why a request is not let in at all. Until there is access control only this machine's own clients are. */
function refusal(req: IncomingMessage, { starting }: AppDeps): ApiError | null {
  if (starting()) return new ApiError('starting', 'the server is starting');
  const { host } = req.headers;
  if (!isOurs(host)) {
    return new ApiError(
      'host_not_allowed',
      `the host ${JSON.stringify(hostName(host))} is not a name of this machine`,
    );
  }
  if (req.method === 'GET' || req.method === 'HEAD') return null;
  const { origin } = req.headers;
  if (origin !== undefined && !isLoopback(hostOfOrigin(origin))) {
    return new ApiError(
      'origin_not_allowed',
      `pages of ${JSON.stringify(origin)} may not change anything here`,
    );
  }
  return null;
}

/** A body must be declared JSON; on `/v1` a client that is no browser may leave the type out. */
function mediaProblem(req: IncomingMessage, strict: boolean): ApiError | null {
  if (req.headers['content-type'] === 'application/json') return null;
  const hasBody =
    req.headers['transfer-encoding'] !== undefined || Number(req.headers['content-length'] ?? 0) > 0;
  const type = req.headers['content-type'];
  if (!hasBody) return null;
  if (type === undefined && !strict && req.headers.origin === undefined) return null;
  const media = type?.split(';', 1)[0]?.trim().toLowerCase() ?? '';
  if (media === 'application/json' || media.endsWith('+json')) return null;
  return new ApiError('unsupported_media_type', 'send the body with content-type: application/json');
}

let lastHost: string | undefined;
let lastVerdict = false;

/** Clients come again and again under the same name. */
function isOurs(host: string | undefined): boolean {
  if (host !== lastHost) {
    lastVerdict = isLoopback(hostName(host));
    lastHost = host;
  }
  return lastVerdict;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // h3 lets no malformed path through; what cannot be decoded is nobody's id.
    return text;
  }
}

function hostName(host: string | undefined): string {
  return (host ?? '').replace(/:\d*$/, '');
}

function hostOfOrigin(origin: string): string {
  try {
    return new URL(origin).hostname;
  } catch {
    return origin;
  }
}

function requestIdOf(res: ServerResponse): string {
  return String(res.getHeader('x-request-id') ?? '');
}

function nodeOf(event: H3Event): { req: IncomingMessage; res: ServerResponse } {
  return event.runtime?.node as { req: IncomingMessage; res: ServerResponse };
}
