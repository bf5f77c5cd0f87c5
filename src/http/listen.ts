import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { createSecureContext, type Server as TlsServer } from 'node:tls';
import { listen } from 'listhen';
import { ConfigError } from '../config.js';
import { limitKey } from './client-address.js';
import { declaresTooMuch } from './read-body.js';

export interface Door {
  server: Server;
  host: string;
  port: number;
  url: string;
  /** Takes no new connections, lets open ones finish for at most `ms`, then ends them. */
  close(ms: number): Promise<void>;
}

/** PEM files, by their paths. */
export interface TlsFiles {
  cert: string;
  key: string;
}

export interface DoorOptions {
  /** With it the door speaks HTTPS only; both files are read anew when one of them changes. */
  tls?: TlsFiles | undefined;
  log?: DoorLog | undefined;
  /** Addresses that may have any number of connections, such as a proxy that carries everybody's. */
  trusted?: ((address: string) => boolean) | undefined;
  limits?: Partial<DoorLimits>;
}

interface DoorLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

interface DoorLimits {
  /** A TLS handshake and a request's head may take so long, and a whole request so long. */
  headMs: number;
  requestMs: number;
  /** How often those two are looked at. */
  checkEveryMs: number;
  /** Open connections, from one address and in all. */
  perAddress: number;
  connections: number;
  /** How often the files of the certificate are looked at. */
  watchMs: number;
}

const LIMITS: DoorLimits = {
  headMs: 15_000,
  requestMs: 300_000,
  checkEveryMs: 2500,
  perAddress: 5000,
  connections: 20_000,
  watchMs: 1000,
};
const MIN_TLS = 'TLSv1.2';
/** A flood of refused connections is told of once in this time. */
const QUIET_MS = 60_000;
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
  const limits = { ...LIMITS, ...options.limits };
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
  // A body that is too long is refused before its client is told to go on and send it.
  server.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => {
    if (!declaresTooMuch(req)) res.writeContinue();
    handler(req, res);
  });
  limitTime(server, limits);
  limitConnections(server, limits, trusted, log);
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
    if (NO_PLACE.has((error as NodeJS.ErrnoException).code ?? '')) throw noPlace(hostname, error);
    if (port !== 0) throw taken(hostname, port, error);
    if (tries > 1) return bind(handler, hostname, port, pair, tries - 1);
    throw noPlace(hostname, error);
  }
}

/** Codes of what is wrong with a host, whatever the port. */
const NO_PLACE = new Set(['EADDRNOTAVAIL', 'ENOTFOUND', 'EAI_AGAIN', 'EINVAL']);

