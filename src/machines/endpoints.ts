import { assign, type ErrorActorEvent, enqueueActions, setup } from 'xstate';
import type { EndpointConfig } from '../persistence/store.js';
import { backoffMs } from './backoff.js';
import type { BoxReport, boxMachine, Reap } from './box.js';
import {
  type ChildRecord,
  crashedTooOften,
  errorText,
  newChild,
  noteCrash,
  noteRenewal,
  noteRestart,
  noteTransition,
  recentCrashes,
} from './supervision.js';

export interface RosterEntry {
  config: EndpointConfig;
  status: 'running' | 'restarting' | 'quarantined';
  /** Quarantines in a row, for the pause before the next try. */
  quarantines: number;
  /** The box and its children, by actor id. */
  actors: Record<string, ChildRecord>;
}

export interface EndpointsContext {
  roster: Record<string, RosterEntry>;
}

/** Wall and monotonic time of this moment, ms. */
export interface Moment {
  at: number;
  mono: number;
}

export type EndpointsEvent =
  | { type: 'register'; config: EndpointConfig }
  | { type: 'configure'; config: EndpointConfig; version: number; newUrl: boolean; newTarget: boolean }
  | { type: 'remove'; id: string }
  | { type: 'revive'; id: string }
  | { type: 'box.restart'; id: string }
  | { type: 'renew'; id: string }
  | BoxReport
  | ErrorActorEvent<unknown, string>;

const RESTART_FIRST_MS = 100;
const RESTART_MOST_MS = 5000;
const QUARANTINE_FIRST_MS = 10 * 60_000;
const QUARANTINE_MOST_MS = 60 * 60_000;

/** What the supervisor asks of its surroundings. */
export interface EndpointsDeps {
  moment: () => Moment;
  configs: () => EndpointConfig[];
  reap: Reap;
  /** The set of endpoints, or where they point, has changed. */
  changed: () => void;
}

