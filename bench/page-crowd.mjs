// Who is around while the page is measured, each part in a process of its own: `engines COUNT`, `clients PORT RATE`,
// `readers PORT`, which reads with as many connections as it is told. Ends with whoever started it.
import { Agent, get, request } from 'node:http';
import { join } from 'node:path';
import { root, WITH_KEY } from './processes.mjs';

const MODELS = 20;
const MODELS_EACH = 4;
const MOST_CONNECTIONS = 500;
const modelAt = (index) => `model-${index % MODELS}`;

const PARTS = { engines, clients, readers };
const [part, ...args] = process.argv.slice(2);
process.on('disconnect', () => process.exit(0));
await PARTS[part](...args.map(Number));

async function engines(count) {
  const { startSimulatedEngine } = await import(join(root, 'dist', 'demo', 'simulated-engine.js'));
  const all = Array.from({ length: count }, (_, i) =>
    startSimulatedEngine({
      models: Array.from({ length: MODELS_EACH }, (_, j) => modelAt(i + j * 5)),
      outputTokens: 4,
      tokensPerSecond: 20,
      firstTokenMs: 100,
    }),
  );
  process.send((await Promise.all(all)).map(({ url }) => url));
}

/** Each request at its time, whether those before it are answered or not; at most so many connections are open. */
async function clients(port, rate) {
  const agent = new Agent({ keepAlive: true, maxSockets: MOST_CONNECTIONS });
  const startedAt = performance.now();
  let sent = 0;
  setInterval(() => {
    const due = ((performance.now() - startedAt) / 1000) * rate;
    for (; sent < due; sent += 1) ask(port, agent, sent);
  }, 5);
}

function ask(port, agent, index) {
  const headers = { ...WITH_KEY, 'content-type': 'application/json' };
  const options = { host: '127.0.0.1', port, agent, method: 'POST', path: '/v1/chat/completions', headers };
  const sent = request(options, (response) => response.on('error', () => {}).resume());
  // What failed is seen in the server's own count.
  sent.on('error', () => {});
  sent.end(
    JSON.stringify({
      model: modelAt(index),
      stream: index % 2 === 0,
      messages: [{ role: 'user', content: 'Hello' }],
    }),
  );
}

/** Told a number of readers, tells the bytes that the ones before have read. */
async function readers(port) {
  let open = [];
  let bytes = 0;
  process.on('message', (count) => {
    for (const one of open) one.destroy();
    process.send(bytes);
    bytes = 0;
    open = Array.from({ length: count }, () =>
      get(
        { host: '127.0.0.1', port, path: '/api/dashboard/events', headers: WITH_KEY, agent: false },
        (response) => {
          response.on('data', (part) => {
            bytes += part.length;
          });
          response.on('error', () => {});
        },
      ).on('error', () => {}),
    );
  });
}
