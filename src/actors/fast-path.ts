import { afterEvidence, type EndpointContext } from '../machines/endpoint.js';
import type { Logics } from './house.js';

type EndpointLogic = Logics['endpoint'];

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
      const counted: EndpointContext = { ...context };
      // One by one: a second spread over the first takes V8's slow way.
      const { success, failed } = assignment({ context, event });
      if (success !== undefined) counted.success = success;
      if (failed !== undefined) counted.failed = failed;
      return { ...snapshot, context: counted };
    }
    if (event.type === 'evidence') {
      const { circuit, modelCircuits, resting, paces, loaded } = afterEvidence(context, event);
      if ((circuit ?? context.circuit).state !== context.circuit.state) {
        return machine.transition(snapshot, event, scope);
      }
      const learned: EndpointContext = { ...context };
      if (circuit !== undefined) learned.circuit = circuit;
      if (modelCircuits !== undefined) learned.modelCircuits = modelCircuits;
      if (resting !== undefined) learned.resting = resting;
      if (paces !== undefined) learned.paces = paces;
      if (loaded !== undefined) learned.loaded = loaded;
      return { ...snapshot, context: learned };
    }
    return machine.transition(snapshot, event, scope);
  };
  return Object.create(machine, { transition: { value: transition } }) as EndpointLogic;
}
