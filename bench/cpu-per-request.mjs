// CPU per request with the proxy's core saturated: wrk and an nginx that answers at once share the other core.
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  cpuSeconds,
  has,
  MODEL,
  median,
  nginxUpstream,
  OTHER_CORE,
  PROXIES,
  scratch,
  table,
  WITH_KEY,
} from './processes.mjs';

const ROUNDS = 3;
const WARM_UP_SECONDS = 5;
const MEASURE_SECONDS = 8;
const CONNECTIONS = 32;
/** Below this share of its core a proxy was not the bottleneck. */
const SATURATED = 0.9;
/** What Node itself costs: the least that a relay on it can. */
const BARE = 'bare Node and undici';
export const ANSWER = JSON.stringify({
  id: 'chatcmpl-bench',
  object: 'chat.completion',
  created: 1700000000,
  model: MODEL,
  choices: [{ index: 0, message: { role: 'assistant', content: 'word '.repeat(60) }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 200, completion_tokens: 60, total_tokens: 260 },
});

export async function cpuPerRequest() {
  if (!has('wrk') || !has('nginx') || !has('haproxy')) {
    console.log('requests: left out; wrk, nginx and haproxy must be installed');
    return;
  }
  const upstream = await nginxUpstream(ANSWER);
  const names = ['nginx', 'haproxy', BARE, 'troupe'];
  const measured = Object.fromEntries(names.map((name) => [name, []]));
  const bare = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    bare.push(await load(upstream.port, MEASURE_SECONDS));
    for (const name of names) {
      const proxy = await PROXIES[name](upstream.port);
      await load(proxy.port, WARM_UP_SECONDS);
      const before = cpuSeconds(proxy.pid);
      const { requests, seconds, failed } = await load(proxy.port, MEASURE_SECONDS);
      const cpu = cpuSeconds(proxy.pid) - before;
      measured[name].push({
        perRequest: (cpu / requests) * 1e6,
        rate: requests / seconds,
        busy: cpu / seconds,
        failed,
      });
      await proxy.end();
    }
  }
  await upstream.end();
  const of = (name, key) => median(measured[name].map((one) => one[key]));
  const nginxSaturated = of('nginx', 'busy') >= SATURATED;
  table(
    `CPU per non-streaming request (1 kB in, 0.6 kB out, ${CONNECTIONS} connections, median of ${ROUNDS})`,
    [
      {
        proxy: 'bare upstream',
        'requests/s': Math.round(median(bare.map(({ requests, seconds }) => requests / seconds))),
      },
      ...names.map((name) => ({
        proxy: name,
        'requests/s': Math.round(of(name, 'rate')),
        'CPU µs a request': of(name, 'perRequest').toFixed(1),
        'share of its core': of(name, 'busy').toFixed(2),
        'times nginx': nginxSaturated
          ? (of(name, 'perRequest') / of('nginx', 'perRequest')).toFixed(2)
          : `${(of(name, 'perRequest') / of('nginx', 'perRequest')).toFixed(2)} (nginx not saturated)`,
        'times bare Node': (of(name, 'perRequest') / of(BARE, 'perRequest')).toFixed(2),
        failed: measured[name].reduce((sum, one) => sum + one.failed, 0),
      })),
    ],
  );
}

/** `headers`: what the proxy needs beside the key. */
export async function load(port, seconds, headers = {}) {
  const script = join(scratch(), 'post.lua');
  const body = JSON.stringify({
    model: MODEL,
    messages: [{ role: 'user', content: 'x'.repeat(950) }],
  });
  writeFileSync(
    script,
    `wrk.method = "POST"
wrk.body = '${body}'
wrk.headers["content-type"] = "application/json"
${Object.entries({ ...WITH_KEY, ...headers })
  .map(([name, value]) => `wrk.headers["${name}"] = "${value}"`)
  .join('\n')}
done = function(summary)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, summary.duration, e.status + e.connect + e.read + e.write + e.timeout))
end
`,
  );
  const { stdout } = await promisify(execFile)('taskset', [
    '-c',
    String(OTHER_CORE),
    'wrk',
    '-t1',
    `-c${CONNECTIONS}`,
    `-d${seconds}s`,
    '-s',
    script,
    `http://127.0.0.1:${port}/v1/chat/completions`,
  ]);
  const [, requests, micros, failed] = /RESULT (\d+) (\d+) (\d+)/.exec(stdout);
  return { requests: Number(requests), seconds: Number(micros) / 1e6, failed: Number(failed) };
}
