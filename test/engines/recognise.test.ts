import { describe, expect, it } from 'vitest';
import {
  check,
  delayed,
  hang,
  llamacppList,
  lmStudioV0,
  lmStudioV1,
  openAiList,
  serve,
  sglangList,
  status,
  tags,
  vllmList,
} from './fakes.js';

const LIST = '/v1/models';

async function typeOf(routes: Parameters<typeof serve>[0], otherwise?: Parameters<typeof serve>[1]) {
  const { url } = await serve(routes, otherwise);
  const result = await check(url);
  return result.ok ? result.engineType : result;
}

describe('an endpoint of unknown type', () => {
  it('is xLLM when it tells its xllm_version', async () => {
    expect(await typeOf({ '/api/system': { xllm_version: '0.1.0' }, [LIST]: openAiList })).toBe('xllm');
  });

  it('is LM Studio when its v0 list carries publisher, arch and state', async () => {
    expect(await typeOf({ '/api/v0/models': lmStudioV0, [LIST]: openAiList })).toBe('lm_studio');
  });

  it('is LM Studio when only its v1 list answers', async () => {
    expect(await typeOf({ '/api/v1/models': lmStudioV1, [LIST]: openAiList })).toBe('lm_studio');
  });

  it('is LM Studio although it answers unknown paths with 200 and an error', async () => {
    const otherwise = { error: 'Unexpected endpoint or method. (GET /api/tags)', models: [] };
    expect(await typeOf({ '/api/v0/models': lmStudioV0, [LIST]: openAiList }, otherwise)).toBe('lm_studio');
  });

  it.each(['lm-studio/0.3.5', 'LMStudio', 'LM Studio'])(
    'is LM Studio by the Server header %s',
    async (name) => {
      const list = status(200, JSON.stringify(openAiList), { server: name });
      expect(await typeOf({ [LIST]: list })).toBe('lm_studio');
    },
  );

  it('is Ollama when it lists tags, even beside an OpenAI list', async () => {
    expect(await typeOf({ '/api/tags': tags, [LIST]: openAiList })).toBe('ollama');
  });

  it('is no Ollama when its tags come with an error', async () => {
    expect(await typeOf({ '/api/tags': { models: [], error: 'no' }, [LIST]: openAiList })).toBe(
      'openai_compatible',
    );
  });

  it('is SGLang by owned_by', async () => {
    expect(await typeOf({ [LIST]: sglangList })).toBe('sglang');
  });

  it.each(['/get_model_info', '/server_info'])('is SGLang by the model_path in %s', async (path) => {
    expect(await typeOf({ [path]: { model_path: 'meta/llama' }, [LIST]: openAiList })).toBe('sglang');
  });

  it('is SGLang although that imitates the tags of Ollama', async () => {
    const imitated = { models: [{ name: 'meta/llama', details: { format: 'sglang' } }] };
    expect(await typeOf({ '/api/tags': imitated, [LIST]: sglangList })).toBe('sglang');
  });

  it('is vLLM by owned_by', async () => {
    expect(await typeOf({ [LIST]: vllmList })).toBe('vllm');
  });

  it('is vLLM by its Server header', async () => {
    expect(await typeOf({ [LIST]: status(200, JSON.stringify(openAiList), { server: 'vLLM/0.9' }) })).toBe(
      'vllm',
    );
  });

  it('is vLLM by its version together with max_model_len', async () => {
    const list = { data: [{ id: 'm', owned_by: 'us', max_model_len: 4096 }] };
    expect(await typeOf({ '/version': { version: '0.9.1' }, [LIST]: list })).toBe('vllm');
  });

  it('is not vLLM by a version alone', async () => {
    expect(await typeOf({ '/version': { version: '0.9.1' }, [LIST]: openAiList })).toBe('openai_compatible');
  });

  it('is llama.cpp although that answers its own list under the tags of Ollama', async () => {
    expect(await typeOf({ '/api/tags': llamacppList, [LIST]: llamacppList })).toBe('llamacpp');
  });

  it('is llama.cpp by its Server header', async () => {
    expect(await typeOf({ [LIST]: status(200, JSON.stringify(openAiList), { server: 'llama.cpp' }) })).toBe(
      'llamacpp',
    );
  });

  it.each([{ default_generation_settings: { n_ctx: 4096 } }, { build_info: 'b9222' }])(
    'is llama.cpp by its props %j',
    async (props) => {
      expect(await typeOf({ '/props': props, [LIST]: openAiList })).toBe('llamacpp');
    },
  );

  it('is OpenAI compatible when it only lists models', async () => {
    expect(await typeOf({ [LIST]: openAiList })).toBe('openai_compatible');
  });

  it('is the engine of higher precedence when several could be meant', async () => {
    const everything = {
      '/api/tags': tags,
      '/server_info': { model_path: 'm' },
      '/props': { build_info: 'b1' },
      [LIST]: vllmList,
    };
    expect(await typeOf(everything)).toBe('ollama');
    expect(await typeOf({ ...everything, '/api/v0/models': lmStudioV0 })).toBe('lm_studio');
    expect(await typeOf({ ...everything, '/api/system': { xllm_version: '1' } })).toBe('xllm');
  });

  it('gets every path asked at most once', async () => {
    const fake = await serve({ [LIST]: vllmList });
    await check(fake.url);
    expect(fake.asked.length).toBe(new Set(fake.asked).size);
    expect(fake.asked).toContain(LIST);
  });
});

