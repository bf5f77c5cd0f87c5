// Throughput per core beside the gateway that npm installs, both warmed until they are steady.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ANSWER, load } from './cpu-per-request.mjs';
import {
  cpuSeconds,
  freePort,
  has,
  nginxUpstream,
  PROXIES,
  PROXY_CORE,
  pinned,
  root,
  table,
  waitForPort,
} from './processes.mjs';

const PEER = '@portkey-ai/gateway';
const VERSION = '1.15.2';
/** Its own version of this does not stream on Node 20. */
const OVERRIDES = { '@hono/node-server': '1.13.8' };
const RUN_SECONDS = 6;
const MOST_RUNS = 12;
/** So many runs in a row within this of each other are steady. */
const STEADY_RUNS = 3;
const STEADY = 0.1;

export async function peer() {
  if (!has('wrk') || !has('nginx')) {
    console.log('peer: left out; wrk and nginx must be installed');
    return;
  }
  const upstream = await nginxUpstream(ANSWER);
  const rows = [];
  for (const [name, start, headers] of [
    ['troupe', PROXIES.troupe, {}],
    [PEER, startPeer, peerHeaders(upstream.port)],
  ]) {
    const proxy = await start(upstream.port);
    rows.push({ proxy: name, ...(await steady(proxy, headers)) });
    await proxy.end();
  }
  await upstream.end();
  const [ours, theirs] = rows.map((row) => row['requests/s of a core']);
  table(
    `requests of 1 kB, 32 connections, one core each: ${(ours / theirs).toFixed(1)} times the peer`,
    rows,
  );
}

async function steady(proxy, headers) {
  const runs = [];
  let failed = 0;
  while (runs.length < MOST_RUNS && !isSteady(runs)) {
    const before = cpuSeconds(proxy.pid);
    const run = await load(proxy.port, RUN_SECONDS, headers);
    const cpu = cpuSeconds(proxy.pid) - before;
    failed += run.failed;
    runs.push({ perCore: run.requests / cpu, rate: run.requests / run.seconds, busy: cpu / run.seconds });
  }
  const last = runs.slice(-STEADY_RUNS);
  const mean = (key) => last.reduce((sum, one) => sum + one[key], 0) / last.length;
  return {
    'requests/s of a core': Math.round(mean('perCore')),
    'requests/s': Math.round(mean('rate')),
    'share of its core': mean('busy').toFixed(2),
    runs: runs.length,
    steady: isSteady(runs),
    failed,
  };
}

function isSteady(runs) {
  if (runs.length < STEADY_RUNS) return false;
  const last = runs.slice(-STEADY_RUNS).map(({ perCore }) => perCore);
  return Math.max(...last) <= Math.min(...last) * (1 + STEADY);
}

async function startPeer() {
  const directory = join(root, '.cache', 'peer');
  const entry = join(directory, 'node_modules', PEER, 'build', 'start-server.js');
  if (!existsSync(entry)) {
    mkdirSync(directory, { recursive: true });
    const manifest = { private: true, dependencies: { [PEER]: VERSION }, overrides: OVERRIDES };
    writeFileSync(join(directory, 'package.json'), JSON.stringify(manifest));
    execFileSync('npm', ['install', '--no-audit', '--no-fund'], { cwd: directory, stdio: 'ignore' });
  }
  const port = await freePort();
  const server = pinned(PROXY_CORE, process.execPath, [entry, '--headless', `--port=${port}`]);
  await waitForPort(port);
  return { ...server, port };
}

function peerHeaders(upstream) {
  return { 'x-portkey-provider': 'openai', 'x-portkey-custom-host': `http://127.0.0.1:${upstream}/v1` };
}
