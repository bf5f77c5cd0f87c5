import { Agent, type IncomingHttpHeaders, request } from 'node:http';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type SimulatedEngine, startSimulatedEngine } from '../src/demo/simulated-engine.js';
import type { Fault } from '../src/demo/simulated-faults.js';
import { chatBody } from '../test/support/clients.js';
import { type Api, type LocalServer, pause, startLocal, TEST_KEY, until } from '../test/support/server.js';

const CHAT = '/v1/chat/completions';
const ENV = {
  TROUPE_HEALTH_INTERVAL_MS: '3600000',
  TROUPE_FIRST_BYTE_TIMEOUT_MS: '300',
  TROUPE_IDLE_TIMEOUT_MS: '2000',
  TROUPE_QUEUE_TIMEOUT_MS: '1500',
};

interface Box {
  maxConcurrency: number | null;
  tokensPerSecond: number;
  /** Its port is closed from the start, which no health check has noticed yet. */
  dead: boolean;
}

interface Asked {
  /** ms after the one before. */
  gap: number;
  what: 'chat' | 'unknown model' | 'no model';
  stream: boolean;
  /** What the first endpoint that is asked next does, whoever asks. */
  fault: Fault | null;
  leaves: { after: 'sending' | 'first byte'; ms: number } | null;
}

interface Life {
  boxes: Box[];
  asked: Asked[];
}

const status = (code: number): Fault => ({ kind: 'status', status: code });
const fault = fc.oneof(
  { weight: 5, arbitrary: fc.constant(null) },
  {
    weight: 6,
    arbitrary: fc.constantFrom<Fault>(
      { kind: 'refuse' },
      { kind: 'reset' },
      status(500),
      status(503),
      status(400),
      status(429),
      { kind: 'hang' },
      { kind: 'hang_body' },
      { kind: 'cut', afterTokens: 3 },
      { kind: 'reset', afterTokens: 3 },
      { kind: 'error_event', afterTokens: 2 },
      { kind: 'garbage' },
      { kind: 'close_idle' },
    ),
  },
);
const leaves = fc.oneof(
  { weight: 3, arbitrary: fc.constant(null) },
  {
    weight: 1,
    arbitrary: fc.record({ after: fc.constant('sending' as const), ms: fc.oneof(fc.nat(30), fc.nat(600)) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ after: fc.constant('first byte' as const), ms: fc.nat(60) }),
  },
);
const asked: fc.Arbitrary<Asked> = fc
  .record({
    gap: fc.oneof(fc.constant(0), fc.nat(40)),
    what: fc.oneof(
      { weight: 18, arbitrary: fc.constant('chat' as const) },
      { weight: 1, arbitrary: fc.constantFrom('unknown model' as const, 'no model' as const) },
    ),
    stream: fc.boolean(),
    fault,
    leaves,
  })
  // What is refused at the door is refused too fast to be left.
  .map((one) => (one.what === 'chat' ? one : { ...one, fault: null, leaves: null }));
const lives: fc.Arbitrary<Life> = fc.record({
  boxes: fc.array(
    fc.record({
      maxConcurrency: fc.constantFrom(null, 1, 2),
      tokensPerSecond: fc.constantFrom(0, 200),
      dead: fc.nat(7).map((n) => n === 0),
    }),
    { minLength: 1, maxLength: 3, size: 'max' },
  ),
  asked: fc.array(asked, { minLength: 10, maxLength: 20, size: 'max' }),
});

