import type { IncomingMessage, ServerResponse } from 'node:http';
import { fromNodeHandler, H3, type H3Event, HTTPError } from 'h3';
import { ANONYMOUS } from '../access/directory.js';
import { actorOf, type Principal } from '../access/principal.js';
import type { AppDeps } from './app.js';
import { doorways, EVENT_PATHS, openPathsOf } from './doorways.js';
import { ApiError, apiErrorOf, errorBody } from './errors.js';
import { isDeeper } from './json-scan.js';
import { refuseMedia } from './media.js';
import { ClientGone, readBody } from './read-body.js';
import { type Access, Answer, type Call, refuseUnpermitted } from './routes.js';
import { decoded, isUnder, letGo, requestIdOf } from './send.js';

/** Bodies of whoever was let in, and of whoever was not: a name and a password at their longest. */
const MOST_BYTES = 1024 * 1024;
const MOST_BYTES_OF_STRANGERS = 16 * 1024;
const MOST_DEPTH = 64;

/** Everything but inference. `guests`: who those are that have been let in already. */
export function h3App(deps: AppDeps, guests: WeakMap<IncomingMessage, Principal>): H3 {
  const { routes, events, gate, log } = deps;
  const app = new H3({
    silent: true,
    // Only what h3 itself refuses comes here, such as a malformed path.
    onError: (error, event) => failed(event, error),
  });

  function failed(event: H3Event, error: unknown): Response {
    // Nobody is there to be told.
    if (error instanceof ClientGone) return new Response(null, { status: 408 });
    const { req, res } = nodeOf(event);
    letGo(req, res);
    const path = event.url.pathname;
    const known = asApiError(error, path);
    const body = JSON.stringify(errorBody(path, known, requestIdOf(res)));
    return new Response(body, {
      status: known.status,
      headers: { ...known.headers, 'content-type': 'application/json' },
    });
  }

  function asApiError(error: unknown, path: string): ApiError {
    const known = apiErrorOf(error);
    if (known !== null) return known;
    if (error instanceof HTTPError && error.status < 500) {
      const code = error.status === 404 ? 'not_found' : 'invalid_request';
      return new ApiError(code, error.status === 404 ? `nothing is at ${path}` : 'the request is malformed');
    }
    log.error({ err: error, path }, 'a request failed unexpectedly');
    return new ApiError('internal_error', 'something went wrong here; the log says what');
  }

  /** Who asks. Whatever spelling of its path got a request past the gate, its route asks again. */
  function guest(event: H3Event, access: Access): Principal {
    const { req } = nodeOf(event);
    const principal = guests.get(req) ?? (access === 'open' ? ANONYMOUS : gate.enter(req));
    refuseUnpermitted(access, principal);
    return principal;
  }

  /** What is not there is nobody's business who was not let in, however the path is spelled. */
  function missing(event: H3Event, error: ApiError): Response {
    const path = decoded(event.url.pathname);
    try {
      if (isUnder(path, '/api') || isUnder(path, '/v1'))
        guest(event, openPaths.has(path) ? 'open' : 'signed-in');
      return failed(event, error);
    } catch (refusal) {
      return failed(event, refusal);
    }
  }

  function callOf(event: H3Event, principal: Principal, access: Access): Call {
    const params = Object.fromEntries(
      Object.entries(event.context.params ?? {}).map(([name, value]) => [name, decoded(value)]),
    );
    const { req, res } = nodeOf(event);
    // Bodies of routes that take none are judged all the same.
    refuseMedia(req, true);
    const recheck = () => gate.recheck(principal, access);
    return {
      params,
      query: event.url.searchParams,
      principal,
      actor: actorOf(principal, deps.addressOf(req), recheck),
      secure: deps.isSecure(req),
      req,
      res,
      json: async () => {
        const body = await jsonOf(req, res, access === 'open' ? MOST_BYTES_OF_STRANGERS : MOST_BYTES);
        recheck();
        return body;
      },
      bytes: async () => {
        const { body } = await readBody(req, res);
        recheck();
        return body;
      },
    };
  }

  const openPaths = openPathsOf(routes);
  const allowed = new Map<string, string[]>();
  for (const { method, path } of doorways(routes)) allowed.set(path, [...(allowed.get(path) ?? []), method]);
  for (const route of routes) {
    app.on(route.method, route.path, async (event) => {
      try {
        const principal = guest(event, route.access);
        return answer(await route.run(callOf(event, principal, route.access)), nodeOf(event).res);
      } catch (error) {
        return failed(event, error);
      }
    });
  }
  for (const path of EVENT_PATHS) {
    const enter = (event: H3Event) => {
      const principal = guest(event, 'dashboard.read');
      refuseMedia(nodeOf(event).req, true);
      const stream = events.at(path, decoded(event.context.params?.id ?? ''));
      return (res: ServerResponse) => stream.open(res, principal);
    };
    app.get(path, (event) => {
      try {
        const open = enter(event);
        return fromNodeHandler(() => open(nodeOf(event).res))(event);
      } catch (error) {
        return failed(event, error);
      }
    });
    // A stream has no end that a HEAD could wait for.
    app.head(path, (event) => {
      try {
        enter(event);
        return new Response(null, { headers: { 'content-type': 'text/event-stream' } });
      } catch (error) {
        return failed(event, error);
      }
    });
  }
  for (const [path, methods] of allowed) {
    app.all(path, (event) => {
      const allow = methods.join(', ');
      return missing(
        event,
        new ApiError('method_not_allowed', `${event.req.method} does not work here; ${allow} does`, {
          headers: { allow },
        }),
      );
    });
  }
  app.all('/**', (event) => missing(event, new ApiError('not_found', `nothing is at ${event.url.pathname}`)));
  return app;
}

async function jsonOf(req: IncomingMessage, res: ServerResponse, most: number): Promise<unknown> {
  const { body } = await readBody(req, res, most);
  if (body.length === 0) throw new ApiError('invalid_json', 'the body is missing');
  if (isDeeper(body, MOST_DEPTH)) {
    throw new ApiError('invalid_json', `the body is nested more than ${MOST_DEPTH} levels deep`);
  }
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new ApiError('invalid_json', 'the body is not valid JSON', { cause: error });
  }
}

function answer(value: unknown, res: ServerResponse): Response {
  const { status, body, headers, cookies } = value instanceof Answer ? value : new Answer(200, value);
  // Of two cookies in a Response only the last would come through.
  if (cookies.length > 0) res.setHeader('set-cookie', cookies);
  const all = { 'cache-control': 'no-store', ...headers };
  if (body === undefined) return new Response(null, { status, headers: all });
  if (typeof body === 'string' || body instanceof ReadableStream)
    return new Response(body, { status, headers: all });
  return new Response(JSON.stringify(body), {
    status,
    headers: { ...all, 'content-type': 'application/json' },
  });
}

function nodeOf(event: H3Event): { req: IncomingMessage; res: ServerResponse } {
  return event.runtime?.node as { req: IncomingMessage; res: ServerResponse };
}
