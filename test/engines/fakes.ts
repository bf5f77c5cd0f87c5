import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { Agent } from 'undici';
import { onTestFinished } from 'vitest';
import { type CheckOptions, type CheckTarget, checkEndpoint } from '../../src/engines/check.js';

/** JSON for a 200, or what to do with the response. */
export type Answer = object | ((res: ServerResponse) => void);

export interface Fake {
  url: string;
  asked: string[];
  headers: IncomingHttpHeaders[];
  /** How many connections were made to it. */
  connections: () => number;
}

/** An HTTP server that knows the given paths and answers 404 to all others (or `otherwise`). */
export async function serve(routes: Record<string, Answer>, otherwise: Answer = status(404)): Promise<Fake> {
  const asked: string[] = [];
  const headers: IncomingHttpHeaders[] = [];
  const server = createServer((req, res) => {
    const path = req.url ?? '';
    asked.push(path);
    headers.push(req.headers);
    const answer = routes[path] ?? otherwise;
    if (typeof answer === 'function') answer(res);
    else res.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
  });
  const { url, connections } = await listening(server);
  return { url, asked, headers, connections };
}

/** A TCP server that does as it is told with every connection. */
export async function serveRaw(onConnection: (socket: Socket) => void): Promise<{ url: string }> {
  return listening(
    createTcpServer((socket) => {
      socket.on('error', () => undefined);
      onConnection(socket);
    }),
  );
}

async function listening(server: Server) {
  const sockets = new Set<Socket>();
  let connections = 0;
  server.on('connection', (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => connections,
  };
}

export function status(code: number, body = '', headers: Record<string, string> = {}) {
  return (res: ServerResponse) => void res.writeHead(code, headers).end(body);
}

export function delayed(ms: number, answer: object) {
  return (res: ServerResponse) => void setTimeout(() => res.end(JSON.stringify(answer)), ms);
}

export function hang() {}

export function hangInBody(res: ServerResponse) {
  res.writeHead(200, { 'content-type': 'application/json' }).write('{"data":[');
}

export function reset(res: ServerResponse) {
  res.socket?.resetAndDestroy();
}

/** One check with a pool of its own that must have nothing left to do afterwards. */
export async function check(
  baseUrl: string,
  target: Partial<CheckTarget> = {},
  options: Partial<CheckOptions> = {},
) {
  const dispatcher = new Agent();
  try {
    return await checkEndpoint(
      { baseUrl, apiKey: null, headers: {}, engineType: null, ...target },
      { timeoutMs: 10_000, dispatcher, mono: () => performance.now(), ...options },
    );
  } finally {
    // Waits for every request that is still under way: a leaked one makes the test run into its time limit.
    await dispatcher.close();
  }
}

export const names = (result: Awaited<ReturnType<typeof check>>) =>
  result.ok ? result.models.map(({ modelId }) => modelId) : result;

/** What the engines answer, cut down to what identifies them. */
export const tags = {
  models: [
    { name: 'llama3:latest', model: 'llama3:latest', size: 1, digest: 'x', details: { format: 'gguf' } },
    { name: 'nomic:v1', model: 'nomic:v1', capabilities: ['embedding'], details: { format: 'gguf' } },
  ],
};

export const lmStudioV0 = {
  object: 'list',
  data: [
    {
      id: 'qwen2-vl-7b-instruct',
      object: 'model',
      type: 'vlm',
      publisher: 'mlx-community',
      arch: 'qwen2_vl',
      compatibility_type: 'mlx',
      state: 'not-loaded',
      max_context_length: 32768,
      capabilities: ['tool_use'],
    },
    {
      id: 'text-embedding-nomic',
      object: 'model',
      type: 'embeddings',
      arch: 'nomic-bert',
      state: 'loaded',
      max_context_length: 2048,
    },
  ],
};

export const lmStudioV1 = {
  models: [
    {
      type: 'llm',
      publisher: 'openai',
      key: 'openai/gpt-oss-20b',
      display_name: 'GPT-OSS 20B',
      architecture: 'gpt_oss',
      loaded_instances: [{ id: 'openai/gpt-oss-20b', config: { context_length: 8192 } }],
      max_context_length: 131072,
      format: 'mlx',
      capabilities: { vision: false, trained_for_tool_use: true },
    },
  ],
};

export const vllmList = {
  object: 'list',
  data: [{ id: 'Qwen/Qwen3-8B', object: 'model', owned_by: 'vllm', max_model_len: 40960 }],
};

export const sglangList = {
  object: 'list',
  data: [{ id: 'meta/llama', object: 'model', owned_by: 'sglang', max_model_len: 8192 }],
};

export const llamacppList = {
  object: 'list',
  data: [{ id: 'gemma.gguf', object: 'model', owned_by: 'llamacpp', meta: { n_ctx_train: 131072 } }],
  models: [{ name: 'gemma.gguf', model: 'gemma.gguf', capabilities: ['completion', 'multimodal'] }],
};

export const openAiList = {
  object: 'list',
  data: [
    { id: 'gpt-4o', object: 'model', created: 1, owned_by: 'openai' },
    { id: 'text-embedding-3', object: 'model', created: 1, owned_by: 'openai' },
  ],
};
