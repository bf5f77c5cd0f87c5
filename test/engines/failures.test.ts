import { createServer } from 'node:net';
import { Agent, Pool } from 'undici';
import { describe, expect, it } from 'vitest';
import { checkEndpoint } from '../../src/engines/check.js';
import {
  check,
  hang,
  hangInBody,
  openAiList,
  reset,
  serve,
  serveRaw,
  status,
  tags,
  vllmList,
} from './fakes.js';

const LIST = '/v1/models';
const NO_SERVER = 'something answers, but it is no inference server: ';

/** A port that nobody listens on any more. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return typeof address === 'object' && address ? address.port : 0;
}

describe('nobody answers', () => {
  it('is unreachable when the connection is refused', async () => {
    expect(await check(`http://127.0.0.1:${await freePort()}`)).toEqual({
      ok: false,
      reason: 'unreachable',
      error: 'connection refused',
    });
  });

  it('is unreachable when a name of several addresses refuses', async () => {
    expect(await check(`http://localhost:${await freePort()}`)).toMatchObject({
      reason: 'unreachable',
      error: 'connection refused',
    });
  });

  it('is unreachable when the host has no address', async () => {
    const connect = ((_, done) =>
      done(Object.assign(new Error('x'), { code: 'ENOTFOUND' }), null)) satisfies (
      _: unknown,
      done: (error: Error, socket: null) => void,
    ) => void;
    const dispatcher = new Agent({ connect });
    expect(await check('http://nowhere.invalid', {}, { dispatcher })).toMatchObject({
      reason: 'unreachable',
      error: 'host name not found',
    });
  });

  it('is unreachable when connections are reset', async () => {
    const { url } = await serve({}, reset);
    expect(await check(url)).toEqual({ ok: false, reason: 'unreachable', error: 'connection reset' });
  });

  it('is unreachable when the list is cut off', async () => {
    const cut = (res: import('node:http').ServerResponse) => {
      res.writeHead(200, { 'content-length': '1000' }).write('{"data":[');
      setImmediate(() => res.destroy());
    };
    const { url } = await serve({ [LIST]: cut });
    expect(await check(url, { engineType: 'vllm' })).toMatchObject({ reason: 'unreachable' });
  });

  it('is unreachable when TLS meets a server without', async () => {
    const { url } = await serve({ [LIST]: openAiList });
    expect(await check(url.replace('http:', 'https:'))).toMatchObject({
      reason: 'unreachable',
      error: 'TLS handshake failed',
    });
  });

  it('is unreachable when a header cannot be sent, without telling the key', async () => {
    const { url } = await serve({ [LIST]: openAiList });
    const result = await check(url, { apiKey: 'secret\nkey' });
    expect(result).toMatchObject({ reason: 'unreachable' });
    expect(JSON.stringify(result)).not.toContain('secret');
  });

  it('is unreachable when the caller cancels', async () => {
    const { url } = await serve({}, hang);
    const caller = new AbortController();
    const running = check(url, {}, { signal: caller.signal });
    caller.abort();
    expect(await running).toMatchObject({ reason: 'unreachable', error: 'the check was cancelled' });
    expect(await check(url, {}, { signal: caller.signal })).toMatchObject({ reason: 'unreachable' });
  });

  it('asks again when an idle connection of the pool turns out to be closed', async () => {
    let requests = 0;
    const { url } = await serve({
      [LIST]: (res) => {
        requests += 1;
        if (requests === 2) reset(res);
        else res.end(JSON.stringify(vllmList));
      },
    });
    const dispatcher = new Pool(url);
    const target = { engineType: 'vllm' } as const;
    const options = { timeoutMs: 10_000, dispatcher, mono: () => performance.now() };
    const endpoint = { baseUrl: url, apiKey: null, headers: {}, ...target };
    expect(await checkEndpoint(endpoint, options)).toMatchObject({ ok: true });
    expect(await checkEndpoint(endpoint, options)).toMatchObject({ ok: true });
    expect(requests).toBe(3);
    await dispatcher.close();
  });
});

describe('the time is over', () => {
  it.each([
    ['before the head', hang],
    ['within the body', hangInBody],
  ])('when an endpoint of unknown type hangs %s', async (_, otherwise) => {
    const { url } = await serve({}, otherwise);
    expect(await check(url, {}, { timeoutMs: 200 })).toEqual({
      ok: false,
      reason: 'timeout',
      error: 'no answer within 200 ms',
    });
  });

  it.each([
    ['before the head', hang],
    ['within the body', hangInBody],
  ])('when an endpoint of known type hangs %s, without being recognised anew', async (_, otherwise) => {
    const fake = await serve({}, otherwise);
    expect(await check(fake.url, { engineType: 'ollama' }, { timeoutMs: 200 })).toMatchObject({
      reason: 'timeout',
    });
    expect(fake.asked).toEqual(['/api/tags']);
  });

  it('when the connection is never made', async () => {
    const dispatcher = new Agent({ connect: () => undefined });
    const endpoint = { baseUrl: 'http://192.0.2.1', apiKey: null, headers: {}, engineType: null };
    const result = await checkEndpoint(endpoint, {
      timeoutMs: 100,
      dispatcher,
      mono: () => performance.now(),
    });
    expect(result).toMatchObject({ reason: 'timeout' });
    await dispatcher.destroy();
  });

  it('when a recognised engine does not list its models', async () => {
    const { url } = await serve({ '/api/system': { xllm_version: '1' } }, hang);
    expect(await check(url, {}, { timeoutMs: 200 })).toMatchObject({ reason: 'timeout' });
  });
});

describe('a refused key', () => {
  it.each([401, 403])('is told when every path answers %i', async (code) => {
    const { url } = await serve({}, status(code, '{"error":"no"}'));
    expect(await check(url)).toEqual({
      ok: false,
      reason: 'key_refused',
      error: 'the endpoint refused the key',
    });
  });

  it('is told when the list answers 401 and the other lists do not exist', async () => {
    const { url } = await serve({ [LIST]: status(401), '/version': { version: '0.9.1' } });
    expect(await check(url)).toMatchObject({ reason: 'key_refused' });
  });

  it('is told when the engine was recognised by something else', async () => {
    const { url } = await serve({ [LIST]: status(401), '/server_info': { model_path: 'm' } });
    expect(await check(url)).toMatchObject({ reason: 'key_refused' });
  });

  it('is told when the only list there is refuses it', async () => {
    const { url } = await serve({ '/api/tags': status(401) });
    expect(await check(url)).toMatchObject({ reason: 'key_refused' });
  });

  it('is not told when a page answers under the list', async () => {
    const { url } = await serve({ [LIST]: status(200, '<html>') }, status(401));
    expect(await check(url)).toMatchObject({ reason: 'not_recognised' });
  });
});

describe('a failing server', () => {
  it.each([500, 503])('is told with its status %i and the path', async (code) => {
    const { url } = await serve({}, status(code, 'Loading model'));
    expect(await check(url)).toEqual({
      ok: false,
      reason: 'server_error',
      error: `answered ${code} to GET /v1/models`,
    });
  });

  it('is told although its error never ends', async () => {
    const { url } = await serve({}, (res) => void res.writeHead(503).write('oops'));
    expect(await check(url)).toMatchObject({ reason: 'server_error' });
  });

  it('of known type is told with its own path', async () => {
    const { url } = await serve({}, status(502));
    expect(await check(url, { engineType: 'ollama' })).toMatchObject({
      error: 'answered 502 to GET /api/tags',
    });
  });
});

describe('something that is no inference server', () => {
  it.each([
    [
      'a page',
      status(200, '<html>It works!</html>'),
      'answered GET /v1/models with something that is not JSON',
    ],
    ['broken JSON', status(200, '{"data":['), 'answered GET /v1/models with something that is not JSON'],
    ['an empty body', status(200), 'answered GET /v1/models with something that is not JSON'],
    ['foreign JSON', { status: 'ok' }, 'answered GET /v1/models with JSON that is no model list'],
    ['an empty array', [], 'answered GET /v1/models with JSON that is no model list'],
    ['JSON null', status(200, 'null'), 'answered GET /v1/models with JSON that is no model list'],
    ['not found', status(404), 'answered 404 to GET /v1/models'],
    ['no content', status(204), 'answered 204 to GET /v1/models'],
    ['a redirect', status(302, '', { location: '/login' }), 'answered 302 to GET /v1/models'],
    [
      'far too much',
      status(200, `{"data":[{"id":"a"}],"x":"${'x'.repeat(5 * 1024 * 1024)}"}`),
      'answered GET /v1/models with more than 4 MiB',
    ],
  ])('is not recognised when it answers %s', async (_, answer, error) => {
    const { url } = await serve({}, answer);
    expect(await check(url)).toEqual({ ok: false, reason: 'not_recognised', error: NO_SERVER + error });
  });

  it('is not recognised when a redirect leads to a list', async () => {
    const list = await serve({ [LIST]: openAiList });
    const { url } = await serve({ [LIST]: status(307, '', { location: list.url + LIST }) });
    expect(await check(url)).toMatchObject({ reason: 'not_recognised' });
    expect(list.asked).toEqual([]);
  });

  it('answers badly when it was known', async () => {
    const { url } = await serve({}, status(302, '', { location: '/login' }));
    expect(await check(url, { engineType: 'openai_compatible' })).toEqual({
      ok: false,
      reason: 'bad_answer',
      error: 'something answers, but not like openai_compatible: answered 302 to GET /v1/models',
    });
  });

  it('is not recognised when it greets like SSH', async () => {
    const { url } = await serveRaw((socket) => socket.write('SSH-2.0-x\r\n'));
    expect(await check(url)).toEqual({
      ok: false,
      reason: 'not_recognised',
      error: `${NO_SERVER}what it sends is not HTTP`,
    });
  });

  it('is not recognised when it greets like SSH without a line end and hangs up', async () => {
    const { url } = await serveRaw((socket) => socket.end('SSH-2.0-x'));
    expect(await check(url)).toMatchObject({ reason: 'not_recognised' });
  });

  it('answers badly when SSH answers on the port of a known engine', async () => {
    const { url } = await serveRaw((socket) => socket.once('data', () => socket.write('SSH-2.0-x\r\n')));
    expect(await check(url, { engineType: 'vllm' })).toMatchObject({ reason: 'bad_answer' });
  });

  it('is unreachable when it takes the connection and closes it without a word', async () => {
    const { url } = await serveRaw((socket) => socket.end());
    expect(await check(url)).toMatchObject({ reason: 'unreachable' });
  });
});

describe('connections', () => {
  it('are kept for the next check of a known engine', async () => {
    const fake = await serve({ '/api/tags': tags });
    const dispatcher = new Pool(fake.url);
    const endpoint = { baseUrl: fake.url, apiKey: null, headers: {}, engineType: 'ollama' as const };
    for (let i = 0; i < 8; i++) {
      await checkEndpoint(endpoint, { timeoutMs: 10_000, dispatcher, mono: () => performance.now() });
    }
    // The pool may open a second one while the first answer is being finished.
    expect(fake.connections()).toBeLessThanOrEqual(2);
    await dispatcher.close();
  });

  it('suffice when the pool has only one', async () => {
    const fake = await serve({ [LIST]: vllmList });
    const dispatcher = new Pool(fake.url, { connections: 1 });
    expect(await check(fake.url, {}, { dispatcher })).toMatchObject({ ok: true, engineType: 'vllm' });
    await dispatcher.close();
  });

  it('of hanging probes are closed with the check', async () => {
    let open = 0;
    const { url } = await serve({ [LIST]: openAiList }, (res) => {
      open += 1;
      res.on('close', () => {
        open -= 1;
      });
    });
    const dispatcher = new Agent();
    await check(url, {}, { dispatcher, timeoutMs: 200 });
    await expect.poll(() => open).toBe(0);
    await dispatcher.close();
  });

  it('end without warnings', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => void warnings.push(warning);
    process.on('warning', note);
    const { url } = await serve({}, hangInBody);
    await check(url, {}, { timeoutMs: 100 });
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    process.off('warning', note);
    expect(warnings).toEqual([]);
  });
});
