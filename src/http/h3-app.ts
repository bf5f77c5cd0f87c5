import type { IncomingMessage, ServerResponse } from 'node:http';
import { H3, type H3Event, HTTPError } from 'h3';
import { ANONYMOUS } from '../access/directory.js';
import { actorOf, type Principal } from '../access/principal.js';
import type { AppDeps } from './app.js';
import { doorways, EVENTS_PATH } from './doorways.js';
import { ApiError, apiErrorOf, errorBody } from './errors.js';
import { isDeeper } from './json-scan.js';
import { refuseMedia } from './media.js';
import { readBody } from './read-body.js';
import { type Access, Answer, type Call, refuseUnpermitted } from './routes.js';
import { decoded, requestIdOf } from './send.js';

/** What anything here needs, and little enough that nobody costs much before they are let in. */
const MOST_BYTES = 1024 * 1024;
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
    const path = event.url.pathname;
    const known = asApiError(error, path);
    const body = JSON.stringify(errorBody(path, known, requestIdOf(nodeOf(event).res)));
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

  function callOf(event: H3Event, principal: Principal): Call {
    const params = Object.fromEntries(
      Object.entries(event.context.params ?? {}).map(([name, value]) => [name, decoded(value)]),
    );
    const { req, res } = nodeOf(event);
    // Bodies of routes that take none are judged all the same.
    refuseMedia(req, true);
    return {
      params,
      query: event.url.searchParams,
      principal,
      actor: actorOf(principal, deps.addressOf(req)),
      secure: deps.isSecure(req),
      req,
      res,
      json: () => jsonOf(req, res),
    };
  }

  const allowed = new Map<string, string[]>();
  for (const { method, path } of doorways(routes)) allowed.set(path, [...(allowed.get(path) ?? []), method]);
  for (const route of routes) {
    app.on(route.method, route.path, async (event) => {
      try {
        const principal = guest(event, route.access);
        return answer(await route.run(callOf(event, principal)), nodeOf(event).res);
      } catch (error) {
        return failed(event, error);
      }
    });
  }
  app.get(EVENTS_PATH, (event) => {
    try {
      const principal = guest(event, 'dashboard.read');
      refuseMedia(nodeOf(event).req, true);
      return events.open(event, principal);
    } catch (error) {
      return failed(event, error);
    }
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

async function jsonOf(req: IncomingMessage, res: ServerResponse): Promise<unknown> {
  const body = await readBody(req, res, MOST_BYTES);
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
  if (typeof body === 'string') return new Response(body, { status, headers: all });
  return new Response(JSON.stringify(body), {
    status,
    headers: { ...all, 'content-type': 'application/json' },
  });
}

function nodeOf(event: H3Event): { req: IncomingMessage; res: ServerResponse } {
  return event.runtime?.node as { req: IncomingMessage; res: ServerResponse };
}
