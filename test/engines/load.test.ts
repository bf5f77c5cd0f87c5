import type { ServerResponse } from 'node:http';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { EngineType } from '../../src/engines/engine.js';
import { engine, startLocal, until } from '../support/server.js';
import {
  type Answer,
  check,
  delayed,
  hang,
  llamacppList,
  lmStudioV0,
  openAiList,
  reset,
  serve,
  sglangList,
  status,
  tags,
  vllmList,
} from './fakes.js';

const LISTS = {
  vllm: ['/v1/models', vllmList],
  sglang: ['/v1/models', sglangList],
  llamacpp: ['/v1/models', llamacppList],
  openai_compatible: ['/v1/models', openAiList],
  ollama: ['/api/tags', tags],
  lm_studio: ['/api/v0/models', lmStudioV0],
} as const;
type Known = keyof typeof LISTS;

/** The load that a check finds where the engine answers one more path so. */
async function loadOf(engineType: Known, path: string, answer: Answer) {
  const [list, models] = LISTS[engineType];
  const { url } = await serve({ [list]: models, [path]: answer });
  const result = await check(url, { engineType });
  return result.ok ? result.load : result;
}

const metrics = (text: string) => status(200, text, { 'content-type': 'text/plain; version=0.0.4' });
const sumOf = (running: number, waiting: number) => ({ running, waiting, slots: null, cacheUse: null });

const VLLM = `# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 37.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 5.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 12.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-8B"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-8B",reason="capacity"} 9.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-8B",reason="deferred"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.8731
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-8B"} 0.25
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="Qwen/Qwen3-8B"} 1.234567e+06
`;

describe('vLLM', () => {
  it('tells what runs and waits in all its ranks, and how full the fullest cache is', async () => {
    const load = { running: 42, waiting: 12, slots: null, cacheUse: 0.8731 };
    expect(await loadOf('vllm', '/metrics', metrics(VLLM))).toEqual(load);
    expect(await loadOf('vllm', '/metrics', metrics(VLLM.replaceAll('\n', '\r\n')))).toEqual(load);
  });

  it('tells it under the name of older versions, where both are by the newer one', async () => {
    const old = `vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:num_requests_running{model_name="m"} 1.0
vllm:num_requests_waiting{model_name="m"} 2.0 1700000000000
`;
    const load = { running: 1, waiting: 2, slots: null, cacheUse: 0.5 };
    expect(await loadOf('vllm', '/metrics', metrics(old))).toEqual(load);
    const both = `${old}vllm:kv_cache_usage_perc{model_name="m"} 0.4\n`;
    expect(await loadOf('vllm', '/metrics', metrics(both))).toEqual({ ...load, cacheUse: 0.4 });
  });

  it('may have any characters in the name of its model, or no labels at all', async () => {
    const text = `vllm:num_requests_running{model_name="a} 7 {\\"b"} 3
vllm:num_requests_waiting 4`;
    expect(await loadOf('vllm', '/metrics', metrics(text))).toEqual(sumOf(3, 4));
  });

  it('is asked with its key for text', async () => {
    const fake = await serve({ '/v1/models': vllmList, '/metrics': metrics(VLLM) });
    await check(fake.url, { engineType: 'vllm', apiKey: 'sk-1' });
    expect(fake.asked).toEqual(['/v1/models', '/metrics']);
    expect(fake.headers[1]).toMatchObject({ authorization: 'Bearer sk-1', accept: 'text/plain' });
  });
});

describe('SGLang', () => {
  it('tells what runs and waits, and how full its cache is', async () => {
    const text = `# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 8.0
sglang:num_running_reqs_offline_batch{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 6.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 4.0
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.52
`;
    const load = { running: 8, waiting: 4, slots: null, cacheUse: 0.52 };
    expect(await loadOf('sglang', '/metrics', metrics(text))).toEqual(load);
  });

  it('counts a request once, however many ranks tell of it, and data-parallel ranks together', async () => {
    const text = `sglang:num_running_reqs{dp_rank="0",moe_ep_rank="0",tp_rank="0"} 4.0
sglang:num_running_reqs{dp_rank="0",moe_ep_rank="1",tp_rank="1"} 4.0
sglang:num_running_reqs{dp_rank="1",moe_ep_rank="2",tp_rank="2"} 3.0
sglang:num_running_reqs{dp_rank="1",moe_ep_rank="3",tp_rank="3"} 3.0
sglang:num_queue_reqs{tp_rank="0"} 2.0
sglang:num_queue_reqs{tp_rank="1"} 2.0
`;
    expect(await loadOf('sglang', '/metrics', metrics(text))).toEqual(sumOf(7, 2));
  });

  it('counts a request once where it tells of every priority beside their sum', async () => {
    const text = `sglang:num_running_reqs{priority="",tp_rank="0"} 14.0
sglang:num_running_reqs{priority="-1",tp_rank="0"} 4.0
sglang:num_running_reqs{priority="0",tp_rank="0"} 10.0
sglang:num_queue_reqs{priority="",tp_rank="0"} 2.0
sglang:num_queue_reqs{priority="-1",tp_rank="0"} 2.0
`;
    expect(await loadOf('sglang', '/metrics', metrics(text))).toEqual(sumOf(14, 2));
  });
});