function noPlace(host: string, cause: unknown): ConfigError {
  return new ConfigError(`--host ${host}: it cannot be used; is it an address of this machine?`, { cause });
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

function limitTime(server: Server, { headMs, requestMs, checkEveryMs }: DoorLimits): void {
  server.headersTimeout = headMs;
  server.requestTimeout = requestMs;
  // Node looks every 30 s, so a head of 15 s could take 45. How often is an option of a server's creation, which is
  // listhen's; but Node begins to look, or begins anew, on this event.
  Object.assign(server, { connectionsCheckingInterval: checkEveryMs });
  server.emit('listening');
}

function limitConnections(
  server: Server,
  { perAddress, connections }: DoorLimits,
  trusted: (address: string) => boolean,
  log: DoorLog,
): void {
  const open = new Map<string, number>();
  const warn = seldom((details, message) => log.warn(details, message));
  server.maxConnections = connections;
  server.on('drop', () => warn({ connections }, 'connections are refused: too many are open'));
  server.on('connection', (socket: Socket) => {
    // Undefined when it is gone already.
    const address = socket.remoteAddress;
    if (address === undefined || trusted(address)) return;
    const key = limitKey(address);
    const count = (open.get(key) ?? 0) + 1;
    if (count > perAddress) {
      socket.destroy();
      warn(
        { address: key, connections: perAddress },
        'connections are refused: one address has too many open',
      );
      return;
    }
    open.set(key, count);
    socket.once('close', () => {
      const left = (open.get(key) ?? 1) - 1;
      if (left === 0) open.delete(key);
      else open.set(key, left);
    });
  });
}

function seldom(warn: DoorLog['warn']): DoorLog['warn'] {
  let quiet = false;
  return (details, message) => {
    if (quiet) return;
    quiet = true;
    setTimeout(() => {
      quiet = false;
    }, QUIET_MS).unref();
    warn(details, message);
  };
}

/** Node gives a handshake two minutes and does not count it among the connections it can close; the answer ends them all. */
function limitHandshakes(server: TlsServer, ms: number): () => void {
  const shaking = new Map<string, Socket>();
  // Of the TLS socket that comes out of it only the peer is the same.
  const keyOf = ({ remoteAddress, remotePort }: Socket) => `${remoteAddress} ${remotePort}`;
  server.on('connection', (socket: Socket) => {
    const key = keyOf(socket);
    const timer = setTimeout(() => {
      if (shaking.get(key) === socket) socket.destroy();
    }, ms);
    shaking.set(key, socket);
    socket.once('close', () => {
      clearTimeout(timer);
      if (shaking.get(key) === socket) shaking.delete(key);
    });
  });
  server.on('secureConnection', (socket) => shaking.delete(keyOf(socket)));
  return () => {
    for (const socket of shaking.values()) socket.destroy();
  };
}

interface Pair {
  cert: string;
  key: string;
}

/** Throws a `ConfigError` that names the option and the file. */
function readPair({ cert: certFile, key: keyFile }: TlsFiles): Pair {
  const cert = readPem('--tls-cert', certFile);
  const key = readPem('--tls-key', keyFile);
  const certificate = attempt(`--tls-cert ${certFile}: it is no certificate in PEM`, () => {
    return new X509Certificate(cert);
  });
  const privateKey = attempt(`--tls-key ${keyFile}: it is no private key in PEM without a passphrase`, () => {
    return createPrivateKey(key);
  });
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new ConfigError(
      `--tls-key ${keyFile}: it does not belong to the certificate in ${certFile} (--tls-cert)`,
    );
  }
  attempt(`--tls-cert ${certFile}: it cannot be used with the key in ${keyFile} (--tls-key)`, () => {
    return createSecureContext({ cert, key, minVersion: MIN_TLS });
  });
  return { cert, key };
}

function readPem(option: string, file: string): string {
  try {
    const text = readFileSync(file, 'utf8');
    // listhen takes a text that does not begin with its first block for the name of a file.
    return text.slice(Math.max(0, text.indexOf('-----BEGIN')));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError(`${option} ${file}: it cannot be read (${code})`, { cause: error });
  }
}

function attempt<T>(problem: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new ConfigError(problem, { cause: error });
  }
}

function serve(server: TlsServer, pair: Pair): void {
  server.setSecureContext({ ...pair, minVersion: MIN_TLS });
}

/** Connections that are open keep the certificate they began with. The answer ends the watch. */
function watchPair(
  server: TlsServer,
  files: TlsFiles,
  first: Pair,
  watchMs: number,
  log: DoorLog,
): () => void {
  let served = first;
  let timer: NodeJS.Timeout | undefined;
  const renew = () => {
    timer = undefined;
    try {
      const pair = readPair(files);
      if (pair.cert === served.cert && pair.key === served.key) return;
      serve(server, pair);
      served = pair;
      log.info(
        { ...files, valid_to: new X509Certificate(pair.cert).validTo },
        'a new TLS certificate is in use',
      );
    } catch (error) {
      const reason = (error as Error).message;
      log.warn(
        { reason },
        'the TLS files have changed but cannot be used: the certificate before stays in use',
      );
    }
  };
  // The two are written one after the other: what is read in between does not fit together.
  const onChange = () => {
    timer ??= setTimeout(renew, watchMs).unref();
  };
  const watched = [files.cert, files.key];
  for (const file of watched) watchFile(file, { interval: watchMs, persistent: false }, onChange);
  return () => {
    clearTimeout(timer);
    for (const file of watched) unwatchFile(file, onChange);
  };
}
