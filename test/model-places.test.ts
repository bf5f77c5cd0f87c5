import { expect, test } from 'vitest';
import { chatBody, rawRequest } from './support/clients.js';
import { engine, startLocal, until } from './support/server.js';

const CHAT = '/v1/chat/completions';
const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };

test('a model is told with every place it lives at, warm or cold and how fast there', async () => {
  const ollama = await engine({ engine: 'ollama', models: ['shared', 'only-here'] });
  const vllm = await engine({ engine: 'vllm', models: ['shared'] });
  const server = await startLocal({ env: QUIET });
  const first = await server.register('first', ollama.url);
  const second = await server.register('second', vllm.url, { models_deny: ['shared'] });
  await (await rawRequest(server.url, CHAT, { body: chatBody('shared') })).whole;

  const models = (await server.get('/api/dashboard/models')).json;

  expect(models.map(({ model_id }: { model_id: string }) => model_id)).toEqual(['only-here', 'shared']);
  const [, shared] = models;
  const places = new Map(shared.places.map((place: { endpoint_id: string }) => [place.endpoint_id, place]));
  expect(places.get(first.id)).toMatchObject({
    offered: true,
    warm: true,
    total_requests: 1,
    successful_requests: 1,
    tps: expect.any(Number),
  });
  expect(places.get(second.id)).toEqual({
    endpoint_id: second.id,
    offered: false,
    warm: null,
    total_requests: 0,
    successful_requests: 0,
    tps: null,
    decode_tps: null,
    ttft_p50_ms: null,
  });
});

test('the tokens a second now rise while an answer is written and are gone ten seconds after', async () => {
  const box = await engine({ models: ['m'], outputTokens: 40, tokensPerSecond: 40 });
  const clock = {
    ahead: 0,
    now: () => Date.now() + clock.ahead,
    mono: () => performance.now() + clock.ahead,
  };
  const server = await startLocal({ env: QUIET, seams: { clock } });
  await server.register('box', box.url);
  const now = async () => (await server.get('/api/dashboard/stats')).json.output_tps;
  expect(await now()).toBe(0);

  const answer = rawRequest(server.url, CHAT, { body: chatBody('m', { stream: true }) });
  await until(async () => (await now()) > 0);
  await (await answer).whole;

  // All forty lie in the last ten seconds.
  expect(await now()).toBeCloseTo(4, 1);
  clock.ahead += 11_000;
  expect(await now()).toBe(0);
});
