import { type ErrorActorEvent, enqueueActions, type InputFrom, sendParent, setup } from 'xstate';
import { backoffMs } from './backoff.js';
import { type EndpointInput, endpointMachine, type MovedEvent } from './endpoint.js';
import type { ApiKind } from './records.js';
import { errorText, recentCrashes } from './supervision.js';
import { tpsLogic } from './tps.js';

/** A token-rate tracker of a box. */
export interface Tracker {
  actorId: string;
  modelId: string;
  kind: ApiKind;
}

export interface BoxContext {
  id: string;
  /** Trackers that were ever spawned here, by actor id. */
  trackers: Record<string, Tracker>;
  /** Children in back-off → crashes in a row. */
  down: Record<string, number>;
  /** When a child crashed within the last minute, monotonic ms, for the back-off. */
  crashes: Record<string, number[]>;
}

export type BoxEvent =
  | { type: 'sample'; tracker: Tracker }
  | { type: 'trackers'; trackers: Tracker[] }
  | { type: 'restart'; actorId: string }
  | { type: 'renew'; actorId: string }
  | MovedEvent
  | ErrorActorEvent<unknown, string>;

/** What a box tells the roster about its children. */
export type BoxReport =
  | { type: 'child.started'; boxId: string; actorId: string }
  | { type: 'child.crashed'; boxId: string; actorId: string; error: string }
  | { type: 'child.restarted'; boxId: string; actorId: string }
  | { type: 'child.renewed'; boxId: string; actorId: string }
  | { type: 'child.moved'; boxId: string; actorId: string; event: string; to: string };

/** Where the seeds of a box's children come from: read in the same synchronous step as the spawn. */
export interface BoxSeeds {
  endpoint(id: string): EndpointInput;
  trackers(id: string): Tracker[];
  tracker(id: string, tracker: Tracker): InputFrom<typeof tpsLogic>;
}

/** A crashed child leaves its own children running: ends them. */
export type Reap = (self: { getSnapshot(): unknown }, actorId: string) => void;

/** What a box asks of its surroundings. */
export interface BoxDeps {
  reap: Reap;
  /** Monotonic, ms. */
  mono: () => number;
}

/** First pause before a child is started again, and the longest; ms. */
const RESTART_FIRST_MS = 50;
const RESTART_MOST_MS = 5000;

/** Supervises one endpoint: seeds, spawns, restarts its statechart and its trackers. Nothing in it can throw. */
export function boxMachine(seeds: BoxSeeds, { reap, mono }: BoxDeps) {
  return setup({
    types: { context: {} as BoxContext, events: {} as BoxEvent, input: {} as { id: string } },
    actors: { endpoint: endpointMachine, tps: tpsLogic },
    actions: {
      spawnAll: enqueueActions(({ context, enqueue }) => {
        const endpointId = `endpoint:${context.id}`;
        enqueue.spawnChild('endpoint', {
          id: endpointId,
          systemId: endpointId,
          input: seeds.endpoint(context.id),
        });
        enqueue.sendParent({
          type: 'child.started',
          boxId: context.id,
          actorId: endpointId,
        } satisfies BoxReport);
        enqueue.raise({ type: 'trackers', trackers: seeds.trackers(context.id) });
      }),
      spawnTrackers: enqueueActions(({ context, event, enqueue }) => {
        const wanted =
          event.type === 'sample' ? [event.tracker] : event.type === 'trackers' ? event.trackers : [];
        for (const tracker of wanted) {
          const { actorId } = tracker;
          if (actorId in context.trackers) continue;
          enqueue.spawnChild('tps', {
            id: actorId,
            systemId: actorId,
            input: seeds.tracker(context.id, tracker),
          });
          enqueue.assign({ trackers: ({ context: c }) => ({ ...c.trackers, [actorId]: tracker }) });
          enqueue.sendParent({ type: 'child.started', boxId: context.id, actorId } satisfies BoxReport);
        }
      }),
      bury: enqueueActions(({ context, event, enqueue, self }) => {
        const { actorId, error } = event as ErrorActorEvent<unknown, string>;
        const now = mono();
        const times = [...recentCrashes(context.crashes[actorId] ?? [], now), now];
        const crashes = times.length;
        enqueue(() => reap(self, actorId));
        enqueue.stopChild(actorId);
        enqueue.assign({
          crashes: { ...context.crashes, [actorId]: times },
          down: { ...context.down, [actorId]: crashes },
        });
        enqueue.sendParent({
          type: 'child.crashed',
          boxId: context.id,
          actorId,
          error: errorText(error),
        } satisfies BoxReport);
        enqueue.raise(
          { type: 'restart', actorId },
          { delay: backoffMs(crashes, RESTART_FIRST_MS, RESTART_MOST_MS), id: `restart:${actorId}` },
        );
      }),
      /** One in back-off comes back, and one that somebody asks for begins anew: from its seed, in this step. */
      reviveChild: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'restart' && event.type !== 'renew') return;
        const { actorId } = event;
        const isAsked = event.type === 'renew';
        if (isAsked) {
          enqueue.cancel(`restart:${actorId}`);
          enqueue.stopChild(actorId);
        }
        const tracker = context.trackers[actorId];
        if (tracker !== undefined) {
          enqueue.spawnChild('tps', {
            id: actorId,
            systemId: actorId,
            input: seeds.tracker(context.id, tracker),
          });
        } else {
          enqueue.spawnChild('endpoint', {
            id: actorId,
            systemId: actorId,
            input: seeds.endpoint(context.id),
          });
        }
        enqueue.assign({ down: ({ context: c }) => without(c.down, actorId) });
        enqueue.sendParent({
          type: isAsked ? 'child.renewed' : 'child.restarted',
          boxId: context.id,
          actorId,
        } satisfies BoxReport);
      }),
      passOn: sendParent(({ context, event }): BoxReport => {
        const { actorId, event: cause, to } = event as MovedEvent;
        return { type: 'child.moved', boxId: context.id, actorId, event: cause, to };
      }),
    },
    guards: {
      isOurs: ({ context, event }) =>
        event.type === 'renew' &&
        (event.actorId === `endpoint:${context.id}` || event.actorId in context.trackers),
      isDown: ({ context, event }) => event.type === 'restart' && event.actorId in context.down,
      isLastDown: ({ context, event }) =>
        (event.type === 'restart' || event.type === 'renew') &&
        event.actorId in context.down &&
        Object.keys(context.down).length === 1,
    },
  }).createMachine({
    id: 'box',
    context: ({ input }) => ({ id: input.id, trackers: {}, down: {}, crashes: {} }),
    entry: 'spawnAll',
    initial: 'steady',
    on: {
      sample: { actions: 'spawnTrackers' },
      trackers: { actions: 'spawnTrackers' },
      moved: { actions: 'passOn' },
      renew: { guard: 'isOurs', actions: 'reviveChild' },
      'xstate.error.actor.*': { target: '.mending', actions: 'bury' },
    },
    states: {
      steady: {},
      mending: {
        on: {
          restart: [
            { guard: 'isLastDown', target: 'steady', actions: 'reviveChild' },
            { guard: 'isDown', actions: 'reviveChild' },
          ],
          renew: [
            { guard: 'isLastDown', target: 'steady', actions: 'reviveChild' },
            { guard: 'isOurs', actions: 'reviveChild' },
          ],
        },
      },
    },
  });
}

function without<V>(record: Record<string, V>, key: string): Record<string, V> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => name !== key));
}
