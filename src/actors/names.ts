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

/** The kind of an actor, from its name. */
export function kindOf(name: string): string {
  const colon = name.indexOf(':');
  return colon === -1 ? name : name.slice(0, colon);
}
