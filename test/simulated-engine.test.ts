import { once } from 'node:events';
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import {
  type SimulatedEngine,
  type SimulatedEngineOptions,
  startSimulatedEngine,
} from '../src/demo/simulated-engine.js';
import type { Fault } from '../src/demo/simulated-faults.js';

interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  bytes: Buffer;
  chunks: Buffer[];
  /** The HTTP body had its proper end. */
  complete: boolean;
}
interface Asked {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
  agent?: Agent;
  signal?: AbortSignal;
}

const CHAT = '/v1/chat/completions';
const KINDS = [
  ['chat', CHAT, { messages: [{ role: 'user', content: 'how are you?' }] }],
  ['completions', '/v1/completions', { prompt: 'how are you?' }],
  ['responses', '/v1/responses', { input: 'how are you?' }],
] as const;
const MESSAGES = KINDS[0][2];

const running: SimulatedEngine[] = [];

afterEach(async () => {
  await Promise.all(running.splice(0).map((engine) => engine.stop()));
});

async function start(options?: SimulatedEngineOptions): Promise<SimulatedEngine> {
  const engine = await startSimulatedEngine(options);
  running.push(engine);
  return engine;
}

/** Resolves with the head; rejects if the connection breaks before it. */
function open(engine: SimulatedEngine, path: string, asked: Asked = {}): Promise<IncomingMessage> {
  const { body, headers, agent, signal } = asked;
  const method = asked.method ?? (body === undefined ? 'GET' : 'POST');
  const outgoing = request(`${engine.url}${path}`, { method, headers, agent: agent ?? false, signal });
  outgoing.end(typeof body === 'string' || body === undefined ? body : JSON.stringify(body));
  return new Promise((resolve, reject) => {
    outgoing.once('response', resolve);
    outgoing.on('error', reject);
  });
}

async function collect(response: IncomingMessage): Promise<Reply> {
  const chunks: Buffer[] = [];
  response.on('data', (chunk: Buffer) => chunks.push(chunk));
  await new Promise((resolve) => response.once('error', resolve).once('end', resolve));
  const bytes = Buffer.concat(chunks);
  const { statusCode: status = 0, headers, complete } = response;
  return { status, headers, text: bytes.toString(), bytes, chunks, complete };
}

async function ask(engine: SimulatedEngine, path: string, asked?: Asked): Promise<Reply> {
  return collect(await open(engine, path, asked));
}

function chat(engine: SimulatedEngine, more: object = {}, asked: Asked = {}): Promise<Reply> {
  return ask(engine, CHAT, { body: { model: 'sim-small', ...MESSAGES, ...more }, ...asked });
}

function stream(engine: SimulatedEngine, more: object = {}): Promise<Reply> {
  return chat(engine, { stream: true, ...more });
}

async function faulty(fault: Fault, options: SimulatedEngineOptions = {}): Promise<SimulatedEngine> {
  const engine = await start({ outputTokens: 4, ...options });
  engine.faults.always = fault;
  return engine;
}

type Json = ReturnType<typeof JSON.parse>;

function events(text: string): Json[] {
  const lines = text.split('\n').filter((line) => line.startsWith('data: '));
  return lines.map((line) => (line === 'data: [DONE]' ? '[DONE]' : JSON.parse(line.slice(6))));
}

function said(text: string): string[] {
  return events(text).flatMap((event) => event.choices?.[0]?.delta?.content || []);
}

function until(condition: () => boolean): Promise<void> {
  return expect.poll(condition, { interval: 2, timeout: 10_000 }).toBe(true);
}

