// SSE: CPU per chunk at full speed, time to first byte, and 2,000 open streams of ten chunks a second.

import { execFileSync } from 'node:child_process';
import { Agent, request } from 'node:http';
import { fileURLToPath } from 'node:url';
import {
  cpuSeconds,
  freePort,
  has,
  MODEL,
  median,
  OTHER_CORE,
  PROXIES,
  pause,
  pinned,
  residentMb,
  table,
  WITH_KEY,
  waitForPort,
} from './processes.mjs';

const ROUNDS = 3;
const FAST_STREAMS = 50;
const FAST_CHUNKS = 1000;
const OPEN_STREAMS = 2000;
const OPEN_SECONDS = 15;
const CHUNKS_A_SECOND = 10;
const FIRST_BYTE_TRIES = 200;

export async function streams() {
  if (!has('nginx') || !has('haproxy')) {
    console.log('streams: left out; nginx and haproxy must be installed');
    return;
  }
  // The client shares the other core with the upstream; only the proxy has a core of its own.
  execFileSync('taskset', ['-a', '-p', '-c', String(OTHER_CORE), String(process.pid)], { stdio: 'ignore' });
  const port = await freePort();
  const program = fileURLToPath(new URL('./stream-upstream.mjs', import.meta.url));
  const upstream = pinned(OTHER_CORE, process.execPath, [program, String(port)]);
  await waitForPort(port, '/v1/models');
  await fullSpeed(port);
  await firstByte(port);
  await manyOpen(port);
  await upstream.end();
  execFileSync('taskset', ['-a', '-p', '-c', '0,1', String(process.pid)], { stdio: 'ignore' });
}

async function fullSpeed(upstream) {
  const names = ['nginx', 'haproxy', 'troupe'];
  const cost = Object.fromEntries(names.map((name) => [name, []]));
  const lost = Object.fromEntries(names.map((name) => [name, 0]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const name of names) {
      const proxy = await PROXIES[name](upstream);
      await Promise.all(times(FAST_STREAMS, () => stream(proxy.port, FAST_CHUNKS / 5, 0)));
      const before = cpuSeconds(proxy.pid);
      const results = await Promise.all(times(FAST_STREAMS, () => stream(proxy.port, FAST_CHUNKS, 0)));
      cost[name].push(((cpuSeconds(proxy.pid) - before) / (FAST_STREAMS * FAST_CHUNKS)) * 1e6);
      lost[name] += results.reduce((sum, { chunks }) => sum + FAST_CHUNKS - chunks, 0);
      await proxy.end();
    }
  }
  table(`CPU per SSE chunk at full speed (${FAST_STREAMS} streams, median of ${ROUNDS})`, [
    ...names.map((name) => ({
      proxy: name,
      'CPU µs a chunk': median(cost[name]).toFixed(2),
      'times nginx': (median(cost[name]) / median(cost.nginx)).toFixed(2),
      'chunks lost': lost[name],
    })),
  ]);
}

async function firstByte(upstream) {
  const rows = [];
  let bare = 0;
  for (const name of ['bare upstream', 'nginx', 'haproxy', 'troupe']) {
    const proxy =
      name === 'bare upstream' ? { port: upstream, end: async () => {} } : await PROXIES[name](upstream);
    const tries = [];
    for (let i = 0; i < FIRST_BYTE_TRIES; i += 1) tries.push((await stream(proxy.port, 1, 0)).firstByteMs);
    const ms = median(tries);
    if (name === 'bare upstream') bare = ms;
    rows.push({ proxy: name, 'first byte ms (median)': ms.toFixed(2), 'times bare': (ms / bare).toFixed(2) });
    await proxy.end();
  }
  table('Time to the first byte of a stream, one at a time', rows);
}

async function manyOpen(upstream) {
  const rows = [];
  const chunks = OPEN_SECONDS * CHUNKS_A_SECOND;
  for (const name of ['nginx', 'haproxy', 'troupe']) {
    const proxy = await PROXIES[name](upstream);
    const idle = residentMb(proxy.pid);
    const before = cpuSeconds(proxy.pid);
    const all = Promise.all(times(OPEN_STREAMS, () => stream(proxy.port, chunks, 1000 / CHUNKS_A_SECOND)));
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, residentMb(proxy.pid));
    }, 500);
    const results = await all;
    clearInterval(watch);
    const cpu = cpuSeconds(proxy.pid) - before;
    rows.push({
      proxy: name,
      'idle MB': Math.round(idle),
      'most MB': Math.round(most),
      'CPU µs a chunk': ((cpu / (OPEN_STREAMS * chunks)) * 1e6).toFixed(1),
      'streams whole': results.filter((one) => one.whole && one.chunks === chunks).length,
      'chunks lost': results.reduce((sum, one) => sum + chunks - one.chunks, 0),
    });
    await proxy.end();
    await pause(200);
  }
  table(`${OPEN_STREAMS} open streams of ${CHUNKS_A_SECOND} chunks a second for ${OPEN_SECONDS} s`, rows);
}

const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });

function stream(port, chunks, pauseMs) {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    let firstByteMs = 0;
    let seen = 0;
    let tail = '';
    const body = JSON.stringify({
      model: MODEL,
      stream: true,
      user: `${chunks}/${pauseMs}`,
      messages: [{ role: 'user', content: 'Hello' }],
    });
    const req = request(
      {
        host: '127.0.0.1',
        port,
        agent,
        method: 'POST',
        path: '/v1/chat/completions',
        headers: {
          ...WITH_KEY,
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
        },
      },
      (res) => {
        res.on('data', (part) => {
          if (firstByteMs === 0) firstByteMs = performance.now() - started;
          seen += occurrences(part, '" word"');
          tail = part.toString('latin1').slice(-20);
        });
        res.on('end', () => resolve({ chunks: seen, firstByteMs, whole: tail.endsWith('[DONE]\n\n') }));
        res.on('error', () => resolve({ chunks: seen, firstByteMs, whole: false }));
      },
    );
    req.on('error', reject);
    req.end(body);
  });
}

function occurrences(buffer, text) {
  let count = 0;
  for (let at = buffer.indexOf(text); at !== -1; at = buffer.indexOf(text, at + text.length)) count += 1;
  return count;
}

function times(count, make) {
  return Array.from({ length: count }, make);
}
