import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Pins } from '../src/actors/pins.js';
import type { Pin } from '../src/machines/demand.js';

const KEYS = ['a', 'b', 'c', 'd', 'ee', 'ff', 'a key that is longer'];
const ENDPOINTS = ['one', 'two', 'three'];

const empty = new Pins();
empty.note('', { endpointId: 'one', bytes: 1 });
const PIN_BYTES = empty.bytes;

/** The least recently used first; a forgotten pin stays in its place until it is looked for. */
class Naive {
  pins: { key: string; pin: Pin; forgotten: boolean }[] = [];
  readonly maxBytes: number;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.pins.reduce((all, { key }) => all + PIN_BYTES + key.length, 0);
  }

  take(key: string) {
    const found = this.pins.find((each) => each.key === key);
    this.pins = this.pins.filter((each) => each !== found);
    return found;
  }

  /** How many had to go for it. */
  note(key: string, pin: Pin): number {
    this.take(key);
    this.pins.push({ key, pin, forgotten: false });
    const before = this.pins.length;
    while (this.bytes > this.maxBytes) this.pins.shift();
    return before - this.pins.length;
  }

  get(key: string): Pin | undefined {
    const found = this.take(key);
    if (found === undefined || found.forgotten) return undefined;
    this.pins.push(found);
    return found.pin;
  }

  forget(endpointId: string): void {
    for (const each of this.pins) if (each.pin.endpointId === endpointId) each.forgotten = true;
  }
}

const steps = fc.array(
  fc.record({
    do: fc.oneof(
      { weight: 5, arbitrary: fc.constant('note' as const) },
      { weight: 5, arbitrary: fc.constant('get' as const) },
      { weight: 1, arbitrary: fc.constant('forget' as const) },
    ),
    key: fc.constantFrom(...KEYS),
    endpointId: fc.constantFrom(...ENDPOINTS),
    bytes: fc.nat(),
  }),
  { maxLength: 80, size: 'max' },
);

test('pins are kept and go as in a plain list in the order of use, and never take more than they may', () => {
  const seen = { hits: 0, misses: 0, gone: 0, forgotten: 0 };
  fc.assert(
    fc.property(steps, fc.integer({ min: 0, max: 6 * PIN_BYTES }), (list, maxBytes) => {
      const pins = new Pins(maxBytes);
      const naive = new Naive(maxBytes);
      for (const { do: what, key, endpointId, bytes } of list) {
        if (what === 'note') {
          pins.note(key, { endpointId, bytes });
          seen.gone += naive.note(key, { endpointId, bytes });
        } else if (what === 'get') {
          if (naive.pins.some((each) => each.key === key && each.forgotten)) seen.forgotten += 1;
          const wanted = naive.get(key);
          const got = pins.get(key);
          expect(got && { endpointId: got.endpointId, bytes: got.bytes }).toEqual(wanted);
          if (wanted === undefined) seen.misses += 1;
          else seen.hits += 1;
        } else {
          pins.forget(endpointId);
          naive.forget(endpointId);
        }
        expect(pins.size).toBe(naive.pins.length);
        expect(pins.bytes).toBe(naive.bytes);
        expect(pins.bytes).toBeLessThanOrEqual(maxBytes);
      }
    }),
    { numRuns: 500 },
  );
  for (const times of Object.values(seen)) expect(times).toBeGreaterThan(100);
});