describe('lists and marks', () => {
  const lists: [SimulatedEngineOptions['engine'], string, object][] = [
    ['openai_compatible', '/v1/models', { object: 'list', data: [{ id: 'sim-small', object: 'model' }] }],
    ['ollama', '/v1/models', { data: [{ owned_by: 'library' }] }],
    ['ollama', '/api/tags', { models: [{ name: 'sim-small', details: { format: 'gguf' } }] }],
    ['ollama', '/api/version', { version: expect.any(String) }],
    ['ollama', '/api/ps', { models: [{ model: 'sim-small', size_vram: expect.any(Number) }] }],
    ['vllm', '/version', { version: expect.any(String) }],
    ['vllm', '/v1/models', { data: [{ owned_by: 'vllm', max_model_len: 8192 }] }],
    ['llamacpp', '/props', { default_generation_settings: { n_ctx: 8192 }, total_slots: 4 }],
    ['llamacpp', '/v1/models', { data: [{ owned_by: 'llamacpp' }] }],
    ['sglang', '/get_model_info', { model_path: 'sim-small', is_generation: true }],
    ['sglang', '/v1/models', { data: [{ owned_by: 'sglang' }] }],
    ['lm_studio', '/api/v0/models', { data: [{ publisher: 'simulated', arch: 'sim', state: 'loaded' }] }],
    ['xllm', '/api/system', { xllm_version: expect.any(String) }],
  ];

  test.each(lists)('%s answers GET %s', async (engine, path, shape) => {
    const { status, text, headers } = await ask(await start({ engine }), path);
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('application/json');
    expect(JSON.parse(text)).toMatchObject(shape);
  });

  test('an engine does not show the routes of another', async () => {
    const engine = await start({ engine: 'vllm' });
    for (const path of [
      '/api/tags',
      '/props',
      '/get_model_info',
      '/api/v0/models',
      '/api/system',
      '/nothing',
    ]) {
      const { status, text } = await ask(engine, path);
      expect([path, status, typeof JSON.parse(text).error.message]).toEqual([path, 404, 'string']);
    }
  });

  test('the models can change while it runs', async () => {
    const engine = await start({ models: ['a'] });
    engine.options.models = ['b', 'c'];
    const { text } = await ask(engine, '/v1/models?limit=5');
    expect(JSON.parse(text).data.map(({ id }: { id: string }) => id)).toEqual(['b', 'c']);
  });

  test('a list is late by healthDelayMs, other routes are not', async () => {
    const engine = await start({ engine: 'vllm', healthDelayMs: 3_600_000 });
    const left = new AbortController();
    const list = ask(engine, '/v1/models', { signal: left.signal });
    list.catch(() => {});
    expect((await ask(engine, '/version')).status).toBe(200);
    left.abort();
    await expect(list).rejects.toThrow();
    engine.options.healthDelayMs = 1;
    expect((await ask(engine, '/v1/models')).status).toBe(200);
  });

  test('without the right key every route answers 401 and no fault is used up', async () => {
    const engine = await start({ apiKey: 'secret' });
    engine.faults.next = [{ kind: 'status', status: 418 }];
    expect((await ask(engine, '/v1/models')).status).toBe(401);
    expect((await chat(engine, {}, { headers: { authorization: 'Bearer wrong' } })).status).toBe(401);
    const headers = { authorization: 'Bearer secret' };
    expect((await chat(engine, {}, { headers })).status).toBe(418);
    expect((await chat(engine, {}, { headers })).status).toBe(200);
  });
});

