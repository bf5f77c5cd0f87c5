import { once } from 'node:events';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { createServer, type Socket } from 'node:net';
import type { Server as TlsServer } from 'node:tls';
import { listen } from 'listhen';
import { ConfigError } from '../config.js';
import { limitHandshakes, type Pair, readPair, serve, type TlsFiles, watchPair } from './certificate.js';
import {
  CONNECTION_LIMITS,
  type ConnectionLimits,
  limitConnections,
  limitTime,
} from './connection-limits.js';
import { answerMalformed } from './malformed.js';
import { plainWords } from './plain-words.js';
import { asking } from './read-body.js';

export interface Door {
  server: Server;
  host: string;
  port: number;
  url: string;
  /** Takes no new connections, lets open ones finish for at most `ms`, then ends them. */
  close(ms: number): Promise<void>;
}

interface DoorLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

export interface DoorOptions {
  /** With it the door speaks HTTPS only; both files are read anew when one of them changes. */
  tls?: TlsFiles | undefined;
  log?: DoorLog | undefined;
  /** Addresses that may have any number of connections, such as a proxy that carries everybody's. */
  trusted?: ((address: string) => boolean) | undefined;
  limits?: Partial<ConnectionLimits>;
}

const NO_LOG: DoorLog = { info: () => {}, warn: () => {} };

/** Times a random port may turn out to be taken after all. */
const RANDOM_TRIES = 5;

/**
 * Binds exactly what was asked for; port 0 is a free one. A taken port and an unusable certificate are a `ConfigError`,
 * never another port or plain HTTP.
 */
export async function openDoor(
  handler: RequestListener,
  host: string,
  port: number,
  options: DoorOptions = {},
): Promise<Door> {
  const { tls, log = NO_LOG, trusted = () => false } = options;
  const limits = { ...CONNECTION_LIMITS, ...options.limits };
  const pair = tls === undefined ? null : readPair(tls);
  // listhen looks for another port when a host *name* is busy, so it gets an address.
  const hostname = host === 'localhost' ? '127.0.0.1' : host.replace(/^\[(.*)\]$/, '$1');
  const listener = await bind(handler, hostname, port, pair, RANDOM_TRIES);
  const { port: bound } = listener.address;
  if (port !== 0 && bound !== port) {
    await listener.close();
    throw taken(host, port);
  }
  const server = listener.server as Server;
  // Each of many pipelined requests listens for the end of their one connection.
  const manyListeners = (socket: Socket) => socket.setMaxListeners(0);
  server.on('connection', manyListeners);
  server.on('secureConnection', manyListeners);
  server.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => {
    asking.add(req);
    handler(req, res);
  });
  // What else is expected of us is not promised, and served like any request.
  server.on('checkExpectation', handler);
  answerMalformed(server);
  limitTime(server, limits);
  limitConnections(server, limits, trusted, (details, message) => log.warn(details, message));
  const stops: (() => void)[] = [];
  if (tls !== undefined && pair !== null) {
    const secured = server as Server & TlsServer;
    serve(secured, pair);
    stops.push(limitHandshakes(secured, limits.headMs), watchPair(secured, tls, pair, limits.watchMs, log));
  }
  return {
    server,
    host,
    port: bound,
    url: `${pair === null ? 'http' : 'https'}://${hostname.includes(':') ? `[${hostname}]` : hostname}:${bound}`,
    close: (ms) => {
      for (const stop of stops) stop();
      return closeServer(server, ms);
    },
  };
}

async function bind(
  handler: RequestListener,
  hostname: string,
  port: number,
  pair: Pair | null,
  tries: number,
) {
  try {
    return await listen(handler, {
      hostname,
      port: port === 0 ? { random: true } : port,
      // Only with it does listhen bind to all addresses when asked to.
      public: hostname === '0.0.0.0' || hostname === '::',
      https: pair === null ? false : { ...pair },
      isProd: true,
      autoClose: false,
      showURL: false,
      qr: false,
    });
  } catch (error) {
    await checkHost(hostname);
    if (port !== 0) throw taken(hostname, port, error);
    if (tries > 1) return bind(handler, hostname, port, pair, tries - 1);
    throw noPlace(hostname, error);
  }
}

/** Throws a `ConfigError` for a host that cannot be listened on, whatever the port. */
export async function checkHost(host: string): Promise<void> {
  const probe = createServer();
  try {
    probe.listen({ host: host.replace(/^\[(.*)\]$/, '$1'), port: 0 });
    await once(probe, 'listening');
  } catch (error) {
    throw noPlace(host, error);
  } finally {
    probe.close();
  }
}

function noPlace(host: string, cause: unknown): ConfigError {
  const { code } = cause as { code?: string };
  const why = code === 'EADDRNOTAVAIL' ? 'it is no address of this machine' : plainWords(cause as Error);
  return new ConfigError(`--host ${host}: it cannot be listened on: ${why}`, { cause });
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
