import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type RateLimit, RateLimits, type Refusal, type Spent } from '../src/access/rate-limits.js';

const MINUTE = 60_000;
const NONE: RateLimit = {
  requestsPerMinute: null,
  tokensPerMinute: null,
  concurrent: null,
  tokensPerDay: null,
  tokensPerMonth: null,
};
const UNSPENT: Spent = { today: 0, month: 0 };
/** Noon of a day in the local zone, some days before the end of a month without a change of the clock. */
const NOON = new Date(2026, 0, 15, 12).getTime();
const UNTIL_MIDNIGHT = 12 * 3600;
const UNTIL_FEBRUARY = 16 * 24 * 3600 + UNTIL_MIDNIGHT;

interface Charge {
  at: number;
  tokens: number;
}

/** Everything that ever happened to a key. */
interface Log {
  limit: RateLimit;
  open: number;
  /** Requests without any limit, which are not counted. */
  uncounted: number;
  admitted: number[];
  charged: Charge[];
}

interface Model {
  now: number;
  spent: Spent;
  keys: Record<string, Log>;
}

interface Real {
  limits: RateLimits;
}

type Command = fc.Command<Model, Real>;

const newLog = (limit = NONE): Log => ({ limit, open: 0, uncounted: 0, admitted: [], charged: [] });

const requestsAt = (log: Log, at: number) => log.admitted.filter((time) => at - time < MINUTE).length;

const goneAt = ({ at }: Charge) => (Math.floor(at / 1000) + 1) * 1000 + MINUTE;

const tokensAt = (log: Log, at: number) =>
  log.charged.filter((one) => goneAt(one) > at).reduce((sum, { tokens }) => sum + tokens, 0);

const isUnlimited = (limit: RateLimit) => Object.values(limit).every((one) => one === null);

/** The first of the times at which something leaves a window when so much is left; a limit of 0 has none. */
function firstWhen(times: number[], now: number, isFree: (at: number) => boolean): number {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted.find((at) => at > now && isFree(at)) ?? now + MINUTE;
}

/** The seconds to wait by each limit that refuses. */
function waits(log: Log, spent: Spent, now: number): Map<keyof RateLimit, number> {
  const { requestsPerMinute, tokensPerMinute, concurrent, tokensPerDay, tokensPerMonth } = log.limit;
  const found = new Map<keyof RateLimit, number>();
  const secs = (at: number) => Math.ceil((at - now) / 1000);
  if (requestsPerMinute !== null && requestsAt(log, now) >= requestsPerMinute) {
    const leaves = log.admitted.map((at) => at + MINUTE);
    const free = firstWhen(leaves, now, (at) => requestsAt(log, at) < requestsPerMinute);
    found.set('requestsPerMinute', secs(free));
  }
  if (tokensPerMinute !== null && tokensAt(log, now) >= tokensPerMinute) {
    const free = firstWhen(log.charged.map(goneAt), now, (at) => tokensAt(log, at) < tokensPerMinute);
    found.set('tokensPerMinute', secs(free));
  }
  if (concurrent !== null && log.open >= concurrent) found.set('concurrent', 1);
  if (tokensPerDay !== null && spent.today >= tokensPerDay) found.set('tokensPerDay', UNTIL_MIDNIGHT);
  if (tokensPerMonth !== null && spent.month >= tokensPerMonth) found.set('tokensPerMonth', UNTIL_FEBRUARY);
  return found;
}

const seen = {
  admitted: 0,
  requestsPerMinute: 0,
  tokensPerMinute: 0,
  concurrent: 0,
  tokensPerDay: 0,
  tokensPerMonth: 0,
  several: 0,
  uncounted: 0,
};

function headersOf(log: Log, now: number): string[] {
  const left = (most: number, used: number) => String(Math.max(0, most - used));
  const full = (times: number[]) => duration(Math.max(0, ...times.map((at) => at - now)));
  const headers: string[] = [];
  const { requestsPerMinute, tokensPerMinute } = log.limit;
  if (requestsPerMinute !== null) {
    headers.push('x-ratelimit-limit-requests', String(requestsPerMinute));
    headers.push('x-ratelimit-remaining-requests', left(requestsPerMinute, requestsAt(log, now)));
    headers.push('x-ratelimit-reset-requests', full(log.admitted.map((at) => at + MINUTE)));
  }
  if (tokensPerMinute !== null) {
    headers.push('x-ratelimit-limit-tokens', String(tokensPerMinute));
    headers.push('x-ratelimit-remaining-tokens', left(tokensPerMinute, tokensAt(log, now)));
    headers.push('x-ratelimit-reset-tokens', full(log.charged.map(goneAt)));
  }
  return headers;
}