describe('llama.cpp', () => {
  it.each([
    ['as it is', { is_processing: true }, { is_processing: false }],
    ['as it was until November 2024', { state: 1 }, { state: 0 }],
  ])('tells which of its slots are busy, %s', async (_, busy, idle) => {
    const slots = [busy, idle, busy, idle].map((slot, id) => ({ id, id_task: -1, n_ctx: 4096, ...slot }));
    const load = { running: 2, waiting: 0, slots: 4, cacheUse: null };
    expect(await loadOf('llamacpp', '/slots', slots)).toEqual(load);
  });

  it.each([
    ['switched off', status(501, '{"error":{"code":501,"type":"not_supported_error"}}')],
    ['a router that wants to know the model', status(400, '{"error":{"code":400}}')],
    ['not there', status(404)],
    ['refused', status(401)],
    ['an error in 200', { error: { code: 501 } }],
    ['nothing', []],
    ['no slots', [1, null, 'x']],
    ['slots that do not say', [{ id: 0, is_processing: true }, { id: 1 }]],
    ['no JSON', status(200, '<html>')],
    ['far too much', status(200, `[{"is_processing":true,"prompt":"${'x'.repeat(5 * 1024 * 1024)}"}]`)],
    ['a reset', reset],
  ])('has no load where its slots are %s', async (_, answer) => {
    expect(await loadOf('llamacpp', '/slots', answer)).toBeNull();
  });
});

describe('metrics that tell no load', () => {
  it.each([
    ['are not there', status(404)],
    ['are refused', status(401)],
    ['fail', status(500, VLLM)],
    ['lead elsewhere', status(307, '', { location: '/metrics/' })],
    ['are empty', metrics('')],
    ['are those of something else', metrics('process_cpu_seconds_total 12.5\nnode_load1 0.3\n')],
    ['are JSON', { running: 1 }],
    ['are bytes', (res: ServerResponse) => void res.end(Buffer.from([0, 255, 10, 123, 192, 10]))],
    ['have no number', metrics(VLLM.replaceAll(/ \d+\.0$/gm, ' NaN'))],
    ['have no value', metrics(VLLM.replaceAll(/ \d+\.0$/gm, ''))],
    ['have negative numbers', metrics(VLLM.replaceAll(/ (\d+\.0)$/gm, ' -$1'))],
    ['have no end', metrics(VLLM.replaceAll(/ \d+\.0$/gm, ' +Inf'))],
    ['have numbers beyond all requests', metrics(VLLM.replaceAll(/ \d+\.0$/gm, ' 1e300'))],
    ['have half a request', metrics(VLLM.replaceAll(/ \d+\.0$/gm, ' 0.3'))],
    ['say nothing of who waits', metrics('vllm:num_requests_running 1\n')],
    ['are far too long', metrics(VLLM + 'x'.repeat(2 * 1024 * 1024))],
    ['are one long line', metrics(`vllm:num_requests_running{${'}'.repeat(1024 * 1024 - 30)}`)],
    ['break off', reset],
  ])('%s: the check succeeds without', async (_, answer) => {
    expect(await loadOf('vllm', '/metrics', answer)).toBeNull();
  });

  it('leave the cache out where its use is no number, and at full where it is beyond', async () => {
    const using = (use: string) => metrics(VLLM.replaceAll(/ 0\.\d\d+$/gm, ` ${use}`));
    expect(await loadOf('vllm', '/metrics', using('NaN'))).toMatchObject({ running: 42, cacheUse: null });
    expect(await loadOf('vllm', '/metrics', using('1.02'))).toMatchObject({ running: 42, cacheUse: 1 });
  });

  it('are not read to their end when they have none', async () => {
    let sent = 0;
    const endless = (res: ServerResponse) => {
      const line = Buffer.alloc(64 * 1024, 'x\n');
      const more = () => {
        while (!res.destroyed && res.write(line)) sent += line.length;
      };
      res.on('drain', more);
      more();
    };
    expect(await loadOf('vllm', '/metrics', endless)).toBeNull();
    // What the sockets hold comes on top.
    expect(sent).toBeLessThan(32 * 1024 * 1024);
  });
});

