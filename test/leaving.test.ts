import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import type { Fault } from '../src/demo/simulated-faults.js';
import { chatBody, dial, openStream, replyTo, startRequest, wireRequest } from './support/clients.js';
import { engine, type LocalServer, pause, type Reply, startLocal, until } from './support/server.js';

const CHAT = '/v1/chat/completions';
const MODEL = 'sim-small';

interface Serving extends LocalServer {
  box: SimulatedEngine;
  id: string;
}

async function serving(more: object = {}, env: Record<string, string> = {}): Promise<Serving> {
  const box = await engine();
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '60000', ...env } });
  const { id } = await server.register('box', box.url, { ...more });
  return { ...server, box, id };
}

function asked(box: SimulatedEngine) {
  return box.requests.filter(({ method }) => method === 'POST');
}

async function live(server: LocalServer): Promise<Reply['json'][]> {
  return (await server.get('/api/dashboard/requests/live')).json;
}

async function rows(server: LocalServer): Promise<Reply['json'][]> {
  return (await server.get('/api/dashboard/request-responses')).json.records;
}

/** Waits until nothing is in flight, nobody waits, and no endpoint is at work. */
async function allQuiet(server: LocalServer, ...boxes: SimulatedEngine[]): Promise<Reply['json']> {
  let stats: Reply['json'];
  await until(async () => {
    stats = (await server.get('/api/dashboard/stats')).json;
    return stats.total_active_requests === 0 && stats.queued_requests === 0;
  });
  await until(() => boxes.every(({ active }) => active === 0), 5000, 'the end of what the endpoints do');
  await until(async () => (await live(server)).length === 0, 5000, 'the end of every request');
  return stats;
}

const NOTHING_COUNTED = { total_requests: 0, requests_60m: { success: 0, error: 0 } };
const LEFT_BEFORE_A_HEAD = { outcome: 'cancelled', status_code: 499, status: { type: 'error' } };

interface Client {
  leave: () => void;
}

/** Two ways to go away: all at once, or only no longer sending, as a shell does that is killed in a pipe. */
const WAYS: [string, (server: LocalServer, body: string) => Promise<Client>][] = [
  [
    'leaves',
    async ({ url }, body) => {
      const sent = startRequest(url, CHAT, { body });
      return { leave: () => sent.destroy() };
    },
  ],
  [
    'half-closes',
    async ({ url }, body) => {
      const wire = await dial(url);
      wire.socket.write(wireRequest(CHAT, body));
      return { leave: () => wire.socket.end() };
    },
  ],
];
const STREAMS = [true, false];
const CASES = WAYS.flatMap(([way, start]) =>
  STREAMS.map((stream) => ({ way, start, stream, body: chatBody(MODEL, { stream }) })),
);

test.each(CASES)(
  'a client that $way while it waits in the queue (stream: $stream) leaves nothing behind',
  async ({ start, body }) => {
    const server = await serving({ max_concurrency: 1 });
    const { box } = server;
    box.faults.next.push({ kind: 'hang' });
    const first = server.chat(MODEL);
    await until(() => box.active === 1, 5000, 'the one that has the place');
    const client = await start(server, body);
    await until(async () => (await live(server)).some(({ phase }) => phase === 'queued'), 5000, 'the wait');
    const last = server.chat(MODEL);
    await until(async () => (await live(server)).length === 3, 5000, 'one behind it');

    client.leave();
    await until(async () => (await live(server)).length === 2, 2000, 'the end of the wait');
    expect(await rows(server)).toMatchObject([{ ...LEFT_BEFORE_A_HEAD, endpoint_id: null, attempts: [] }]);
    expect((await server.get('/api/dashboard/stats')).json).toMatchObject({
      ...NOTHING_COUNTED,
      queued_requests: 1,
      total_active_requests: 1,
    });
    box.release();
    expect([(await first).status, (await last).status]).toEqual([200, 200]);
    expect(asked(box)).toHaveLength(2);
    await allQuiet(server, box);
  },
);

