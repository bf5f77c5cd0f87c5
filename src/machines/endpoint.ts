import { assign, fromPromise, sendParent, setup, spawnChild, stopChild } from 'xstate';
import type { EndpointSeed, Health } from '../actors/books.js';
import type { CheckResult } from '../engines/check.js';
import type { EngineModel, EngineType } from '../engines/engine.js';

/** The flat fields that chooser and dashboard read. */
export interface EndpointContext {
  id: string;
  health: Health;
  draining: boolean;
  success: number;
  failed: number;
  engineType: EngineType | null;
  latencyMs: number | null;
  /** Wall clock, ms. */
  lastSeen: number | null;
  lastError: string | null;
  errorCount: number;
  models: EngineModel[];
  /** True while the newest result is one that changed the list. */
  modelsChanged: boolean;
  /** Monotonic, ms: when the next check is due. */
  nextCheckAt: number;
  checking: boolean;
  /** Moves with each new URL or key; the result of a check begun before is dropped. */
  version: number;
}

export interface EndpointInput {
  id: string;
  seed: EndpointSeed;
  nextCheckAt: number;
  version: number;
}

/** A finished health check. `at` wall clock, ms; `nextCheckAt` monotonic, ms. */
export interface CheckedEvent {
  type: 'checked';
  version: number;
  result: CheckResult;
  /** False for a check somebody asked for: it does not end the running probe. */
  probe: boolean;
  at: number;
  nextCheckAt: number;
}

export type EndpointEvent =
  | { type: 'check.due' }
  | CheckedEvent
  | { type: 'check.defer'; nextCheckAt: number }
  | { type: 'attempt.settled'; success: boolean }
  | { type: 'drain' }
  | { type: 'resume' }
  | { type: 'target.changed'; version: number; newUrl: boolean }
  | { type: 'reseed'; success: number; failed: number };

/** Told to the supervisor whenever a region moves. `to` is the leaf states, joined. */
export interface MovedEvent {
  type: 'moved';
  actorId: string;
  event: string;
  to: string;
}

export interface ProbeInput {
  endpointId: string;
}

type Scope = { context: EndpointContext; event: EndpointEvent };

const probeId = ({ context }: { context: EndpointContext }) => `probe:${context.id}`;

/** A result that moves the endpoint to another health, and one that leaves it where it is. */
const move = (health: Health) =>
  ({
    target: health,
    actions: ['reapProbe', { type: 'noteResult', params: { health } }, 'remember', 'announce'],
  }) as const;
const stay = (health: Health) =>
  ({ actions: ['reapProbe', { type: 'noteResult', params: { health } }, 'remember'] }) as const;

/**
 * One inference box: health (what its checks say) and admission (what the operator says). Counters, latency
 * and models ride along; nothing here forgets a latency.
 */