/** Keeps the roster and supervises one box per endpoint, one for one; five crashes of a box are quarantine. */
export function endpointsMachine(box: ReturnType<typeof boxMachine>, deps: EndpointsDeps) {
  return setup({
    types: { context: {} as EndpointsContext, events: {} as EndpointsEvent },
    actors: { box },
    actions: {
      spawnAll: enqueueActions(({ context, enqueue }) => {
        for (const id of Object.keys(context.roster)) {
          enqueue.spawnChild('box', { id: `box:${id}`, systemId: `box:${id}`, input: { id } });
        }
        // A change while the supervisor was away was told to nobody.
        enqueue(deps.changed);
      }),
      register: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'register' || event.config.id in context.roster) return;
        const { config } = event;
        enqueue.assign({ roster: { ...context.roster, [config.id]: newEntry(config) } });
        enqueue.spawnChild('box', {
          id: `box:${config.id}`,
          systemId: `box:${config.id}`,
          input: { id: config.id },
        });
        enqueue(deps.changed);
      }),
      configure: enqueueActions(({ context, event, enqueue, system }) => {
        if (event.type !== 'configure') return;
        const { config, version, newUrl, newTarget } = event;
        const entry = context.roster[config.id];
        if (entry === undefined) return;
        enqueue.assign({ roster: { ...context.roster, [config.id]: { ...entry, config } } });
        if (newTarget) {
          enqueue(() =>
            system.get(`endpoint:${config.id}`)?.send({ type: 'target.changed', version, newUrl }),
          );
        }
        enqueue.raise({ type: 'revive', id: config.id });
        enqueue(deps.changed);
      }),
      remove: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'remove' || !(event.id in context.roster)) return;
        const { [event.id]: _gone, ...roster } = context.roster;
        enqueue.assign({ roster });
        enqueue.cancel(`restart:${event.id}`);
        enqueue.stopChild(`box:${event.id}`);
        enqueue(deps.changed);
      }),
      /** Resume, a changed endpoint or the time are reasons to try a quarantined box again. */
      revive: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'revive') return;
        const entry = context.roster[event.id];
        if (entry?.status !== 'quarantined') return;
        enqueue.cancel(`restart:${event.id}`);
        enqueue.assign({
          roster: {
            ...context.roster,
            [event.id]: { ...entry, quarantines: 0, actors: forgiven(entry.actors) },
          },
        });
        enqueue.raise({ type: 'box.restart', id: event.id });
      }),
      restartBox: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'box.restart') return;
        const entry = context.roster[event.id];
        if (entry === undefined || entry.status === 'running') return;
        const { at } = deps.moment();
        const name = `box:${event.id}`;
        const before = entry.status === 'quarantined' ? forgiven(entry.actors) : entry.actors;
        const actors = { ...before, [name]: noteRestart(before[name] ?? newChild('box'), at) };
        enqueue.assign({
          roster: { ...context.roster, [event.id]: { ...entry, status: 'running', actors } },
        });
        enqueue.spawnChild('box', { id: name, systemId: name, input: { id: event.id } });
        enqueue(deps.changed);
      }),
      /** Somebody asked for it. A quarantined one is resumed instead. */
      renewBox: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'renew') return;
        const entry = context.roster[event.id];
        if (entry === undefined || entry.status === 'quarantined') return;
        const name = `box:${event.id}`;
        const record = noteRenewal(entry.actors[name] ?? newChild('box'), deps.moment().at);
        enqueue.cancel(`restart:${event.id}`);
        enqueue.stopChild(name);
        enqueue.assign({
          roster: {
            ...context.roster,
            [event.id]: { ...entry, status: 'running', actors: { ...entry.actors, [name]: record } },
          },
        });
        enqueue.spawnChild('box', { id: name, systemId: name, input: { id: event.id } });
        enqueue(deps.changed);
      }),
      buryBox: enqueueActions(({ context, event, enqueue, self }) => {
        const { actorId, error } = event as ErrorActorEvent<unknown, string>;
        const id = actorId.slice('box:'.length);
        enqueue(() => deps.reap(self, actorId));
        enqueue.stopChild(actorId);
        const entry = context.roster[id];
        if (entry === undefined) return;
        const { at, mono } = deps.moment();
        const record = noteCrash(entry.actors[actorId] ?? newChild('box'), errorText(error), mono, at);
        const actors = { ...entry.actors, [actorId]: record };
        const crashes = recentCrashes(allCrashes(actors), mono).length;
        enqueue.assign({ roster: { ...context.roster, [id]: { ...entry, status: 'restarting', actors } } });
        enqueue.raise(
          { type: 'box.restart', id },
          { delay: backoffMs(crashes, RESTART_FIRST_MS, RESTART_MOST_MS), id: `restart:${id}` },
        );
        enqueue.raise({ type: 'child.crashed', boxId: id, actorId: '', error: errorText(error) });
      }),
      noteReport: assign(({ context, event }) => {
        const { at, mono } = deps.moment();
        return { roster: noteReport(context.roster, event as BoxReport, at, mono) };
      }),
      /** Five crashes of one box within a minute: no probe, not routable, tried again later. */
      quarantineIfTooMany: enqueueActions(({ context, event, enqueue }) => {
        if (event.type !== 'child.crashed') return;
        const id = event.boxId;
        const entry = context.roster[id];
        if (entry === undefined || entry.status === 'quarantined') return;
        const { mono } = deps.moment();
        if (!crashedTooOften({ ...newChild('box'), crashes: allCrashes(entry.actors) }, mono)) return;
        const quarantines = entry.quarantines + 1;
        enqueue.cancel(`restart:${id}`);
        enqueue.stopChild(`box:${id}`);
        enqueue.assign({
          roster: { ...context.roster, [id]: { ...entry, status: 'quarantined', quarantines } },
        });
        enqueue.raise(
          { type: 'box.restart', id },
          { delay: backoffMs(quarantines, QUARANTINE_FIRST_MS, QUARANTINE_MOST_MS), id: `restart:${id}` },
        );
        enqueue(deps.changed);
      }),
    },
  }).createMachine({
    id: 'endpoints',
    context: () => ({
      roster: Object.fromEntries(deps.configs().map((config) => [config.id, newEntry(config)])),
    }),
    initial: 'supervising',
    entry: 'spawnAll',
    states: { supervising: {} },
    on: {
      register: { actions: 'register' },
      configure: { actions: 'configure' },
      remove: { actions: 'remove' },
      revive: { actions: 'revive' },
      'box.restart': { actions: 'restartBox' },
      renew: { actions: 'renewBox' },
      'child.started': { actions: 'noteReport' },
      'child.moved': { actions: 'noteReport' },
      'child.restarted': { actions: 'noteReport' },
      'child.renewed': { actions: 'noteReport' },
      'child.crashed': { actions: ['noteReport', 'quarantineIfTooMany'] },
      'xstate.error.actor.*': { actions: 'buryBox' },
    },
  });
}

function newEntry(config: EndpointConfig): RosterEntry {
  const actors = { [`box:${config.id}`]: newChild('box') };
  return { config, status: 'running', quarantines: 0, actors };
}

/** The roster after a box's report; one about an endpoint that is gone changes nothing. */
function noteReport(
  roster: Record<string, RosterEntry>,
  report: BoxReport,
  at: number,
  mono: number,
): Record<string, RosterEntry> {
  const entry = roster[report.boxId];
  // The empty id is a box's own crash, noted where it was seen.
  if (entry === undefined || report.actorId === '') return roster;
  const kind = report.actorId.slice(0, report.actorId.indexOf(':'));
  const known = entry.actors[report.actorId];
  const before = known ?? newChild(kind);
  const after = ((): ChildRecord => {
    switch (report.type) {
      case 'child.started':
        return known?.status === 'restarting' ? noteRestart(before, at) : { ...before, status: 'active' };
      case 'child.crashed':
        return noteCrash(before, report.error, mono, at);
      case 'child.restarted':
        return noteRestart(before, at);
      case 'child.renewed':
        return noteRenewal(before, at);
      case 'child.moved': {
        const from = before.transitions[before.transitions.length - 1]?.to ?? null;
        return noteTransition(before, { at, event: report.event, from, to: report.to });
      }
    }
  })();
  return {
    ...roster,
    [report.boxId]: { ...entry, actors: { ...entry.actors, [report.actorId]: after } },
  };
}

function allCrashes(actors: Record<string, ChildRecord>): number[] {
  return Object.values(actors).flatMap((record) => record.crashes);
}

function forgiven(actors: Record<string, ChildRecord>): Record<string, ChildRecord> {
  return Object.fromEntries(
    Object.entries(actors).map(([name, record]) => [name, { ...record, crashes: [] }]),
  );
}