/** A port that completes no handshake: a listener that never accepts, its queue full. */
async function deafPort(port: number): Promise<void> {
  const child = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen({ port: ${port}, host: '127.0.0.1', backlog: 1 }, () => {
      require('fs').writeSync(1, 'listening');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`,
  ]);
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  for (let i = 0; i < 8; i += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    onTestFinished(() => {
      socket.destroy();
    });
  }
  await pause(100);
}

test.each(CASES)(
  'a client that $way while the connection is made (stream: $stream) leaves nothing behind',
  async ({ start, body }) => {
    const server = await serving({ deadlines: { connect_ms: 60_000 } });
    await server.box.stop();
    await deafPort(server.box.port);
    const client = await start(server, body);
    await until(async () => (await live(server))[0]?.phase === 'connecting', 5000, 'the connecting');
    client.leave();
    expect(await allQuiet(server)).toMatchObject(NOTHING_COUNTED);
    expect(await rows(server)).toMatchObject([
      {
        ...LEFT_BEFORE_A_HEAD,
        endpoint_id: server.id,
        attempts: [{ endpoint_id: server.id, outcome: 'cancelled', status_code: null }],
      },
    ]);
  },
);

test.each(
  CASES.flatMap((one) =>
    (['hang', 'hang_body'] as const).map((kind) => ({
      ...one,
      kind,
      after: kind === 'hang' ? 'nothing' : 'the head alone',
    })),
  ),
)(
  'a client that $way when the endpoint has sent $after (stream: $stream) has left before a head',
  async ({ start, body, kind }) => {
    const server = await serving();
    const { box } = server;
    box.faults.next.push({ kind });
    const client = await start(server, body);
    await until(() => box.active === 1, 5000, 'the request at the endpoint');
    expect(await live(server)).toMatchObject([{ phase: 'waiting', endpoint_id: server.id, attempts: 1 }]);
    client.leave();
    await until(() => asked(box)[0]?.aborted === true, 2000, 'the abort');
    expect(await allQuiet(server, box)).toMatchObject(NOTHING_COUNTED);
    expect(await rows(server)).toMatchObject([
      { ...LEFT_BEFORE_A_HEAD, endpoint_id: server.id, attempts: [{ outcome: 'cancelled' }] },
    ]);
  },
);

test.each(CASES)(
  'a client that $way in the middle of its answer (stream: $stream) has had a success',
  async ({ start, stream, body }) => {
    const server = await serving();
    const { box } = server;
    box.faults.next.push({ kind: 'stall', afterTokens: 3 });
    const client = await start(server, body);
    await until(async () => (await live(server))[0]?.phase === 'streaming', 5000, 'the answer’s beginning');
    if (stream) await until(async () => (await live(server))[0]?.output_tokens === 3, 5000, 'three tokens');
    client.leave();
    await until(() => asked(box)[0]?.aborted === true, 2000, 'the abort');
    expect(await allQuiet(server, box)).toMatchObject({
      total_requests: 1,
      successful_requests: 1,
      requests_60m: { success: 1, error: 0 },
      // An answer that nobody waited for is no response time: this is the health check's.
      average_response_time_ms: (await server.get(`/api/endpoints/${server.id}`)).json.latency_ms,
    });
    expect(await rows(server)).toMatchObject([
      {
        outcome: 'cancelled',
        status_code: 200,
        status: { type: 'success' },
        output_tokens: stream ? 3 : null,
      },
    ]);
  },
);

test('a client that leaves at the second endpoint costs the first one a failure and the second one nothing', async () => {
  const server = await serving();
  const second = await engine();
  const { id } = await server.register('second', second.url);
  const both = [server.box, second];
  for (const box of both) box.faults.next.push({ kind: 'hang' });
  const sent = startRequest(server.url, CHAT, { body: chatBody(MODEL) });
  await until(() => both.some(({ active }) => active === 1), 5000, 'the first attempt');
  const [failing, hanging] = server.box.active === 1 ? both : both.toReversed();
  const [failed, left] = server.box.active === 1 ? [server.id, id] : [id, server.id];
  await failing?.stop();
  await until(() => hanging?.active === 1, 5000, 'the second attempt');
  sent.destroy();
  const stats = await allQuiet(server, ...both);
  expect(stats).toMatchObject({
    total_requests: 1,
    failed_requests: 1,
    requests_60m: { success: 0, error: 0 },
  });
  expect(await rows(server)).toMatchObject([
    {
      ...LEFT_BEFORE_A_HEAD,
      attempts: [
        { endpoint_id: failed, outcome: 'failure' },
        { endpoint_id: left, outcome: 'cancelled' },
      ],
    },
  ]);
});

test('a client that leaves while a retry waits for its budget has left, and nobody is asked for it any more', async () => {
  let skipped = 0;
  const server = await startLocal({
    env: { TROUPE_HEALTH_INTERVAL_MS: '600000' },
    seams: { clock: { now: () => Date.now(), mono: () => performance.now() + skipped } },
  });
  const boxes = [await engine(), await engine()];
  for (const [index, { url }] of boxes.entries()) await server.register(`box ${index}`, url);
  for (const box of boxes) box.faults.always = { kind: 'status', status: 500 };
  const askedInAll = () => boxes.reduce((sum, box) => sum + asked(box).length, 0);
  const retries = 10;
  for (let round = 0; round < 6; round += 1) {
    // The retries of these use the budget of ten seconds up.
    for (let i = 0; i < retries; i += 1) expect((await server.chat(MODEL)).status).toBe(500);
    const before = askedInAll();
    const sent = startRequest(server.url, CHAT, { body: chatBody(MODEL) });
    await until(() => askedInAll() === before + 1, 5000, 'the first attempt');
    await until(async () => (await live(server)).length === 1, 5000, 'the pause before the second');
    sent.destroy();
    // The budget is free again just when the client is gone.
    if (round > 0) {
      await pause(3);
      skipped += 11_000;
    }
    const stats = await allQuiet(server, ...boxes);
    expect((await rows(server))[0]).toMatchObject({
      ...LEFT_BEFORE_A_HEAD,
      attempts: [{ outcome: 'failure' }],
    });
    expect(stats.requests_60m).toEqual({ success: 0, error: (round + 1) * retries });
    expect(askedInAll()).toBe(before + 1);
    skipped += 11_000;
  }
});

// Those who read slowly.

const EVENT = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: 'x'.repeat(16_000) } }] })}\n\n`;
const EVENTS = 4000;
/** What sockets may hold on the two ways is far below that, and far below what there is to send. */
const MOST_WRITTEN = 0.6 * EVENTS;

/** An upstream that sends 64 MB to each who asks, as fast as it may, and tells how far it came. */
async function wideUpstream() {
  const streams: { written: number; closed: boolean }[] = [];
  const upstream = createServer((req, res) => {
    req.resume();
    if (req.method === 'GET') {
      res.end('{"object":"list","data":[{"id":"wide","object":"model"}]}');
      return;
    }
    const stream = { written: 0, closed: false };
    streams.push(stream);
    res.once('close', () => {
      stream.closed = true;
    });
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    const more = () => {
      while (stream.written < EVENTS && !stream.closed) {
        stream.written += 1;
        if (!res.write(EVENT)) {
          res.once('drain', more);
          return;
        }
      }
      res.end('data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n');
    };
    more();
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    upstream.closeAllConnections();
    upstream.close();
  });
  return { url: `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`, streams };
}

test('readers that stop hold their endpoints up for as long as they like, and those that leave then end them', async () => {
  const wide = await wideUpstream();
  const server = await startLocal({
    env: { TROUPE_HEALTH_INTERVAL_MS: '60000', TROUPE_IDLE_TIMEOUT_MS: '300' },
  });
  await server.register('wide', wide.url);
  const readers = await Promise.all(
    Array.from({ length: 4 }, async () => {
      const sent = startRequest(server.url, CHAT, { body: chatBody('wide', { stream: true }) });
      const reply = await replyTo(sent);
      reply.response.pause();
      return { sent, reply };
    }),
  );
  const sum = () => wide.streams.reduce((total, { written }) => total + written, 0);
  let before = -1;
  // Longer than the idle deadline: a reader's pause is not the endpoint's.
  while (before !== sum()) {
    before = sum();
    await pause(500);
  }
  for (const { written, closed } of wide.streams) {
    expect(closed).toBe(false);
    expect(written).toBeLessThan(MOST_WRITTEN);
  }
  expect(await live(server)).toHaveLength(4);

  const [last, ...others] = readers;
  for (const { sent } of others) sent.destroy();
  await until(() => wide.streams.filter(({ closed }) => closed).length === 3, 5000, 'three ends');
  last?.reply.response.resume();
  expect(await last?.reply.whole).toBe(true);
  expect(last?.reply.text().endsWith('data: [DONE]\n\n')).toBe(true);
  expect(last?.reply.bytes().length).toBeGreaterThan(EVENTS * EVENT.length);
  expect(await allQuiet(server)).toMatchObject({ total_requests: 4, successful_requests: 4 });
  const outcomes = (await rows(server)).map(({ outcome }) => outcome);
  expect(outcomes.sort()).toEqual(['cancelled', 'cancelled', 'cancelled', 'success']);
});

test('a reader that has stopped and half-closes has left, though much is on its way to it', async () => {
  const wide = await wideUpstream();
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '60000' } });
  await server.register('wide', wide.url);
  const wire = await dial(server.url);
  wire.socket.write(wireRequest(CHAT, chatBody('wide', { stream: true })));
  await until(() => wire.received().includes('data:'), 5000, 'the first event');
  wire.socket.pause();
  let before = -1;
  while (before !== (wide.streams[0]?.written ?? 0)) {
    before = wide.streams[0]?.written ?? 0;
    await pause(500);
  }
  expect(wide.streams[0]?.closed).toBe(false);
  wire.socket.end();
  await until(() => wide.streams[0]?.closed === true, 5000, 'the end at the endpoint');
  expect(await live(server)).toHaveLength(0);
  wire.socket.destroy();
});

