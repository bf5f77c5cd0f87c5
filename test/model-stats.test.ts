import type { ServerResponse } from 'node:http';
import { expect, test } from 'vitest';
import type { z } from 'zod';
import { RELATIVE_ACCURACY } from '../src/machines/histogram.js';
import { serve } from './engines/fakes.js';
import { chatBody, openStream, payloads, replyTo, startRequest } from './support/clients.js';
import { type Api, engine, spawnServer, startLocal, until } from './support/server.js';
import { modelStat } from './support/shapes.js';

type Stat = z.infer<typeof modelStat>;

const CHAT = '/v1/chat/completions';
const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };
const NOTHING = { ttft_ms: null, decode_tps: null, inter_token_ms: null, duration_ms: null };

async function stats(api: Api, id?: string) {
  const path = id === undefined ? '/api/dashboard/model-stats' : `/api/endpoints/${id}/model-stats`;
  return modelStat.array().parse((await api.get(path)).json);
}

/** Nothing waits for the disk any more. */
async function flushed(api: Api): Promise<void> {
  await until(async () => {
    const { context } = (await api.get('/api/dashboard/actors/ledger')).json;
    return context.pending_rows === 0;
  });
}

/** The three percentiles, each within the accuracy of a bucket. */
function about(p50: number, p95 = p50, p99 = p95) {
  const near = (value: number) => expect.closeTo(value, -Math.log10(2 * RELATIVE_ACCURACY * value + 0.01));
  return { p50: near(p50), p95: near(p95), p99: near(p99) };
}

/** An engine whose answers the test writes, and a server whose monotonic time only the test moves. */
async function byHand() {
  const answers: ServerResponse[] = [];
  const box = await serve({
    '/v1/models': { object: 'list', data: [{ id: 'm', object: 'model', owned_by: 'me' }] },
    [CHAT]: (res) => void answers.push(res.writeHead(200, { 'content-type': 'text/event-stream' })),
  });
  const clock = { elapsed: 1000, now: () => Date.now(), mono: () => clock.elapsed };
  const server = await startLocal({ env: QUIET, seams: { clock } });
  const { id } = await server.register('box', box.url);
  /** A stream whose chunks come so many ms after one another, each with so many tokens. */
  async function stream(chunks: [after: number, tokens: number][]) {
    const sent = startRequest(server.url, CHAT, { body: chatBody('m', { stream: true }) });
    const known = answers.length;
    await until(() => answers.length > known);
    const answer = answers[known] as ServerResponse;
    const reply = replyTo(sent);
    let events = 0;
    const put = async (text: string, count: number) => {
      answer.write(text);
      events += count;
      const got = await reply;
      await until(() => payloads(got.text()).length === events, 5000, 'the chunk');
    };
    for (const [after, tokens] of chunks) {
      clock.elapsed += after;
      await put(token.repeat(tokens), tokens);
    }
    return { reply: await reply, end: () => answer.end(stop), answer };
  }
  return { server, id, clock, stream };
}

const event = (choice: object) => `data: ${JSON.stringify({ choices: [{ index: 0, ...choice }] })}\n\n`;
const token = event({ delta: { content: 'x' }, finish_reason: null });
const stop = `${event({ delta: {}, finish_reason: 'stop' })}data: [DONE]\n\n`;

test('the times of a stream are those at which its chunks came, shared by the tokens of a chunk', async () => {
  const { server, id, clock, stream } = await byHand();
  expect(await stats(server)).toEqual([]);
  const { reply, end } = await stream([
    [200, 1],
    [30, 1],
    [40, 2],
    [90, 1],
  ]);
  clock.elapsed += 40;
  end();
  expect(await reply.whole).toBe(true);
  const [found] = await stats(server);
  expect(found).toMatchObject({
    model_id: 'm',
    ttft_ms: about(200),
    duration_ms: about(400),
    // Gaps of 20, 20, 30 and 90 ms.
    inter_token_ms: about(20, 30),
    decode_tps: 25,
  });
  expect(await stats(server, id)).toEqual([found]);
});

test('a first chunk of many tokens starts the clock, and alone gives no rate', async () => {
  const { server, stream } = await byHand();
  const { reply, end } = await stream([[100, 7]]);
  end();
  expect(await reply.whole).toBe(true);
  expect(await stats(server)).toMatchObject([
    { ttft_ms: about(100), inter_token_ms: null, decode_tps: null, total_output_tokens: 7 },
  ]);
});

