import { expect, test } from 'vitest';
import { Pins } from '../src/actors/pins.js';

/** What one pin with a key of one character is counted as. */
const ONE = (() => {
  const pins = new Pins();
  pins.note('x', { endpointId: 'e', bytes: 1 });
  return pins.bytes;
})();

const at = (endpointId: string, bytes = 1) => ({ endpointId, bytes });

test('a pin is found under its key, the newest of a key', () => {
  const pins = new Pins();
  expect(pins.get('a')).toBeUndefined();
  pins.note('a', at('one', 10));
  pins.note('b', at('two', 20));
  pins.note('a', at('three', 30));
  expect(pins.get('a')).toMatchObject({ endpointId: 'three', bytes: 30 });
  expect(pins.get('b')).toMatchObject({ endpointId: 'two', bytes: 20 });
  expect(pins.size).toBe(2);
  expect(pins.bytes).toBe(2 * ONE);
});

test('the least recently used goes first when memory is full', () => {
  const pins = new Pins(2 * ONE);
  pins.note('a', at('one'));
  pins.note('b', at('one'));
  pins.note('c', at('one'));
  expect(pins.get('a')).toBeUndefined();
  expect(pins.get('b')).toBeDefined();
  expect(pins.get('c')).toBeDefined();
});

test('getting a pin keeps it, and so does noting it again', () => {
  const pins = new Pins(3 * ONE);
  for (const key of ['a', 'b', 'c']) pins.note(key, at('one'));
  pins.get('a');
  pins.note('b', at('two'));
  pins.note('d', at('one'));
  pins.note('e', at('one'));
  expect(['a', 'b', 'c', 'd', 'e'].filter((key) => pins.get(key))).toEqual(['b', 'd', 'e']);
});

test('a forgotten endpoint has no pins, others keep theirs', () => {
  const pins = new Pins();
  pins.note('a', at('one'));
  pins.note('b', at('two'));
  pins.forget('one');
  pins.forget('unknown');
  expect(pins.get('a')).toBeUndefined();
  expect(pins.get('b')).toBeDefined();
  expect(pins.size).toBe(1);
  expect(pins.bytes).toBe(ONE);
});

test('an endpoint that was forgotten can be noted again, and its old pins stay forgotten', () => {
  const pins = new Pins();
  pins.note('a', at('one'));
  pins.note('b', at('one'));
  pins.forget('one');
  pins.note('b', at('one', 5));
  expect(pins.get('a')).toBeUndefined();
  expect(pins.get('b')).toMatchObject(at('one', 5));
  pins.forget('one');
  expect(pins.get('b')).toBeUndefined();
});

test('a pin that moved to another endpoint outlives the first', () => {
  const pins = new Pins();
  pins.note('a', at('one'));
  pins.note('a', at('two'));
  pins.forget('one');
  expect(pins.get('a')).toMatchObject(at('two'));
});

test('longer keys take more of the memory, and one that alone is too long is not kept', () => {
  const pins = new Pins(2 * ONE);
  pins.note('a', at('one'));
  pins.note('b'.repeat(10), at('one'));
  expect(pins.size).toBe(1);
  pins.note('c'.repeat(2 * ONE), at('one'));
  expect(pins.size).toBe(0);
  expect(pins.bytes).toBe(0);
  pins.note('d', at('one'));
  expect(pins.get('d')).toBeDefined();
});

test('by default some 80 000 pins fit into 16 MiB', () => {
  const pins = new Pins();
  for (let i = 0; i < 100_000; i++) pins.note(i.toString(16).padStart(16, '0'), at('one', i));
  expect(pins.size).toBeGreaterThan(75_000);
  expect(pins.size).toBeLessThan(90_000);
  expect(pins.bytes).toBeLessThanOrEqual(16 * 1024 * 1024);
});

test('a bound below zero is none and is refused', () => {
  expect(() => new Pins(-1)).toThrow(RangeError);
  expect(() => new Pins(Number.NaN)).toThrow(RangeError);
});
