import type { Actor } from '../api/shapes.js';
import { endpointById } from '../live/fleet.js';

/** An endpoint's actors by its name, not its id. */
export function actorName({ id, kind }: Actor): string {
  const [, endpointId, ...rest] = id.split(':');
  const endpoint = endpointId === undefined ? undefined : endpointById(endpointId);
  if (endpoint === undefined) return id;
  return kind === 'tps' ? `tps ${rest.slice(0, -1).join(':')} (${rest.at(-1)})` : `${kind} ${endpoint.name}`;
}

/** The state of an actor in its own words: of an endpoint's regions only the first speaks for itself. */
export function stateWords(kind: string, state: string): string {
  const [health, admission, circuit] = state.split(', ');
  if (kind !== 'endpoint' || health === undefined || admission === undefined || circuit === undefined)
    return state;
  return `health ${health}, admission ${admission}, circuit ${circuit}`;
}

/** The same with what is as it should be left out. */
export function shortStateWords(kind: string, state: string): string {
  const [health, admission, circuit] = state.split(', ');
  if (kind !== 'endpoint' || health === undefined || circuit === undefined) return state;
  return [
    health,
    ...(admission === 'open' ? [] : [admission]),
    ...(circuit === 'closed' ? [] : [`circuit ${circuit}`]),
  ].join(', ');
}
