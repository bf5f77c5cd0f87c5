import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';

/** The connection a request went out on. */
export interface Connection {
  socket: Socket;
  /** It had carried a request before. */
  reused: boolean;
  /** Bytes it had brought until then. */
  readBefore: number;
}

const carried = new WeakSet<Socket>();
let waiting: ((connection: Connection) => void) | null = null;

/** undici names the socket here alone; it does so in the same run as the `onRequestStart` of that request. */
subscribe('undici:client:sendHeaders', (message) => {
  const { socket } = message as { socket: Socket };
  waiting?.({ socket, reused: carried.has(socket), readBefore: socket.bytesRead });
  waiting = null;
  carried.add(socket);
});

/** Called in `onRequestStart`: `tell` gets the connection that this request goes out on. */
export function whenSent(tell: (connection: Connection) => void): void {
  waiting = tell;
}
