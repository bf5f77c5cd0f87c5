import { createActor, fromPromise } from 'xstate';
import type { Directory } from '../access/directory.js';
import type { Vault } from '../access/vault.js';
import { type Clock, localDate, minuteOf, pause } from '../clock.js';
import type { CheckResult } from '../engines/check.js';
import type { EngineType } from '../engines/engine.js';
import { boxMachine } from '../machines/box.js';
import { afterTime, type Circuit } from '../machines/circuit.js';
import { type EndpointContext, endpointMachine, type ProbeInput } from '../machines/endpoint.js';
import { endpointsMachine } from '../machines/endpoints.js';
import { addFinished, historyLogic } from '../machines/history.js';
import { ledgerMachine } from '../machines/ledger.js';
import type { PolicyName } from '../machines/policies.js';
import { queueLogic } from '../machines/queue.js';
import { rootMachine } from '../machines/root.js';
import { tickerMachine } from '../machines/ticker.js';
import { addSample, tpsLogic } from '../machines/tps.js';
import type { EndpointConfig, Store } from '../persistence/store.js';
import { type Books, newEndpointSeed } from './books.js';
import { type Catalogue, catalogueOf } from './catalogue.js';
import { Chooser } from './chooser.js';
import { Explorations } from './explorations.js';
import { withFastPath, withReducer } from './fast-path.js';
import { housekeeping } from './housekeeping.js';
import type { LeaseTable } from './leases.js';
import { actorNamed, names, type System } from './names.js';
import { reapOrphans } from './orphans.js';
import { Pins } from './pins.js';
import { type Roster, rosterOf } from './roster.js';
import { seedingOf } from './seeding.js';
import { tpsReader, trackersOf } from './trackers.js';
import { Turns } from './turns.js';
import { WaitingRoom } from './waiting.js';
import { writeOldest } from './writing.js';

/** A batch gathers for so long: a busy second is some thirty transactions and not hundreds. */
const GATHER_MS = 30;
/** A tick that comes this late (a suspended machine) spreads the checks that piled up over a second. */
const LATE_TICK_MS = 5000;
const LATE_SPREAD_MS = 1000;
/** What an engine tells of its load is good for so long. */
const MOST_FOREIGN_MS = 30_000;

export interface HouseDeps {
  clock: Clock;
  random: () => number;
  books: Books;
  leases: LeaseTable;
  store: Store;
  directory: Directory;
  vault: Vault;
  /** How one of those that could serve is chosen. */
  policy: PolicyName;
  /** A predicted wait past this many ms makes the next priority serve. */
  overflowMs: number;
  healthIntervalMs: number;
  retentionDays: number;
  unsavedFile: string;
  recreated: () => string[];
  /** One health check of an endpoint; never rejects. The signal ends it early. */
  check: (
    config: EndpointConfig,
    engineType: EngineType | null,
    signal?: AbortSignal,
  ) => Promise<CheckResult>;
  /** Forgets what is over in the directory. */
  sweep: () => Promise<void>;
  log: {
    info(details: object, message: string): void;
    warn(details: object, message: string): void;
    error(details: object, message: string): void;
  };
  /** Tests put a fault into the real logic of an actor here, and own the timers. */
  tamper?: Tamper;
  timers?: ActorClock;
}

export type Tamper = { [K in keyof Logics]?: (logic: Logics[K]) => Logics[K] };
type ActorClock = NonNullable<Parameters<typeof createActor>[1]>['clock'];

/** The logic of every kind of actor, by its name. */
export interface Logics {
  endpoint: typeof endpointMachine;
  tps: typeof tpsLogic;
  box: ReturnType<typeof boxMachine>;
  endpoints: ReturnType<typeof endpointsMachine>;
  history: typeof historyLogic;
  queue: typeof queueLogic;
  ledger: typeof ledgerMachine;
  ticker: typeof tickerMachine;
  root: ReturnType<typeof rootMachine>;
}