/** Go's form by its digits: whole ms, nothing that is not needed. */
function duration(ms: number): string {
  const all = Math.ceil(ms);
  if (all === 0) return '0s';
  if (all < 1000) return `${all}ms`;
  const fraction = String(all % 1000)
    .padStart(3, '0')
    .replace(/0+$/, '');
  const seconds = `${Math.floor(all / 1000) % 60}${fraction === '' ? '' : `.${fraction}`}s`;
  return all < MINUTE ? seconds : `${Math.floor(all / MINUTE)}m${seconds}`;
}

function command(name: string, run: (model: Model, real: Real) => void): Command {
  return {
    check: () => true,
    toString: () => name,
    run(model, real) {
      run(model, real);
      for (const [keyId, log] of Object.entries(model.keys)) {
        expect(real.limits.headers(keyId, log.limit, model.now)).toEqual(headersOf(log, model.now));
      }
      // What is idle may be remembered for a while, what is not must be.
      const busy = Object.values(model.keys).filter((log) => !isIdle(log, model.now));
      expect(real.limits.size).toBeGreaterThanOrEqual(busy.length);
    },
  };
}

function isIdle(log: Log, now: number): boolean {
  return log.open === 0 && requestsAt(log, now) === 0 && tokensAt(log, now) === 0;
}

const admit = (keyId: string) =>
  command(`admit(${keyId})`, (model, { limits }) => {
    const log = model.keys[keyId] as Log;
    let asked = 0;
    const spent = () => {
      asked += 1;
      return model.spent;
    };
    const refusal = limits.admit(keyId, log.limit, spent, model.now, NOON);
    const hasLong = log.limit.tokensPerDay !== null || log.limit.tokensPerMonth !== null;
    expect(asked).toBe(hasLong ? 1 : 0);
    const expected = waits(log, model.spent, model.now);
    if (expected.size > 0) {
      expectRefusal(refusal, log.limit, expected);
      return;
    }
    expect(refusal).toBeNull();
    seen.admitted += 1;
    if (isUnlimited(log.limit)) {
      log.uncounted += 1;
      return;
    }
    log.open += 1;
    if (log.limit.requestsPerMinute !== null) log.admitted.push(model.now);
  });

function expectRefusal(refusal: Refusal | null, limit: RateLimit, expected: Map<keyof RateLimit, number>) {
  const longest = Math.max(...expected.values());
  expect(refusal?.retryAfterSecs).toBe(longest);
  const name = refusal?.limit as keyof RateLimit;
  expect(expected.get(name)).toBe(longest);
  expect(refusal?.message).toMatch(new RegExp(`^this key may \\w+ ${limit[name]} (request|token)s? `));
  seen[name] += 1;
  if (expected.size > 1) seen.several += 1;
}

const release = (keyId: string) =>
  command(`release(${keyId})`, (model, { limits }) => {
    const log = model.keys[keyId] as Log;
    if (log.open + log.uncounted === 0) return;
    limits.release(keyId);
    // Which of them has ended nobody tells.
    if (log.open > 0) log.open -= 1;
    else log.uncounted -= 1;
  });

const charge = (keyId: string, tokens: number) =>
  command(`charge(${keyId}, ${tokens})`, (model, { limits }) => {
    const log = model.keys[keyId] as Log;
    // Of a key that is idle the tokens may be lost: they come before the release.
    if (isIdle(log, model.now)) return;
    limits.charge(keyId, tokens, model.now);
    if (tokens > 0) log.charged.push({ at: model.now, tokens });
  });

const pass = (ms: number) =>
  command(`pass(${ms} ms)`, (model) => {
    model.now += ms;
  });

const change = (keyId: string, limit: RateLimit) =>
  command(`change(${keyId}, ${JSON.stringify(limit)})`, (model) => {
    const log = model.keys[keyId] as Log;
    if (isUnlimited(log.limit) !== isUnlimited(limit)) seen.uncounted += 1;
    log.limit = limit;
  });

const spend = (spent: Spent) =>
  command(`spend(${JSON.stringify(spent)})`, (model) => {
    model.spent = spent;
  });

const forget = (keyId: string) =>
  command(`forget(${keyId})`, (model, { limits }) => {
    limits.forget(keyId);
    model.keys[keyId] = newLog(model.keys[keyId]?.limit);
  });

