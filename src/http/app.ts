import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { toNodeHandler } from 'h3';
import { ANONYMOUS } from '../access/directory.js';
import type { Principal } from '../access/principal.js';
import { isLoopback } from '../config.js';
import { timeOrderedId } from '../ids.js';
import { addSecurityHeaders, type Cors } from './browser-headers.js';
import type { InferenceRoute } from './client-request.js';
import { isEventPath, openPathsOf, TRY_OUT } from './doorways.js';
import { ApiError, apiErrorOf } from './errors.js';
import type { Events } from './events.js';
import type { Gate } from './gate.js';
import { h3App } from './h3-app.js';
import { saneRequestId } from './headers.js';
import { INFERENCE_ROUTES, type Inference } from './inference.js';
import { refuseMedia } from './media.js';
import type { Page } from './page.js';
import { ClientGone } from './read-body.js';
import { type Route, refuseUnpermitted } from './routes.js';
import { decoded, isUnder, letGo, pathOf, requestIdOf, sendError, toOriginForm } from './send.js';

export interface AppDeps {
  routes: Route[];
  inference: Inference;
  page: Page;
  events: Pick<Events, 'at'>;
  /** True until seeding is done: everything but liveness answers 503. */
  starting: () => boolean;
  gate: Gate;
  /** Nobody is asked for a key: only this machine's own clients may come. */
  isOpen: boolean;
  cors: Cors;
  addressOf: (req: IncomingMessage) => string | null;
  isSecure: (req: IncomingMessage) => boolean;
  log: { error(details: object, message: string): void };
}

const LIVENESS = new Set(['/health', '/ready']);
const INFERENCE = new Map<string, InferenceRoute>(INFERENCE_ROUTES.map((route) => [route.path, route]));
/**
 * The front door. Inference goes straight to the relay, which writes the raw response; everything else is a route
 * of h3. One order for all: started? → who is it → path → may they → method → media type → body.
 */
export function frontDoor(deps: AppDeps): RequestListener {
  const guests = new WeakMap<IncomingMessage, Principal>();
  const viaH3 = toNodeHandler(h3App(deps, guests));
  const { inference, page, gate, cors, log } = deps;
  const openPaths = openPathsOf(deps.routes);

  function refuse(req: IncomingMessage, res: ServerResponse, error: unknown): void {
    if (error instanceof ClientGone) return;
    const path = pathOf(req);
    const known = apiErrorOf(error) ?? internal(error, path);
    nameRequest(req, res, path);
    if (!res.headersSent) addSecurityHeaders(res);
    sendError(res, path, known, requestIdOf(res));
    letGo(req, res);
  }

  function internal(error: unknown, path: string): ApiError {
    log.error({ err: error, path }, 'a request failed unexpectedly');
    return new ApiError('internal_error', 'something went wrong here; the log says what', { cause: error });
  }

  function serve(req: IncomingMessage, res: ServerResponse): void {
    const path = pathOf(req);
    // The URL that h3 makes of it would be none.
    if (!isHost(req.headers.host)) throw new ApiError('invalid_request', 'the Host header names no host');
    if (!LIVENESS.has(path)) refuseAtOnce(req, deps);
    const isApi = isUnder(path, '/api');
    const isV1 = !isApi && isUnder(path, '/v1');
    if (isV1 && cors.handle(req, res)) return;
    let principal = ANONYMOUS;
    if ((isApi || isV1) && !openPaths.has(path)) {
      principal = gate.enter(req);
      // h3 runs its routes with what it knows of the request, and this is kept beside it.
      if (!INFERENCE.has(path)) guests.set(req, principal);
    }
    // A HEAD is a GET whose body Node leaves out; of a stream it would never end.
    if (req.method === 'HEAD' && !isEventPath(path)) req.method = 'GET';
    const route = req.method === 'POST' ? INFERENCE.get(path) : undefined;
    if (route !== undefined) {
      refuseUnpermitted('openai.inference', principal);
      refuseMedia(req, false);
      inference.handle(req, res, route, principal).catch((error) => refuse(req, res, error));
      return;
    }
    const tried = req.method === 'POST' ? TRY_OUT.exec(path) : null;
    if (tried !== null) {
      refuseUnpermitted('endpoints.manage', principal);
      refuseMedia(req, true);
      inference
        .tryOut(req, res, decoded(tried[1] ?? ''), principal)
        .catch((error) => refuse(req, res, error));
      return;
    }
    nameRequest(req, res, path);
    addSecurityHeaders(res);
    if (!page.serve(req, res)) viaH3(req, res);
  }

  return (req, res) => {
    toOriginForm(req);
    try {
      serve(req, res);
    } catch (error) {
      refuse(req, res, error);
    }
  };
}

/** Every answer below `/v1` says which request it belongs to; the relay says it in its own head. */
function nameRequest(req: IncomingMessage, res: ServerResponse, path: string): void {
  if (!path.startsWith('/v1/') || res.hasHeader('x-request-id')) return;
  res.setHeader('x-request-id', saneRequestId(req.headers['x-request-id']) ?? timeOrderedId(Date.now()));
}

/** Why a request is not let in at all. Where nobody is asked for a key only this machine's own clients may come. */
function refuseAtOnce(req: IncomingMessage, { starting, isOpen }: AppDeps): void {
  if (starting()) throw new ApiError('starting', 'the server is starting');
  if (!isOpen) return;
  const { host } = req.headers;
  if (!isOurs(host)) {
    throw new ApiError(
      'host_not_allowed',
      `the host ${JSON.stringify(hostName(host))} is not a name of this machine`,
    );
  }
  if (req.method === 'GET' || req.method === 'HEAD') return;
  const { origin } = req.headers;
  if (origin !== undefined && !isLoopback(hostOfOrigin(origin))) {
    throw new ApiError(
      'origin_not_allowed',
      `pages of ${JSON.stringify(origin)} may not change anything here`,
    );
  }
}

let lastGood: string | undefined;

/** Clients come again and again under the same name. */
function isHost(host: string | undefined): boolean {
  if (host === lastGood) return true;
  if (host !== undefined && !URL.canParse(`http://${host}`)) return false;
  lastGood = host;
  return true;
}

let lastHost: string | undefined;
let lastVerdict = false;

/** Whether it is a name of this machine. */
function isOurs(host: string | undefined): boolean {
  if (host !== lastHost) {
    lastVerdict = isLoopback(hostName(host));
    lastHost = host;
  }
  return lastVerdict;
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
