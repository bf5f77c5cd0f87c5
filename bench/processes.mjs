// Programs under test, each pinned to a core, and what they cost.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const PROXY_CORE = 0;
export const OTHER_CORE = 1;
export const MODEL = 'bench-model';
const TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK']).toString());

const cleanups = [];
process.on('exit', () => {
  for (const cleanup of cleanups.reverse()) cleanup();
});
process.on('SIGINT', () => process.exit(130));

/** Every Troupe that is measured asks for a key, and every client sends it. */
export const WITH_KEY = { authorization: 'Bearer the-key-of-the-benchmarks' };
process.env.TROUPE_API_KEY = 'the-key-of-the-benchmarks';

export function scratch() {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-bench-'));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Starts a program on one core; `end` waits until it is gone. */
export function pinned(core, program, args, env = {}) {
  const child = spawn('taskset', ['-c', String(core), program, ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...env },
  });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  cleanups.push(() => child.kill('SIGKILL'));
  return {
    pid: child.pid,
    async end() {
      child.kill('SIGTERM');
      await gone;
    },
  };
}

export function has(program) {
  try {
    execFileSync('which', [program], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

export function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

export async function waitForPort(port, path = '/') {
  for (let i = 0; i < 400; i += 1) {
    try {
      await (await fetch(`http://127.0.0.1:${port}${path}`)).arrayBuffer();
      return;
    } catch {
      await pause(25);
    }
  }
  throw new Error(`nothing answers on port ${port}`);
}

/** CPU seconds of a process and its children so far, all threads. */
export function cpuSeconds(pid) {
  let ticks = 0;
  for (const one of [pid, ...childrenOf(pid)]) {
    const stat = readFileSync(`/proc/${one}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

/** Resident memory of a process and its children, MB. */
export function residentMb(pid) {
  let kb = 0;
  for (const one of [pid, ...childrenOf(pid)]) {
    kb += Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${one}/status`, 'utf8'))?.[1] ?? 0);
  }
  return kb / 1024;
}

function childrenOf(pid) {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );
}

/** nginx as an upstream that answers at once. */
export async function nginxUpstream(answer) {
  const port = await freePort();
  const list = JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model', owned_by: 'bench' }] });
  const config = nginxConfig(`
    server {
      listen 127.0.0.1:${port} backlog=4096;
      default_type application/json;
      location = /v1/models { return 200 '${list}'; }
      location = /v1/chat/completions { return 200 '${answer}'; }
      location / { return 404; }
    }`);
  const server = pinned(OTHER_CORE, 'nginx', ['-c', config]);
  await waitForPort(port);
  return { ...server, port };
}

/** Troupe in front of endpoints, all of them online. */
export async function startTroupe(endpoints, args = []) {
  const port = await freePort();
  const server = pinned(PROXY_CORE, process.execPath, [
    join(root, 'dist', 'server.js'),
    '--port',
    String(port),
    '--data-dir',
    join(scratch(), 'data'),
    ...endpoints.flatMap(([name, url]) => ['--endpoint', `${name}=${url}`]),
    ...args,
  ]);
  await waitForPort(port);
  for (;;) {
    const reply = await fetch(`http://127.0.0.1:${port}/api/endpoints`, { headers: WITH_KEY });
    const online = ((await reply.json()).endpoints ?? []).filter(({ status }) => status === 'online');
    if (online.length === endpoints.length) return { ...server, port };
    await pause(50);
  }
}

/** The rivals and Troupe itself in front of one upstream, one at a time. */
export const PROXIES = {
  troupe: (upstream) => startTroupe([['upstream', `http://127.0.0.1:${upstream}`]]),

  async 'bare Node and undici'(upstream) {
    const port = await freePort();
    const relay = join(root, 'bench', 'bare-relay.mjs');
    const server = pinned(PROXY_CORE, process.execPath, [relay, String(port), String(upstream)]);
    await waitForPort(port, '/v1/models');
    return { ...server, port };
  },

  async nginx(upstream) {
    const port = await freePort();
    const config = nginxConfig(`
      upstream box { server 127.0.0.1:${upstream}; keepalive 2100; }
      server {
        listen 127.0.0.1:${port} backlog=4096;
        location / {
          proxy_pass http://box;
          proxy_http_version 1.1;
          proxy_set_header Connection "";
          proxy_buffering off;
          proxy_read_timeout 600s;
        }
      }`);
    const server = pinned(PROXY_CORE, 'nginx', ['-c', config]);
    await waitForPort(port, '/v1/models');
    return { ...server, port };
  },

  async haproxy(upstream) {
    const port = await freePort();
    const file = join(scratch(), 'haproxy.cfg');
    writeFileSync(
      file,
      `global
  maxconn 5000
  nbthread 1
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend front
  bind 127.0.0.1:${port}
  default_backend box
backend box
  server box 127.0.0.1:${upstream}
`,
    );
    const server = pinned(PROXY_CORE, 'haproxy', ['-f', file]);
    await waitForPort(port, '/v1/models');
    return { ...server, port };
  },
};

function nginxConfig(body) {
  const directory = scratch();
  const file = join(directory, 'nginx.conf');
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${directory}/pid; error_log /dev/null;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path ${directory}/b; proxy_temp_path ${directory}/p; fastcgi_temp_path ${directory}/f;
  uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
  client_body_buffer_size 64k;
  ${body}
}
`,
  );
  return file;
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export function table(title, rows) {
  console.log(`\n${title}`);
  console.table(rows);
}
