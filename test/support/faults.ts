import { type AnyActorLogic, assign } from 'xstate';
import type { Tamper } from '../../src/actors/house.js';
import type { endpointMachine } from '../../src/machines/endpoint.js';
import type { ledgerMachine } from '../../src/machines/ledger.js';

/** Says whether this call is one that is to fail. */
export type Boom = () => boolean;

/** True on the calls with these numbers, the first being 1. `fired` tells how many were. */
export function onCalls(...calls: number[]): Boom & { readonly fired: number } {
  let seen = 0;
  let fired = 0;
  const boom = () => {
    seen += 1;
    const due = calls.includes(seen);
    if (due) fired += 1;
    return due;
  };
  return Object.defineProperty(boom, 'fired', { get: () => fired }) as Boom & { readonly fired: number };
}

/** The same logic, but its reducer throws on events of that type when `boom` says so, before or after its work. */
export function throwing<L extends object>(logic: L, type: string, boom: Boom, when: 'before' | 'after'): L {
  const real = logic as unknown as AnyActorLogic;
  const transition: AnyActorLogic['transition'] = (snapshot, event, scope) => {
    const due = event.type === type && boom();
    if (due && when === 'before') throw new Error(`boom before ${type}`);
    const next = real.transition(snapshot, event, scope);
    if (due) throw new Error(`boom after ${type}`);
    return next;
  };
  return Object.create(logic, { transition: { value: transition } }) as L;
}

/** The endpoint's real chart, whose action `count` throws in the middle of the settling step. */
export function throwingCount(logic: typeof endpointMachine, boom: Boom): typeof endpointMachine {
  // biome-ignore lint/suspicious/noExplicitAny: the assigner inside an action is no public type
  const { assignment } = logic.implementations.actions.count as any;
  return logic.provide({
    actions: {
      count: assign((args, params) => {
        if (boom()) throw new Error('boom in count');
        return assignment(args, params);
      }),
    },
  });
}

/** The ledger's real chart, whose guard `hasPending` throws. */
export function throwingGuard(logic: typeof ledgerMachine, boom: Boom): typeof ledgerMachine {
  const hasPending = logic.implementations.guards.hasPending as () => boolean;
  return logic.provide({
    guards: {
      hasPending: () => {
        if (boom()) throw new Error('boom in hasPending');
        return hasPending();
      },
    },
  });
}

/** Lets every event of one actor kind pass by without effect: its number has no other home. */
export function doingNothing<K extends keyof Tamper>(kind: K, ...events: string[]): Tamper {
  const idle = (logic: object) => {
    const real = logic as unknown as AnyActorLogic;
    const transition: AnyActorLogic['transition'] = (snapshot, event, scope) =>
      events.includes(event.type) ? snapshot : real.transition(snapshot, event, scope);
    return Object.create(logic, { transition: { value: transition } });
  };
  return { [kind]: idle } as Tamper;
}