const keyId = fc.constantFrom('a', 'a', 'b', 'c');
const few = (most: number) => fc.option(fc.integer({ min: 1, max: most }), { freq: 1 });
const limit: fc.Arbitrary<RateLimit> = fc.oneof(
  { weight: 1, arbitrary: fc.constant(NONE) },
  {
    weight: 6,
    arbitrary: fc.record({
      requestsPerMinute: fc.oneof(few(4), few(20), fc.constant(0)),
      tokensPerMinute: fc.oneof(few(100), few(10), fc.constant(0)),
      concurrent: fc.oneof(few(3), few(12), fc.constant(0)),
      tokensPerDay: fc.option(fc.integer({ min: 8, max: 14 })),
      tokensPerMonth: fc.option(fc.integer({ min: 8, max: 14 })),
    }),
  },
  // Each of the short ones alone, or another always refuses first.
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 12 }).map((n) => ({ ...NONE, requestsPerMinute: n })) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 60 }).map((n) => ({ ...NONE, tokensPerMinute: n })) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 4 }).map((n) => ({ ...NONE, concurrent: n })) },
);
/** Also fractions, and the edges of seconds and minutes. */
const gap = fc.oneof(
  fc.constant(0),
  fc.nat(4000).map((quarters) => quarters / 4),
  fc.constantFrom(1, 999, 1000, 1001, 30_000, MINUTE - 1, MINUTE, MINUTE + 1, MINUTE + 1000),
  fc.nat(20_000),
);
const commands = fc.commands(
  [
    keyId.map(admit),
    keyId.map(admit),
    keyId.map(admit),
    keyId.map(release),
    fc.tuple(keyId, fc.nat(40)).map(([id, tokens]) => charge(id, tokens)),
    gap.map(pass),
    fc.tuple(keyId, limit).map(([id, one]) => change(id, one)),
    fc.record({ today: fc.nat(10), month: fc.nat(10) }).map(spend),
    keyId.map(forget),
  ],
  { maxCommands: 150, size: 'max' },
);

test('a request is admitted or refused as the full logs of the key say, whatever happened before', () => {
  fc.assert(
    fc.property(commands, limit, limit, (steps, first, second) => {
      const keys = { a: newLog(first), b: newLog(second), c: newLog() };
      const model: Model = { now: 5, spent: UNSPENT, keys };
      const real: Real = { limits: new RateLimits() };
      fc.modelRun(() => ({ model, real }), steps);
    }),
    { numRuns: 400 },
  );
  for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(40);
});

/** Requests some time apart, each under a limit that was perhaps changed just before. */
const traffic = fc.array(
  fc.record({ gap, limit: fc.option(fc.integer({ min: 1, max: 30 }), { freq: 3 }), burst: fc.nat(25) }),
  { minLength: 1, maxLength: 40, size: 'max' },
);

test('no minute has more admissions than the limit in force at its last one, and a refusal means it has as many', () => {
  const seen = { refused: 0, beyondFirstRing: 0 };
  fc.assert(
    fc.property(traffic, fc.boolean(), (list, changes) => {
      const limits = new RateLimits();
      const admitted: number[] = [];
      let now = 0;
      let most = list[0]?.limit ?? 10;
      for (const step of list) {
        now += step.gap;
        if (changes) most = step.limit ?? most;
        for (let i = 0; i < step.burst; i += 1) {
          const refusal = limits.admit('a', { ...NONE, requestsPerMinute: most }, () => UNSPENT, now, NOON);
          const inMinute = admitted.filter((at) => at > now - MINUTE).length;
          if (refusal === null) {
            expect(inMinute).toBeLessThan(most);
            admitted.push(now);
            limits.release('a');
            if (inMinute > 16) seen.beyondFirstRing += 1;
          } else {
            expect(inMinute).toBeGreaterThanOrEqual(most);
            seen.refused += 1;
          }
        }
      }
    }),
  );
  expect(seen.refused).toBeGreaterThan(500);
  expect(seen.beyondFirstRing).toBeGreaterThan(100);
});

