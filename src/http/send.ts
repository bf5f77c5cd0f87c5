import type { ServerResponse } from 'node:http';
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
