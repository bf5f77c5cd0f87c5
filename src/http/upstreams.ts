import type { LookupFunction } from 'node:net';
import { Agent, Client, Pool } from 'undici';

/** undici's own limit on making a connection is only a backstop: the deadline is the relay's, at most a minute. */
const CONNECT_BACKSTOP_MS = 70_000;
const KEEP_ALIVE_MS = 4000;

/** Where the requests of an endpoint go: its connections, and what its URL has before the path. */
export interface Target {
  pool: Pool;
  prefix: string;
}

/** The connections to endpoints: a pool each, made anew when its URL changes. */
export class Upstreams {
  readonly #targets = new Map<string, Target & { baseUrl: string }>();
  readonly #options: Client.Options;
  /** For health checks: apart from the pools, so that a check measures its own connection. */
  readonly checks: Agent;

  constructor(lookup: LookupFunction, connectTimeoutMs: number) {
    const timeout = connectTimeoutMs === 0 ? 0 : Math.max(CONNECT_BACKSTOP_MS, connectTimeoutMs);
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

  target(endpointId: string, baseUrl: string): Target {
    const known = this.#targets.get(endpointId);
    if (known?.baseUrl === baseUrl) return known;
    this.drop(endpointId);
    const { origin, pathname } = new URL(baseUrl);
    const pool = new Pool(origin, { ...this.#options, connections: null });
    const target = { baseUrl, pool, prefix: pathname.replace(/\/$/, '') };
    this.#targets.set(endpointId, target);
    return target;
  }

  /** A connection of its own, for the one retry after a reset of a reused one. */
  fresh(baseUrl: string): Client {
    return new Client(new URL(baseUrl).origin, this.#options);
  }

  /** Requests that run on the pool finish; it takes no new ones. */
  drop(endpointId: string): void {
    const known = this.#targets.get(endpointId);
    if (known === undefined) return;
    this.#targets.delete(endpointId);
    known.pool.close().catch(() => {});
  }

  async destroy(): Promise<void> {
    const pools = [...this.#targets.values()].map(({ pool }) => pool.destroy());
    this.#targets.clear();
    await Promise.all([...pools, this.checks.destroy()]);
  }
}