const PLAIN: Asked = { gap: 0, what: 'chat', stream: true, fault: null, leaves: null };
const ONE_BY_ONE: Box = { maxConcurrency: 1, tokensPerSecond: 200, dead: false };
/** Lives that chance seldom draws, or that every law needs. */
const SELECTED: [Life][] = [
  // The second fails at the other endpoint, waits for the one that hangs, and leaves meanwhile.
  [
    {
      boxes: [ONE_BY_ONE, ONE_BY_ONE],
      asked: [
        { ...PLAIN, fault: { kind: 'hang' } },
        { ...PLAIN, gap: 40, fault: status(500), leaves: { after: 'sending', ms: 120 } },
      ],
    },
  ],
  // One waits for its turn; one is retried; one leaves in its stream; one that nobody answers.
  [
    {
      boxes: [ONE_BY_ONE, ONE_BY_ONE],
      asked: [
        { ...PLAIN, leaves: { after: 'first byte', ms: 20 } },
        { ...PLAIN, fault: { kind: 'reset' } },
        PLAIN,
        { ...PLAIN, gap: 40, fault: { kind: 'cut', afterTokens: 3 } },
        { ...PLAIN, what: 'unknown model' },
      ],
    },
  ],
];

/** A client's request and what it got. */
interface Told extends Asked {
  id: string;
  /** It went away by itself. */
  left: boolean;
  /** Null before a head. */
  status: number | null;
  headers: IncomingHttpHeaders;
  text: string;
  /** When the first byte of the body came, monotonic ms. */
  firstByteAt: number;
  /** The body ended in order. */
  whole: boolean;
}

interface Attempt {
  endpoint_id: string;
  endpoint_name: string;
  outcome: 'success' | 'failure' | 'cancelled';
  status_code: number | null;
  error: string | null;
}

interface Row {
  id: string;
  request_id: string;
  endpoint_id: string | null;
  outcome: 'success' | 'failure' | 'cancelled';
  status: { type: 'success' | 'error' };
  status_code: number;
  attempts: Attempt[];
}

/** One request as it stood at one look, which was begun `at` (monotonic ms). */
interface Look {
  at: number;
  phase: 'queued' | 'connecting' | 'waiting' | 'streaming';
  attempts: number;
  endpoint_id: string | null;
}

type Step = 'success' | 'failure';

/** A request's life in one number that only grows: a retry connects anew, or is queued before it does. */
function placeOf({ phase, attempts }: Look): number {
  const round = 3 * attempts;
  return { connecting: round - 2, waiting: round - 1, queued: round, streaming: Number.MAX_VALUE }[phase];
}

/** What an attempt is to the counters of its endpoint. A client that left with a 2xx had been served. */
function stepOf(row: Row, attempt: Attempt): Step | null {
  if (attempt.outcome !== 'cancelled') return attempt.outcome;
  const served = attempt === row.attempts.at(-1) && row.outcome === 'cancelled' && row.status_code < 300;
  return served ? 'success' : null;
}

/** What a row is to the timeline. */
function timelineOf({ outcome, status_code }: Row): Step | null {
  if (outcome !== 'cancelled') return outcome;
  return status_code < 300 ? 'success' : null;
}

/** The laws of a row by itself. */
function expectSound(row: Row): void {
  const { attempts, outcome, status_code } = row;
  const last = attempts.at(-1);
  const ids = attempts.map(({ endpoint_id }) => endpoint_id);
  expect(new Set(ids).size).toBe(ids.length);
  expect(row.endpoint_id).toBe(last?.endpoint_id ?? null);
  for (const one of attempts.slice(0, -1)) {
    expect(['failure', 'cancelled']).toContain(one.outcome);
    expect(one.error).not.toBeNull();
  }
  for (const one of attempts) {
    if (one.outcome === 'success') expect([one.error, one.status_code]).toEqual([null, 200]);
    if (one.outcome === 'failure') expect(one.error).not.toBeNull();
  }
  expect(row.status.type).toBe(timelineOf(row) === 'success' ? 'success' : 'error');
  switch (outcome) {
    case 'success':
      expect([last?.outcome, status_code]).toEqual(['success', 200]);
      break;
    case 'failure':
      expect(last?.outcome).not.toBe('success');
      // Nobody was asked: there was nobody, or it waited too long.
      if (last === undefined) expect(status_code).toBe(503);
      break;
    case 'cancelled':
      expect([200, 499]).toContain(status_code);
      expect(last?.outcome).not.toBe('success');
      // Who was sent a head was sent it by an endpoint.
      if (status_code === 200) expect(last?.outcome).toBe('cancelled');
  }
}

