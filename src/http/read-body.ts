import type { IncomingMessage, ServerResponse } from 'node:http';
import { ApiError } from './errors.js';
import { type Watched, wheel } from './wheel.js';

/** Of a request for inference. */
const MAX_BODY_BYTES = 32 * 1024 * 1024;
/** A client that sends nothing for so long while its body is not there yet is let go. */
const IDLE_MS = 30_000;
/** After a refusal so much of an unread body is still swallowed, so that the client gets to read the answer. */
const SWALLOW_BYTES = 64 * 1024 * 1024;
const SWALLOW_MS = 5000;

/** Requests whose clients ask before they send: they are told to go on when their body is wanted, and not before. */
export const asking = new WeakSet<IncomingMessage>();

/** The client went away while it was sending. */
export class ClientGone extends Error {}

/** Whoever takes the body out has it alone: promises and listeners that live on hold only this. */
export interface Received {
  body: Buffer;
}

/** Reads a whole body; too long a `content-length` is refused before the body is read. */
export function readBody(
  req: IncomingMessage,
  res: ServerResponse,
  most = MAX_BODY_BYTES,
): Promise<Received> {
  if (declaresTooMuch(req, most)) {
    swallow(req, res);
    return Promise.reject(tooLarge(most));
  }
  if (asking.delete(req)) res.writeContinue();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    let isOver = false;
    const idle: Watched = {
      dueAt: wheel.after(IDLE_MS),
      due: () => settle(() => reject(tooSlow())),
    };
    const watched = wheel.watch(idle);
    // The listeners stay until the request is gone: to take them off costs as much as to read a short body.
    const settle = (finish: () => void) => {
      if (isOver) return;
      isOver = true;
      wheel.forget(watched);
      finish();
      chunks.length = 0;
    };
    const onData = (chunk: Buffer) => {
      if (isOver) return;
      length += chunk.length;
      if (length <= most) {
        chunks.push(chunk);
        idle.dueAt = wheel.after(IDLE_MS);
        return;
      }
      settle(() => {
        swallow(req, res);
        reject(tooLarge(most));
      });
    };
    const onEnd = () =>
      settle(() => resolve({ body: chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks) }));
    const onGone = () => settle(() => reject(new ClientGone('the client left while it was sending')));
    req.on('data', onData);
    req.on('end', onEnd);
    req.on('error', onGone);
    req.on('close', onGone);
  });
}

function declaresTooMuch(req: IncomingMessage, most: number): boolean {
  return Number(req.headers['content-length'] ?? 0) > most;
}

function tooSlow(): ApiError {
  return new ApiError('request_timeout', `nothing of the body came for ${IDLE_MS / 1000} s`, {
    headers: { connection: 'close' },
  });
}

function tooLarge(most: number): ApiError {
  return new ApiError('body_too_large', `the body is larger than ${most} bytes`, {
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