test('a request is admitted only below the tokens of its last 60 s, and refused only above those of the last 61', () => {
  const seen = { refused: 0, admitted: 0 };
  const work = fc.array(fc.record({ gap, tokens: fc.nat(50), inFlight: fc.integer({ min: 1, max: 4 }) }), {
    minLength: 1,
    maxLength: 60,
    size: 'max',
  });
  fc.assert(
    fc.property(work, fc.integer({ min: 1, max: 120 }), (list, most) => {
      const limits = new RateLimits();
      const charged: Charge[] = [];
      let now = 0;
      const within = (ms: number) =>
        charged.filter(({ at }) => at > now - ms).reduce((sum, { tokens }) => sum + tokens, 0);
      for (const { gap: apart, tokens, inFlight } of list) {
        now += apart;
        let admitted = 0;
        for (let i = 0; i < inFlight; i += 1) {
          const refusal = limits.admit('a', { ...NONE, tokensPerMinute: most }, () => UNSPENT, now, NOON);
          if (refusal === null) {
            expect(within(MINUTE)).toBeLessThan(most);
            admitted += 1;
          } else {
            expect(within(MINUTE + 1000)).toBeGreaterThanOrEqual(most);
            seen.refused += 1;
          }
        }
        seen.admitted += admitted;
        now += apart / 10;
        for (let i = 0; i < admitted; i += 1) {
          limits.charge('a', tokens, now);
          limits.release('a');
          charged.push({ at: now, tokens });
        }
        // Over by no more than what was in flight.
        if (admitted > 0) expect(within(MINUTE)).toBeLessThan(most + admitted * tokens);
      }
    }),
  );
  expect(seen.refused).toBeGreaterThan(100);
  expect(seen.admitted).toBeGreaterThan(500);
});

test('after the wait it was told, and not a second earlier, a request is admitted if nothing else happened', () => {
  let waited = 0;
  const before = fc.array(fc.record({ gap: fc.nat(9000), tokens: fc.nat(20) }), { maxLength: 20 });
  fc.assert(
    fc.property(
      before,
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 1, max: 60 }),
      (list, most, tokens) => {
        const own = { ...NONE, requestsPerMinute: most, tokensPerMinute: tokens };
        const ask = (limits: RateLimits, at: number) => limits.admit('a', own, () => UNSPENT, at, NOON);
        const history = () => {
          const limits = new RateLimits();
          let now = 0;
          for (const one of list) {
            now += one.gap;
            if (ask(limits, now) !== null) continue;
            limits.charge('a', one.tokens, now);
            limits.release('a');
          }
          return { limits, now };
        };
        const { limits, now } = history();
        const refusal = ask(limits, now);
        if (refusal === null) return;
        waited += 1;
        expect(ask(limits, now + refusal.retryAfterSecs * 1000)).toBeNull();
        if (refusal.retryAfterSecs > 1) {
          expect(ask(history().limits, now + (refusal.retryAfterSecs - 1) * 1000)).not.toBeNull();
        }
      },
    ),
    { numRuns: 500 },
  );
  expect(waited).toBeGreaterThan(100);
});

test('as many requests are open as may be, never more, and all places are free when all have ended', () => {
  let refused = 0;
  let flips = 0;
  const steps = fc.array(
    fc.record({
      do: fc.constantFrom('admit', 'admit', 'release', 'flip'),
      limit: fc.option(fc.integer({ min: 1, max: 5 })),
    }),
    { maxLength: 80, size: 'max' },
  );
  fc.assert(
    fc.property(steps, (list) => {
      const limits = new RateLimits();
      let limit: RateLimit = { ...NONE, concurrent: 3 };
      let open = 0;
      let wasUnlimited = false;
      for (const step of list) {
        if (step.do === 'flip') {
          limit = { ...NONE, concurrent: step.limit };
          flips += 1;
        } else if (step.do === 'release') {
          if (open === 0) continue;
          limits.release('a');
          open -= 1;
        } else {
          const refusal = limits.admit('a', limit, () => UNSPENT, 0, NOON);
          // Those from a time without limits take no place.
          if (limit.concurrent === null) wasUnlimited = true;
          if (!wasUnlimited) expect(refusal === null).toBe(open < (limit.concurrent as number));
          if (refusal === null) open += 1;
          else refused += 1;
        }
      }
      for (; open > 0; open -= 1) limits.release('a');
      const own = { ...NONE, concurrent: 4 };
      const asked = Array.from({ length: 6 }, () => limits.admit('a', own, () => UNSPENT, 0, NOON)?.limit);
      expect(asked).toEqual([undefined, undefined, undefined, undefined, 'concurrent', 'concurrent']);
    }),
    { numRuns: 300 },
  );
  expect(refused).toBeGreaterThan(100);
  expect(flips).toBeGreaterThan(100);
});

