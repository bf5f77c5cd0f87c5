import { expect, test } from 'vitest';
import { settle } from '../src/actors/settle.js';
import { throwing } from './support/faults.js';
import { finished, HEALTHY, START, startHouse } from './support/house.js';
import { memoryInUse } from './support/memory.js';
import { pause } from './support/server.js';

const CRASHES = 10_000;
const FIRST = 500;
/** Five crashes within a minute are another story. */
const APART_MS = 61_000;
const MOST_GROWTH = 8 * 1024 * 1024;

/** Kind → an actor of it, and the event it is made to crash on. */
const KINDS: [kind: string, name: string, event: string][] = [
  ['endpoint', 'endpoint:one', 'attempt.settled'],
  ['tps', 'tps:one:m:chat_completions', 'sample'],
  ['box', 'box:one', 'sample'],
  ['endpoints', 'endpoints', 'revive'],
  ['history', 'history', 'finished'],
  ['ledger', 'ledger', 'appended'],
  ['ticker', 'ticker', 'xstate.after.tickEvery.ticker.ticking'],
];

test.each(KINDS)(
  '%s actors that crash ten thousand times leave nothing behind',
  async (kind, name, event) => {
    let armed = false;
    const sockets = new Set<AbortSignal>();
    const faulty = (logic: object) => throwing(logic, event, () => armed, 'before');
    const { house, books, actor, timers, pending, live, clock } = await startHouse({
      endpoints: ['one', 'two'],
      // A tracker would not come back on another day.
      wall: () => START,
      tamper: { [kind]: faulty },
      // A check that never ends by itself, as one of a box that hangs.
      check: (_config, _engine, signal) =>
        new Promise((resolve) => {
          if (signal === undefined) return;
          sockets.add(signal);
          signal.addEventListener('abort', () => {
            sockets.delete(signal);
            resolve(HEALTHY);
          });
        }),
    });
    settle(house.system, books, finished('one', clock.now()));
    await pause(50);

    function crash(): void {
      const crashed = actor(name);
      armed = true;
      if (kind === 'ticker') timers.increment(100);
      else crashed?.send({ type: event, success: true, id: 'one', tracker: {}, slot: {} });
      armed = false;
      expect(crashed?.getSnapshot().status).toBe('error');
      expect(actor(name)).toBeUndefined();
      // Back-off, then ticks in time so that probes start, then out of the window.
      timers.increment(4900);
      timers.increment(50);
      timers.increment(100);
      timers.increment(600);
      timers.increment(APART_MS);
      expect(actor(name)?.getSnapshot().status).toBe('active');
    }
    const count = () => ({
      live: [...live].map(({ id }) => id).sort(),
      named: Object.keys(house.system.getAll()).sort(),
      timers: pending(),
      sockets: sockets.size,
      processTimers: process.getActiveResourcesInfo().filter((one) => one === 'Timeout').length,
    });

    for (let i = 0; i < FIRST; i += 1) crash();
    await pause(50);
    const before = count();
    const heap = await heapUsed();
    for (let i = FIRST; i < CRASHES; i += 1) {
      crash();
      // What was aborted is let go of by promises.
      if (i % 500 === 0) await pause(0);
    }
    await pause(50);
    expect(count()).toEqual(before);
    expect(before.sockets).toBe(2);
    expect((await heapUsed()) - heap).toBeLessThan(MOST_GROWTH);
    house.root.stop();
    await pause(0);
    expect([live.size, pending(), sockets.size]).toEqual([0, 0, 0]);
  },
);

async function heapUsed(): Promise<number> {
  return (await memoryInUse(3, 5)).heapUsed;
}
