import { Agent } from 'node:http';
import { expect, onTestFinished, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import type { Fault } from '../src/demo/simulated-faults.js';
import { chatBody, payloads, type RawReply, rawRequest, startRequest } from './support/clients.js';
import { engine, type LocalServer, startLocal, until } from './support/server.js';

/** When a fault shows to whoever reads the answer as it comes. */
type Shows =
  /** Not at all: the answer is right. */
  | 'never'
  /** Before the first byte of an answer that is worth passing on: somebody else may do better. */
  | 'first'
  /** In an answer that is the client's business. */
  | 'passed'
  /** When the client has begun to read. */
  | 'within'
  /** As an error event that the endpoint itself has sent. */
  | 'event';

interface Row {
  name: string;
  fault: Fault;
  stream: Shows;
  whole: Shows;
  /** It leaves the circuit alone: a refusal, or the wish to be left alone for a while. */
  unmarked?: true;
  /** It asks to be left alone, so that it is asked once; one that does not say how long, where there are others. */
  rests?: 'said' | 'unsaid';
  /** It ends by a deadline. */
  waits?: true;
  /** Nobody listens there. */
  stopped?: true;
}

const status = (code: number, headers?: Record<string, string>): Fault => ({
  kind: 'status',
  status: code,
  ...(headers === undefined ? {} : { headers }),
});

const ROWS: Row[] = [
  { name: 'refuse', fault: { kind: 'refuse' }, stream: 'first', whole: 'first' },
  { name: 'a closed port', fault: { kind: 'refuse' }, stream: 'first', whole: 'first', stopped: true },
  { name: 'hang', fault: { kind: 'hang' }, stream: 'first', whole: 'first', waits: true },
  { name: 'hang_body', fault: { kind: 'hang_body' }, stream: 'first', whole: 'first', waits: true },
  { name: 'slow_head', fault: { kind: 'slow_head', ms: 30 }, stream: 'never', whole: 'never' },
  { name: 'slow_body', fault: { kind: 'slow_body', ms: 30 }, stream: 'never', whole: 'never' },
  { name: 'slow_chunks', fault: { kind: 'slow_chunks', ms: 2 }, stream: 'never', whole: 'never' },
  { name: 'reset', fault: { kind: 'reset' }, stream: 'first', whole: 'first' },
  {
    name: 'reset after 3 tokens',
    fault: { kind: 'reset', afterTokens: 3 },
    stream: 'within',
    whole: 'within',
  },
  { name: 'cut after the head', fault: { kind: 'cut', afterBytes: 0 }, stream: 'first', whole: 'first' },
  { name: 'cut after 100 bytes', fault: { kind: 'cut', afterBytes: 100 }, stream: 'within', whole: 'within' },
  { name: 'cut in the middle', fault: { kind: 'cut' }, stream: 'within', whole: 'within' },
  {
    name: 'end_early after 3 tokens',
    fault: { kind: 'end_early', afterTokens: 3 },
    stream: 'within',
    whole: 'never',
  },
  { name: 'no_done', fault: { kind: 'no_done' }, stream: 'never', whole: 'never' },
  {
    name: 'stall after 3 tokens',
    fault: { kind: 'stall', afterTokens: 3 },
    stream: 'within',
    whole: 'within',
    waits: true,
  },
  { name: 'garbage', fault: { kind: 'garbage' }, stream: 'within', whole: 'within' },
  { name: 'half_json', fault: { kind: 'half_json' }, stream: 'within', whole: 'within' },
  { name: 'status 400', fault: status(400), stream: 'passed', whole: 'passed', unmarked: true },
  { name: 'status 408', fault: status(408), stream: 'first', whole: 'first', unmarked: true },
  { name: 'status 409', fault: status(409), stream: 'first', whole: 'first', unmarked: true },
  { name: 'status 425', fault: status(425), stream: 'first', whole: 'first', unmarked: true },
  {
    name: 'status 429',
    fault: status(429),
    stream: 'first',
    whole: 'first',
    unmarked: true,
    rests: 'unsaid',
  },
  {
    name: 'status 429, Retry-After',
    fault: status(429, { 'retry-after': '9' }),
    stream: 'first',
    whole: 'first',
    unmarked: true,
    rests: 'said',
  },
  { name: 'status 500', fault: status(500), stream: 'first', whole: 'first' },
  { name: 'status 502', fault: status(502), stream: 'first', whole: 'first' },
  { name: 'status 503', fault: status(503), stream: 'first', whole: 'first' },
  {
    name: 'status 503, Retry-After',
    fault: status(503, { 'retry-after': '9' }),
    stream: 'first',
    whole: 'first',
    unmarked: true,
    rests: 'said',
  },
  { name: 'status 504', fault: status(504), stream: 'first', whole: 'first' },
  {
    name: 'redirect',
    fault: { kind: 'redirect', location: 'http://127.0.0.1:9/v1/chat/completions' },
    stream: 'first',
    whole: 'first',
  },
  { name: 'no_usage', fault: { kind: 'no_usage' }, stream: 'never', whole: 'never' },
  {
    name: 'reject_stream_options',
    fault: { kind: 'reject_stream_options' },
    stream: 'never',
    whole: 'never',
  },
  {
    name: 'error_event after 3 tokens',
    fault: { kind: 'error_event', afterTokens: 3 },
    stream: 'event',
    whole: 'never',
  },
  {
    name: 'error_event, then [DONE]',
    fault: { kind: 'error_event', afterTokens: 3, thenDone: true },
    stream: 'event',
    whole: 'never',
  },
  {
    name: 'wrong_content_type',
    fault: { kind: 'wrong_content_type', contentType: 'text/plain' },
    stream: 'never',
    whole: 'never',
  },
  // JSON is passed on whatever it says; a stream lacks the end that its protocol has.
  { name: 'wrong_protocol', fault: { kind: 'wrong_protocol' }, stream: 'within', whole: 'never' },
  { name: 'late_end', fault: { kind: 'late_end', ms: 30 }, stream: 'never', whole: 'never' },
  { name: 'close_idle', fault: { kind: 'close_idle' }, stream: 'never', whole: 'never' },
  {
    name: 'pauses_bytes',
    fault: { kind: 'pauses_bytes', bytes: 97, ms: 1 },
    stream: 'never',
    whole: 'never',
  },
];

const KINDS = { stream: true, whole: false } as const;
const COUNTS = [1, 2, 3];
/** Requests per cell: so many failures in a row open a circuit. */
const REQUESTS = 3;
/** Failures make an endpoint look busy; with so many in flight the good ones look busier, and the bad one is asked. */
const HELD = 5;
const PATIENT = { first_byte_ms: 60_000, idle_ms: 60_000 };
const SHORT = {
  TROUPE_CONNECT_TIMEOUT_MS: '400',
  TROUPE_FIRST_BYTE_TIMEOUT_MS: '400',
  TROUPE_IDLE_TIMEOUT_MS: '400',
};

/** What was observed of one fault, one kind of request and one number of endpoints. */
interface Cell {
  count: number;
  client: string;
  /** Requests, successes and failures. */
  faulty: string;
  good: string;
  circuit: string;
  upstream: string;
}

const observed = new Map<string, Cell[]>();

test.each(ROWS)(
  '$name, asked first, is what the contract says to client, counters and circuit',
  async (row) => {
    await Promise.all(
      Object.keys(KINDS).map(async (kind) => {
        const server = await startLocal({
          env: { TROUPE_HEALTH_INTERVAL_MS: '600000', ...(row.waits ? SHORT : {}) },
          seams: {
            // Of endpoints that are equal the first is taken; nothing rests or recovers while one looks.
            random: () => 0.999_999,
            clock: { now: () => Date.now(), mono: () => 1_000_000 },
          },
        });
        const cells = await Promise.all(
          COUNTS.map((count) => cellOf(server, row, kind as keyof typeof KINDS, count)),
        );
        const { stats } = (await server.get('/api/dashboard/overview')).json;
        expect([stats.total_active_requests, stats.queued_requests]).toEqual([0, 0]);
        expect((await server.get('/api/dashboard/requests/live')).json).toEqual([]);
        observed.set(`${row.name} ${kind}`, cells);
      }),
    );
  },
);

async function cellOf(server: LocalServer, row: Row, kind: keyof typeof KINDS, count: number): Promise<Cell> {
  const model = `model-${count}`;
  const boxes = await Promise.all(Array.from({ length: count }, () => engine({ models: [model] })));
  const ids: string[] = [];
  for (const [index, { url }] of boxes.entries()) {
    const own = index === 0 ? {} : { deadlines: PATIENT };
    ids.push((await server.register(`${model}-${index}`, url, own)).id);
  }
  const [faulty, ...good] = boxes as [SimulatedEngine, ...SimulatedEngine[]];
  faulty.faults.always = row.fault;
  if (row.stopped) await faulty.stop();
  const letGo = await Promise.all(good.map((box, index) => hold(server, box, ids[index + 1] ?? '', model)));

  const body = chatBody(model, { stream: KINDS[kind] });
  const seen: string[] = [];
  for (let i = 0; i < REQUESTS; i += 1) seen.push(await ask(server, body, KINDS[kind]));
  expect(await activeOf(server, ids)).toEqual(ids.map((_, index) => (index === 0 ? 0 : HELD)));
  for (const go of letGo) go();
  await until(
    async () => (await activeOf(server, ids)).every((active) => active === 0),
    5000,
    'none in flight',
  );
  await until(() => boxes.every(({ active }) => active === 0), 5000, 'nothing left at the endpoints');

  const list = (await server.get('/api/dashboard/endpoints')).json;
  const [first, ...others] = ids.map((id) => list.find((one: { id: string }) => one.id === id));
  const tried = faulty.requests.filter(({ method }) => method === 'POST');
  expect(tried.length > 0).toBe(row.stopped !== true);
  const sums = [0, 0];
  for (const one of others) {
    sums[0] += one.successful_requests;
    sums[1] += one.failed_requests;
  }
  const cell: Cell = {
    count,
    client: timesOf(seen),
    faulty: `${first.successful_requests} / ${first.failed_requests}`,
    good: count === 1 ? '' : `${sums[0]} / ${sums[1]}`,
    circuit: first.circuit,
    upstream: timesOf(tried.map(({ aborted }) => (aborted ? 'aborted' : 'ended'))),
  };
  expectContract(row, row[kind], kind, cell);
  return cell;
}

/** Requests in flight at a good endpoint, counted nowhere, until they are let go. */
async function hold(server: LocalServer, box: SimulatedEngine, id: string, model: string) {
  box.faults.next = Array.from({ length: HELD }, () => ({ kind: 'hang' }));
  const path = `/api/endpoints/${id}/chat/completions`;
  const sent = box.faults.next.map(() => startRequest(server.url, path, { body: chatBody(model) }));
  await until(() => box.active === HELD, 10_000, 'the held requests');
  return () => {
    for (const one of sent) one.destroy();
  };
}

/** One request; what its client sees in a few words. */
async function ask(server: LocalServer, body: string, stream: boolean): Promise<string> {
  const agent = new Agent({ keepAlive: true });
  onTestFinished(() => agent.destroy());
  const reply = await rawRequest(server.url, '/v1/chat/completions', { body, agent });
  const { socket } = reply.response;
  const complete = await reply.whole;
  const words = reply.status >= 400 ? refusal(reply, complete) : answer(reply, complete, stream);
  if (words.includes('cut') || words.includes(': error event')) {
    expect(reply.text()).not.toContain('[DONE]');
    await until(() => socket.destroyed || socket.readableEnded, 5000, 'the end of the connection');
  }
  return words;
}

function refusal(reply: RawReply, complete: boolean): string {
  expect(complete).toBe(true);
  const { error } = reply.json();
  expect(Object.keys(error).sort()).toEqual(['code', 'message', 'param', 'type']);
  return error.code === null ? `${reply.status} of the endpoint` : `${reply.status} ${error.code}`;
}

function answer(reply: RawReply, complete: boolean, stream: boolean): string {
  expect(reply.status).toBe(200);
  if (!complete) return '200 cut';
  if (!stream) {
    expect(reply.json()).toMatchObject({ model: expect.any(String) });
    return '200 whole';
  }
  const seen = payloads(reply.text());
  const done = seen.at(-1) === '[DONE]';
  // A well-formed stream: each event is JSON, and the last one is not torn.
  const events = (done ? seen.slice(0, -1) : seen).map((event) => JSON.parse(event));
  expect(reply.text().endsWith('\n\n')).toBe(true);
  const error = events.at(-1)?.error;
  if (error === undefined) return done ? '200 whole' : '200 whole, without [DONE]';
  if (error.type !== 'upstream_error') {
    return `200, the error event of the endpoint${done ? ', [DONE]' : ''}`;
  }
  expect(Object.keys(error).sort()).toEqual(['code', 'message', 'param', 'type']);
  return `200: error event ${error.code}${done ? ', [DONE]' : ''}`;
}

async function activeOf(server: LocalServer, ids: string[]): Promise<number[]> {
  const list = (await server.get('/api/dashboard/endpoints')).json;
  return ids.map((id) => list.find((one: { id: string }) => one.id === id).active_requests);
}

/** The same thing three times is said once. */
function timesOf(seen: string[]): string {
  return seen.filter((one, index) => one !== seen[index - 1]).join(', then ');
}

/** Sections 7 and 8 of the contract, for three requests in a row. */
function expectContract(row: Row, shows: Shows, kind: keyof typeof KINDS, cell: Cell): void {
  const about = `${row.name}, ${kind}, ${cell.count} endpoints`;
  const elsewhere = shows === 'first' && cell.count > 1;
  const isRested = row.rests === 'said' || (row.rests === 'unsaid' && cell.count > 1);
  const asked = isRested ? 1 : REQUESTS;
  expect(cell.faulty, about).toBe(shows === 'never' ? `${REQUESTS} / 0` : `0 / ${asked}`);
  if (cell.count > 1) expect(cell.good, about).toBe(elsewhere ? `${REQUESTS} / 0` : '0 / 0');
  expect(cell.circuit, about).toBe(shows === 'never' || row.unmarked ? 'closed' : 'open');
  if (shows === 'never' || elsewhere) expect(cell.client, about).toMatch(/^200 whole(, without \[DONE\])?$/);
  else if (shows === 'first')
    expect(cell.client, about).toMatch(/^(4|5)\d\d [a-z_ ]+(, then 503 no_endpoint_available)?$/);
  else if (shows === 'passed') expect(cell.client, about).toBe('400 of the endpoint');
  else if (shows === 'event') expect(cell.client, about).toMatch(/^200, the error event of the endpoint/);
  else if (kind === 'whole' || row.name === 'half_json') expect(cell.client, about).toBe('200 cut');
  else expect(cell.client, about).toMatch(/^200: error event (upstream_broken|timeout_idle)$/);
  if (row.waits) expect(cell.upstream, about).toBe('aborted');
}

test('the table of faults in docs/faults.md is what was observed', async () => {
  // With a filter on the tests there is nothing to compare.
  if (observed.size < ROWS.length * 2) return;
  await expect(page()).toMatchFileSnapshot('../docs/faults.md');
});

function page(): string {
  const lines = ROWS.flatMap(({ name }) =>
    Object.keys(KINDS).flatMap((kind) =>
      grouped(observed.get(`${name} ${kind}`) ?? []).map(
        ({ counts, cell }) =>
          `| ${[name, kind === 'stream' ? 'yes' : 'no', counts, cell.client, cell.faulty, cell.good, cell.circuit, cell.upstream].join(' | ')} |`,
      ),
    ),
  );
  return `# What comes of each fault

Made by \`npm test -- test/fault-matrix.test.ts\` from what it observes, so do not edit it. The fault is on the endpoint
that is asked first, the others are well; each line is three requests, one after the other. Counters are successes / failures. In
flight is 0 after each, and nothing is left running at any endpoint.

| fault | stream | endpoints | the client sees | counters | of the others | circuit | requests at the faulty one |
|---|---|---|---|---|---|---|---|
${lines.join('\n')}
`;
}

/** Numbers of endpoints that make no difference share a line. */
function grouped(cells: Cell[]): { counts: string; cell: Cell }[] {
  const groups: { counts: string; cell: Cell }[] = [];
  for (const cell of cells) {
    const last = groups.at(-1);
    const same = JSON.stringify({ ...last?.cell, count: cell.count }) === JSON.stringify(cell);
    if (last !== undefined && same) last.counts += `, ${cell.count}`;
    else groups.push({ counts: String(cell.count), cell });
  }
  return groups;
}
