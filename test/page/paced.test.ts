import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { effectScope } from 'vue';
import { paced } from '../../src/dashboard/live/paced.js';

let acts = 0;

beforeEach(() => {
  acts = 0;
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

function begun() {
  const scope = effectScope();
  const ask = scope.run(() =>
    paced(() => {
      acts += 1;
    }),
  );
  if (ask === undefined) throw new Error('the scope has ended');
  return { scope, ask };
}

test('what is asked for first is done at once, what follows once the rest is over', () => {
  const { ask } = begun();
  ask(1000);
  expect(acts).toBe(1);
  for (let i = 0; i < 5; i += 1) ask(1000);
  vi.advanceTimersByTime(999);
  expect(acts).toBe(1);
  vi.advanceTimersByTime(1);
  expect(acts).toBe(2);
  vi.advanceTimersByTime(5000);
  expect(acts).toBe(2);
  ask(1000);
  expect(acts).toBe(3);
});

test('who asks for no rest is served at once', () => {
  const { ask } = begun();
  ask(1000);
  ask(0);
  expect(acts).toBe(2);
});

test('nothing is done after the scope has ended', () => {
  const { scope, ask } = begun();
  ask(1000);
  ask(1000);
  scope.stop();
  vi.advanceTimersByTime(5000);
  expect(acts).toBe(1);
});
