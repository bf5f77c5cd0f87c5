import type { EndpointContext } from '../machines/endpoint.js';
import type { Logics } from './house.js';

type EndpointLogic = Logics['endpoint'];

/**
 * Counting moves no state, but through the statechart's algorithm it costs as much as the rest of a request's
 * settling. This answers `attempt.settled` with what the machine's own `count` assigns and leaves all other events to
 * the machine; also where `count` is no plain assignment.
 */
export function countingFast(machine: EndpointLogic): EndpointLogic {
  const { count } = machine.implementations.actions as { count?: { assignment?: unknown } };
  const assignment = count?.assignment;
  if (typeof assignment !== 'function') return machine;
  const transition: EndpointLogic['transition'] = (snapshot, event, scope) => {
    if (event.type !== 'attempt.settled' || snapshot.status !== 'active') {
      return machine.transition(snapshot, event, scope);
    }
    const { context } = snapshot;
    const counted: EndpointContext = { ...context };
    // One by one: a second spread over the first takes V8's slow way.
    const { success, failed } = assignment({ context, event });
    if (success !== undefined) counted.success = success;
    if (failed !== undefined) counted.failed = failed;
    return { ...snapshot, context: counted };
  };
  return Object.create(machine, { transition: { value: transition } }) as EndpointLogic;
}