describe('right answers', () => {
  test('a chat answer has its text, finish_reason and usage', async () => {
    const { text, headers } = await chat(await start({ outputTokens: 3 }));
    const usage = { prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 };
    const choice = {
      index: 0,
      message: { role: 'assistant', content: 'The company plays' },
      finish_reason: 'stop',
    };
    expect(JSON.parse(text)).toMatchObject({ object: 'chat.completion', choices: [choice], usage });
    expect(headers['content-length']).toBe(String(Buffer.byteLength(text)));
  });

  test('a completion has its text and usage', async () => {
    const engine = await start({ outputTokens: 2 });
    const { text } = await ask(engine, '/v1/completions', {
      body: { model: 'sim-small', prompt: ['abcd', 'e'] },
    });
    const choices = [{ text: 'The company', index: 0, finish_reason: 'stop' }];
    const usage = { prompt_tokens: 2, completion_tokens: 2, total_tokens: 4 };
    expect(JSON.parse(text)).toMatchObject({ object: 'text_completion', choices, usage });
  });

  test('a response has its output and usage', async () => {
    const engine = await start({ outputTokens: 2 });
    const input = [{ role: 'user', content: [{ type: 'input_text', text: 'abcdefgh' }] }];
    const { text } = await ask(engine, '/v1/responses', { body: { model: 'sim-small', input } });
    expect(JSON.parse(text)).toMatchObject({
      object: 'response',
      status: 'completed',
      output: [{ type: 'message', content: [{ type: 'output_text', text: 'The company' }] }],
      usage: { input_tokens: 2, output_tokens: 2, total_tokens: 4 },
    });
  });

  test('embeddings have one vector per input and prompt_tokens', async () => {
    const engine = await start();
    const body = { model: 'sim-small', input: ['abcd', 'efgh'] };
    const floats = JSON.parse((await ask(engine, '/v1/embeddings', { body })).text);
    expect(floats).toMatchObject({ object: 'list', usage: { prompt_tokens: 2, total_tokens: 2 } });
    expect(floats.data.map((entry: Json) => [entry.index, entry.embedding.length])).toEqual([
      [0, 8],
      [1, 8],
    ]);
    const base64 = JSON.parse(
      (await ask(engine, '/v1/embeddings', { body: { ...body, encoding_format: 'base64' } })).text,
    );
    expect(Buffer.from(base64.data[0].embedding, 'base64')).toHaveLength(32);
  });

  test('a chat stream is role, tokens, finish_reason, [DONE], without usage unless asked', async () => {
    const { text, headers } = await stream(await start({ outputTokens: 2 }));
    const [role, first, second, finish, done, ...more] = events(text);
    expect(headers['content-type']).toContain('text/event-stream');
    expect(role).toMatchObject({
      object: 'chat.completion.chunk',
      choices: [{ delta: { role: 'assistant' } }],
    });
    expect(first.choices).toMatchObject([{ index: 0, delta: { content: 'The' }, finish_reason: null }]);
    expect(second.choices[0].delta).toEqual({ content: ' company' });
    expect(finish.choices).toMatchObject([{ delta: {}, finish_reason: 'stop' }]);
    expect([done, more]).toEqual(['[DONE]', []]);
    expect(text).not.toContain('usage');
    expect(new Set([role, first, second, finish].map(({ id }) => id)).size).toBe(1);
  });

  test.each(KINDS.slice(0, 2))(
    'a %s stream asked for usage ends with it and empty choices',
    async (_, path, ask_) => {
      const engine = await start({ outputTokens: 2 });
      const body = { model: 'sim-small', ...ask_, stream: true, stream_options: { include_usage: true } };
      const all = events((await ask(engine, path, { body })).text);
      const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
      expect(all.at(-1)).toBe('[DONE]');
      expect(all.at(-2)).toMatchObject({ choices: [], usage });
      expect(all.slice(0, -2).every((event) => event.usage === null && event.choices.length === 1)).toBe(
        true,
      );
    },
  );

  test('a completions stream carries text', async () => {
    const engine = await start({ outputTokens: 2 });
    const body = { model: 'sim-small', prompt: 'a', stream: true };
    const all = events((await ask(engine, '/v1/completions', { body })).text);
    expect(all.slice(0, 3).map(({ choices: [{ text, finish_reason }] }) => [text, finish_reason])).toEqual([
      ['The', null],
      [' company', null],
      ['', 'stop'],
    ]);
    expect(all.slice(3)).toEqual(['[DONE]']);
  });

  test('a responses stream names its events, numbers them and has no [DONE]', async () => {
    const engine = await start({ outputTokens: 2 });
    const body = { model: 'sim-small', input: 'abcd', stream: true };
    const { text } = await ask(engine, '/v1/responses', { body });
    const all = events(text);
    const types = [
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ];
    expect([...text.matchAll(/^event: (.*)$/gm)].map(([, name]) => name)).toEqual(types);
    expect(all.map(({ type }) => type)).toEqual(types);
    expect(all.map(({ sequence_number }) => sequence_number)).toEqual(types.map((_, index) => index));
    expect(all[6].text).toBe('The company');
    expect(all[9].response.usage).toMatchObject({ input_tokens: 1, output_tokens: 2, total_tokens: 3 });
  });

  test.each(['max_tokens', 'max_completion_tokens'])('%s lowers the output and says so', async (limit) => {
    const engine = await start();
    const { choices, usage } = JSON.parse((await chat(engine, { [limit]: 5 })).text);
    expect([usage.completion_tokens, choices[0].finish_reason]).toEqual([5, 'length']);
    const all = JSON.parse((await chat(engine, { [limit]: 50 })).text);
    expect([all.usage.completion_tokens, all.choices[0].finish_reason]).toEqual([12, 'stop']);
  });

  test('max_output_tokens ends a response as incomplete', async () => {
    const body = { model: 'sim-small', input: 'a', max_output_tokens: 2, stream: true };
    const last = events((await ask(await start(), '/v1/responses', { body })).text).at(-1);
    expect(last).toMatchObject({ type: 'response.incomplete', response: { usage: { output_tokens: 2 } } });
  });

  test('an unknown model, a missing one and a body that is no JSON object are refused', async () => {
    const engine = await start();
    const unknown = await chat(engine, { model: 'other' });
    const error = { type: 'invalid_request_error', param: 'model', code: 'model_not_found' };
    expect([unknown.status, JSON.parse(unknown.text).error]).toMatchObject([404, error]);
    for (const body of ['{"model":', '[]', '{}', '']) {
      expect((await ask(engine, CHAT, { method: 'POST', body })).status).toBe(400);
    }
  });

  test('a paced stream says the same as an unpaced one, in several chunks', async () => {
    const engine = await start({ outputTokens: 40, tokensPerSecond: 1000, firstTokenMs: 1 });
    const paced = await stream(engine);
    engine.options = { outputTokens: 40 };
    expect(said(paced.text)).toEqual(said((await stream(engine)).text));
    expect(paced.chunks.length).toBeGreaterThan(1);
    expect(paced.complete).toBe(true);
  });

  test('a stream has its head before the first token, a JSON answer has not', async () => {
    const engine = await start({ firstTokenMs: 3_600_000 });
    const body = { model: 'sim-small', ...MESSAGES, stream: true };
    const response = await open(engine, CHAT, { body });
    expect([response.statusCode, response.readableLength]).toEqual([200, 0]);
    response.destroy();
    await expectNoHead(engine, { stream: false });
  });

  test('a long stream is whole for a client that reads late', async () => {
    const engine = await start({ outputTokens: 60_000 });
    const response = await open(engine, CHAT, { body: { model: 'sim-small', ...MESSAGES, stream: true } });
    await ask(engine, '/v1/models');
    expect(engine.active).toBe(1);
    expect(said((await collect(response)).text)).toHaveLength(60_000);
  });
});