test('only an answer that is whole is measured', async () => {
  const { server, id, stream } = await byHand();
  const left = await stream([
    [10, 1],
    [10, 1],
  ]);
  left.reply.leave();
  const endpoint = async () => (await server.get('/api/dashboard/endpoints')).json[0];
  await until(async () => (await endpoint()).successful_requests === 1);
  const cut = await stream([
    [10, 1],
    [10, 1],
  ]);
  cut.answer.destroy();
  await until(async () => (await endpoint()).failed_requests === 1);
  expect(await stats(server, id)).toMatchObject([{ total_requests: 2, ...NOTHING, prediction_error: null }]);
});

test('without a stream there is a duration and nothing else, of embeddings too', async () => {
  const box = await engine();
  const server = await startLocal();
  await server.register('box', box.url);
  await server.chat('sim-small');
  await server.send('POST', '/v1/embeddings', { model: 'sim-small', input: 'Hello' });
  const [found] = await stats(server);
  expect(found).toMatchObject({ ...NOTHING, total_requests: 2, duration_ms: { p50: expect.any(Number) } });
});

test('a paced stream shows its pace', async () => {
  const box = await engine({ tokensPerSecond: 25, outputTokens: 15, firstTokenMs: 120 });
  const server = await startLocal();
  await server.register('box', box.url);
  await server.chat('sim-small', { stream: true });
  const [found] = await stats(server);
  expect(found?.ttft_ms?.p50).toBeGreaterThan(100);
  expect(found?.duration_ms?.p50).toBeGreaterThan(500);
  expect(found?.inter_token_ms?.p50).toBeGreaterThan(5);
  expect(found?.inter_token_ms?.p50).toBeLessThan(400);
  expect(found?.decode_tps).toBeGreaterThan(1);
  expect(found?.decode_tps).toBeLessThan(60);
});

test('over all endpoints a model is the sum of those that exist', async () => {
  const server = await startLocal();
  const add = async (name: string, firstTokenMs: number) => {
    const box = await engine({ tokensPerSecond: 100, outputTokens: 6, firstTokenMs });
    const { id } = await server.register(name, box.url);
    for (let i = 0; i < 3; i += 1) await server.chat('sim-small', { stream: true });
    return id;
  };
  const slow = await add('slow', 60);
  await server.send('POST', `/api/endpoints/${slow}/drain`);
  const fast = await add('fast', 0);
  const [one] = await stats(server, slow);
  const [two] = await stats(server, fast);
  const [both] = await stats(server);
  expect([one?.total_requests, two?.total_requests, both?.total_requests]).toEqual([3, 3, 6]);
  for (const pick of [ttft, rate]) {
    const ends = [pick(one), pick(two)];
    expect(pick(both)).toBeGreaterThanOrEqual(Math.min(...ends));
    expect(pick(both)).toBeLessThanOrEqual(Math.max(...ends));
  }
  await flushed(server);
  await server.send('DELETE', `/api/endpoints/${slow}`);
  expect(await stats(server)).toEqual([two]);
});

const ttft = (one: Stat | undefined) => one?.ttft_ms?.p50 ?? 0;
const rate = (one: Stat | undefined) => one?.decode_tps ?? 0;

test.each(['SIGTERM', 'SIGKILL'] as const)(
  'the numbers of a model are the same after %s and a start',
  async (signal) => {
    const box = await engine({ tokensPerSecond: 200, outputTokens: 12, firstTokenMs: 20 });
    const first = await spawnServer();
    const { id } = await first.register('box', box.url);
    const { url } = first;
    for (let i = 0; i < 4; i += 1) await (await openStream(url, 'sim-small')).whole;
    await first.chat('sim-small');
    await first.send('POST', '/v1/embeddings', { model: 'sim-small', input: 'Hello' });
    await first.send('POST', '/v1/responses', { model: 'sim-small', input: 'Hello', stream: true });
    const live = await stats(first);
    expect(live).toMatchObject([{ total_requests: 7, decode_tps: expect.any(Number) }]);
    await flushed(first);
    expect(await stats(first)).toEqual(live);
    await first.end(signal);

    const second = await spawnServer({ dataDir: first.dataDir });
    expect(await stats(second)).toEqual(live);
    expect(await stats(second, id)).toEqual(live);
    // And goes on from there.
    await (await openStream(second.url, 'sim-small')).whole;
    expect((await stats(second))[0]?.total_requests).toBe(8);
  },
);
