import type { LookupFunction } from 'node:net';
import { Agent, Client, Pool } from 'undici';

/** undici's own limit on making a connection is only a backstop: the deadline is the relay's. */
const CONNECT_BACKSTOP_MS = 10_000;
const KEEP_ALIVE_MS = 4000;

/** The connections to endpoints: a pool each, made anew when its URL changes. */
export class Upstreams {
  readonly #pools = new Map<string, { origin: string; pool: Pool }>();
  readonly #options: Client.Options;
  /** For health checks: apart from the pools, so that a check measures its own connection. */
  readonly checks: Agent;

  constructor(lookup: LookupFunction, connectTimeoutMs: number) {
    const timeout = connectTimeoutMs === 0 ? 0 : connectTimeoutMs + CONNECT_BACKSTOP_MS;
    this.#options = {
      connect: { lookup, timeout },
      pipelining: 1,
      // Deadlines are the relay's, and it sees every byte.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_MS,
    };
    this.checks = new Agent({ connect: { lookup, timeout }, keepAliveTimeout: KEEP_ALIVE_MS });
  }

  pool(endpointId: string, baseUrl: string): Pool {
    const origin = originOf(baseUrl);
    const known = this.#pools.get(endpointId);
    if (known?.origin === origin) return known.pool;
    this.drop(endpointId);
    const pool = new Pool(origin, { ...this.#options, connections: null });
    this.#pools.set(endpointId, { origin, pool });
    return pool;
  }

  /** A connection of its own, for the one retry after a reset of a reused one. */
  fresh(baseUrl: string): Client {
    return new Client(originOf(baseUrl), this.#options);
  }

  /** Requests that run on the pool finish; it takes no new ones. */
  drop(endpointId: string): void {
    const known = this.#pools.get(endpointId);
    if (known === undefined) return;
    this.#pools.delete(endpointId);
    known.pool.close().catch(() => {});
  }

  async destroy(): Promise<void> {
    const pools = [...this.#pools.values()].map(({ pool }) => pool.destroy());
    this.#pools.clear();
    await Promise.all([...pools, this.checks.destroy()]);
  }
}

/** The path of a route at an endpoint, behind whatever prefix its URL has. */
export function pathAt(baseUrl: string, route: string): string {
  const prefix = new URL(baseUrl).pathname.replace(/\/$/, '');
  return prefix + route;
}

function originOf(baseUrl: string): string {
  return new URL(baseUrl).origin;
}
