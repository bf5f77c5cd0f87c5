import { expect, test } from 'vitest';
import { createActor } from 'xstate';
import { PLAIN } from '../property-tests/support/candidates.js';
import type { Catalogue } from '../src/actors/catalogue.js';
import { Chooser } from '../src/actors/chooser.js';
import { Explorations } from '../src/actors/explorations.js';
import type { System } from '../src/actors/names.js';
import { Pins } from '../src/actors/pins.js';
import type { Roster } from '../src/actors/roster.js';
import { Turns } from '../src/actors/turns.js';
import { type Waiter, WaitingRoom } from '../src/actors/waiting.js';
import { NO_DEMAND } from '../src/machines/demand.js';
import { queueLogic } from '../src/machines/queue.js';
import { chatBody, rawRequest } from './support/clients.js';
import { engine, pause, startLocal } from './support/server.js';

/** A room in front of boxes whose load the test moves; every turn fills the box again. */
function room(...ids: string[]) {
  const boxes = ids.map((endpointId) => ({ ...PLAIN, endpointId, active: 1, room: 0 }));
  const actor = createActor(queueLogic, { input: { tickets: [] } }).start();
  const clock = { now: 0 };
  const catalogue = { candidates: () => boxes, places: () => [] } as unknown as Catalogue;
  const mono = () => clock.now;
  const responses = new Pins();
  for (const endpointId of ids) responses.note(`of ${endpointId}`, { endpointId, bytes: 0 });
  const chooser = new Chooser({
    catalogue,
    turns: new Turns(),
    pins: new Pins(),
    responses,
    explorations: new Explorations(),
    policy: 'least-busy',
    overflowMs: 1000,
    random: () => 0.999,
    mono,
    ahead: () => 0,
  });
  const system = () => ({ get: () => actor }) as unknown as System;
  const waiting = new WaitingRoom({ chooser, catalogue, roster: {} as Roster, system, mono });
  const log: string[] = [];
  let serial = 0;
  const enter = (model = 'm', tried: string[] = [], keeper: string | null = null) => {
    serial += 1;
    const ticket = { id: `${model}${serial}`, model, key: '', priority: 0 };
    const waiter: Waiter = {
      ticket,
      wanted: { ...NO_DEMAND, model, session: null, user: null, previous: `of ${keeper}`, prefixes: [] },
      keeper,
      since: clock.now,
      tried: new Set(tried),
      begin: ({ chosen }) => {
        log.push(`${ticket.id} at ${chosen?.endpointId}`);
        const box = boxes.find(({ endpointId }) => endpointId === chosen?.endpointId);
        if (box !== undefined) Object.assign(box, { active: 1, room: 0 });
      },
      giveUp: () => {
        log.push(`${ticket.id} gave up`);
        waiting.leave(ticket);
      },
    };
    waiting.enter(waiter);
  };
  const free = (id: string) => {
    const box = boxes.find(({ endpointId }) => endpointId === id);
    if (box !== undefined) Object.assign(box, { active: 0, room: 1 });
    waiting.pump();
  };
  return { waiting, boxes, clock, log, enter, free };
}

test('who waits for one endpoint alone holds nobody up, and teaches no pace', () => {
  const { waiting, clock, log, enter, free } = room('one', 'two');
  for (let i = 0; i < 8; i += 1) enter('m', [], 'one');
  expect([waiting.size, waiting.ahead('m')]).toEqual([8, 0]);
  enter();
  expect(waiting.ahead('m')).toBe(1);
  free('two');
  expect(log.splice(0)).toEqual(['m9 at two']);
  for (let i = 1; i <= 8; i += 1) {
    clock.now += 10_000;
    free('one');
    expect(log.splice(0)).toEqual([`m${i} at one`]);
  }
  enter();
  enter();
  expect(waiting.expectedMs('m')).toBeNull();
  expect([waiting.size, waiting.ahead('m')]).toEqual([2, 2]);
});

test('of those who wait for several endpoints alone each has its turn when its own has room', () => {
  const { waiting, log, enter, free } = room('one', 'two');
  for (let i = 0; i < 3; i += 1) for (const id of ['one', 'two']) enter('m', [], id);
  free('two');
  free('one');
  free('two');
  expect(log).toEqual(['m2 at two', 'm1 at one', 'm4 at two']);
  expect([waiting.size, waiting.ahead('m')]).toEqual([3, 0]);
});

test('an hour in which nobody waited is no pace: the next burst may wait like the first', () => {
  const { waiting, clock, log, enter, free } = room('one');
  for (let i = 0; i < 8; i += 1) enter();
  for (let i = 0; i < 8; i += 1) {
    clock.now += 1000;
    free('one');
  }
  clock.now += 3_600_000;
  for (let i = 0; i < 3; i += 1) enter();
  clock.now += 1000;
  free('one');
  expect(waiting.expectedMs('m')).toBe(3000);
  clock.now += 1000;
  free('one');
  clock.now += 1000;
  free('one');
  expect(log).toHaveLength(11);
  // With nobody in line the pace is no reason to refuse: who waits teaches it anew.
  expect(waiting.expectedMs('m')).toBeNull();
});

test('one that has been at the free box already does not keep it from those behind', () => {
  const { log, enter, free } = room('one', 'two');
  enter('m', ['one']);
  enter();
  free('one');
  expect(log).toEqual(['m2 at one']);
  free('two');
  expect(log).toEqual(['m2 at one', 'm1 at two']);
});

test('a model with a backlog does not keep a box from another model', () => {
  const { log, enter, free } = room('one');
  for (let i = 0; i < 4; i += 1) enter('a');
  enter('b');
  for (let i = 0; i < 3; i += 1) free('one');
  expect(log).toContain('b5 at one');
});

test('hope ends five seconds after the last box went, and begins anew with the next who comes', () => {
  const { boxes, clock, log, enter, waiting } = room('one');
  const [box] = boxes;
  if (box !== undefined) box.status = 'offline';
  enter();
  waiting.pump();
  clock.now += 4000;
  waiting.pump();
  expect(log).toEqual([]);
  clock.now += 2000;
  waiting.pump();
  expect(log).toEqual(['m1 gave up']);
  clock.now += 3_600_000;
  enter();
  waiting.pump();
  expect(log).toEqual(['m1 gave up']);
  expect(waiting.size).toBe(1);
});

test('after a long silence a stream is still given its ten seconds before comments begin', async () => {
  const box = await engine();
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '600000' } });
  await server.register('box', box.url);
  const body = chatBody('sim-small', { stream: true });
  await (await rawRequest(server.url, '/v1/chat/completions', { body })).whole;
  await pause(11_000);
  box.faults.next.push({ kind: 'slow_head', ms: 300 });
  const reply = await rawRequest(server.url, '/v1/chat/completions', { body });
  expect(reply.headers['x-troupe-endpoint']).toBe('box');
  expect(await reply.whole).toBe(true);
  expect(reply.text()).not.toContain(': waiting');
});
