import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Lease, LeaseTable } from '../src/actors/leases.js';

const IDS = ['a', 'b', 'c'];
const id = fc.constantFrom(...IDS);
type Step =
  | { do: 'open'; id: string; closes: boolean }
  | { do: 'close'; place: number }
  | { do: 'abort'; id: string }
  | { do: 'rename'; from: string; to: string };
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('open' as const), id, closes: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('close' as const), place: fc.nat(30) }) },
  fc.record({ do: fc.constant('abort' as const), id }),
  fc.record({ do: fc.constant('rename' as const), from: id, to: id }).filter(({ from, to }) => from !== to),
);

test('any order of opening, closing twice, aborting and renaming counts right and returns to zero', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const table = new LeaseTable();
      const opened: { lease: Lease; at: string; open: boolean }[] = [];
      const close = (place: number) => {
        const one = opened[place];
        if (one === undefined) return;
        one.lease.close();
        one.open = false;
      };
      for (const one of steps) {
        switch (one.do) {
          case 'open': {
            const place = opened.length;
            // Some requests end in the abort itself, others later.
            const abort = () => (one.closes ? close(place) : undefined);
            const options = {
              endpointId: one.id,
              modelId: 'm',
              trial: false,
              sentAt: 0,
              allowanceMs: 1,
              abort,
              move: abort,
            };
            opened.push({ lease: table.open(options), at: one.id, open: true });
            break;
          }
          case 'close':
            close(one.place);
            break;
          case 'abort':
            table.abortAll(one.id);
            break;
          case 'rename':
            table.rename(one.from, one.to);
            for (const each of opened) if (each.at === one.from) each.at = one.to;
        }
        const open = opened.filter((each) => each.open);
        expect(table.total).toBe(open.length);
        for (const name of IDS) expect(table.count(name)).toBe(open.filter(({ at }) => at === name).length);
      }
      for (let round = 0; round < 2; round += 1) for (const place of opened.keys()) close(place);
      expect([table.total, ...IDS.map((name) => table.count(name))]).toEqual([0, 0, 0, 0]);
    }),
  );
});