export const endpointMachine = setup({
  types: {
    context: {} as EndpointContext,
    events: {} as EndpointEvent,
    input: {} as EndpointInput,
  },
  actors: {
    /** Runs one health check and sends `checked`. Provided by the wiring. */
    probe: fromPromise<void, ProbeInput>(async () => {}),
  },
  actions: {
    /** Hands the newest result to the books. Provided by the wiring. */
    remember: () => {},
    startProbe: spawnChild('probe', {
      id: probeId,
      input: ({ context }: Scope) => ({ endpointId: context.id }),
    }),
    endProbe: stopChild(probeId),
    /** A finished child stays in `children` until it is stopped. */
    reapProbe: stopChild(({ context, event }: Scope) =>
      event.type === 'checked' && event.probe ? `probe:${context.id}` : 'nobody',
    ),
    announce: sendParent(({ context, event }: Scope) => moved(context, event.type)),
    count: assign(({ context, event }) => {
      if (event.type !== 'attempt.settled') return {};
      return event.success ? { success: context.success + 1 } : { failed: context.failed + 1 };
    }),
    noteChecking: assign({ checking: true }),
    noteResult: assign(({ context, event }, params: { health: Health }) =>
      event.type === 'checked' ? { ...afterCheck(context, event), health: params.health } : {},
    ),
    noteDeferred: assign(({ event }) =>
      event.type === 'check.defer' ? { nextCheckAt: event.nextCheckAt } : {},
    ),
    retarget: assign(({ event }) =>
      event.type === 'target.changed' ? { version: event.version, checking: false, nextCheckAt: 0 } : {},
    ),
    forgetEngine: assign({ health: 'pending', engineType: null, lastError: null, errorCount: 0 }),
    close: assign({ draining: true }),
    reopen: assign({ draining: false, nextCheckAt: 0 }),
    takeSeed: assign(({ event }) =>
      event.type === 'reseed' ? { success: event.success, failed: event.failed } : {},
    ),
  },
  guards: {
    isIdle: ({ context }) => !context.checking,
    isStale: ({ context, event }) => event.type === 'checked' && event.version !== context.version,
    isSuccess: ({ event }) => event.type === 'checked' && event.result.ok,
    isSuccessWhileDraining: ({ context, event }) =>
      event.type === 'checked' && event.result.ok && context.draining,
    isKeyRefused: ({ event }) =>
      event.type === 'checked' && !event.result.ok && event.result.reason === 'key_refused',
    isNewUrl: ({ event }) => event.type === 'target.changed' && event.newUrl,
    wasOnline: ({ context }) => context.health === 'online',
    wasError: ({ context }) => context.health === 'error',
    wasOffline: ({ context }) => context.health === 'offline',
    wasDraining: ({ context }) => context.draining,
  },
}).createMachine({
  id: 'endpoint',
  type: 'parallel',
  context: ({ input }) => contextOf(input),
  on: {
    'attempt.settled': { actions: 'count' },
    'check.due': { guard: 'isIdle', actions: ['noteChecking', 'startProbe'] },
    'check.defer': { actions: 'noteDeferred' },
    reseed: { actions: 'takeSeed' },
  },
  states: {
    health: {
      initial: 'restoring',
      on: {
        'target.changed': [
          {
            guard: 'isNewUrl',
            target: '.pending',
            actions: ['endProbe', 'retarget', 'forgetEngine', 'announce'],
          },
          { actions: ['endProbe', 'retarget'] },
        ],
      },
      states: {
        restoring: {
          always: [
            { guard: 'wasOnline', target: 'online' },
            { guard: 'wasError', target: 'error' },
            { guard: 'wasOffline', target: 'offline' },
            { target: 'pending' },
          ],
        },
        pending: {
          on: {
            checked: [
              { guard: 'isStale' },
              { guard: 'isSuccessWhileDraining', ...stay('pending') },
              { guard: 'isSuccess', ...move('online') },
              { guard: 'isKeyRefused', ...move('error') },
              move('offline'),
            ],
          },
        },
        online: {
          on: {
            checked: [{ guard: 'isStale' }, { guard: 'isSuccess', ...stay('online') }, move('error')],
          },
        },
        error: {
          on: {
            checked: [
              { guard: 'isStale' },
              { guard: 'isSuccessWhileDraining', ...stay('error') },
              { guard: 'isSuccess', ...move('online') },
              { guard: 'isKeyRefused', ...stay('error') },
              move('offline'),
            ],
          },
        },
        offline: {
          on: {
            checked: [
              { guard: 'isStale' },
              { guard: 'isSuccessWhileDraining', ...stay('offline') },
              { guard: 'isSuccess', ...move('online') },
              { guard: 'isKeyRefused', ...move('error') },
              stay('offline'),
            ],
          },
        },
      },
    },
    admission: {
      initial: 'restoring',
      states: {
        restoring: { always: [{ guard: 'wasDraining', target: 'draining' }, { target: 'open' }] },
        open: { on: { drain: { target: 'draining', actions: ['close', 'announce'] } } },
        draining: { on: { resume: { target: 'open', actions: ['reopen', 'announce'] } } },
      },
    },
  },
});

/** The leaf states as one text, as the dashboard shows them. */
export function endpointState(context: Pick<EndpointContext, 'health' | 'draining'>): string {
  return `${context.health}, ${context.draining ? 'draining' : 'open'}`;
}

function moved(context: EndpointContext, event: string): MovedEvent {
  return { type: 'moved', actorId: `endpoint:${context.id}`, event, to: endpointState(context) };
}

function contextOf({ id, seed, nextCheckAt, version }: EndpointInput): EndpointContext {
  return { ...seed, id, modelsChanged: false, nextCheckAt, checking: false, version };
}

/** What a result leaves behind. A failed check keeps latency, engine, models and the time of the last success. */
function afterCheck(context: EndpointContext, event: CheckedEvent): Partial<EndpointContext> {
  const { result } = event;
  const timing = { nextCheckAt: event.nextCheckAt, checking: event.probe ? false : context.checking };
  if (!result.ok) {
    return { ...timing, modelsChanged: false, lastError: result.error, errorCount: context.errorCount + 1 };
  }
  const modelsChanged = !sameModels(context.models, result.models);
  return {
    ...timing,
    modelsChanged,
    models: modelsChanged ? result.models : context.models,
    engineType: result.engineType,
    latencyMs: result.latencyMs,
    lastSeen: event.at,
    lastError: null,
    errorCount: 0,
  };
}

function sameModels(a: EngineModel[], b: EngineModel[]): boolean {
  return (
    a.length === b.length &&
    a.every((model, i) => {
      const other = b[i];
      return (
        other !== undefined &&
        model.modelId === other.modelId &&
        model.maxTokens === other.maxTokens &&
        String(model.capabilities) === String(other.capabilities)
      );
    })
  );
}
