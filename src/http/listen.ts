import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { listen } from 'listhen';
import { ConfigError } from '../config.js';
import { declaresTooMuch } from './read-body.js';

export interface Door {
  server: Server;
  host: string;
  port: number;
  url: string;
  /** Takes no new connections, lets open ones finish for at most `ms`, then ends them. */
  close(ms: number): Promise<void>;
}

/** Times a random port may turn out to be taken after all. */
const RANDOM_TRIES = 5;

/** Binds exactly what was asked for; port 0 is a free one. A taken port is an error, never another port. */
export async function openDoor(handler: RequestListener, host: string, port: number): Promise<Door> {
  // listhen looks for another port when a host *name* is busy, so it gets an address.
  const hostname = host === 'localhost' ? '127.0.0.1' : host.replace(/^\[(.*)\]$/, '$1');
  const listener = await bind(handler, hostname, port, RANDOM_TRIES);
  const { port: bound } = listener.address;
  if (port !== 0 && bound !== port) {
    await listener.close();
    throw taken(host, port);
  }
  const server = listener.server as Server;
  // Each of many pipelined requests listens for the end of their one connection.
  server.on('connection', (socket) => socket.setMaxListeners(0));
  // A body that is too long is refused before its client is told to go on and send it.
  server.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => {
    if (!declaresTooMuch(req)) res.writeContinue();
    handler(req, res);
  });
  return {
    server,
    host,
    port: bound,
    url: `http://${hostname.includes(':') ? `[${hostname}]` : hostname}:${bound}`,
    close: (ms) => closeServer(server, ms),
  };
}

async function bind(handler: RequestListener, hostname: string, port: number, tries: number) {
  try {
    return await listen(handler, {
      hostname,
      port: port === 0 ? { random: true } : port,
      public: false,
      isProd: true,
      autoClose: false,
      showURL: false,
      qr: false,
    });
  } catch (error) {
    if (port !== 0) throw taken(hostname, port, error);
    if (tries > 1) return bind(handler, hostname, port, tries - 1);
    throw error;
  }
}

function taken(host: string, port: number, cause?: unknown): ConfigError {
  return new ConfigError(`--port ${port}: it cannot be used on ${host}; it is taken, or not ours to take`, {
    cause,
  });
}

async function closeServer(server: Server, ms: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  const timer = setTimeout(() => server.closeAllConnections(), ms);
  await closed;
  clearTimeout(timer);
}
