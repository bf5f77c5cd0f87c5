import { type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { ApiError, errorBody } from './errors.js';

/** What is no whole request of HTTP gets an answer like every other error; Node's own has no body. */
export function answerMalformed(server: Server): void {
  server.on('clientError', (error: Malformed, socket: Socket) => {
    // As Node does: an answer that is on its way is not broken into.
    const { _httpMessage: answer } = socket as Socket & { _httpMessage?: ServerResponse };
    if (!socket.writable || error.code === 'ECONNRESET' || answer?.headersSent === true) socket.destroy();
    else socket.end(answerTo(error), () => socket.destroy());
  });
}

interface Malformed extends NodeJS.ErrnoException {
  /** What could not be read. */
  rawPacket?: Buffer;
}

function answerTo(error: Malformed): string {
  const known = apiErrorOf(error);
  const isHead = error.rawPacket?.toString('latin1', 0, 5) === 'HEAD ';
  // Nobody knows what it was to be for; this shape holds all that the others do.
  const body = JSON.stringify(errorBody('/v1', known, ''));
  return [
    `HTTP/1.1 ${known.status} ${STATUS_CODES[known.status]}`,
    'connection: close',
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    '',
    isHead ? '' : body,
  ].join('\r\n');
}

function apiErrorOf({ code }: Malformed): ApiError {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return new ApiError('headers_too_large', 'the head of the request is too large');
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new ApiError('request_timeout', 'the request did not come in time');
    default:
      return new ApiError('invalid_request', 'this is not a well-formed request of HTTP');
  }
}
