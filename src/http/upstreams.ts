import type { LookupFunction } from 'node:net';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { Agent, buildConnector, Client, Pool } from 'undici';
import { addressProblem } from './allowed-address.js';

/** undici's own limit on making a connection is only a backstop: the deadline is the relay's, at most a minute. */
const CONNECT_BACKSTOP_MS = 70_000;
const KEEP_ALIVE_MS = 4000;
/** Private CAs whose connections for checks are kept; beyond that the one used longest ago gives way. */
const MOST_CAS = 1000;

/** Where the requests of an endpoint go: its connections, and what its URL has before the path. */
export interface Target {
  pool: Pool;
  prefix: string;
}

/** A CA beside the system's; its context holds all the roots, so that no connection has to read them again. */
interface PrivateCa {
  context: SecureContext;
  checks: Agent | null;
}

/** The connections to endpoints: a pool each, made anew when its URL or its CA changes. */
export class Upstreams {
  readonly #targets = new Map<string, Target & { baseUrl: string; tlsCa: string | null }>();
  /** By PEM, the one used last at the end. */
  readonly #cas = new Map<string, PrivateCa>();
  readonly #lookup: LookupFunction;
  readonly #timeout: number;
  /** For health checks: apart from the pools, so that a check measures its own connection. */
  readonly checks: Agent;

  constructor(lookup: LookupFunction, connectTimeoutMs: number) {
    this.#lookup = lookup;
    this.#timeout = connectTimeoutMs === 0 ? 0 : Math.max(CONNECT_BACKSTOP_MS, connectTimeoutMs);
    this.checks = this.#agent(null);
  }

  /** `tlsCa`: a PEM that is trusted beside the system's roots. */
  target(endpointId: string, baseUrl: string, tlsCa: string | null = null): Target {
    const known = this.#targets.get(endpointId);
    if (known?.baseUrl === baseUrl && known.tlsCa === tlsCa) return known;
    this.drop(endpointId);
    const { origin, pathname } = new URL(baseUrl);
    const pool = new Pool(origin, { ...this.#options(tlsCa), connections: null });
    const target = { baseUrl, tlsCa, pool, prefix: pathname.replace(/\/$/, '') };
    this.#targets.set(endpointId, target);
    return target;
  }

  /** A connection of its own, for the one retry after a reset of a reused one. */
  fresh(baseUrl: string, tlsCa: string | null = null): Client {
    return new Client(new URL(baseUrl).origin, this.#options(tlsCa));
  }

  /** For the health checks of an endpoint with this CA; `checks` for those without. */
  checksFor(tlsCa: string | null): Agent {
    if (tlsCa === null) return this.checks;
    const ca = this.#caOf(tlsCa);
    ca.checks ??= this.#agent(tlsCa);
    return ca.checks;
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
    const agents = [...this.#cas.values()].map(({ checks }) => checks?.destroy());
    this.#targets.clear();
    this.#cas.clear();
    await Promise.all([...pools, ...agents, this.checks.destroy()]);
  }

  #options(tlsCa: string | null): Client.Options {
    return {
      connect: this.#connector(tlsCa),
      pipelining: 1,
      // Deadlines are the relay's, and it sees every byte.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_MS,
    };
  }

  #agent(tlsCa: string | null): Agent {
    return new Agent({ connect: this.#connector(tlsCa), keepAliveTimeout: KEEP_ALIVE_MS });
  }

  #connector(tlsCa: string | null): buildConnector.connector {
    const connect = buildConnector({
      lookup: this.#lookup,
      timeout: this.#timeout,
      ...(tlsCa === null ? {} : { secureContext: this.#caOf(tlsCa).context }),
    });
    return (options, callback) => {
      // A literal address is never looked up, and one in the store may be older than the rule.
      const problem = addressProblem(options.hostname);
      if (problem === null) connect(options, callback);
      else queueMicrotask(() => callback(notAllowed(options.hostname, problem), null));
    };
  }

  #caOf(tlsCa: string): PrivateCa {
    const known = this.#cas.get(tlsCa);
    const ca = known ?? {
      context: createSecureContext({ ca: [...rootCertificates, tlsCa] }),
      checks: null,
    };
    this.#cas.delete(tlsCa);
    this.#cas.set(tlsCa, ca);
    if (this.#cas.size > MOST_CAS) this.#forgetOldestCa();
    return ca;
  }

  #forgetOldestCa(): void {
    for (const [tlsCa, { checks }] of this.#cas) {
      this.#cas.delete(tlsCa);
      // Checks that run finish.
      checks?.close().catch(() => {});
      return;
    }
  }
}

function notAllowed(host: string, problem: string): Error {
  return Object.assign(new Error(`${host}: ${problem}`), { code: 'ERR_ADDRESS_NOT_ALLOWED' });
}