test('requests from before a limit was set free at most as many places of others as they were', () => {
  const limits = new RateLimits();
  const own = { ...NONE, concurrent: 2 };
  const ask = (limit: RateLimit) => limits.admit('a', limit, () => UNSPENT, 0, NOON);
  for (let i = 0; i < 3; i += 1) expect(ask(NONE)).toBeNull();
  expect([ask(own), ask(own), ask(own)?.limit]).toEqual([null, null, 'concurrent']);
  for (let i = 0; i < 3; i += 1) limits.release('a');
  expect([ask(own), ask(own), ask(own)?.limit]).toEqual([null, null, 'concurrent']);
});

test('a key is forgotten once its requests have ended and its windows are empty, whoever asks next', () => {
  const keys = fc.array(fc.record({ gap: fc.nat(500), tokens: fc.nat(3), limit }), {
    maxLength: 60,
    size: 'max',
  });
  let most = 0;
  fc.assert(
    fc.property(keys, (list) => {
      const limits = new RateLimits();
      const open: string[] = [];
      let now = 0;
      for (const [i, { gap: apart, tokens, limit: own }] of list.entries()) {
        now += apart;
        if (limits.admit(`k${i}`, own, () => UNSPENT, now, NOON) !== null) continue;
        limits.charge(`k${i}`, tokens, now);
        open.push(`k${i}`);
      }
      most = Math.max(most, limits.size);
      now += MINUTE + 1000;
      const counted = limits.size;
      const look = (times: number) => {
        for (let i = 0; i < times; i += 1) {
          expect(limits.admit('free', NONE, () => UNSPENT, now, NOON)).toBeNull();
          limits.charge('free', 5, now);
          limits.release('free');
        }
      };
      look(200);
      // Those that are open stay.
      expect(limits.size).toBe(counted);
      for (const id of open) limits.release(id);
      look(200);
      expect(limits.size).toBe(0);
    }),
  );
  expect(most).toBeGreaterThan(20);
});

test('a key without any limit is not remembered, and neither is one whose first request is refused', () => {
  const limits = new RateLimits();
  limits.admit('a', NONE, () => UNSPENT, 0, NOON);
  limits.charge('a', 100, 0);
  expect(limits.size).toBe(0);
  limits.release('a');
  const spent = { ...NONE, concurrent: 1, tokensPerDay: 5 };
  expect(limits.admit('b', spent, () => ({ today: 5, month: 5 }), 0, NOON)?.limit).toBe('tokensPerDay');
  expect(limits.size).toBe(0);
});

test('of ever new keys no more are remembered than a few times those of the last minute', () => {
  const limits = new RateLimits();
  const own = { ...NONE, requestsPerMinute: 5 };
  for (let i = 0; i < 20_000; i += 1) {
    expect(limits.admit(`k${i}`, own, () => UNSPENT, i * 600, NOON)).toBeNull();
    limits.release(`k${i}`);
    expect(limits.size).toBeLessThan(6 * 100);
  }
});

const ZONES = [
  'UTC',
  'Europe/Berlin',
  'America/Santiago',
  'Africa/Cairo',
  'Australia/Lord_Howe',
  'America/Havana',
];

test('the wait for tokens of a day ends with the local day, that for those of a month with the month', () => {
  const { TZ } = process.env;
  // Also hours in which the clock is changed: at midnight in Santiago and Cairo, at one to midnight in Havana.
  const anywhen = fc.oneof(
    fc.date({ min: new Date('2024-01-01'), max: new Date('2027-12-31'), noInvalidDate: true }).map(Number),
    fc
      .constantFrom(
        '2025-09-07T03:30Z',
        '2025-04-05T20:00Z',
        '2025-04-24T21:30Z',
        '2025-10-30T20:30Z',
        '2025-11-02T04:30Z',
        '2025-03-29T23:30Z',
        '2025-10-25T23:30Z',
      )
      .map((text) => Date.parse(text)),
  );
  try {
    fc.assert(
      fc.property(fc.constantFrom(...ZONES), anywhen, (zone, now) => {
        process.env.TZ = zone;
        const ask = (limit: Partial<RateLimit>) =>
          new RateLimits().admit('a', { ...NONE, ...limit }, () => ({ today: 9, month: 9 }), 0, now);
        const dayOf = (at: number) => new Date(at).toDateString();
        const monthOf = (at: number) => new Date(at).getMonth();
        for (const [limit, spanOf] of [
          [{ tokensPerDay: 9 }, dayOf],
          [{ tokensPerMonth: 9 }, monthOf],
        ] as const) {
          const secs = ask(limit)?.retryAfterSecs as number;
          expect(secs).toBeGreaterThanOrEqual(1);
          expect(spanOf(now + secs * 1000)).not.toBe(spanOf(now));
          expect(spanOf(now + secs * 1000 - 1000)).toBe(spanOf(now));
        }
        const both = ask({ tokensPerDay: 9, tokensPerMonth: 9 });
        expect(both?.retryAfterSecs).toBe(ask({ tokensPerMonth: 9 })?.retryAfterSecs);
        expect(new Intl.DateTimeFormat().resolvedOptions().timeZone).toBe(zone);
      }),
      { numRuns: 400 },
    );
  } finally {
    if (TZ === undefined) delete process.env.TZ;
    else process.env.TZ = TZ;
  }
});

