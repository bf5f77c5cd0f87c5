import { assign, fromPromise, sendParent, setup, spawnChild, stopChild } from 'xstate';
import type { EndpointSeed, Health } from '../actors/books.js';
import type { CheckResult } from '../engines/check.js';
import type { EngineLoad, EngineModel, EngineType } from '../engines/engine.js';
import { afterFailure, afterSuccess, afterTime, type Circuit, NEW_CIRCUIT } from './circuit.js';
import { learn, NEW_PACE, type Pace } from './pace.js';
import type { SpeedSample } from './speed.js';

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
  /** Models the engine holds in memory; null where it does not tell. */
  loaded: readonly string[] | null;
  /** For transport failures. Not stored, like all that follows. */
  circuit: Circuit;
  /** For failed answers, by model; one that has nothing to say is left out. */
  modelCircuits: Readonly<Record<string, Circuit>>;
  /** By model: until when it is better left alone. */
  resting: Readonly<Record<string, Rest>>;
  paces: Readonly<Record<string, Pace>>;
  /** What the engine had to do at the newest check; null where it does not tell. */
  load: EngineLoad | null;
  /** Requests of others in that load. */
  foreign: number;
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
  /** Our own requests there when the result came. */
  inFlight: number;
  at: number;
  nextCheckAt: number;
}

export interface Rest {
  /** Monotonic, ms. */
  until: number;
  /** It said how long. */
  isAsked: boolean;
}

/** For one that does not say how long, ms. */
const UNSAID_REST_MS = 1000;

/**
 * What an attempt says of the endpoint, whatever its counters make of it. `transport`: it could not be reached, broke
 * off or kept silent; `answer`: it answered with a 5xx or something broken; `rest`: it asked to be left alone.
 */
export interface EvidenceEvent {
  type: 'evidence';
  modelId: string;
  what: 'success' | 'transport' | 'answer' | 'rest';
  /** Monotonic, ms. */
  mono: number;
  /** In [0, 1), for the jitter. */
  chance: number;
  /** How long it asked to be left alone, ms; null: it did not say. */
  restMs: number | null;
  sample: SpeedSample | null;
}

export type EndpointEvent =
  | EvidenceEvent
  | { type: 'circuit.due'; mono: number }
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
 * One inference box: health (what its checks say), admission (what the operator says) and circuit (what its traffic
 * says). Counters, latency and models ride along; nothing here forgets a latency.
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
    noteEvidence: assign(({ context, event }) =>
      event.type === 'evidence' ? afterEvidence(context, event) : {},
    ),
    allowTrial: assign(({ context, event }) =>
      event.type === 'circuit.due' ? circuitsAfterTime(context, event.mono) : {},
    ),
    forgetTraffic: assign(() => nothingLearned()),
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
    opens: ({ context, event }) => circuitAfter(context, event).state === 'open',
    closes: ({ context, event }) => circuitAfter(context, event).state === 'closed',
    halfOpens: ({ context, event }) => circuitAfter(context, event).state === 'half_open',
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
            actions: ['endProbe', 'retarget', 'forgetEngine', 'forgetTraffic', 'announce'],
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
    circuit: {
      initial: 'closed',
      on: { 'target.changed': { guard: 'isNewUrl', target: '.closed' } },
      states: {
        closed: {
          on: {
            evidence: [
              { guard: 'opens', target: 'open', actions: ['noteEvidence', 'announce'] },
              { actions: 'noteEvidence' },
            ],
            'circuit.due': { actions: 'allowTrial' },
          },
        },
        open: {
          on: {
            evidence: [
              { guard: 'halfOpens', target: 'half_open', actions: ['noteEvidence', 'announce'] },
              { actions: 'noteEvidence' },
            ],
            'circuit.due': [
              { guard: 'halfOpens', target: 'half_open', actions: ['allowTrial', 'announce'] },
              { actions: 'allowTrial' },
            ],
          },
        },
        half_open: {
          on: {
            evidence: [
              { guard: 'closes', target: 'closed', actions: ['noteEvidence', 'announce'] },
              { guard: 'opens', target: 'open', actions: ['noteEvidence', 'announce'] },
              { actions: 'noteEvidence' },
            ],
            'circuit.due': { actions: 'allowTrial' },
          },
        },
      },
    },
  },
});

/** The leaf states as one text, as the dashboard shows them. */
export function endpointState({ health, circuit, draining }: EndpointContext): string {
  return `${health}, ${draining ? 'draining' : 'open'}, ${circuit.state}`;
}

function moved(context: EndpointContext, event: string): MovedEvent {
  return { type: 'moved', actorId: `endpoint:${context.id}`, event, to: endpointState(context) };
}

function contextOf({ id, seed, nextCheckAt, version }: EndpointInput): EndpointContext {
  return { ...seed, ...nothingLearned(), id, modelsChanged: false, nextCheckAt, checking: false, version };
}

