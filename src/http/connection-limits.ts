import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { limitKey } from './client-address.js';

/** How long and how many, for everybody who connects. */
export interface ConnectionLimits {
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

export const CONNECTION_LIMITS: ConnectionLimits = {
  headMs: 15_000,
  requestMs: 300_000,
  checkEveryMs: 2500,
  perAddress: 5000,
  connections: 20_000,
  watchMs: 1000,
};

/** A flood of refused connections is told of once in this time. */
const QUIET_MS = 60_000;

type Warn = (details: object, message: string) => void;

/** A request and its head may only take so long. */
export function limitTime(server: Server, { headMs, requestMs, checkEveryMs }: ConnectionLimits): void {
  server.headersTimeout = headMs;
  server.requestTimeout = requestMs;
  // Node looks every 30 s, so a head of 15 s could take 45. How often is an option of a server's creation, which is
  // listhen's; but Node begins to look, or begins anew, on this event.
  Object.assign(server, { connectionsCheckingInterval: checkEveryMs });
  server.emit('listening');
}

/** One over the limit is refused at once; `trusted` addresses may have any number. */
export function limitConnections(
  server: Server,
  { perAddress, connections }: ConnectionLimits,
  trusted: (address: string) => boolean,
  warnOf: Warn,
): void {
  const open = new Map<string, number>();
  const warn = seldom(warnOf);
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

function seldom(warn: Warn): Warn {
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