test('tokens that are no count, or negative, change nothing', () => {
  const limits = new RateLimits();
  const limit = { ...NONE, tokensPerMinute: 10 };
  limits.admit('a', limit, () => UNSPENT, 0, NOON);
  limits.charge('a', 4, 0);
  for (const tokens of [Number.NaN, Number.POSITIVE_INFINITY, -3, 0.5, 1e300]) limits.charge('a', tokens, 0);
  expect(limits.headers('a', limit, 0)[3]).toBe('6');
});

test('tokens that are charged with a time a little behind count as long as the newest', () => {
  const limits = new RateLimits();
  const limit = { ...NONE, tokensPerMinute: 10 };
  const remaining = (mono: number) => limits.headers('a', limit, mono)[3];
  limits.admit('a', limit, () => UNSPENT, 5000, NOON);
  limits.charge('a', 3, 5000);
  limits.charge('a', 4, 2500);
  expect(remaining(65_999)).toBe('3');
  expect(remaining(66_000)).toBe('10');
});

test('a message names the limit and its number', () => {
  const messages = (
    [
      [{ requestsPerMinute: 10 }, 10],
      [{ requestsPerMinute: 1 }, 1],
      [{ tokensPerMinute: 1000 }, 1000],
      [{ concurrent: 2 }, 2],
      [{ tokensPerDay: 5 }, 0],
      [{ tokensPerMonth: 6 }, 0],
    ] as const
  ).map(([own, uses]) => {
    const limits = new RateLimits();
    const limit = { ...NONE, ...own };
    for (let i = 0; i < uses && i < 10; i += 1) limits.admit('a', limit, () => UNSPENT, 0, NOON);
    limits.charge('a', 1000, 0);
    return limits.admit('a', limit, () => ({ today: 9, month: 9 }), 0, NOON)?.message;
  });
  expect(messages).toEqual([
    'this key may make 10 requests a minute',
    'this key may make 1 request a minute',
    'this key may use 1000 tokens a minute',
    'this key may have 2 requests open at a time',
    'this key may use 5 tokens a day',
    'this key may use 6 tokens a month',
  ]);
});

test('the headers are those that OpenAI sends, with the times in which Go writes durations', () => {
  const limits = new RateLimits();
  const limit = { ...NONE, requestsPerMinute: 10, tokensPerMinute: 5000 };
  const resets = (mono: number) => {
    const headers = limits.headers('a', limit, mono);
    return [headers[5], headers[11]];
  };
  expect(resets(500)).toEqual(['0s', '0s']);
  limits.admit('a', limit, () => UNSPENT, 1000, NOON);
  limits.charge('a', 6000, 1000);
  expect(limits.headers('a', limit, 1000)).toEqual([
    ...['x-ratelimit-limit-requests', '10'],
    ...['x-ratelimit-remaining-requests', '9'],
    ...['x-ratelimit-reset-requests', '1m0s'],
    ...['x-ratelimit-limit-tokens', '5000'],
    ...['x-ratelimit-remaining-tokens', '0'],
    ...['x-ratelimit-reset-tokens', '1m1s'],
  ]);
  expect(resets(1500)).toEqual(['59.5s', '1m0.5s']);
  expect(resets(43_750)).toEqual(['17.25s', '18.25s']);
  expect(resets(60_880.5)).toEqual(['120ms', '1.12s']);
  expect(resets(60_999.5)).toEqual(['1ms', '1.001s']);
  expect(resets(61_000)).toEqual(['0s', '1s']);
  expect(resets(62_000)).toEqual(['0s', '0s']);
  expect(limits.headers('a', { ...NONE, concurrent: 2 }, 1000)).toEqual([]);
});
