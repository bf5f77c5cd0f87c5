import fc from 'fast-check';
import type { Candidate } from '../../src/machines/candidate.js';
import { type Choosing, choose, PLAINLY } from '../../src/machines/choose.js';
import type { Demand } from '../../src/machines/demand.js';
import { forecastOf, type Outlook } from '../../src/machines/outlook.js';
import { forecast } from '../../src/machines/speed.js';
import { speeds } from './boxes.js';
import { PLAIN } from './candidates.js';

/** Endpoints of which anything may be so, a request, and how it is to be placed. */
export interface Fleet {
  all: Candidate[];
  demand: Demand;
  choosing: Choosing;
}

const rarely = fc.nat(3).map((n) => n === 0);
const waits = fc.constantFrom(0, 0, 300, 5000);

const anyone = fc.record({
  status: fc.oneof(
    { weight: 8, arbitrary: fc.constant('online' as const) },
    { weight: 2, arbitrary: fc.constant('error' as const) },
    { weight: 1, arbitrary: fc.constantFrom('pending' as const, 'offline' as const, 'draining' as const) },
    { weight: 1, arbitrary: fc.constant('quarantined' as const) },
  ),
  active: fc.nat(4),
  room: fc.oneof(
    { weight: 3, arbitrary: fc.constant(Number.POSITIVE_INFINITY) },
    { weight: 2, arbitrary: fc.nat(1) },
  ),
  foreign: fc.constantFrom(0, 0, 2),
  weight: fc.constantFrom(0.5, 1, 1, 3),
  priority: fc.constantFrom(0, 0, 1, 2),
  maxContext: fc.constantFrom(null, 100, 200, 8192),
  tps: fc.constantFrom(null, 10, 40),
  turn: fc.nat(5),
  speed: speeds,
  cold: rarely,
  displaces: fc.boolean(),
  loadingMs: waits,
  overdueMs: waits,
  circuit: fc.oneof(
    { weight: 5, arbitrary: fc.constant('closed' as const) },
    { weight: 2, arbitrary: fc.constantFrom('open' as const, 'half_open' as const) },
  ),
  onTrial: rarely,
  freshFailureRate: fc.constantFrom(0, 0, 0, 0.2, 1),
  failureRate: fc.constantFrom(0, 0.1, 0.5, 1),
  proven: fc.boolean(),
  restMs: fc.constantFrom(0, 0, 0, 0, 100),
  hung: rarely,
});

const WELL = { status: 'online', restMs: 0, circuit: 'closed', hung: false } as const;
/** What all have in common in some runs, so that those who differ in nothing else meet. */
const shared = fc.constantFrom<Partial<Candidate>>(
  {},
  WELL,
  { ...WELL, maxContext: null },
  { ...WELL, maxContext: null, priority: 0, displaces: false },
);

const demands: fc.Arbitrary<Demand> = fc
  .record({
    textBytes: fc.constantFrom(10, 300, 600, 1000, 100_000),
    more: fc.constantFrom(0, 0, 50_000),
    stream: fc.boolean(),
    maxTokens: fc.constantFrom(null, 1, 100),
    room: fc.constantFrom(0, 0, 1, 100),
    pin: fc.option(fc.record({ endpointId: fc.constantFrom('e0', 'e1', 'gone'), bytes: fc.nat(2000) })),
  })
  .map(({ more, ...one }) => ({ ...one, promptBytes: one.textBytes + more }));

/** Of an id that the request was at already; on a retry only. */
const triedOf = (list: { wasThere: boolean }[]) =>
  new Set(list.flatMap(({ wasThere }, i) => (wasThere ? [`e${i}`] : [])));

export function fleets(policy: fc.Arbitrary<Choosing['policy']>): fc.Arbitrary<Fleet> {
  return fc
    .record({
      list: fc.array(fc.record({ one: anyone, wasThere: rarely }), { maxLength: 6, size: 'max' }),
      same: shared,
      isRetry: rarely,
      demand: demands,
      how: fc.record({
        policy,
        overflowMs: fc.constantFrom(0, 100, 1000, 60_000),
        waitedMs: fc.constantFrom(0, 0, 500, 100_000),
        ahead: fc.nat(3),
        mono: fc.constantFrom(0, 100_000, 300_000),
        mayExplore: rarely,
      }),
    })
    .map(({ list, same, isRetry, demand, how }) => ({
      all: list.map(({ one }, i) => ({ ...PLAIN, ...one, ...same, endpointId: `e${i}` })),
      demand,
      choosing: { ...PLAINLY, ...how, tried: isRetry ? triedOf(list) : PLAINLY.tried },
    }));
}

/** Who may serve at all, whatever the others are like. */
export function isOut({ endpointId, status, restMs }: Candidate, { tried }: Choosing): boolean {
  return tried.has(endpointId) || (status !== 'online' && status !== 'error') || restMs > 0;
}

/** Whether the prompt fits beside its answer, at four bytes a token; what is base64 is no text. */
export function holds({ maxContext }: Candidate, { textBytes, room }: Demand): boolean {
  return maxContext === null || textBytes <= 4 * (maxContext - room);
}

/** How much longer a request waits there for its first byte than where nobody is; nothing known is no time, ms. */
export function waitAt(one: Candidate, outlook: Outlook): number {
  const told = forecastOf(one, outlook);
  if (told === null || one.active + one.foreign === 0) return 0;
  return Math.max(0, told.waitMs - forecast(one.speed, 0, 0, 0, false).waitMs);
}

/** Everybody who is chosen by some chance, of a policy that draws only among equals. */
export function possible({ all, demand, choosing }: Fleet): Set<string | undefined> {
  const found = new Set<string | undefined>();
  for (let nth = 0; nth <= all.length; nth += 1) {
    let drawn = 0;
    // One draw a tie: the nth is won, those before and after it are lost.
    const random = () => (drawn++ === nth ? 0 : 0.999);
    found.add(choose(all, demand, { ...choosing, random }).chosen?.endpointId);
  }
  return found;
}