/** The laws of a row and of what its client got. */
function expectFits(row: Row, told: Told): void {
  const { attempts } = row;
  if (!told.left) {
    const isWhole = told.whole && told.status === 200 && isAnswer(told);
    expect(row.outcome).toBe(isWhole ? 'success' : 'failure');
    expect(row.status_code).toBe(told.status);
    expect(told.headers['x-troupe-attempts']).toBe(String(attempts.length));
    const names = attempts.map(({ endpoint_name }) => endpoint_name);
    const named = told.headers['x-troupe-endpoint'];
    if (names.length === 0) expect(named).toBeUndefined();
    else if (told.status === 200) expect(named).toBe(names.at(-1));
    else expect(names).toContain(named);
    return;
  }
  // Whoever had a head is not told that there was none; whoever had none may have missed what was on its way.
  if (told.status !== null) expect(row.status_code).toBe(told.status);
}

/** A whole answer in its protocol: the chunks of a stream and its last word, or the JSON. */
function isAnswer({ stream, text }: Told): boolean {
  if (stream) return text.includes('data: [DONE]') && !text.includes('"error"');
  try {
    return JSON.parse(text).object === 'chat.completion';
  } catch {
    return false;
  }
}

/** The laws of what was seen of a request while it was under way. */
function expectForward(looks: Look[], row: Row | undefined, told: Told): void {
  for (const [i, look] of looks.entries()) {
    const before = looks[i - 1];
    if (before !== undefined) {
      const order = `${before.phase} ${before.attempts} → ${look.phase} ${look.attempts}`;
      expect([order, placeOf(look) >= placeOf(before)]).toEqual([order, true]);
      expect(look.attempts).toBeGreaterThanOrEqual(before.attempts);
    }
    expect(look.endpoint_id === null).toBe(look.phase === 'queued');
    if (told.status === 200 && look.at > told.firstByteAt) expect(look.phase).toBe('streaming');
    met[look.phase] += 1;
    if (row === undefined || look.endpoint_id === null) continue;
    expect(look.endpoint_id).toBe(row.attempts[look.attempts - 1]?.endpoint_id);
  }
}

/** Sends one request, and leaves if it is to; resolves when nothing more comes. */
function ask(url: string, id: string, one: Asked): Promise<Told> {
  const told: Told = {
    ...one,
    id,
    left: false,
    status: null,
    headers: {},
    text: '',
    firstByteAt: Infinity,
    whole: false,
  };
  const { stream, what } = one;
  const model = what === 'unknown model' ? 'nobody has it' : 'sim-small';
  const body = what === 'no model' ? '{"messages":[]}' : chatBody(model, { stream });
  return new Promise((resolve) => {
    const sent = request(url + CHAT, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-request-id': id, 'x-api-key': TEST_KEY },
      agent: new Agent({ keepAlive: false }),
    });
    const leave = () => {
      told.left = !told.whole;
      sent.destroy();
    };
    const leaveAfter = (when: 'sending' | 'first byte') => {
      if (one.leaves?.after === when) setTimeout(leave, one.leaves.ms).unref();
    };
    sent.on('error', () => {});
    sent.on('close', () => resolve(told));
    sent.on('response', (response) => {
      told.status = response.statusCode ?? 0;
      told.headers = response.headers;
      response.once('data', () => {
        told.firstByteAt = performance.now();
        leaveAfter('first byte');
      });
      response.on('data', (chunk) => {
        told.text += chunk;
      });
      response.on('end', () => {
        told.whole = response.complete;
      });
      response.on('error', () => {});
    });
    sent.end(body);
    leaveAfter('sending');
  });
}