describe('its own books', () => {
  test('requests are kept as they came, newest last', async () => {
    const engine = await start();
    await ask(engine, '/v1/models?x=1');
    await chat(engine, {}, { headers: { 'X-Odd-Case': '1' } });
    expect(engine.requests.map(({ method, path, aborted }) => [method, path, aborted])).toEqual([
      ['GET', '/v1/models?x=1', false],
      ['POST', CHAT, false],
    ]);
    const last = engine.requests[1];
    expect(last?.rawHeaders).toContain('X-Odd-Case');
    expect(last?.headers['x-odd-case']).toBe('1');
    expect(JSON.parse(last?.body ?? '')).toEqual({ model: 'sim-small', ...MESSAGES });
    expect(last?.at).toBeGreaterThan(0);
  });

  test('at most 1000 requests are kept', async () => {
    const engine = await start();
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    await Promise.all(Array.from({ length: 1003 }, (_, index) => ask(engine, `/${index}`, { agent })));
    agent.destroy();
    expect(engine.requests).toHaveLength(1000);
  });

  test('active counts inference alone, and a client that leaves ends its work', async () => {
    const engine = await start({ outputTokens: 1_000_000, tokensPerSecond: 100 });
    expect(engine.active).toBe(0);
    const body = { model: 'sim-small', ...MESSAGES, stream: true };
    const response = await open(engine, CHAT, { body });
    await once(response, 'data');
    expect([engine.active, engine.requests[0]?.aborted]).toEqual([1, false]);
    response.destroy();
    await until(() => engine.active === 0);
    expect(engine.requests[0]?.aborted).toBe(true);
  });

  test('stop breaks what runs and refuses what comes, restart serves again on the same port', async () => {
    const engine = await start({ firstTokenMs: 3_600_000 });
    const { url } = engine;
    const broken = chat(engine);
    broken.catch(() => {});
    await until(() => engine.active === 1);
    await engine.stop();
    expect([engine.active, engine.requests[0]?.aborted]).toEqual([0, false]);
    await expect(broken).rejects.toMatchObject({ code: 'ECONNRESET' });
    await expect(chat(engine)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await engine.stop();
    engine.options.firstTokenMs = 0;
    await engine.restart();
    expect([engine.url, (await chat(engine)).status]).toEqual([url, 200]);
    await engine.restart();
    expect((await chat(engine)).status).toBe(200);
  });

  test('a port that is taken is an error', async () => {
    const engine = await start();
    await expect(startSimulatedEngine({ port: engine.port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });
});

describe('which fault is due', () => {
  test('queued faults go first, one request each, then the standing one, then none', async () => {
    const engine = await start();
    engine.faults.next.push({ kind: 'status', status: 501 }, { kind: 'status', status: 502 });
    engine.faults.always = { kind: 'status', status: 503 };
    const statuses: number[] = [];
    for (const _ of [1, 2, 3, 4]) statuses.push((await chat(engine)).status);
    expect(statuses).toEqual([501, 502, 503, 503]);
    engine.faults.always = null;
    expect((await chat(engine)).status).toBe(200);
  });

  test('faults of lists and of inference do not mix', async () => {
    const engine = await start({ engine: 'ollama' });
    engine.faults.models = { kind: 'status', status: 500 };
    engine.faults.next = [{ kind: 'status', status: 429 }];
    expect((await ask(engine, '/v1/models')).status).toBe(500);
    expect((await ask(engine, '/api/tags')).status).toBe(500);
    expect((await chat(engine)).status).toBe(429);
    expect((await chat(engine)).status).toBe(200);
  });

  test('failureRate fails its share with 500', async () => {
    const draws = [0.1, 0.9, 0.29, 0.3];
    const engine = await start({ failureRate: 0.3, random: () => draws.shift() ?? 1 });
    const statuses: number[] = [];
    for (const _ of [1, 2, 3, 4]) statuses.push((await chat(engine)).status);
    expect(statuses).toEqual([500, 200, 500, 200]);
  });
});

describe('faults before the body', () => {
  test.each(['refuse', 'reset'] as const)('%s resets the connection before any answer', async (kind) => {
    const engine = await faulty({ kind });
    await expect(chat(engine)).rejects.toMatchObject({ code: 'ECONNRESET' });
    await until(() => engine.active === 0);
    expect(engine.requests.map(({ aborted }) => aborted)).toEqual([false]);
  });

  test('refuse works on the model list too', async () => {
    const engine = await start();
    engine.faults.models = { kind: 'refuse' };
    await expect(ask(engine, '/v1/models')).rejects.toMatchObject({ code: 'ECONNRESET' });
  });

  test('hang says nothing until it is released', async () => {
    const engine = await faulty({ kind: 'hang' });
    let answered = false;
    const reply = stream(engine).finally(() => {
      answered = true;
    });
    await until(() => engine.requests[0]?.body !== '' && engine.active === 1);
    expect(answered).toBe(false);
    await releaseUntil(engine, () => answered);
    expect(said((await reply).text)).toHaveLength(4);
  });

  test('hang ends when the client leaves', async () => {
    const engine = await faulty({ kind: 'hang' });
    const left = new AbortController();
    const reply = chat(engine, {}, { signal: left.signal });
    await until(() => engine.active === 1);
    left.abort();
    await expect(reply).rejects.toThrow();
    await until(() => engine.active === 0);
    expect(engine.requests[0]?.aborted).toBe(true);
  });

  test.each([true, false])(
    'hang_body sends the head and no byte until released (stream: %s)',
    async (streamed) => {
      const engine = await faulty({ kind: 'hang_body' });
      const body = { model: 'sim-small', ...MESSAGES, stream: streamed };
      const response = await open(engine, CHAT, { body });
      expect(response.headers['content-type']).toContain(streamed ? 'text/event-stream' : 'application/json');
      expect(response.readableLength).toBe(0);
      engine.release();
      const reply = await collect(response);
      expect([reply.complete, reply.text.length > 0]).toEqual([true, true]);
    },
  );

  test('slow_head answers as usual after its delay', async () => {
    const { status, text } = await chat(await faulty({ kind: 'slow_head', ms: 5 }));
    expect([status, JSON.parse(text).usage.completion_tokens]).toEqual([200, 4]);
  });

  test('slow_head sends no head before its delay is over', async () => {
    const engine = await faulty({ kind: 'slow_head', ms: 3_600_000 });
    await expectNoHead(engine, { stream: true });
  });

  test('slow_body sends the head at once and the body after its delay', async () => {
    const engine = await faulty({ kind: 'slow_body', ms: 3_600_000 });
    const body = { model: 'sim-small', ...MESSAGES, stream: true };
    const response = await open(engine, CHAT, { body });
    expect([response.statusCode, response.readableLength]).toEqual([200, 0]);
    response.destroy();
    engine.faults.always = { kind: 'slow_body', ms: 5 };
    expect(said((await stream(engine)).text)).toHaveLength(4);
    expect(JSON.parse((await chat(engine)).text).object).toBe('chat.completion');
  });

  test('status answers with an OpenAI error body, or with what it is given', async () => {
    const engine = await start();
    const headers = { 'Retry-After': '7', 'Content-Type': 'text/plain' };
    engine.faults.next = [
      { kind: 'status', status: 503 },
      { kind: 'status', status: 429, headers, body: 'slow down' },
    ];
    const plain = await chat(engine);
    const error = { message: expect.any(String), type: 'server_error', param: null, code: null };
    expect([plain.status, JSON.parse(plain.text)]).toEqual([503, { error }]);
    const told = await chat(engine);
    expect([told.status, told.text, told.headers['retry-after']]).toEqual([429, 'slow down', '7']);
    expect(told.headers['content-type']).toBe('text/plain');
  });

  test('redirect points elsewhere', async () => {
    const { status, headers } = await chat(await faulty({ kind: 'redirect', location: 'http://elsewhere/' }));
    expect([status, headers.location]).toEqual([307, 'http://elsewhere/']);
  });

  test('reject_stream_options refuses only a body that has them', async () => {
    const engine = await faulty({ kind: 'reject_stream_options' });
    const asked = { stream_options: { include_usage: true } };
    expect((await stream(engine, asked)).status).toBe(400);
    expect((await stream(engine)).status).toBe(200);
    engine.faults.always = { kind: 'reject_stream_options', status: 422 };
    expect((await stream(engine, asked)).status).toBe(422);
  });

  test('close_idle answers, then resets the connection when it is used again', async () => {
    const engine = await start();
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    engine.faults.next = [{ kind: 'close_idle' }];
    expect((await chat(engine, {}, { agent })).status).toBe(200);
    await expect(chat(engine, {}, { agent })).rejects.toMatchObject({ code: 'ECONNRESET' });
    expect((await chat(engine, {}, { agent })).status).toBe(200);
    expect(engine.requests).toHaveLength(3);
    agent.destroy();
  });
});

describe('faults in the body', () => {
  test('slow_chunks sends token after token', async () => {
    const { chunks, text } = await stream(await faulty({ kind: 'slow_chunks', ms: 20 }));
    expect(said(text)).toHaveLength(4);
    expect(chunks.length).toBeGreaterThan(1);
  });

  test('reset breaks a stream after so many tokens', async () => {
    const reply = await stream(await faulty({ kind: 'reset', afterTokens: 2 }));
    expect([reply.complete, said(reply.text)]).toEqual([false, ['The', ' company']]);
  });

  test('reset breaks a JSON answer after its first half', async () => {
    const { complete, headers, text } = await chat(await faulty({ kind: 'reset', afterTokens: 2 }));
    expect([complete, text.length]).toEqual([false, Math.floor(Number(headers['content-length']) / 2)]);
  });

  test('cut closes a stream after so many tokens, in the middle unless told', async () => {
    const engine = await faulty({ kind: 'cut', afterTokens: 3 });
    const told = await stream(engine);
    expect([told.complete, said(told.text).length]).toEqual([false, 3]);
    engine.faults.always = { kind: 'cut' };
    const untold = await stream(engine);
    expect([untold.complete, said(untold.text).length]).toEqual([false, 2]);
  });

  test.each([0, 1, 100])('cut closes a stream after exactly %i bytes', async (afterBytes) => {
    const { complete, bytes } = await stream(await faulty({ kind: 'cut', afterBytes }));
    expect([complete, bytes.length]).toEqual([false, afterBytes]);
  });

  test('cut closes a JSON answer half-way under its full content-length', async () => {
    const engine = await faulty({ kind: 'cut' });
    const { complete, headers, text } = await chat(engine);
    expect([complete, text.length]).toEqual([false, Math.floor(Number(headers['content-length']) / 2)]);
    await until(() => engine.active === 0);
    expect(engine.requests[0]?.aborted).toBe(false);
  });

  test('end_early ends cleanly without finish_reason, usage and [DONE]', async () => {
    const engine = await faulty({ kind: 'end_early', afterTokens: 2 });
    const { complete, text } = await stream(engine, { stream_options: { include_usage: true } });
    expect([complete, said(text).length, events(text).length]).toEqual([true, 2, 3]);
    expect(events(text).every((event) => event.choices[0].finish_reason === null)).toBe(true);
  });

  test('no_done ends cleanly after finish_reason', async () => {
    const { complete, text } = await stream(await faulty({ kind: 'no_done' }));
    expect([complete, events(text).at(-1).choices[0].finish_reason]).toEqual([true, 'stop']);
  });

  test('stall stops after so many tokens and goes on when released', async () => {
    const engine = await faulty({ kind: 'stall', afterTokens: 1 });
    const response = await open(engine, CHAT, { body: { model: 'sim-small', ...MESSAGES, stream: true } });
    let text = '';
    response.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    await until(() => said(text).length === 1);
    expect([engine.active, response.complete]).toEqual([1, false]);
    await releaseUntil(engine, () => response.complete);
    expect([said(text).length, events(text).at(-1)]).toEqual([4, '[DONE]']);
  });

  test('stall holds back the second half of a JSON answer', async () => {
    const engine = await faulty({ kind: 'stall', afterTokens: 1 });
    const response = await open(engine, CHAT, { body: { model: 'sim-small', ...MESSAGES } });
    await releaseUntil(engine, () => engine.active === 0);
    expect(JSON.parse((await collect(response)).text).usage.completion_tokens).toBe(4);
  });

  test('garbage is neither JSON nor events', async () => {
    const { status, complete, text, headers } = await stream(await faulty({ kind: 'garbage' }));
    expect([status, complete, events(text)]).toEqual([200, true, []]);
    expect(headers['content-type']).toContain('text/event-stream');
    expect(() => JSON.parse(text)).toThrow();
  });

  test.each([true, false])('half_json ends cleanly in the middle (stream asked: %s)', async (streamed) => {
    const { status, complete, text, headers } = await chat(await faulty({ kind: 'half_json' }), {
      stream: streamed,
    });
    expect([status, complete, headers['content-type']]).toEqual([200, true, 'application/json']);
    expect(text).toMatch(/^\{"id"/);
    expect(() => JSON.parse(text)).toThrow();
  });

  test.each(KINDS)('no_usage never reports usage for %s', async (_, path, asked) => {
    const engine = await faulty({ kind: 'no_usage' });
    const body = { model: 'sim-small', ...asked, stream_options: { include_usage: true } };
    for (const streamed of [true, false]) {
      const { status, text } = await ask(engine, path, { body: { ...body, stream: streamed } });
      expect([status, text.includes('_tokens":')]).toEqual([200, path === '/v1/responses']);
      expect(text).not.toMatch(/"(input|output|total|prompt|completion)_tokens":\d/);
    }
  });

  test('no_usage holds for embeddings', async () => {
    const body = { model: 'sim-small', input: 'a' };
    const { text } = await ask(await faulty({ kind: 'no_usage' }), '/v1/embeddings', { body });
    expect(JSON.parse(text)).not.toHaveProperty('usage');
  });

  test('error_event comes in mid-stream and ends it, with [DONE] if asked', async () => {
    const engine = await faulty({ kind: 'error_event', afterTokens: 2 });
    const bare = events((await stream(engine)).text);
    expect(bare).toHaveLength(4);
    expect(bare[3]).toEqual({ error: expect.objectContaining({ type: 'server_error' }) });
    engine.faults.always = { kind: 'error_event', afterTokens: 2, thenDone: true };
    const { text, complete } = await stream(engine);
    expect([complete, events(text).length, events(text).at(-1)]).toEqual([true, 5, '[DONE]']);
  });

  test('error_event of a responses stream has the shape of that protocol', async () => {
    const engine = await faulty({ kind: 'error_event', afterTokens: 1 });
    const body = { model: 'sim-small', input: 'a', stream: true };
    const { text } = await ask(engine, '/v1/responses', { body });
    expect(events(text).at(-1)).toMatchObject({ type: 'error', code: 'server_error' });
    expect(text).toContain('event: error\n');
  });

  test('wrong_content_type changes nothing but that', async () => {
    const reply = await stream(await faulty({ kind: 'wrong_content_type', contentType: 'text/plain' }));
    expect([reply.headers['content-type'], events(reply.text).at(-1)]).toEqual(['text/plain', '[DONE]']);
  });

  test('wrong_protocol answers chat as Responses and Responses as chat', async () => {
    const engine = await faulty({ kind: 'wrong_protocol' });
    expect(events((await stream(engine)).text).at(-1).type).toBe('response.completed');
    expect(JSON.parse((await chat(engine)).text).object).toBe('response');
    const body = { model: 'sim-small', input: 'a', stream: true };
    expect(events((await ask(engine, '/v1/responses', { body })).text).at(-1)).toBe('[DONE]');
  });

  test.each([true, false])('late_end keeps a finished body open (stream: %s)', async (streamed) => {
    const engine = await faulty({ kind: 'late_end', ms: 3_600_000 });
    const body = { model: 'sim-small', ...MESSAGES, stream: streamed };
    const response = await open(engine, CHAT, { body });
    let text = '';
    response.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    response.on('error', () => {});
    await until(() => text.endsWith(streamed ? 'data: [DONE]\n\n' : '}}'));
    expect([response.complete, engine.active]).toEqual([false, 1]);
    response.destroy();
    engine.faults.always = { kind: 'late_end', ms: 1 };
    expect((await chat(engine, { stream: streamed })).complete).toBe(true);
  });

  test('pauses_bytes tears events apart and loses nothing', async () => {
    const engine = await faulty({ kind: 'pauses_bytes', bytes: 50, ms: 2 }, { outputTokens: 2 });
    const { text, chunks } = await stream(engine);
    expect(chunks.length).toBeGreaterThan(events(text).length);
    expect(chunks.every(({ length }) => length % 50 === 0 || chunks.at(-1)?.length === length)).toBe(true);
    expect([said(text), events(text).at(-1)]).toEqual([['The', ' company'], '[DONE]']);
  });
});

/** Other requests are answered in the meantime, so a head would have come as well. */
async function expectNoHead(engine: SimulatedEngine, more: object): Promise<void> {
  const left = new AbortController();
  const head = open(engine, CHAT, {
    body: { model: 'sim-small', ...MESSAGES, ...more },
    signal: left.signal,
  });
  head.catch(() => {});
  await until(() => engine.requests.at(-1)?.body !== '');
  for (const _ of [1, 2, 3]) await ask(engine, '/v1/models');
  left.abort();
  await expect(head).rejects.toThrow();
}

/** A request may reach its hanging step only after the first release. */
async function releaseUntil(engine: SimulatedEngine, condition: () => boolean): Promise<void> {
  await until(() => {
    engine.release();
    return condition();
  });
}
