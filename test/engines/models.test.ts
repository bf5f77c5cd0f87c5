import { describe, expect, it } from 'vitest';
import {
  check,
  llamacppList,
  lmStudioV0,
  lmStudioV1,
  names,
  serve,
  sglangList,
  status,
  tags,
  vllmList,
} from './fakes.js';

async function modelsOf(routes: Parameters<typeof serve>[0]) {
  const result = await check((await serve(routes)).url);
  return result.ok ? result.models : result;
}

describe('the models of an endpoint', () => {
  it('have the full name that Ollama lists, with what it tells about them', async () => {
    expect(await modelsOf({ '/api/tags': tags })).toEqual([
      { modelId: 'llama3:latest', capabilities: null, maxTokens: null },
      { modelId: 'nomic:v1', capabilities: ['embeddings'], maxTokens: null },
    ]);
  });

  it('are none, and the check a success, when Ollama has none', async () => {
    expect(await modelsOf({ '/api/tags': { models: [] } })).toEqual([]);
  });

  it('have the ids, capabilities and longest contexts of LM Studio', async () => {
    expect(await modelsOf({ '/api/v0/models': lmStudioV0 })).toEqual([
      {
        modelId: 'qwen2-vl-7b-instruct',
        capabilities: ['chat', 'vision', 'tools'],
        maxTokens: 32768,
      },
      { modelId: 'text-embedding-nomic', capabilities: ['embeddings'], maxTokens: 2048 },
    ]);
  });

  it('are named by their key, with the context they are loaded with, where LM Studio has only its v1 list', async () => {
    expect(await modelsOf({ '/api/v1/models': lmStudioV1 })).toEqual([
      { modelId: 'openai/gpt-oss-20b', capabilities: ['chat', 'tools'], maxTokens: 8192 },
    ]);
  });

  it('come from the OpenAI list where LM Studio has none of its own', async () => {
    const list = { data: [{ id: 'old', owned_by: 'lmstudio-community' }] };
    expect(await modelsOf({ '/v1/models': list })).toEqual([
      { modelId: 'old', capabilities: null, maxTokens: null },
    ]);
  });

  it('are none when a known LM Studio lists none', async () => {
    const fake = await serve({ '/api/v0/models': { object: 'list', data: [] } });
    expect(await check(fake.url, { engineType: 'lm_studio' })).toMatchObject({ ok: true, models: [] });
  });

  it('have the max_model_len of vLLM and SGLang as their context', async () => {
    expect(await modelsOf({ '/v1/models': vllmList })).toEqual([
      { modelId: 'Qwen/Qwen3-8B', capabilities: null, maxTokens: 40960 },
    ]);
    expect(await modelsOf({ '/v1/models': sglangList })).toEqual([
      { modelId: 'meta/llama', capabilities: null, maxTokens: 8192 },
    ]);
  });

  it('have the context and capabilities of llama.cpp', async () => {
    expect(await modelsOf({ '/v1/models': llamacppList })).toEqual([
      { modelId: 'gemma.gguf', capabilities: ['chat', 'vision'], maxTokens: 131072 },
    ]);
    const started = { data: [{ id: 'm', owned_by: 'llamacpp', meta: { n_ctx: 4096, n_ctx_train: 8192 } }] };
    expect(await modelsOf({ '/v1/models': started })).toMatchObject([{ maxTokens: 4096 }]);
  });

  it('keep their order, lose doubles, and entries without an id do not count', async () => {
    const data = [{ id: 'b' }, { id: 'a' }, { id: 'b' }, { id: '' }, { id: 7 }, {}, null, 'x', { id: 'c' }];
    const { url } = await serve({ '/v1/models': { data } });
    expect(names(await check(url))).toEqual(['b', 'a', 'c']);
  });

  it.each([
    ['a bare array', [{ id: 'a' }, { id: 'b' }]],
    ['a models array', { models: [{ id: 'a' }, { name: 'b' }] }],
  ])('are read from %s as well', async (_, list) => {
    const { url } = await serve({ '/v1/models': list });
    expect(names(await check(url))).toEqual(['a', 'b']);
  });

  it('are whatever an empty OpenAI list says', async () => {
    expect(await modelsOf({ '/v1/models': { object: 'list', data: [] } })).toEqual([]);
  });

  it('have no context when what is told is no number of tokens', async () => {
    const data = [
      { id: 'a', max_model_len: 'many' },
      { id: 'b', max_model_len: -1 },
    ];
    expect(await modelsOf({ '/v1/models': { data } })).toMatchObject([
      { maxTokens: null },
      { maxTokens: null },
    ]);
  });
});

describe('a successful check', () => {
  it('tells the whole milliseconds until the head of the list', async () => {
    const { url } = await serve({ '/v1/models': vllmList });
    let now = 0;
    const result = await check(url, { engineType: 'vllm' }, { mono: () => (now += 20.4) });
    expect(result).toMatchObject({ ok: true, latencyMs: 20 });
  });

  it('sends the key and the headers of the endpoint and asks for plain JSON, or the plain text of metrics', async () => {
    const fake = await serve({ '/v1/models': vllmList });
    await check(fake.url, { apiKey: 'sk-1', headers: { 'X-Team': 'blue', 'Accept-Encoding': 'gzip' } });
    for (const [i, headers] of fake.headers.entries()) {
      expect(headers).toMatchObject({
        authorization: 'Bearer sk-1',
        'x-team': 'blue',
        accept: fake.asked[i] === '/metrics' ? 'text/plain' : 'application/json',
        'accept-encoding': 'identity',
      });
    }
  });

  it('sends no authorization without a key', async () => {
    const fake = await serve({ '/v1/models': vllmList });
    await check(fake.url);
    expect(fake.headers[0]).not.toHaveProperty('authorization');
  });

  it('asks below the path of the base URL', async () => {
    const fake = await serve({ '/proxy/gpu1/v1/models': vllmList });
    expect(await check(`${fake.url}/proxy/gpu1`)).toMatchObject({ ok: true, engineType: 'vllm' });
  });

  it('does not need the other lists to exist', async () => {
    const { url } = await serve({ '/v1/models': vllmList }, status(500, 'oops'));
    expect(await check(url)).toMatchObject({ ok: true, engineType: 'vllm' });
  });
});
