import { assign, type ErrorActorEvent, enqueueActions, fromPromise, type InputFrom, setup } from 'xstate';
import { backoffMs } from './backoff.js';
import type { Reap } from './box.js';
import type { endpointsMachine, Moment } from './endpoints.js';
import { historyLogic } from './history.js';
import { type LedgerMoved, ledgerMachine } from './ledger.js';
import { queueLogic } from './queue.js';
import {
  type ChildRecord,
  crashedTooOften,
  errorText,
  newChild,
  noteCrash,
  noteRenewal,
  noteRestart,
  noteTransition,
} from './supervision.js';
import { tickerMachine } from './ticker.js';

export interface RootContext {
  children: Record<string, ChildRecord>;
  /** Seed queries that have not succeeded yet. */
  unseeded: string[];
  /** The root's own changes of state. */
  self: ChildRecord;
}

export type RootEvent =
  | { type: 'drain' }
  | { type: 'stop' }
  | { type: 'restart'; actorId: string }
  | { type: 'renew'; actorId: string }
  | { type: 'spawn'; name: ChildName }
  | LedgerMoved
  | ErrorActorEvent<unknown, string>;

export interface RootDeps {
  moment: () => Moment;
  historySeed: () => InputFrom<typeof historyLogic>;
  queueSeed: () => InputFrom<typeof queueLogic>;
  reap: Reap;
}

const RESTART_FIRST_MS = 50;
const RESTART_MOST_MS = 5000;
const PARKED_MS = 60_000;
const RESEED_MS = 10_000;

/** These can be done without for a while; without the others the house is closed. */
const PARKABLE = ['ledger', 'history', 'queue'];
/** Those that somebody may ask to begin anew. */
const RENEWABLE = ['history', 'queue'];
const CHILDREN = ['ledger', 'history', 'queue', 'endpoints', 'ticker'] as const;
type ChildName = (typeof CHILDREN)[number];

