import type { Directory } from '../access/directory.js';
import type { Vault } from '../access/vault.js';
import { type Clock, localDate, minuteOf } from '../clock.js';
import type { StoredResponse } from '../machines/records.js';
import { RING_MINUTES } from '../machines/ring.js';
import type { Store, StoredEndpoint } from '../persistence/store.js';
import { type Books, newEndpointSeed } from './books.js';
import type { LeaseTable } from './leases.js';
import { actorNamed, names, type System } from './names.js';
import { trackersOf } from './trackers.js';
import { importUnsaved } from './unsaved.js';

export interface SeedingDeps {
  store: Store;
  books: Books;
  leases: LeaseTable;
  directory: Directory;
  vault: Vault;
  clock: Clock;
  system: () => System;
  unsavedFile: string;
  /** An id that was given meanwhile is nobody's any more. */
  forget: (endpointId: string) => void;
  /** Where responses are stored, oldest first. */
  seedResponses: (rows: StoredResponse[]) => void;
  /** Tables that opening had to make again: their metrics start at zero. */
  recreated: () => string[];
  log: Log;
}

interface Log {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

/** A query and what its answer does to the books, at the start and when it succeeds late. */
interface SeedQuery<T> {
  read: () => Promise<T>;
  apply: (value: T) => void;
  applyLate: (value: T) => void;
}

export interface Seeding {
  /** All queries in parallel, each may fail alone; answers the names of those that did. */
  seed(): Promise<string[]>;
  /** Tries the named ones again as one step of the writer queue; answers those that still fail. */
  reseed(missing: string[]): Promise<string[]>;
  /** Seals what an earlier version stored as it is, if that is still to be done. */
  sealOld(): Promise<void>;
}

export function seedingOf(deps: SeedingDeps): Seeding {
  const { store, books, directory, vault, clock, log } = deps;
  const queries: Record<string, SeedQuery<unknown>> = {
    endpoints: query({
      read: () => store.seedEndpoints(),
      apply: (rows) => {
        openSecrets(rows);
        tellUnreadable(rows);
        for (const { config, seed } of rows) books.seedEndpoint(config, seed);
        books.endpointsKnown = true;
      },
      applyLate: (rows) => {
        openSecrets(rows);
        tellUnreadable(rows);
        lateEndpoints(deps, rows);
      },
    }),
    models: query({
      read: () => store.seedModels(),
      apply: (models) => {
        for (const [id, list] of models) books.seedModels(id, list);
      },
      // A list that a check has read since is newer than the stored one.
      applyLate: (models) => {
        for (const [id, list] of models) {
          if (books.endpoint(id)?.models.length === 0) books.seedModels(id, list);
        }
      },
    }),
    statistics: query({
      read: () => store.seedSums(localDate(clock.now())),
      apply: (rows) => books.seedSums(rows),
      applyLate: (rows) => books.seedSums(rows),
    }),
    histograms: query({
      read: () => store.seedHistograms(),
      apply: (rows) => books.seedHistograms(rows),
      applyLate: (rows) => books.seedHistograms(rows),
    }),
    usage: query({
      read: () => store.seedUsage(localDate(clock.now())),
      apply: (rows) => books.seedUsage(rows),
      applyLate: (rows) => books.seedUsage(rows),
    }),
    responses: query({
      read: () => store.seedResponses(),
      apply: (rows) => deps.seedResponses(rows),
      applyLate: (rows) => deps.seedResponses(rows),
    }),
    users: query({
      read: () => store.access.seedUsers(),
      apply: (users) => directory.seedUsers(users),
      applyLate: (users) => directory.seedUsers(users),
    }),
    keys: query({
      read: () => store.access.seedKeys(),
      apply: (keys) => directory.seedKeys(keys),
      applyLate: (keys) => directory.seedKeys(keys),
    }),
    sessions: query({
      read: () => store.access.seedSessions(clock.now()),
      apply: (sessions) => directory.seedSessions(sessions),
      applyLate: (sessions) => directory.seedSessions(sessions),
    }),
    timeline: query({
      read: () => {
        const minute = minuteOf(clock.now());
        return store.seedMinutes(minute - RING_MINUTES + 1, minute);
      },
      apply: (slots) => books.seedMinutes(slots),
      applyLate: (slots) => books.seedMinutes(slots),
    }),
  };

  /** Endpoints whose secrets an earlier version stored as they are. */
  const toSeal = new Set<string>();

  function openSecrets(rows: StoredEndpoint[]): void {
    const lost: string[] = [];
    for (const { config, sealed, clear } of rows) {
      // What was sealed came later than what is clear.
      if (sealed !== null) {
        if (!vault.open(config.id, sealed)) lost.push(config.name);
      } else if (clear !== null) {
        vault.set(config.id, clear);
        toSeal.add(config.id);
      }
    }
    if (lost.length === 0) return;
    log.error(
      { endpoints: lost },
      `the stored keys and headers of ${lost.join(', ')} cannot be read with this secret key: bring the right one back, or set api_key and headers of these endpoints again`,
    );
  }

  function tellUnreadable(rows: StoredEndpoint[]): void {
    for (const { config, unreadable } of rows) {
      if (unreadable.length === 0) continue;
      log.warn(
        { endpoint: config.name, settings: unreadable },
        `the stored ${unreadable.join(', ')} of ${config.name} cannot be read and counts as not set: set it again`,
      );
    }
  }

  /** What cannot be written yet is tried again: with every minute of housekeeping, and at the next start. */
  async function sealOld(): Promise<void> {
    const sealed = new Map<string, string>();
    for (const id of toSeal) {
      // Others may have been given meanwhile, or none.
      const text = vault.seal(id, vault.get(id));
      if (text !== null) sealed.set(id, text);
    }
    try {
      await store.sealSecrets(sealed);
      toSeal.clear();
      if (sealed.size === 0) return;
      log.info({ endpoints: sealed.size }, 'keys and headers that were stored as they are were sealed');
    } catch (error) {
      log.warn({ reason: (error as Error).message }, 'stored keys and headers could not be sealed yet');
    }
  }

  async function importSaved(): Promise<void> {
    const { records, unreadable } = await importUnsaved(deps.unsavedFile, store);
    if (records > 0)
      log.info({ records }, 'records that an earlier run could not write are in the database now');
    if (unreadable > 0) {
      log.warn(
        { lines: unreadable, file: deps.unsavedFile },
        'saved records could not be read; the file was kept',
      );
    }
  }

  /** Reads each of the named queries; what failed is warned of once and left out. */
  async function readAll(wanted: string[], warn: boolean) {
    const read = await Promise.all(
      wanted.map(async (name) => {
        try {
          return { name, value: await queries[name]?.read() };
        } catch (error) {
          if (warn)
            log.warn(
              { query: name, reason: (error as Error).message },
              'a seed query failed: starting without',
            );
          return { name, failed: true as const };
        }
      }),
    );
    return read;
  }

  /** Rows that are not what they should be cost their own metric, not the start. */
  function applied({ name, value }: { name: string; value: unknown }): boolean {
    try {
      queries[name]?.apply(value);
      return true;
    } catch (error) {
      log.warn({ query: name, reason: (error as Error).message }, 'what a seed query found cannot be used');
      return false;
    }
  }

  return {
    sealOld,

    async seed() {
      await importSaved().catch((error: Error) => {
        log.warn({ reason: error.message }, 'saved records could not be read in yet');
      });
      const missing = deps.recreated().map((table) => `table ${table}`);
      for (const result of await readAll(Object.keys(queries), true)) {
        if ('failed' in result || !applied(result)) missing.push(result.name);
      }
      if (store.trouble === null) await sealOld();
      return missing;
    },

    async reseed(missing) {
      const wanted = missing.filter((name) => name in queries);
      try {
        await store.recover();
        await importSaved();
        const still: string[] = [];
        await store.betweenWrites(
          async () => {
            // A batch whose commit went unanswered is in what the queries find: it does not wait any more.
            books.commitThrough(await store.cursor(books.run));
            return readAll(
              Object.keys(queries).filter((name) => wanted.includes(name)),
              false,
            );
          },
          (results) => {
            for (const result of results) {
              if ('failed' in result) still.push(result.name);
              else queries[result.name]?.applyLate(result.value);
            }
            if (wanted.length > still.length) tellActors(deps);
          },
        );
        await sealOld();
        if (still.length === 0) log.info({ queries: wanted }, 'seeded late');
        return still;
      } catch {
        // Warned of at the start; the ledger shows what is wrong meanwhile.
        return wanted;
      }
    },
  };
}

/**
 * Endpoints found late. One of the same URL wins over what was registered meanwhile: its id stays and the counts
 * are joined; what the store does not know yet is stored with the next batch.
 */
function lateEndpoints({ books, leases, system, forget }: SeedingDeps, rows: StoredEndpoint[]): void {
  const endpoints = actorNamed(system(), names.endpoints);
  const byUrl = new Map(books.configs().map((config) => [config.baseUrl, config]));
  for (const { config, seed } of rows) {
    const here = byUrl.get(config.baseUrl);
    if (here?.id === config.id) {
      books.seedCounters(config.id, seed);
      continue;
    }
    if (here !== undefined) {
      books.alias(here.id, config.id);
      leases.rename(here.id, config.id);
      forget(here.id);
      endpoints?.send({ type: 'remove', id: here.id });
    }
    books.seedEndpoint(config, seed);
    endpoints?.send({ type: 'register', config });
  }
  books.endpointsKnown = true;
}

/** Each actor gets its seed anew: committed + fold(pending), in this same step. */
function tellActors({ books, clock, system }: SeedingDeps): void {
  const now = clock.now();
  const today = localDate(now);
  for (const { id } of books.configs()) {
    const seed = books.endpoint(id) ?? newEndpointSeed();
    actorNamed(system(), names.endpoint(id))?.send({
      type: 'reseed',
      success: seed.success,
      failed: seed.failed,
    });
    const trackers = trackersOf(books, id, today);
    actorNamed(system(), names.box(id))?.send({ type: 'trackers', trackers });
    for (const { actorId, modelId, kind } of trackers) {
      const tracker = actorNamed(system(), actorId);
      tracker?.send({ type: 'reseed', seed: books.tps(id, modelId, kind, today) });
    }
  }
  actorNamed(system(), names.history)?.send({ type: 'reseed', ring: books.ring(minuteOf(now)) });
}

function query<T>(typed: SeedQuery<T>): SeedQuery<unknown> {
  return typed as SeedQuery<unknown>;
}
