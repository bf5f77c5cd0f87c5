import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Line, type Place } from '../src/line.js';

type Step = { do: 'add' } | { do: 'remove'; which: number; from: 'own' | 'other' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({ do: 'add' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('remove' as const),
      which: fc.nat(40),
      from: fc.constantFrom('own' as const, 'own' as const, 'other' as const),
    }),
  },
);

test('a line is at every step what a list says from which things are taken by where they stand', () => {
  let refused = 0;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
      const line = new Line<number>();
      const other = new Line<number>();
      const places: Place<number>[] = [];
      let list: number[] = [];
      for (const [i, one] of steps.entries()) {
        if (one.do === 'add') {
          places.push(line.add(i));
          list.push(i);
        } else {
          const place = places[one.which % Math.max(1, places.length)];
          if (place === undefined) continue;
          const isThere = one.from === 'own' && list.includes(place.item);
          expect((one.from === 'own' ? line : other).remove(place)).toBe(isThere);
          if (isThere) list = list.filter((item) => item !== place.item);
          else refused += 1;
        }
        expect([...line]).toEqual(list);
        expect(line.first).toBe(list[0]);
        expect(line.size).toBe(list.length);
        expect([...other]).toEqual([]);
      }
      // Whoever left holds nobody by it.
      const left = places.filter(({ item }) => !list.includes(item));
      for (const { before, after, line: none } of left)
        expect([before, after, none]).toEqual([null, null, null]);
    }),
  );
  expect(refused).toBeGreaterThan(100);
});