describe('side probes that hang', () => {
  it('are not waited for once an engine of higher precedence is recognised', async () => {
    const fake = await serve({ '/api/system': { xllm_version: '1' }, [LIST]: openAiList }, hang);
    // The timer of half the time left would not fire within the time limit of the test.
    expect(await check(fake.url, {}, { timeoutMs: 600_000 })).toMatchObject({ ok: true, engineType: 'xllm' });
  });

  it('do not keep an OpenAI list from counting', async () => {
    const fake = await serve({ [LIST]: openAiList }, hang);
    expect(await check(fake.url, {}, { timeoutMs: 500 })).toMatchObject({
      ok: true,
      engineType: 'openai_compatible',
    });
  });

  it('get half of the time that is left once an engine is recognised', async () => {
    const fake = await serve({ [LIST]: vllmList }, hang);
    // The clock of the check has nearly run out, its real timer is beyond the time limit of the test.
    let reads = 0;
    const mono = () => (reads++ === 0 ? 0 : 599_800);
    const result = await check(fake.url, {}, { timeoutMs: 600_000, mono });
    expect(result).toMatchObject({ ok: true, engineType: 'vllm' });
  });

  it('do not hide an engine that was recognised', async () => {
    const fake = await serve({ [LIST]: vllmList }, hang);
    expect(await check(fake.url, {}, { timeoutMs: 500 })).toMatchObject({ ok: true, engineType: 'vllm' });
  });

  it('do not let a slow engine be taken for a lesser one', async () => {
    const fake = await serve({ [LIST]: openAiList, '/api/tags': delayed(1_200, tags) });
    expect(await check(fake.url, {}, { timeoutMs: 6_000 })).toMatchObject({ ok: true, engineType: 'ollama' });
  });

  it('get a while of their own when everything takes more than half of the time', async () => {
    const fake = await serve({ [LIST]: delayed(2_200, openAiList), '/api/tags': delayed(2_400, tags) });
    expect(await check(fake.url, {}, { timeoutMs: 4_000 })).toMatchObject({ ok: true, engineType: 'ollama' });
  });

  it('do not hide a refused key', async () => {
    const fake = await serve({ [LIST]: status(401) }, hang);
    expect(await check(fake.url, {}, { timeoutMs: 300 })).toMatchObject({ ok: false, reason: 'key_refused' });
  });
});

describe('an endpoint of known type', () => {
  it.each([
    ['xllm', LIST, openAiList, []],
    ['ollama', '/api/tags', tags, ['/api/ps']],
    ['vllm', LIST, vllmList, ['/metrics']],
    ['lm_studio', '/api/v0/models', lmStudioV0, []],
    ['llamacpp', LIST, llamacppList, ['/slots']],
    ['sglang', LIST, sglangList, ['/metrics']],
    ['openai_compatible', LIST, openAiList, []],
  ] as const)('%s costs one request, and one for what it tells on a page of its own', async (...row) => {
    const [engineType, path, list, more] = row;
    const fake = await serve({ [path]: list });
    expect(await check(fake.url, { engineType })).toMatchObject({ ok: true, engineType });
    expect(fake.asked).toEqual([path, ...more]);
  });

  it('is recognised anew when its own list is gone', async () => {
    const fake = await serve({ [LIST]: vllmList });
    expect(await check(fake.url, { engineType: 'ollama' })).toMatchObject({ ok: true, engineType: 'vllm' });
  });

  it('is recognised anew when its list names another engine', async () => {
    const fake = await serve({ [LIST]: sglangList });
    expect(await check(fake.url, { engineType: 'vllm' })).toMatchObject({ ok: true, engineType: 'sglang' });
  });

  it('stays what it was registered as when that is OpenAI compatible', async () => {
    const fake = await serve({ [LIST]: vllmList, '/api/tags': tags });
    const result = await check(fake.url, { engineType: 'openai_compatible' });
    expect(result).toMatchObject({ ok: true, engineType: 'openai_compatible' });
  });

  it('is not recognised anew when it only refuses the key or has a bad time', async () => {
    const refusing = await serve({}, status(401));
    expect(await check(refusing.url, { engineType: 'ollama' })).toMatchObject({ reason: 'key_refused' });
    expect(refusing.asked).toEqual(['/api/tags']);
    const failing = await serve({}, status(503));
    expect(await check(failing.url, { engineType: 'lm_studio' })).toMatchObject({ reason: 'server_error' });
    expect(failing.asked).toEqual(['/api/v0/models']);
  });

  it('answers badly when nothing recognises it any more', async () => {
    const fake = await serve({}, status(200, '<html>It works!</html>'));
    expect(await check(fake.url, { engineType: 'ollama' })).toEqual({
      ok: false,
      reason: 'bad_answer',
      error:
        'something answers, but not like ollama: answered GET /v1/models with something that is not JSON',
    });
  });

  it('refuses the key when the server now on its port does', async () => {
    const fake = await serve({ [LIST]: status(403) });
    expect(await check(fake.url, { engineType: 'ollama' })).toMatchObject({ reason: 'key_refused' });
  });
});
