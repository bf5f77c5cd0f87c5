import type { AnyActorRef } from 'xstate';
import type { ApiKind } from '../machines/records.js';

/** Actors are addressed by name, each time anew: a restart makes a new ref and the old one swallows events. */
export const names = {
  ledger: 'ledger',
  queue: 'queue',
  history: 'history',
  ticker: 'ticker',
  endpoints: 'endpoints',
  box: (id: string) => `box:${id}`,
  endpoint: (id: string) => `endpoint:${id}`,
  tps: (id: string, modelId: string, kind: ApiKind) => `tps:${id}:${modelId}:${kind}`,
};

export type System = AnyActorRef['system'];

export function actorNamed(system: System, name: string): AnyActorRef | undefined {
  return system.get(name) as AnyActorRef | undefined;
}

/** The endpoint whose actor it is, from its name; null for those of the house. */
export function endpointOf(name: string): string | null {
  const [kind, rest] = cut(name);
  if (rest === undefined) return null;
  return kind === 'tps' ? cut(rest)[0] : rest;
}

/** The kind of an actor, from its name. */
export function kindOf(name: string): string {
  return cut(name)[0];
}

/** What comes before the first colon, and what after it. */
function cut(text: string): [string, string | undefined] {
  const colon = text.indexOf(':');
  return colon === -1 ? [text, undefined] : [text.slice(0, colon), text.slice(colon + 1)];
}
