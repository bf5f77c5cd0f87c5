import type { IncomingMessage, ServerResponse } from 'node:http';
import { ApiError } from './errors.js';

const MAX_BODY_BYTES = 32 * 1024 * 1024;
/** After a refusal so much of an unread body is still swallowed, so that the client gets to read the answer. */
const SWALLOW_BYTES = 64 * 1024 * 1024;
const SWALLOW_MS = 5000;

/** The client went away while it was sending. */
export class ClientGone extends Error {}

/** Reads a whole body of at most 32 MiB; too long a `content-length` is refused before the body is read. */
export async function readBody(req: IncomingMessage, res: ServerResponse): Promise<Buffer> {
  if (declaresTooMuch(req)) {
    swallow(req, res);
    throw tooLarge();
  }
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const settle = (finish: () => void) => {
      req.off('data', onData);
      req.off('end', onEnd);
      req.off('error', onGone);
      req.off('close', onGone);
      finish();
    };
    const onData = (chunk: Buffer) => {
      length += chunk.length;
      if (length <= MAX_BODY_BYTES) {
        chunks.push(chunk);
        return;
      }
      settle(() => {
        swallow(req, res);
        reject(tooLarge());
      });
    };
    const onEnd = () =>
      settle(() => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)));
    const onGone = () => settle(() => reject(new ClientGone('the client left while it was sending')));
    req.on('data', onData);
    req.on('end', onEnd);
    req.on('error', onGone);
    req.on('close', onGone);
  });
}

export function declaresTooMuch(req: IncomingMessage): boolean {
  return Number(req.headers['content-length'] ?? 0) > MAX_BODY_BYTES;
}

function tooLarge(): ApiError {
  return new ApiError('body_too_large', `the body is larger than ${MAX_BODY_BYTES} bytes`, {
    headers: { connection: 'close' },
  });
}

function swallow(req: IncomingMessage, res: ServerResponse): void {
  let swallowed = 0;
  const give = () => req.destroy();
  const timer = setTimeout(give, SWALLOW_MS);
  req.on('data', (chunk: Buffer) => {
    swallowed += chunk.length;
    if (swallowed > SWALLOW_BYTES) give();
  });
  req.on('error', () => {});
  req.on('close', () => clearTimeout(timer));
  res.on('finish', () => req.resume());
}