export interface House {
  root: ReturnType<typeof createRoot>;
  system: System;
  roster: Roster;
  catalogue: Catalogue;
  waiting: WaitingRoom;
  chooser: Chooser;
  /** Every statechart, as it is wired. */
  machines: Pick<Logics, 'root' | 'endpoints' | 'box' | 'endpoint' | 'ledger' | 'ticker'>;
  /** One health check now; its result goes to the endpoint's actor like a probe's. */
  checkNow(config: EndpointConfig): Promise<CheckResult>;
  /** A result that was had elsewhere, for an endpoint's actor. */
  report(id: string, result: CheckResult): void;
}

/** Wires the actors to books, store and clock, from the leaves up. Nothing runs before `root.start()`. */
export function buildHouse(deps: HouseDeps): House {
  const { clock, books, store, leases, vault, random, policy, overflowMs, log } = deps;
  const system = () => root.system as System;
  const roster = rosterOf(system, books, newEndpointSeed());
  const turns = new Turns();
  const catalogue = catalogueOf({
    roster,
    leases,
    vault,
    turns,
    policy,
    tps: ({ endpointId, modelId }) => tpsReader(system, endpointId, modelId),
  });
  const mono = () => clock.mono();
  const chooser: Chooser = new Chooser({
    catalogue,
    turns,
    pins: new Pins(),
    responses: new Pins(),
    explorations: new Explorations(),
    policy,
    overflowMs,
    random,
    mono,
    ahead: (model) => waiting.ahead(model),
  });
  const waiting: WaitingRoom = new WaitingRoom({ chooser, catalogue, roster, system, mono });
  const seeding = seedingOf({
    ...deps,
    system,
    forget: (id) => chooser.forget(id),
    seedResponses: (rows) => chooser.seedResponses(rows),
  });
  const sweep = async () => {
    await deps.sweep();
    await seeding.sealOld();
  };
  const keepHouse = housekeeping({ ...deps, sweep });
  const moment = () => ({ at: clock.now(), mono: clock.mono() });
  const today = () => localDate(clock.now());

  const intervalOf = (id: string) => books.config(id)?.healthIntervalMs ?? deps.healthIntervalMs;
  const nextCheckAt = (id: string) => clock.mono() + intervalOf(id) * (0.9 + 0.2 * random());

  function report(
    id: string,
    result: CheckResult,
    version = books.version(id),
    probe = false,
    inFlight = leases.count(id),
  ): void {
    const before = roster.facts(id).health;
    actorNamed(system(), names.endpoint(id))?.send({
      type: 'checked',
      version,
      result,
      probe,
      // Told so seldom, what others have there says nothing of now.
      inFlight: intervalOf(id) > MOST_FOREIGN_MS ? Number.POSITIVE_INFINITY : inFlight,
      at: clock.now(),
      nextCheckAt: nextCheckAt(id),
    });
    const after = roster.facts(id).health;
    if (before !== 'offline' && after === 'offline') leases.moveWaiting(id, 'its health checks failed');
    if (after === 'online') waiting.pump();
  }

  async function checkNow(config: EndpointConfig, probe?: AbortSignal): Promise<CheckResult> {
    const version = books.version(config.id);
    const before = leases.count(config.id);
    const result = await deps.check(config, roster.facts(config.id).engineType, probe);
    // A probe that was ended has nothing to say, least of all to the endpoint's next actor.
    if (probe?.aborted === true) return result;
    // Of ours those that were there at the start of the check may be in what it tells, and gone since.
    const inFlight = Math.max(before, leases.count(config.id));
    report(config.id, result, version, probe !== undefined, inFlight);
    return result;
  }

  function tick(late: boolean): void {
    const mono = clock.mono();
    for (const { id } of books.configs()) {
      const endpoint = actorNamed(system(), names.endpoint(id));
      const context = endpoint?.getSnapshot().context;
      if (endpoint === undefined) continue;
      if (isTrialDue(context, mono)) endpoint.send({ type: 'circuit.due', mono });
      if (context.checking || context.nextCheckAt > mono) continue;
      if (late) endpoint.send({ type: 'check.defer', nextCheckAt: mono + LATE_SPREAD_MS * random() });
      else endpoint.send({ type: 'check.due' });
    }
    waiting.pump();
    keepHouse();
  }

  function wired<K extends keyof Logics>(name: K, logic: Logics[K]): Logics[K] {
    return deps.tamper?.[name]?.(logic) ?? logic;
  }

  const endpoint = wired(
    'endpoint',
    withFastPath(
      endpointMachine.provide({
        actors: {
          probe: fromPromise<void, ProbeInput>(async ({ input, signal }) => {
            const config = books.config(input.endpointId);
            if (config !== undefined) await checkNow(config, signal);
          }),
        },
        actions: {
          remember: ({ context }) => {
            const wasEmpty = books.isEmpty;
            books.noteHealth(context.id, context);
            if (context.modelsChanged) {
              books.noteModels(context.id, context.models);
              catalogue.touch();
            }
            if (wasEmpty) actorNamed(system(), names.ledger)?.send({ type: 'appended' });
          },
        },
      }),
    ),
  );
  const ledger = wired(
    'ledger',
    ledgerMachine.provide({
      actors: {
        write: fromPromise(async () => {
          if (books.pending.blocks <= 1) await pause(GATHER_MS);
          await writeOldest(books, store);
        }),
        recover: fromPromise(() => store.recover()),
      },
      guards: { hasPending: () => !books.isEmpty },
    }),
  );
  let lastTick = clock.mono();
  const ticker = wired(
    'ticker',
    tickerMachine.provide({
      actions: {
        tick: () => {
          const late = clock.mono() - lastTick > LATE_TICK_MS;
          lastTick = clock.mono();
          tick(late);
        },
      },
    }),
  );
  const box = wired(
    'box',
    boxMachine(
      {
        endpoint: (id) => ({
          id,
          seed: books.endpoint(id) ?? newEndpointSeed(),
          nextCheckAt: 0,
          version: books.version(id),
        }),
        trackers: (id) => trackersOf(books, id, today()),
        tracker: (id, { modelId, kind }) => books.tps(id, modelId, kind, today()),
      },
      { reap: reapOrphans, mono: () => clock.mono() },
    ).provide({ actors: { endpoint, tps: wired('tps', withReducer(tpsLogic, 'sample', addSample)) } }),
  );
  const endpoints = wired(
    'endpoints',
    endpointsMachine(box, {
      moment,
      configs: () => books.configs(),
      reap: reapOrphans,
      changed: () => catalogue.touch(),
    }),
  );
  const rootLogic = wired(
    'root',
    rootMachine(endpoints, {
      moment,
      historySeed: () => ({ ring: books.ring(minuteOf(clock.now())) }),
      queueSeed: () => ({ tickets: waiting.tickets() }),
      reap: reapOrphans,
    }).provide({
      actors: {
        history: wired('history', withReducer(historyLogic, 'finished', addFinished)),
        queue: wired('queue', queueLogic),
        ledger,
        ticker,
        seed: fromPromise(() => seeding.seed()),
        reseed: fromPromise(({ input }) => seeding.reseed(input)),
      },
    }),
  );
  const root = createRoot(rootLogic, deps.timers);
  root.subscribe({ error: (error) => log.warn({ reason: String(error) }, 'the root actor failed') });

  const machines = { root: rootLogic, endpoints, box, endpoint, ledger, ticker };
  return { root, system: root.system, roster, catalogue, waiting, chooser, machines, checkNow, report };
}

/** Whether an open circuit of the endpoint, or of a model there, has paused long enough. */
function isTrialDue({ circuit, modelCircuits }: EndpointContext, mono: number): boolean {
  if (afterTime(circuit, mono) !== circuit) return true;
  for (const id in modelCircuits) {
    const one = modelCircuits[id] as Circuit;
    if (afterTime(one, mono) !== one) return true;
  }
  return false;
}

function createRoot(logic: Logics['root'], clock: ActorClock) {
  return createActor(logic, { id: 'root', systemId: 'root', ...(clock === undefined ? {} : { clock }) });
}
