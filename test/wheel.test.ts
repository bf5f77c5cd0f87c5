import { expect, test } from 'vitest';
import { type Watched, wheel } from '../src/http/wheel.js';
import type { Place } from '../src/line.js';

/** The wheel's own tick, some ms long, and what a busy machine adds. */
async function ticks(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 120));
}

function watched(run: (one: Watched) => void): { one: Watched; place: Place<Watched> } {
  const one: Watched = {
    dueAt: wheel.after(1),
    due() {
      this.dueAt = Number.POSITIVE_INFINITY;
      run(this);
    },
  };
  return { one, place: wheel.watch(one) };
}

test('what another one forgets, or moves, in the tick in which it is due is not called', async () => {
  const called: string[] = [];
  const first = watched(() => {
    called.push('first');
    wheel.forget(forgotten.place);
    moved.one.dueAt = wheel.after(60_000);
  });
  const forgotten = watched(() => called.push('forgotten'));
  const moved = watched(() => called.push('moved'));
  const last = watched(() => called.push('last'));
  await ticks();
  expect(called).toEqual(['first', 'last']);
  for (const { place } of [first, moved, last]) wheel.forget(place);
});

test('what comes to be watched while others are due has its own time', async () => {
  const called: string[] = [];
  let late: { place: Place<Watched> } | undefined;
  const first = watched(() => {
    late = watched(() => called.push('late'));
    called.push('first');
  });
  await ticks();
  expect(called).toEqual(['first', 'late']);
  wheel.forget(first.place);
  wheel.forget(late?.place ?? null);
});