/** Looks at the requests under way again and again, until it is told to stop; answers what it saw of each. */
function watch(server: Api): () => Promise<Map<string, Look[]>> {
  const seen = new Map<string, Look[]>();
  let on = true;
  const watching = (async () => {
    while (on) {
      const at = performance.now();
      for (const { request_id, phase, attempts, endpoint_id } of await liveOf(server)) {
        const looks = seen.get(request_id) ?? [];
        looks.push({ at, phase, attempts, endpoint_id });
        seen.set(request_id, looks);
      }
      await pause(3);
    }
  })();
  return async () => {
    on = false;
    await watching;
    return seen;
  };
}

async function liveOf(server: Api): Promise<(Omit<Look, 'at'> & { request_id: string })[]> {
  return (await server.get('/api/dashboard/requests/live')).json;
}

async function rowsOf(server: Api): Promise<Row[]> {
  return (await server.get('/api/dashboard/request-responses?limit=100')).json.records;
}

interface Numbers {
  endpoints: {
    id: string;
    total_requests: number;
    successful_requests: number;
    failed_requests: number;
    active_requests: number;
  }[];
  stats: Record<string, unknown>;
}

/** All that can be read once nothing is under way any more, and nobody comes late. */
async function readAtRest(server: Api, boxes: SimulatedEngine[]): Promise<Numbers & { rows: Row[] }> {
  let rows: Row[] = [];
  let numbers: Numbers | undefined;
  await until(
    async () => {
      await pause(20);
      rows = await rowsOf(server);
      numbers = (await server.get('/api/dashboard/overview')).json;
      const live = await liveOf(server);
      const again = await rowsOf(server);
      const busy = boxes.reduce((sum, { active }) => sum + active, 0);
      return live.length === 0 && busy === 0 && again.length === rows.length;
    },
    15_000,
    'rest',
  );
  return { rows, ...(numbers as Numbers) };
}

/** What was met in all lives together: a law that had nothing to say would be none. */
const met = { success: 0, failure: 0, cancelled: 0, retried: 0, none: 0, ...noPhases() };

function noPhases(): Record<Look['phase'], number> {
  return { queued: 0, connecting: 0, waiting: 0, streaming: 0 };
}

async function live({ boxes: drawn, asked }: Life, run: number): Promise<void> {
  const boxes = await Promise.all(
    drawn.map(({ tokensPerSecond }) => startSimulatedEngine({ tokensPerSecond, firstTokenMs: 5 })),
  );
  const local = await startLocal({ env: ENV });
  try {
    const next: Fault[] = [];
    const boxOf = new Map<string, SimulatedEngine>();
    for (const [i, box] of boxes.entries()) {
      // One list for all: whoever is asked first takes the fault.
      box.faults = { next, always: null, models: null };
      const { maxConcurrency, dead } = drawn[i] as Box;
      const { id } = await local.register(`box ${i}`, box.url, { max_concurrency: maxConcurrency });
      boxOf.set(id, box);
      if (dead) await box.stop();
    }
    const stopWatching = watch(local);
    const asking: Promise<Told>[] = [];
    for (const [i, one] of asked.entries()) {
      if (one.gap > 0) await pause(one.gap);
      if (one.fault !== null) next.push(one.fault);
      asking.push(ask(local.url, `run-${run}-request-${i}`, one));
    }
    const told = await Promise.all(asking);
    const seen = await stopWatching();
    expectLaws(told, seen, await readAtRest(local, boxes), boxOf);
    await expectToday(local, boxOf);
  } finally {
    await end(local, boxes);
  }
}

async function end({ server }: LocalServer, boxes: SimulatedEngine[]): Promise<void> {
  await server.stop();
  await Promise.all(boxes.map((box) => box.stop()));
}

