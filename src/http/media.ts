import type { IncomingMessage } from 'node:http';
import { ApiError } from './errors.js';

/** A body must be declared JSON; on `/v1` a client that is no browser may leave the type out. */
export function refuseMedia(req: IncomingMessage, strict: boolean): void {
  if (req.headers['content-type'] === 'application/json') return;
  const hasBody =
    req.headers['transfer-encoding'] !== undefined || Number(req.headers['content-length'] ?? 0) > 0;
  const type = req.headers['content-type'];
  if (!hasBody) return;
  if (type === undefined && !strict && req.headers.origin === undefined) return;
  const media = type?.split(';', 1)[0]?.trim().toLowerCase() ?? '';
  if (media === 'application/json' || media.endsWith('+json')) return;
  throw new ApiError('unsupported_media_type', 'send the body with content-type: application/json');
}
