import { type LookupAddress, lookup as systemLookup } from 'node:dns';
import type { LookupFunction } from 'node:net';
import { isAllowedAddress } from './allowed-address.js';

const KEEP_MS = 30_000;
/** Past so many names those that are no longer kept are forgotten. */
const MOST_KEPT = 1000;
/** `getaddrinfo` shares four threads with SQLite and files: dead names must not take them all. */
const AT_ONCE = 2;

type Resolve = (
  host: string,
  done: (error: NodeJS.ErrnoException | null, found: LookupAddress[]) => void,
) => void;

interface Entry {
  /** Monotonic, ms. */
  until: number;
  found: Promise<LookupAddress[]>;
}

const resolveAll: Resolve = (host, done) => systemLookup(host, { all: true, verbatim: false }, done);

/**
 * A look-up for sockets: kept for 30 s (failures too), one at a time per name, two at a time in all. Addresses that an
 * endpoint may not have are left out; a name with no other fails with `ERR_ADDRESS_NOT_ALLOWED`.
 */
export function cachedLookup(mono: () => number, resolve: Resolve = resolveAll): LookupFunction {
  const entries = new Map<string, Entry>();
  const waiting: (() => void)[] = [];
  let running = 0;

  function start(host: string): Promise<LookupAddress[]> {
    return new Promise((succeed, fail) => {
      const run = () => {
        running += 1;
        resolve(host, (error, found) => {
          running -= 1;
          waiting.shift()?.();
          if (error !== null) fail(error);
          else if (found.length > 0 && !found.some(isAllowed)) fail(notAllowed(host));
          else succeed(found.filter(isAllowed));
        });
      };
      if (running < AT_ONCE) run();
      else waiting.push(run);
    });
  }

  function find(host: string): Promise<LookupAddress[]> {
    const now = mono();
    const known = entries.get(host);
    if (known !== undefined && known.until > now) return known.found;
    const found = start(host);
    const entry = { until: Number.POSITIVE_INFINITY, found };
    if (entries.size > MOST_KEPT)
      for (const [name, { until }] of entries) if (until <= now) entries.delete(name);
    entries.set(host, entry);
    const keep = () => {
      entry.until = mono() + KEEP_MS;
    };
    found.then(keep, keep);
    return found;
  }

  return (host, options, callback) => {
    find(host).then(
      (found) => {
        const family =
          options.family === 4 || options.family === 'IPv4'
            ? 4
            : options.family === 6 || options.family === 'IPv6'
              ? 6
              : 0;
        const fitting = family === 0 ? found : found.filter((address) => address.family === family);
        const first = fitting[0];
        if (first === undefined) {
          const error: NodeJS.ErrnoException = new Error(`no address of that family for ${host}`);
          error.code = 'ENOTFOUND';
          callback(error, '', 0);
        } else if (options.all) callback(null, fitting);
        else callback(null, first.address, first.family);
      },
      (error: NodeJS.ErrnoException) => callback(error, '', 0),
    );
  };
}

function isAllowed({ address }: LookupAddress): boolean {
  return isAllowedAddress(address);
}

function notAllowed(host: string): NodeJS.ErrnoException {
  const error: NodeJS.ErrnoException = new Error(
    `${host} leads only to addresses that are not allowed (link-local or cloud metadata)`,
  );
  error.code = 'ERR_ADDRESS_NOT_ALLOWED';
  return error;
}