/** What an endpoint knows of its traffic when it starts. */
export function nothingLearned(): Pick<
  EndpointContext,
  'loaded' | 'circuit' | 'modelCircuits' | 'resting' | 'paces' | 'load' | 'foreign'
> {
  const unknown = { loaded: null, load: null, foreign: 0 };
  return { ...unknown, circuit: NEW_CIRCUIT, modelCircuits: {}, resting: {}, paces: {} };
}

/** What is known of a model; one may be called `constructor`. */
export function ofModel<T>(known: Readonly<Record<string, T>>, modelId: string): T | undefined {
  return Object.hasOwn(known, modelId) ? known[modelId] : undefined;
}

/** What an attempt leaves behind. Transport is the endpoint's matter, a bad answer that of the model there. */
export function afterEvidence(context: EndpointContext, event: EvidenceEvent): Partial<EndpointContext> {
  const { modelId, what, mono, chance, sample } = event;
  if (what === 'rest') {
    const isAsked = event.restMs !== null;
    const rest = { until: mono + (event.restMs ?? UNSAID_REST_MS), isAsked };
    const before = ofModel(context.resting, modelId);
    // What it said holds, whatever it does not say later.
    if (!isAsked && before?.isAsked === true && before.until > mono) return {};
    return { resting: { ...context.resting, [modelId]: rest } };
  }
  const circuit = circuitAfter(context, event);
  const before = ofModel(context.modelCircuits, modelId);
  const after =
    what === 'answer'
      ? afterFailure(before ?? NEW_CIRCUIT, mono, chance)
      : what === 'success' && before !== undefined
        ? afterSuccess(before)
        : before;
  const modelCircuits =
    after === before || after === undefined
      ? context.modelCircuits
      : { ...context.modelCircuits, [modelId]: after };
  if (sample === null) return { circuit, modelCircuits };
  const pace = learn(ofModel(context.paces, modelId) ?? NEW_PACE, sample);
  const paces = { ...context.paces, [modelId]: pace };
  // It has answered: it is in memory until a check says otherwise.
  const { loaded } = context;
  return loaded !== null && !loaded.includes(modelId)
    ? { circuit, modelCircuits, paces, loaded: [...loaded, modelId] }
    : { circuit, modelCircuits, paces };
}

/** The endpoint's own circuit after an event. */
function circuitAfter({ circuit }: EndpointContext, event: EndpointEvent): Circuit {
  if (event.type === 'circuit.due') return afterTime(circuit, event.mono);
  if (event.type !== 'evidence') return circuit;
  // A bad answer is an answer: the way there is open.
  if (event.what === 'success' || (event.what === 'answer' && circuit.state === 'half_open')) {
    return afterSuccess(circuit);
  }
  return event.what === 'transport' ? afterFailure(circuit, event.mono, event.chance) : circuit;
}

function circuitsAfterTime(context: EndpointContext, mono: number): Partial<EndpointContext> {
  const models = Object.entries(context.modelCircuits).map(([id, one]) => [id, afterTime(one, mono)]);
  return { circuit: afterTime(context.circuit, mono), modelCircuits: Object.fromEntries(models) };
}

/**
 * What a result leaves behind. A failed check keeps latency, engine, models and the time of the last success, but no
 * load: it says nothing of now.
 */
function afterCheck(context: EndpointContext, event: CheckedEvent): Partial<EndpointContext> {
  const { result } = event;
  const timing = { nextCheckAt: event.nextCheckAt, checking: event.probe ? false : context.checking };
  if (!result.ok) {
    const failure = { lastError: result.error, errorCount: context.errorCount + 1 };
    return { ...timing, ...failure, modelsChanged: false, load: null, foreign: 0 };
  }
  const modelsChanged = !sameModels(context.models, result.models);
  return {
    ...timing,
    modelsChanged,
    models: modelsChanged ? result.models : context.models,
    ...(modelsChanged ? onlyListed(context, result.models) : {}),
    loaded: result.loaded,
    load: result.load,
    foreign: foreignIn(result.load, event.inFlight),
    engineType: result.engineType,
    latencyMs: result.latencyMs,
    lastSeen: event.at,
    lastError: null,
    errorCount: 0,
  };
}

function foreignIn(load: EngineLoad | null, inFlight: number): number {
  return load === null ? 0 : Math.max(0, load.running + load.waiting - inFlight);
}

/** What is known of models that are not listed any more is forgotten. */
function onlyListed(
  { modelCircuits, resting, paces }: EndpointContext,
  models: EngineModel[],
): Pick<EndpointContext, 'modelCircuits' | 'resting' | 'paces'> {
  const listed = new Set(models.map(({ modelId }) => modelId));
  const kept = <T>(known: Readonly<Record<string, T>>) =>
    Object.fromEntries(Object.entries(known).filter(([id]) => listed.has(id)));
  return { modelCircuits: kept(modelCircuits), resting: kept(resting), paces: kept(paces) };
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