function expectLaws(
  told: Told[],
  seen: Map<string, Look[]>,
  { rows, endpoints, stats }: Numbers & { rows: Row[] },
  boxOf: Map<string, SimulatedEngine>,
): void {
  for (const one of told) {
    const own = rows.filter(({ request_id }) => request_id === one.id);
    const [row] = own;
    const askedOf = [...boxOf].filter(([, box]) => box.requests.some((each) => isOf(each.headers, one.id)));
    if (one.what !== 'chat') {
      expect([own, one.status]).toEqual([[], one.what === 'no model' ? 400 : 404]);
      met.none += 1;
    } else if (!one.left || one.status !== null || seen.has(one.id) || askedOf.length > 0) {
      // One that left before anybody knew of it has none or one.
      expect(own).toHaveLength(1);
    }
    expect(own.length).toBeLessThanOrEqual(1);
    const looks = seen.get(one.id) ?? [];
    expectForward(looks, row, one);
    if (row === undefined) continue;
    expectSound(row);
    expectFits(row, one);
    const tried = row.attempts.map(({ endpoint_id }) => endpoint_id);
    for (const [id] of askedOf) expect(tried).toContain(id);
    if (row.outcome === 'success') expect(askedOf.map(([id]) => id)).toContain(row.endpoint_id);
    expect(Math.max(0, ...looks.map(({ attempts }) => attempts))).toBeLessThanOrEqual(tried.length);
    met[row.outcome] += 1;
    if (tried.length > 1) met.retried += 1;
  }
  // Nobody else has a row, and each has been settled once.
  expect(rows.every(({ request_id }) => told.some(({ id }) => id === request_id))).toBe(true);
  expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);

  const steps = rows.flatMap((row) =>
    row.attempts.map((attempt) => ({ id: attempt.endpoint_id, step: stepOf(row, attempt) })),
  );
  const count = (list: (Step | null)[]) => [
    list.filter((step) => step === 'success').length,
    list.filter((step) => step === 'failure').length,
  ];
  for (const { id, ...of } of endpoints) {
    const [success, failed] = count(steps.filter((one) => one.id === id).map(({ step }) => step));
    expect(of).toMatchObject({
      successful_requests: success,
      failed_requests: failed,
      total_requests: (success as number) + (failed as number),
      active_requests: 0,
    });
  }
  const [success, failed] = count(steps.map(({ step }) => step));
  const [good, bad] = count(rows.map(timelineOf));
  expect(stats).toMatchObject({
    successful_requests: success,
    failed_requests: failed,
    total_active_requests: 0,
    queued_requests: 0,
    requests_60m: { success: good, error: bad },
  });
}

/** The daily rows say what the counters say. */
async function expectToday(server: Api, boxOf: Map<string, SimulatedEngine>): Promise<void> {
  const endpoints: Numbers['endpoints'] = (await server.get('/api/dashboard/endpoints')).json;
  for (const id of boxOf.keys()) {
    const today = (await server.get(`/api/endpoints/${id}/today-stats`)).json;
    const { successful_requests, failed_requests } = endpoints.find(
      (one) => one.id === id,
    ) as object as Record<string, number>;
    expect(today).toMatchObject({ successful_requests, failed_requests });
  }
}

function isOf(headers: IncomingHttpHeaders, id: string): boolean {
  return headers['x-request-id'] === id;
}

test('whatever endpoints and clients do, a request is settled once, its row tells its attempts, and every number is the fold of the rows', {
  timeout: 240_000,
}, async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(lives, (life) => {
      run += 1;
      return live(life, run);
    }),
    // A life does not repeat itself to the millisecond: smaller ones would say little.
    { numRuns: 10, endOnFailure: true, examples: SELECTED },
  );
  // A connection to this machine is there before anybody can look.
  const { connecting: _, ...sure } = met;
  for (const [what, count] of Object.entries(sure)) expect([what, count > 0]).toEqual([what, true]);
});
