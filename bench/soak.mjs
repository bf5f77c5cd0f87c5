// 500 streams side by side, a fault every 5 s, for SOAK_SECONDS (600): what is left over afterwards.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { pause, root, scratch, table, WITH_KEY } from './processes.mjs';

const SECONDS = Number(process.env.SOAK_SECONDS ?? 600);
const STREAMS = 500;
const FAULT_EVERY_MS = 5000;
const MODEL = 'sim-small';
const NONE = { whole: 0, told: 0, refused: 0, cut: 0, stale: 0 };
const BODY = JSON.stringify({ model: MODEL, stream: true, messages: [{ role: 'user', content: 'Hello' }] });

/** Each is on for one period on one engine, in turn. */
const FAULTS = [
  { kind: 'status', status: 500 },
  { kind: 'refuse' },
  { kind: 'reset', afterTokens: 5 },
  { kind: 'hang' },
  { kind: 'cut', afterTokens: 7 },
  { kind: 'status', status: 429, headers: { 'retry-after': '2' } },
  { kind: 'stall', afterTokens: 3 },
  { kind: 'garbage' },
];

export async function soak() {
  const { startSimulatedEngine } = await import(join(root, 'dist', 'demo', 'simulated-engine.js'));
  const options = { models: [MODEL], tokensPerSecond: 20, outputTokens: 40 };
  const engines = await Promise.all([1, 2, 3].map(() => startSimulatedEngine(options)));
  const args = ['--port', '0', '--data-dir', join(scratch(), 'data')];
  for (const [i, { url }] of engines.entries()) args.push('--endpoint', `box${i}=${url}`);
  const child = fork(join(root, 'bench', 'soak-server.mjs'), args, {
    execArgv: ['--expose-gc'],
    env: { ...process.env, TROUPE_HEALTH_INTERVAL_MS: '2000', TROUPE_IDLE_TIMEOUT_MS: '10000' },
  });
  const [{ url }] = await once(child, 'message');
  await pause(1000);

  const seen = { ...NONE };
  await run(url, 20_000, seen, () => {});
  const before = await settled(child, url);
  let turn = 0;
  const counted = { ...NONE };
  await run(url, SECONDS * 1000, counted, () => {
    for (const engine of engines) {
      engine.faults.always = null;
      engine.release();
    }
    engines[turn % engines.length].faults.always = FAULTS[turn % FAULTS.length];
    turn += 1;
  });
  for (const engine of engines) {
    engine.faults.always = null;
    engine.release();
  }
  const after = await settled(child, url);
  table(`${STREAMS} streams for ${SECONDS} s, a fault every ${FAULT_EVERY_MS / 1000} s (${turn} faults)`, [
    { ...counted },
  ]);
  table('what is held when nothing is in flight', [
    { when: 'before', ...before },
    { when: 'after', ...after },
  ]);
  child.send('stop');
  await once(child, 'exit');
  await Promise.all(engines.map((engine) => engine.stop()));
}

async function run(url, ms, counted, everyFault) {
  const until = performance.now() + ms;
  const agent = new Agent({ keepAlive: true, maxSockets: STREAMS });
  const timer = setInterval(everyFault, FAULT_EVERY_MS);
  const client = async () => {
    while (performance.now() < until) {
      const how = await stream(url, agent);
      counted[how] += 1;
      // Who is refused comes back, but not at once.
      if (how !== 'whole') await pause(200);
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, client));
  clearInterval(timer);
  agent.destroy();
}

/**
 * `whole`, `told` of an error in the stream, `refused` with a status, or `cut` without a word. `stale`: the connection
 * had been closed after an error event while the client was about to use it again.
 */
function stream(url, agent) {
  return new Promise((resolve) => {
    const headers = { ...WITH_KEY, 'content-type': 'application/json' };
    const sent = request(`${url}/v1/chat/completions`, { method: 'POST', agent, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part) => {
        text = (text + part).slice(-400);
      });
      response.on('error', () => {});
      response.on('close', () => {
        if (response.statusCode !== 200) resolve('refused');
        else if (text.includes('[DONE]')) resolve('whole');
        else resolve(text.includes('"upstream_error"') ? 'told' : 'cut');
      });
    });
    sent.on('error', () => resolve(sent.reusedSocket ? 'stale' : 'cut'));
    sent.end(BODY);
  });
}

/** What the server holds once its connections to the engines have been given up. */
async function settled(child, url) {
  await pause(8000);
  child.send('weigh');
  const [{ heapMb, resources }] = await once(child, 'message');
  const stats = await (await fetch(`${url}/api/dashboard/stats`, { headers: WITH_KEY })).json();
  return {
    'heap MB': heapMb.toFixed(1),
    sockets: resources.TCPSocketWrap ?? 0,
    timers: resources.Timeout ?? 0,
    'in flight': stats.total_active_requests,
    queued: stats.queued_requests,
  };
}
