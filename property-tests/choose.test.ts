import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Candidate, choose } from '../src/machines/choose.js';

const STATUSES = ['pending', 'online', 'offline', 'error', 'draining', 'quarantined'] as const;

const PLAIN: Candidate = {
  endpointId: 'e',
  modelId: 'm',
  status: 'online',
  active: 0,
  maxConcurrency: null,
  circuit: 'closed',
  onTrial: false,
  streak: 0,
  failureRate: 0,
  proven: false,
  restMs: 0,
  hung: false,
};

const candidates: fc.Arbitrary<Candidate[]> = fc
  .array(fc.record({ status: fc.constantFrom(...STATUSES), active: fc.nat(4) }), { maxLength: 12 })
  .map((list) => list.map((one, i) => ({ ...PLAIN, ...one, endpointId: `e${i}` })));
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const chances = fc.array(chance, { minLength: 20, maxLength: 20 });

const drawing = (list: number[]) => {
  let drawn = 0;
  return () => list[drawn++ % list.length] as number;
};

test('it takes one of the least busy online ones; one in error only where nobody is online; else nobody', () => {
  fc.assert(
    fc.property(candidates, chances, (all, list) => {
      const { chosen } = choose(all, drawing(list));
      const online = all.filter(({ status }) => status === 'online');
      const able = online.length > 0 ? online : all.filter(({ status }) => status === 'error');
      if (able.length === 0) expect(chosen).toBeUndefined();
      else {
        expect(able).toContain(chosen);
        expect(chosen?.active).toBe(Math.min(...able.map(({ active }) => active)));
      }
    }),
  );
});

test('the order of the list decides nothing about who can be taken', () => {
  fc.assert(
    fc.property(candidates, chances, (all, list) => {
      const { chosen } = choose(all, drawing(list));
      const { chosen: other } = choose([...all].reverse(), drawing(list));
      expect([other?.status, other?.active]).toEqual([chosen?.status, chosen?.active]);
    }),
  );
});

test('ties are fair: each of n equals is taken about once in n times', () => {
  const ROUNDS = 20_000;
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 8 }), fc.integer({ min: 1, max: 2 ** 31 - 1 }), (ties, seed) => {
      const all = Array.from({ length: ties }, (_, i) => ({ ...PLAIN, endpointId: `e${i}`, active: 1 }));
      const random = seeded(seed);
      const taken = new Map<string, number>();
      for (let i = 0; i < ROUNDS; i += 1) {
        const id = choose(all, random).chosen?.endpointId as string;
        taken.set(id, (taken.get(id) ?? 0) + 1);
      }
      const fair = ROUNDS / ties;
      // Seven standard deviations.
      const off = 7 * Math.sqrt(fair * (1 - 1 / ties));
      for (const { endpointId } of all)
        expect(Math.abs((taken.get(endpointId) ?? 0) - fair)).toBeLessThan(off);
    }),
    { numRuns: 15 },
  );
});

/** Mulberry32. */
function seeded(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