describe('an engine that tells no load', () => {
  it.each<Known>(['ollama', 'lm_studio', 'openai_compatible'])('is not asked for it: %s', async (known) => {
    const [list, models] = LISTS[known];
    const fake = await serve({ [list]: models, '/metrics': metrics(VLLM), '/slots': [{ state: 1 }] });
    expect(await check(fake.url, { engineType: known })).toMatchObject({ ok: true, load: null });
    expect(fake.asked.filter((path) => path === '/metrics' || path === '/slots')).toEqual([]);
  });
});

describe('a slow engine', () => {
  it.each<[EngineType & Known, string]>([
    ['vllm', '/metrics'],
    ['sglang', '/metrics'],
    ['llamacpp', '/slots'],
  ])('of type %s holds up the check for about a second', async (known, path) => {
    const begun = performance.now();
    expect(await loadOf(known, path, hang)).toBeNull();
    const took = performance.now() - begun;
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(5000);
  });

  it('is heard where it answers in time', async () => {
    expect(await loadOf('llamacpp', '/slots', delayed(200, [{ is_processing: true }]))).toMatchObject({
      running: 1,
      slots: 1,
    });
  });

  it('makes no check fail whose time is over meanwhile', async () => {
    const { url } = await serve({ '/v1/models': vllmList, '/metrics': hang });
    const result = await check(url, { engineType: 'vllm' }, { timeoutMs: 400 });
    expect(result).toMatchObject({ ok: true, load: null });
  });
});

describe('an endpoint’s actor', () => {
  type Server = Awaited<ReturnType<typeof startLocal>>;
  const contextOf = async (server: Server, id: string) =>
    (await server.get(`/api/dashboard/actors/endpoint%3A${id}`)).json.context;

  it('shows the load of its engine, and how much of it is from others', async () => {
    const box = await engine({ engine: 'vllm', models: ['m'] });
    const server = await startLocal();
    const { id } = await server.register('box', box.url);
    await until(async () => (await contextOf(server, id)).load?.running === 0);

    box.faults.always = { kind: 'hang' };
    const gone = new AbortController();
    const body = JSON.stringify({ model: 'm', messages: [] });
    const direct = () =>
      fetch(`${box.url}/v1/chat/completions`, { method: 'POST', body, signal: gone.signal }).catch(() => {});
    const others = [direct(), direct()];
    const ours = server.chat('m');
    onTestFinished(async () => {
      gone.abort();
      box.release();
      await Promise.all([...others, ours]);
    });
    await until(async () => (await contextOf(server, id)).load.running === 3);
    const load = { running: 3, waiting: 0, foreign: 2, slots: null, cache_use: null };
    expect((await contextOf(server, id)).load).toEqual(load);

    gone.abort();
    await until(async () => (await contextOf(server, id)).load.foreign === 0);
    expect((await contextOf(server, id)).load.running).toBe(1);
  });

  it('knows of no load any more once a check failed', async () => {
    const box = await engine({ engine: 'llamacpp', models: ['m'] });
    const server = await startLocal();
    const { id } = await server.register('box', box.url);
    const idle = { running: 0, waiting: 0, foreign: 0, slots: 4, cache_use: null };
    await until(async () => (await contextOf(server, id)).load !== null);
    expect((await contextOf(server, id)).load).toEqual(idle);
    box.faults.models = { kind: 'status', status: 500 };
    await until(async () => (await contextOf(server, id)).load === null);
    box.faults.models = null;
    await until(async () => (await contextOf(server, id)).load?.slots === 4);
  });

  it('stays online, and is checked again and again, while /metrics hangs', async () => {
    const fake = await serve({ '/v1/models': vllmList, '/metrics': hang });
    const server = await startLocal();
    const { id } = await server.register('box', fake.url);
    const checks = () => fake.asked.filter((path) => path === '/metrics').length;
    const before = checks();
    await until(() => checks() >= before + 3, 20_000);
    const { load, last_error, engine: type } = await contextOf(server, id);
    expect([load, last_error, type]).toEqual([null, null, 'vllm']);
    const view = (await server.get(`/api/endpoints/${id}`)).json;
    expect(view.status).toBe('online');
  });
});
