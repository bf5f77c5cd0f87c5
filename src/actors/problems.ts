import type { Vault } from '../access/vault.js';
import { type Clock, timestamp } from '../clock.js';
import type { EndpointStatus } from '../machines/candidate.js';
import type { Circuit } from '../machines/circuit.js';
import type { RosterEntry } from '../machines/endpoints.js';
import type { ChildRecord, Transition } from '../machines/supervision.js';
import type { EndpointConfig, Store } from '../persistence/store.js';
import type { Books } from './books.js';
import type { DiskSpace } from './disk-space.js';
import type { House } from './house.js';
import { names } from './names.js';
import { type EndpointFacts, statusOf } from './roster.js';

/** What is wrong, as it is on the wire. */
export interface Problem {
  code: string;
  severity: 'warning' | 'error';
  endpoint_id: string | null;
  endpoint_name: string | null;
  detail: string | null;
  since: string | null;
}

/** Of one endpoint. */
export interface EndpointHealth {
  id: string;
  name: string;
  status: EndpointStatus;
  lastError: string | null;
  /** Its last good check, wall clock, ms. */
  lastSeen: number | null;
  circuit: Circuit;
  modelCircuits: Readonly<Record<string, Circuit>>;
  keyIsLost: boolean;
  /** Of its actor, newest last. */
  transitions: readonly Transition[];
  /** The newest crash of any actor of its box. */
  crash: { at: number; error: string } | null;
}

/** Of everything else that can go wrong. Times are wall clock, ms. */
export interface HouseHealth {
  now: number;
  children: Readonly<Record<string, ChildRecord>>;
  unseeded: readonly string[];
  isDraining: boolean;
  hasEndpoints: boolean;
  storeTrouble: { detail: string; since: number } | null;
  /** Records that wait for the store, and when the oldest of them was completed. */
  waiting: { rows: number; oldest: number | null; withoutDetail: number };
  /** Bytes; null: not known. */
  disk: { free: number; total: number } | null;
}

const MIB = 1024 * 1024;
/** Free space below this is little, or it is less than a twentieth of a disk and below the other. */
const LITTLE_BYTES = 200 * MIB;
const LITTLE_OF_SHARE_BYTES = 1024 * MIB;
const LITTLE_SHARE = 0.05;
/** A record waits some tens of ms on a good day. */
const LONG_WAIT_MS = 5000;
const MANY_ROWS = 1000;
const MANY_WAIT_MS = 1000;
const MOST_DETAIL = 300;

/** Errors first, else in the given order. */
export function errorsFirst(problems: readonly Problem[]): Problem[] {
  return [
    ...problems.filter(({ severity }) => severity === 'error'),
    ...problems.filter(({ severity }) => severity === 'warning'),
  ];
}

export function problemsOfHouse(health: HouseHealth): Problem[] {
  const { now, children, unseeded, isDraining, hasEndpoints, storeTrouble, waiting, disk } = health;
  const found: Problem[] = [];
  if (storeTrouble !== null) {
    found.push(problem('store_trouble', 'error', storeTrouble.detail, storeTrouble.since));
  }
  for (const [name, { status, transitions, lastError }] of Object.entries(children)) {
    if (status !== 'parked') continue;
    const severity = name === names.history ? 'warning' : 'error';
    found.push(problem(`${name}_parked`, severity, lastError, transitions.at(-1)?.at ?? null));
  }
  const { rows, oldest, withoutDetail } = waiting;
  const waited = oldest === null ? 0 : now - oldest;
  if (waited > LONG_WAIT_MS || (rows > MANY_ROWS && waited > MANY_WAIT_MS)) {
    found.push(problem('ledger_behind', 'warning', `${rows} records wait for the store`, oldest));
  }
  if (withoutDetail > 0) {
    found.push(problem('rows_folded', 'warning', `${withoutDetail} requests are counted, but have no row`));
  }
  if (disk !== null && isLittle(disk)) {
    const severity = disk.free < LITTLE_BYTES ? 'error' : 'warning';
    found.push(problem('disk_low', severity, `${Math.floor(disk.free / MIB)} MiB are free for the data`));
  }
  if (unseeded.length > 0) found.push(problem('unseeded', 'warning', unseeded.join(', ')));
  if (isDraining) found.push(problem('shutting_down', 'warning', null));
  if (!hasEndpoints) found.push(problem('no_endpoints', 'warning', null));
  return found;
}

