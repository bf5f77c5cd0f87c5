import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ApiError, errorBody } from './errors.js';

/** An error of ours as an answer in the path's protocol. Does nothing once a head is out. */
export function sendError(res: ServerResponse, path: string, error: ApiError, requestId: string): void {
  if (res.headersSent || res.destroyed) return;
  const body = JSON.stringify(errorBody(path, error, requestId));
  res.writeHead(error.status, {
    ...error.headers,
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
  });
  res.end(body);
}

/** The path that was asked for, without its query. */
export function pathOf(req: IncomingMessage): string {
  const url = req.url ?? '/';
  const query = url.indexOf('?');
  const path = query === -1 ? url : url.slice(0, query);
  // h3 takes a path with and without its last slash for the same one.
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
}

/** Whoever takes us for a forward proxy asks for all of a URL: what is looked at is its path and query. */
export function toOriginForm(req: IncomingMessage): void {
  const { url } = req;
  if (url === undefined || url.startsWith('/')) return;
  const rest = url.replace(ORIGIN, '');
  req.url = rest.startsWith('/') ? rest : `/${rest}`;
}

const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i;

/** A part of a path as it was meant. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // h3 lets no malformed path through; what cannot be decoded is nobody's id.
    return text;
  }
}

/** The id that the answer carries. */
export function requestIdOf(res: ServerResponse): string {
  return String(res.getHeader('x-request-id') ?? '');
}

/** Whether a path is `top` or below it. */
export function isUnder(path: string, top: string): boolean {
  return path.startsWith(top) && (path.length === top.length || path[top.length] === '/');
}

/** So long the rest of a body that nobody reads may take, ms. */
const REST_MS = 5000;

/** A body that is still on its way when its answer is out gets a moment, so that the client reads the answer. */
export function letGo(req: IncomingMessage, res: ServerResponse): void {
  if (req.complete) return;
  res.on('finish', () => {
    setTimeout(() => {
      if (!req.complete) req.socket.destroy();
    }, REST_MS).unref();
  });
}
