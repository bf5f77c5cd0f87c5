import { beforeEach, expect, test } from 'vitest';
import type { AnyStateMachine } from 'xstate';
import { definition, mermaid } from '../../src/actors/diagram.js';
import {
  activeIds,
  type ChartState,
  chartOf,
  eventWords,
  litArrows,
  type StateDefinition,
} from '../../src/dashboard/parts/statechart.js';
import { startHouse } from '../support/house.js';

/** Every statechart of the server, as it sends them. */
let machines: Record<string, StateDefinition>;

beforeEach(async () => {
  const { house } = await startHouse();
  machines = Object.fromEntries(
    Object.entries(house.machines).map(([name, machine]) => [name, definition(machine) as StateDefinition]),
  );
});

/** One way for a machine to be: its leaves in order, and the ids of all states that are active then. */
interface Way {
  leaves: string[];
  ids: Set<string>;
}

function waysOf(node: StateDefinition): Way[] {
  const children = Object.values(node.states);
  if (children.length === 0) return [{ leaves: [node.key], ids: new Set([node.id]) }];
  const within = children.map(waysOf);
  const all = node.type === 'parallel' ? within.reduce(product) : within.flat();
  return all.map(({ leaves, ids }) => ({ leaves, ids: new Set([node.id, ...ids]) }));
}

function product(some: Way[], others: Way[]): Way[] {
  return some.flatMap((one) =>
    others.map((other) => ({
      leaves: [...one.leaves, ...other.leaves],
      ids: new Set([...one.ids, ...other.ids]),
    })),
  );
}

const told = ({ leaves }: Way) => leaves.join(', ');

test('of every machine and every state it can be in, exactly the active states are lit', () => {
  expect(Object.keys(machines)).toEqual(
    expect.arrayContaining(['root', 'endpoints', 'box', 'endpoint', 'ledger']),
  );
  for (const [name, machine] of Object.entries(machines)) {
    const ways = waysOf(machine);
    expect(ways.length).toBeGreaterThan(0);
    for (const way of ways) {
      expect([...activeIds(machine, told(way))].sort(), `${name}: ${told(way)}`).toEqual([...way.ids].sort());
    }
  }
});

test('of every machine both ends of every arrow are drawn', () => {
  const idsOf = (states: ChartState[]): string[] =>
    states.flatMap(({ id, children }) => [id, ...idsOf(children)]);
  for (const [name, machine] of Object.entries(machines)) {
    const { states, arrows } = chartOf(machine);
    const drawn = new Set(idsOf(states));
    for (const { source, target, id } of arrows) {
      expect(drawn.has(source) && drawn.has(target), `${name}: ${id}`).toBe(true);
    }
  }
  expect(chartOf(machines.box as StateDefinition).arrows.map(({ id }) => id)).toContain('box→box.mending');
});

test('a diagram in Mermaid has what can happen in every state', async () => {
  const { house } = await startHouse();
  const lines = mermaid(house.machines.box as AnyStateMachine).split('\n');
  expect(lines[1]).toBe('  state "box" as box');
  expect(lines.some((line) => line.startsWith('  box --> box_mending : '))).toBe(true);
});

test('an actor without a state, or in one that the chart does not have, lights nothing of it', () => {
  for (const machine of Object.values(machines)) {
    expect(activeIds(machine, null).size).toBe(0);
    const unknown = [...activeIds(machine, 'no such state')].filter((id) => id !== machine.id);
    expect(
      unknown.filter((id) => waysOf(machine)[0]?.leaves.some((leaf) => id.endsWith(`.${leaf}`))),
    ).toEqual([]);
  }
});

test('every state and every arrow of a chart has a place, and its arrows join states that are there', () => {
  for (const [name, machine] of Object.entries(machines)) {
    const { states, arrows } = chartOf(machine);
    const ids = new Set<string>([machine.id]);
    const collect = (all: typeof states) => {
      for (const { id, children } of all) {
        ids.add(id);
        collect(children);
      }
    };
    collect(states);
    for (const { source, target, events } of arrows) {
      expect(ids.has(source), `${name}: ${source}`).toBe(true);
      expect(ids.has(target), `${name}: ${target}`).toBe(true);
      expect(events.length).toBeGreaterThan(0);
      for (const event of events) expect(event).not.toMatch(/xstate\.|undefined/);
    }
    expect(new Set(arrows.map(({ id }) => id)).size).toBe(arrows.length);
  }
});

test('no change lights no arrow, and a change lights only arrows from what was active into what became so', () => {
  for (const machine of Object.values(machines)) {
    const { arrows } = chartOf(machine);
    const ways = waysOf(machine).slice(0, 60);
    for (const from of ways) {
      expect(litArrows(machine, arrows, told(from), told(from)).size).toBe(0);
      for (const to of ways) {
        const lit = litArrows(machine, arrows, told(from), told(to));
        for (const { id, source, target } of arrows.filter((one) => lit.has(one.id))) {
          expect(from.ids.has(source), id).toBe(true);
          expect(to.ids.has(target) && !from.ids.has(target), id).toBe(true);
        }
      }
    }
  }
});

test('every arrow between two leaves of a region lights when a machine goes along it', () => {
  for (const machine of Object.values(machines)) {
    const { arrows } = chartOf(machine);
    const ways = waysOf(machine);
    for (const arrow of arrows.filter(({ source, target }) => source !== target)) {
      const from = ways.find(({ ids }) => ids.has(arrow.source) && !ids.has(arrow.target));
      if (from === undefined) continue;
      const to = ways
        .filter(({ ids }) => ids.has(arrow.target))
        .sort((a, b) => difference(from, a) - difference(from, b))[0] as Way;
      expect([...litArrows(machine, arrows, told(from), told(to))], arrow.id).toContain(arrow.id);
    }
  }
});

const difference = (one: Way, other: Way) => [...other.ids].filter((id) => !one.ids.has(id)).length;

test('a failed check of an endpoint lights its one arrow, and so does a drain', () => {
  const machine = machines.endpoint as StateDefinition;
  const { arrows } = chartOf(machine);
  const ways = waysOf(machine);
  const online = ways.find(({ leaves }) => leaves[0] === 'online') as Way;
  const with_ = (place: number, leaf: string) => online.leaves.with(place, leaf).join(', ');
  const failed = [...litArrows(machine, arrows, told(online), with_(0, 'error'))];
  expect(failed).toEqual([expect.stringMatching(/online→.*\.error$/)]);
  const regions = Object.values(machine.states);
  const draining = regions.findIndex((region) => 'draining' in region.states);
  const open = Object.keys(regions[draining]?.states ?? {}).find((one) => one !== 'draining') as string;
  const drained = [...litArrows(machine, arrows, with_(draining, open), with_(draining, 'draining'))];
  expect(drained).toEqual([expect.stringMatching(/→.*\.draining$/)]);
});

test.each([
  ['', 'always'],
  ['checked', 'checked'],
  ['xstate.after.backoff.ledger.waiting', 'after backoff'],
  ['xstate.done.actor.0.ledger.writing', 'done'],
  ['xstate.error.actor.0.ledger.writing', 'error'],
])('the event %j reads as %j', (event, words) => {
  expect(eventWords(event)).toBe(words);
});
