import { afterEvidence, type EndpointContext } from '../machines/endpoint.js';
import type { Logics } from './house.js';

type EndpointLogic = Logics['endpoint'];
type EndpointSnapshot = ReturnType<EndpointLogic['transition']>;

/**
 * Counting and learning move no state, but through the statechart's algorithm they cost as much as the rest of a
 * request's settling. This answers `attempt.settled` with what the machine's own `count` assigns, and evidence that
 * leaves the circuit where it is with what `noteEvidence` does; all other events are left to the machine, also where
 * `count` is no plain assignment.
 */
export function withFastPath(machine: EndpointLogic): EndpointLogic {
  const { count } = machine.implementations.actions as { count?: { assignment?: unknown } };
  const assignment = count?.assignment;
  if (typeof assignment !== 'function') return machine;
  const transition: EndpointLogic['transition'] = (snapshot, event, scope) => {
    if (snapshot.status !== 'active') return machine.transition(snapshot, event, scope);
    const { context } = snapshot;
    if (event.type === 'attempt.settled') {
      const counted = copyOf(context);
      const { success, failed } = assignment({ context, event });
      if (success !== undefined) counted.success = success;
      if (failed !== undefined) counted.failed = failed;
      return withContext(snapshot, counted);
    }
    if (event.type === 'evidence') {
      const { circuit, modelCircuits, resting, paces, loaded } = afterEvidence(context, event);
      if ((circuit ?? context.circuit).state !== context.circuit.state) {
        return machine.transition(snapshot, event, scope);
      }
      const learned = copyOf(context);
      if (circuit !== undefined) learned.circuit = circuit;
      if (modelCircuits !== undefined) learned.modelCircuits = modelCircuits;
      if (resting !== undefined) learned.resting = resting;
      if (paces !== undefined) learned.paces = paces;
      if (loaded !== undefined) learned.loaded = loaded;
      return withContext(snapshot, learned);
    }
    return machine.transition(snapshot, event, scope);
  };
  return Object.create(machine, { transition: { value: transition } }) as EndpointLogic;
}

/**
 * The same for a store: one event's transition as the pure function that it is, without what the store makes for
 * transitions that send or emit something.
 */
export function withReducer<L extends StoreLogic>(
  logic: L,
  type: string,
  reduce: (context: never, event: never) => unknown,
): L {
  const transition = (snapshot: StoreState, event: { type: string }, scope: unknown): StoreState =>
    event.type === type
      ? {
          status: snapshot.status,
          context: reduce(snapshot.context as never, event as never),
          output: undefined,
          error: undefined,
        }
      : logic.transition(snapshot as never, event as never, scope as never);
  return { ...logic, transition };
}

interface StoreState {
  status: string;
  context: unknown;
  output: unknown;
  error: unknown;
}

interface StoreLogic {
  transition(snapshot: never, event: never, scope: never): StoreState;
}

/** A spread copies so many members in V8's slow way, which takes longer than all the rest of this. */
function copyOf(context: EndpointContext): EndpointContext {
  return {
    id: context.id,
    health: context.health,
    draining: context.draining,
    success: context.success,
    failed: context.failed,
    engineType: context.engineType,
    latencyMs: context.latencyMs,
    lastSeen: context.lastSeen,
    lastError: context.lastError,
    errorCount: context.errorCount,
    models: context.models,
    loaded: context.loaded,
    circuit: context.circuit,
    modelCircuits: context.modelCircuits,
    resting: context.resting,
    paces: context.paces,
    load: context.load,
    foreign: context.foreign,
    modelsChanged: context.modelsChanged,
    nextCheckAt: context.nextCheckAt,
    checking: context.checking,
    version: context.version,
  };
}

function withContext(snapshot: EndpointSnapshot, context: EndpointContext): EndpointSnapshot {
  return {
    status: snapshot.status,
    output: snapshot.output,
    error: snapshot.error,
    machine: snapshot.machine,
    context,
    _nodes: snapshot._nodes,
    value: snapshot.value,
    tags: snapshot.tags,
    children: snapshot.children,
    historyValue: snapshot.historyValue,
    matches: snapshot.matches,
    hasTag: snapshot.hasTag,
    can: snapshot.can,
    getMeta: snapshot.getMeta,
    toJSON: snapshot.toJSON,
  } as EndpointSnapshot;
}
