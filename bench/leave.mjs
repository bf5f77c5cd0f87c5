// A client leaves in mid-stream: how long until the endpoint's connection ends, beside nginx, haproxy and no proxy.
import { createServer, request } from 'node:http';
import { freePort, has, MODEL, PROXIES, table, WITH_KEY } from './processes.mjs';

const TRIES = 500;
/** Who has not closed by then does not; haproxy waits for more to send unless it is told otherwise. */
const MOST_MS = 2000;
const LIST = JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model', owned_by: 'bench' }] });
const CHUNK = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: ' word' } }] })}\n\n`;
const BODY = JSON.stringify({ model: MODEL, stream: true, messages: [{ role: 'user', content: 'Hello' }] });

export async function leave() {
  const upstream = await hangingUpstream();
  const rows = [await measured('bare upstream', upstream, upstream.port)];
  for (const name of ['nginx', 'haproxy', 'troupe']) {
    if (name !== 'troupe' && !has(name)) continue;
    const proxy = await PROXIES[name](upstream.port);
    rows.push(await measured(name, upstream, proxy.port));
    await proxy.end();
  }
  upstream.server.closeAllConnections();
  upstream.server.close();
  table(`client left → the endpoint's connection closed, ms, ${TRIES} streams one after the other`, rows);
}

async function measured(name, upstream, port) {
  const times = [];
  let open = 0;
  for (let i = 0; i < TRIES && open < 3; i += 1) {
    const ms = await leaveOnce(upstream, port);
    if (ms === null) open += 1;
    else times.push(ms);
  }
  if (times.length === 0) return { proxy: name, p50: `> ${MOST_MS}`, p99: '', max: '', 'left open': open };
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))].toFixed(2);
  return { proxy: name, p50: at(0.5), p99: at(0.99), max: at(1), 'left open': open };
}

/** ms, or null if the connection stayed open. */
function leaveOnce(upstream, port) {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: '127.0.0.1',
        port,
        method: 'POST',
        path: '/v1/chat/completions',
        agent: false,
        headers: WITH_KEY,
      },
      (response) => {
        response.once('data', () => {
          const left = performance.now();
          const timer = setTimeout(resolve, MOST_MS, null);
          upstream.onClose = () => {
            clearTimeout(timer);
            resolve(performance.now() - left);
          };
          sent.destroy();
        });
        response.on('error', () => {});
      },
    );
    sent.on('error', (error) => {
      if (error.code !== 'ECONNRESET') reject(error);
    });
    sent.setHeader('content-type', 'application/json');
    sent.end(BODY);
  });
}

/** Sends one event and then nothing, as long as it is let. */
async function hangingUpstream() {
  const port = await freePort();
  const upstream = { port, server: null, onClose: () => {} };
  upstream.server = createServer((req, res) => {
    if (req.method === 'GET') {
      res.setHeader('content-type', 'application/json');
      res.end(LIST);
      return;
    }
    req.resume();
    req.on('end', () => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write(CHUNK);
      res.on('close', () => upstream.onClose());
    });
  });
  await new Promise((resolve) => upstream.server.listen(port, '127.0.0.1', resolve));
  return upstream;
}
