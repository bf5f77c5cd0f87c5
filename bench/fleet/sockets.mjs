// The first scenes again, with boxes behind real sockets and Troupe between: does the simulation tell the truth?
import { createServer } from 'node:http';
import { Agent, request } from 'undici';
import { pause, startTroupe, WITH_KEY } from '../processes.mjs';
import { Box } from './box.mjs';
import { randomOf } from './random.mjs';

/** A second of the simulation takes so many of a second here. */
export const FASTER = 8;

/** A box that answers over HTTP, in real time; ids, prompts and lengths are those the client says. */
async function serveBox(options, model) {
  const box = new Box('box', options);
  const from = performance.now();
  const now = () => (performance.now() - from) * FASTER;
  let timer;
  const pump = () => {
    clearTimeout(timer);
    box.advance(now());
    for (const job of box.taken()) {
      // A timer that came late may find both at once, and tells of them twice.
      if (!job.begun) job.first();
      job.begun = true;
      if (job.endAt !== undefined && !job.over) job.end();
      job.over = job.endAt !== undefined;
    }
    const next = box.nextAt();
    if (next !== Number.POSITIVE_INFINITY) timer = setTimeout(pump, Math.max(0, (next - now()) / FASTER));
  };
  const server = createServer((req, res) => {
    if (req.method === 'GET') {
      const list = { object: 'list', data: [{ id: model, object: 'model', owned_by: 'bench' }] };
      res.setHeader('content-type', 'application/json');
      res.writeHead(req.url === '/v1/models' ? 200 : 404);
      res.end(req.url === '/v1/models' ? JSON.stringify(list) : '{}');
      return;
    }
    const chunks = [];
    req.on('data', (chunk) => chunks.push(chunk));
    req.on('end', () => {
      const body = Buffer.concat(chunks);
      const tokens = JSON.parse(body.toString()).seed;
      const event = (data) => res.write(`data: ${JSON.stringify(data)}\n\n`);
      const choice = (delta, finish) => ({ choices: [{ index: 0, delta, finish_reason: finish }] });
      box.add(
        {
          prompt: body.length,
          tokens,
          first: () => {
            res.writeHead(200, { 'content-type': 'text/event-stream' });
            event(choice({ role: 'assistant', content: 'a' }, null));
          },
          end: () => {
            event(choice({}, 'stop'));
            event({ choices: [], usage: { prompt_tokens: 1, completion_tokens: tokens, total_tokens: 1 } });
            res.end('data: [DONE]\n\n');
          },
        },
        now(),
      );
      pump();
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    turnSlower: (factor) => {
      box.advance(now());
      box.slowdowns = [{ from: now(), to: Number.POSITIVE_INFINITY, factor }];
      pump();
    },
    end: () => {
      clearTimeout(timer);
      server.closeAllConnections();
      server.close();
    },
  };
}

/** One line per request as `play` answers them, times in the simulation's ms. */
export async function playOverSockets(scene, policy, seed) {
  const model = 'm';
  const boxes = await Promise.all(
    scene.boxes.map(({ slowdowns: _later, ...options }) => serveBox(options, model)),
  );
  const endpoints = boxes.map(({ url }, i) => [`box-${i}`, url]);
  const server = await startTroupe(endpoints, ['--policy', policy]);
  const url = `http://127.0.0.1:${server.port}`;
  const dispatcher = new Agent({ connections: 2000 });
  const start = performance.now();
  const timers = scene.boxes.flatMap(({ slowdowns = [] }, i) =>
    slowdowns.map(({ from, factor }) => setTimeout(() => boxes[i].turnSlower(factor), from / FASTER)),
  );
  const lines = await Promise.all(
    scene.arrivals(randomOf(seed), seed).map(async ({ at, asked }) => {
      await pause(start + at / FASTER - performance.now());
      return ask(`${url}/v1/chat/completions`, model, asked, dispatcher);
    }),
  );
  for (const timer of timers) clearTimeout(timer);
  await dispatcher.close();
  await server.end();
  for (const box of boxes) box.end();
  return lines;
}

async function ask(url, model, { prompt, tokens }, dispatcher) {
  // The length of the answer travels where no gateway looks.
  const shell = JSON.stringify({
    model,
    stream: true,
    seed: tokens,
    messages: [{ role: 'user', content: '' }],
  });
  const content = 'x'.repeat(Math.max(0, prompt - shell.length));
  const body = shell.replace('"content":""', `"content":"${content}"`);
  const from = performance.now();
  const {
    statusCode,
    headers,
    body: answer,
  } = await request(url, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', ...WITH_KEY },
    dispatcher,
  });
  let first = null;
  // Comments that keep the connection alive are no answer yet.
  for await (const chunk of answer) if (chunk.includes('data:')) first ??= performance.now();
  const to = performance.now();
  return {
    failed: statusCode !== 200,
    ttftMs: (first - from) * FASTER,
    totalMs: (to - from) * FASTER,
    predictedMs: null,
    tookMs: null,
    box: headers['x-troupe-endpoint'] ?? null,
  };
}