/** An endpoint that was never checked, or is drained, is not wrong. */
export function problemsOfEndpoint(endpoint: EndpointHealth): Problem[] {
  const { id, name, status, lastError, lastSeen, circuit, modelCircuits, transitions, crash } = endpoint;
  const found: Problem[] = [];
  const add = (
    code: string,
    severity: Problem['severity'],
    detail: string | null,
    since: number | null = null,
  ) => {
    found.push({ ...problem(code, severity, detail, since), endpoint_id: id, endpoint_name: name });
  };
  const hasLeaf = (leaf: string, place: number) => (to: string) => to.split(', ')[place] === leaf;
  if (endpoint.keyIsLost) add('endpoint_key_lost', 'error', 'its stored key and headers cannot be read');
  if (status === 'quarantined') {
    add('endpoint_quarantined', 'error', crash?.error ?? null, crash?.at ?? null);
  }
  if (status === 'offline') {
    // Begun before this start: it was well when it was last seen.
    add('endpoint_offline', 'error', lastError, sinceWhen(transitions, hasLeaf('offline', 0)) ?? lastSeen);
  }
  if (status === 'error') {
    add('endpoint_error', 'warning', lastError, sinceWhen(transitions, hasLeaf('error', 0)) ?? lastSeen);
  }
  // Where no request goes no circuit says anything new.
  if (status !== 'online' && status !== 'error') return found;
  if (circuit.state !== 'closed') {
    const isNotClosed = (to: string) => !hasLeaf('closed', 2)(to);
    add('circuit_open', 'warning', null, sinceWhen(transitions, isNotClosed));
  }
  for (const [model, { state }] of Object.entries(modelCircuits)) {
    if (state !== 'closed') add('circuit_open', 'warning', model);
  }
  return found;
}

function problem(
  code: string,
  severity: Problem['severity'],
  detail: string | null,
  since: number | null = null,
): Problem {
  return {
    code,
    severity,
    endpoint_id: null,
    endpoint_name: null,
    detail: detail === null ? null : detail.slice(0, MOST_DETAIL),
    since: since === null ? null : timestamp(since),
  };
}

/** When the newest unbroken run of states that pass began; null if it began before what is remembered. */
function sinceWhen(transitions: readonly Transition[], passes: (to: string) => boolean): number | null {
  let since: number | null = null;
  for (let i = transitions.length - 1; i >= 0; i -= 1) {
    const { at, to } = transitions[i] as Transition;
    // A crash in between changes nothing of it.
    if (to === null) continue;
    if (!passes(to)) break;
    since = at;
  }
  return since;
}

function isLittle({ free, total }: { free: number; total: number }): boolean {
  return free < LITTLE_BYTES || (free < LITTLE_OF_SHARE_BYTES && free < LITTLE_SHARE * total);
}

function newestCrash({ actors }: RosterEntry): EndpointHealth['crash'] {
  let newest: EndpointHealth['crash'] = null;
  for (const { lastError, transitions } of Object.values(actors)) {
    const at = transitions.at(-1)?.at ?? 0;
    if (lastError !== null && at >= (newest?.at ?? 0)) newest = { at, error: lastError };
  }
  return newest;
}

export interface ProblemsDeps {
  house: House;
  books: Books;
  vault: Vault;
  store: Store;
  clock: Clock;
  disk: DiskSpace;
}

/** What is wrong now, read from the snapshots. */
export interface Problems {
  all(): Problem[];
  ofHouse(): Problem[];
  /** The same as long as what it is asked with is. */
  ofEndpoint(config: EndpointConfig, facts: EndpointFacts, entry: RosterEntry | undefined): Problem[];
}

export function problemsOf({ house, books, vault, store, clock, disk }: ProblemsDeps): Problems {
  const { roster } = house;
  let troubledSince: number | null = null;

  /** The store tries again and again: it has been in trouble since it was first seen to be. */
  function storeTrouble(): HouseHealth['storeTrouble'] {
    const detail = store.trouble;
    if (detail === null) {
      troubledSince = null;
      return null;
    }
    troubledSince ??= clock.now();
    return { detail, since: troubledSince };
  }

  function waiting(): HouseHealth['waiting'] {
    const { rows, droppedRows } = books.pending;
    const oldest = books.pendingBlocks().find((block) => block.rows.length > 0)?.rows[0]?.completedAt ?? null;
    return { rows, oldest, withoutDetail: droppedRows };
  }

  function ofHouse(): Problem[] {
    const snapshot = house.root.getSnapshot();
    const { children, unseeded } = snapshot.context;
    return problemsOfHouse({
      now: clock.now(),
      children,
      unseeded,
      isDraining: snapshot.matches('draining'),
      hasEndpoints: roster.configs().length > 0,
      storeTrouble: storeTrouble(),
      waiting: waiting(),
      disk: disk.look(),
    });
  }

  const ofEndpoint: Problems['ofEndpoint'] = ({ id, name }, facts, entry) =>
    problemsOfEndpoint({
      id,
      name,
      status: statusOf(entry, facts),
      lastError: facts.lastError,
      lastSeen: facts.lastSeen,
      circuit: facts.circuit,
      modelCircuits: facts.modelCircuits,
      keyIsLost: vault.isLost(id),
      transitions: entry?.actors[names.endpoint(id)]?.transitions ?? [],
      crash: entry?.status === 'quarantined' ? newestCrash(entry) : null,
    });

  return {
    ofHouse,
    ofEndpoint,
    all() {
      const ofEndpoints = roster
        .configs()
        .flatMap((config) => ofEndpoint(config, roster.facts(config.id), roster.entry(config.id)));
      return errorsFirst([...ofHouse(), ...ofEndpoints]);
    },
  };
}