/** The house: seeding → running → draining → stopped. Restarts its children; endpoints and ticker escalate. */
export function rootMachine(endpoints: ReturnType<typeof endpointsMachine>, deps: RootDeps) {
  return setup({
    types: { context: {} as RootContext, events: {} as RootEvent },
    actors: {
      endpoints,
      ledger: ledgerMachine,
      history: historyLogic,
      queue: queueLogic,
      ticker: tickerMachine,
      /** Runs the seed queries into the books; answers the names of those that failed. Provided by the wiring. */
      seed: fromPromise<string[]>(async () => []),
      /** Tries the failed ones again; answers those that still fail. Provided by the wiring. */
      reseed: fromPromise<string[], string[]>(async () => []),
    },
    actions: {
      spawnChildren: enqueueActions(({ enqueue }) => {
        for (const name of CHILDREN) enqueue.raise({ type: 'spawn', name });
      }),
      spawnNamed: enqueueActions(({ event, enqueue }) => {
        if (event.type !== 'spawn') return;
        const id = { id: event.name, systemId: event.name };
        if (event.name === 'history') enqueue.spawnChild('history', { ...id, input: deps.historySeed() });
        else if (event.name === 'queue') enqueue.spawnChild('queue', { ...id, input: deps.queueSeed() });
        else enqueue.spawnChild(event.name, id);
      }),
      noteUnseeded: assign((_, { missing }: { missing: string[] }) => ({ unseeded: missing })),
      noteState: assign(({ context, event }, { to }: { to: string }) => {
        const from = context.self.transitions[context.self.transitions.length - 1]?.to ?? null;
        return { self: noteTransition(context.self, { at: deps.moment().at, event: event.type, from, to }) };
      }),
      noteMoved: assign(({ context, event }) => {
        if (event.type !== 'moved') return {};
        const { actorId, event: cause, to } = event;
        const child = context.children[actorId] ?? newChild(actorId);
        const from = child.transitions[child.transitions.length - 1]?.to ?? null;
        if (from === to) return {};
        const noted = noteTransition(child, { at: deps.moment().at, event: cause, from, to });
        return { children: { ...context.children, [actorId]: noted } };
      }),
      bury: enqueueActions(({ context, event, enqueue, self }) => {
        const { actorId, error } = event as ErrorActorEvent<unknown, string>;
        const { at, mono } = deps.moment();
        const child = noteCrash(context.children[actorId] ?? newChild(actorId), errorText(error), mono, at);
        const parked = crashedTooOften(child, mono);
        enqueue(() => deps.reap(self, actorId));
        enqueue.stopChild(actorId);
        enqueue.assign({
          children: {
            ...context.children,
            [actorId]: parked ? { ...child, status: 'parked', crashes: [] } : child,
          },
        });
        enqueue.raise(
          { type: 'restart', actorId },
          {
            delay: parked ? PARKED_MS : backoffMs(child.crashes.length, RESTART_FIRST_MS, RESTART_MOST_MS),
            id: `restart:${actorId}`,
          },
        );
      }),
      revive: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'restart') return;
        const child = context.children[event.actorId];
        if (child === undefined || child.status === 'active') return;
        enqueue.assign({
          children: { ...context.children, [event.actorId]: noteRestart(child, deps.moment().at) },
        });
        enqueue.raise({ type: 'spawn', name: event.actorId as ChildName });
      }),
      /** Somebody asked for it; a parked one need not wait for its time. */
      renew: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'renew') return;
        const { actorId } = event;
        const child = noteRenewal(context.children[actorId] ?? newChild(actorId), deps.moment().at);
        enqueue.cancel(`restart:${actorId}`);
        enqueue.stopChild(actorId);
        enqueue.assign({ children: { ...context.children, [actorId]: child } });
        enqueue.raise({ type: 'spawn', name: actorId as ChildName });
      }),
    },
    guards: {
      isRenewable: ({ event }) => event.type === 'renew' && RENEWABLE.includes(event.actorId),
      /** False is how a supervisor escalates: the crash stays unhandled and takes the root with it. */
      mayContinue: ({ context, event }) => {
        const { actorId } = event as ErrorActorEvent<unknown, string>;
        if (PARKABLE.includes(actorId)) return true;
        const child = context.children[actorId] ?? newChild(actorId);
        const { at, mono } = deps.moment();
        return !crashedTooOften(noteCrash(child, '', mono, at), mono);
      },
      isWhole: (_, { missing }: { missing: string[] }) => missing.length === 0,
    },
    delays: { reseedEvery: RESEED_MS },
  }).createMachine({
    id: 'root',
    context: {
      children: Object.fromEntries(CHILDREN.map((name) => [name, newChild(name)])),
      unseeded: [],
      self: newChild('root'),
    },
    initial: 'seeding',
    on: {
      moved: { actions: 'noteMoved' },
      restart: { actions: 'revive' },
      renew: { guard: 'isRenewable', actions: 'renew' },
      spawn: { actions: 'spawnNamed' },
      'xstate.error.actor.*': { guard: 'mayContinue', actions: 'bury' },
    },
    states: {
      seeding: {
        entry: { type: 'noteState', params: { to: 'seeding' } },
        invoke: {
          src: 'seed',
          onDone: [
            {
              guard: { type: 'isWhole', params: ({ event }) => ({ missing: event.output }) },
              target: '#root.running.whole',
              actions: 'spawnChildren',
            },
            {
              target: '#root.running.unseeded',
              actions: [
                { type: 'noteUnseeded', params: ({ event }) => ({ missing: event.output }) },
                'spawnChildren',
              ],
            },
          ],
        },
      },
      running: {
        entry: { type: 'noteState', params: { to: 'running' } },
        on: { drain: 'draining' },
        initial: 'whole',
        states: {
          whole: { entry: { type: 'noteUnseeded', params: { missing: [] } } },
          unseeded: { after: { reseedEvery: 'reseeding' } },
          reseeding: {
            invoke: {
              src: 'reseed',
              input: ({ context }) => context.unseeded,
              onDone: [
                {
                  guard: { type: 'isWhole', params: ({ event }) => ({ missing: event.output }) },
                  target: 'whole',
                },
                {
                  target: 'unseeded',
                  actions: { type: 'noteUnseeded', params: ({ event }) => ({ missing: event.output }) },
                },
              ],
            },
          },
        },
      },
      draining: {
        entry: { type: 'noteState', params: { to: 'draining' } },
        on: { stop: 'stopped' },
      },
      stopped: { type: 'final', entry: { type: 'noteState', params: { to: 'stopped' } } },
    },
  });
}