// Many.

const CLIENTS = 1000;
const PLACES = 200;

test('of a thousand clients that leave at once, in the queue and at every stage, nothing is left', async () => {
  const server = await serving({ max_concurrency: PLACES }, { TROUPE_QUEUE_MAX: String(CLIENTS) });
  const { box } = server;
  const stages: Fault[] = [{ kind: 'hang' }, { kind: 'hang_body' }, { kind: 'stall', afterTokens: 2 }];
  box.faults.next = Array.from({ length: PLACES }, (_, index) => stages[index % 3] as Fault);
  box.faults.always = { kind: 'hang' };
  const body = chatBody(MODEL, { stream: true });
  const sent = Array.from({ length: CLIENTS }, () => startRequest(server.url, CHAT, { body }));
  const phases = async () => {
    const counts: Record<string, number> = {};
    for (const { phase } of await live(server)) counts[phase] = (counts[phase] ?? 0) + 1;
    return counts;
  };
  const streaming = Math.floor(PLACES / 3);
  await until(
    async () => {
      const { queued, waiting, streaming: begun } = await phases();
      return queued === CLIENTS - PLACES && waiting === PLACES - streaming && begun === streaming;
    },
    30_000,
    'a thousand clients in their places',
  );

  for (const one of sent) one.destroy();
  const stats = await allQuiet(server, box);
  expect(asked(box).every(({ aborted }) => aborted)).toBe(true);
  // Only those that had begun to get an answer are anybody's success, and nobody's failure.
  expect(stats).toMatchObject({
    total_requests: streaming,
    successful_requests: streaming,
    failed_requests: 0,
    requests_60m: { success: streaming, error: 0 },
  });
  const count = async (filter: string) =>
    (await server.get(`/api/dashboard/request-responses?per_page=100${filter}`)).json.total_count;
  await until(async () => (await count('')) === CLIENTS, 10_000, 'a row for each');
  expect([await count('&status=success'), await count('&status=error')]).toEqual([
    streaming,
    CLIENTS - streaming,
  ]);
  expect((await rows(server)).every(({ outcome }) => outcome === 'cancelled')).toBe(true);

  box.faults.next = [];
  box.faults.always = null;
  expect((await server.chat(MODEL)).status).toBe(200);
  const stream = await openStream(server.url, MODEL);
  expect(await stream.whole).toBe(true);
});
