// The page with 500 endpoints and 200 requests a second: what it costs its reader, and what ten readers cost the server.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { cpuSeconds, median, OTHER_CORE, pause, startTroupe, table, WITH_KEY } from './processes.mjs';

const ENDPOINTS = 500;
const REQUESTS_A_SECOND = 200;
const PAGES = [
  { name: 'overview', path: '/dashboard/', drawn: '[data-testid=timeline]' },
  { name: 'endpoints', path: '/dashboard/endpoints?sort=-requests', drawn: '.row-line' },
  { name: 'requests', path: '/dashboard/requests', drawn: '.row-line' },
];
const SETTLE_MS = 5000;
const PATIENCE_MS = 120_000;
/** The heap is weighed at the end of each. */
const SPANS_MS = [20_000, 20_000, 20_000];
const COLLECTIONS = 5;
const READERS = 10;
const ROUNDS = 5;
const ROUND_MS = 10_000;
/** A snapshot for each, and what the server does when they come. */
const BETWEEN_MS = 2000;
const TARGETS = { taskMs: 100, mainShare: 0.3, heapGrowth: 0.1, coreShare: 0.05, scriptKb: 200 };

const PASSWORD = 'the-password-of-the-benchmarks';
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';

export async function page() {
  if (!existsSync(executablePath)) {
    console.log('page: left out; chromium must be installed');
    return;
  }
  process.env.TROUPE_ADMIN_PASSWORD = PASSWORD;
  const engines = crowd('engines', ENDPOINTS);
  const [urls] = await once(engines, 'message');
  const server = await startTroupe(
    urls.map((url, i) => [`box ${i}`, url]),
    ['--log-level', 'error'],
  );
  const clients = crowd('clients', server.port, REQUESTS_A_SECOND);
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  const look = { browser, url: `http://127.0.0.1:${server.port}` };
  await pause(SETTLE_MS);

  const load = await loadOf(server.port);
  const views = [];
  for (const one of PAGES) views.push(await watched(look, one));
  const rate = await load();
  const seconds = SPANS_MS.reduce((sum, ms) => sum + ms, 0) / 1000;
  table(
    `A page for ${seconds} s, ${ENDPOINTS} endpoints, ${rate}; in brackets: CPU time, which other programs do not stretch`,
    [targetRow(), ...views.map(viewRow)],
  );

  const reading = crowd('readers', server.port);
  const turns = await compared(server, async (count) => {
    reading.send(count);
    const [bytes] = await once(reading, 'message');
    return bytes;
  });
  table(
    `The server's CPU without readers of the events and with ${READERS}, in turns of ${ROUND_MS / 1000} s, shares of a core`,
    [{ turn: 'target', more: `≤ ${percent(TARGETS.coreShare)}` }, ...turns.map(turnRow), middleRow(turns)],
  );
  await browser.close();
  for (const child of [clients, reading, engines]) child.disconnect();
  await server.end();
}

function crowd(part, ...args) {
  const program = fileURLToPath(new URL('./page-crowd.mjs', import.meta.url));
  return spawn('taskset', ['-c', String(OTHER_CORE), process.execPath, program, part, ...args.map(String)], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
}

/** What the clients really got, from now until it is asked. */
async function loadOf(port) {
  const counts = async () => {
    const reply = await fetch(`http://127.0.0.1:${port}/api/dashboard/stats`, { headers: WITH_KEY });
    const { total_requests: total, failed_requests: failed } = await reply.json();
    return { total, failed, at: performance.now() };
  };
  const before = await counts();
  return async () => {
    const after = await counts();
    const rate = ((after.total - before.total) * 1000) / (after.at - before.at);
    return `${Math.round(rate)} requests/s, ${after.failed - before.failed} failed`;
  };
}

/** A visit of its own: with its own cookies, cache and connections. */
async function visit({ browser, url }, { path, drawn }) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  const reply = await context.request.post(`${url}/api/auth/login`, {
    data: { username: 'admin', password: PASSWORD },
  });
  if (!reply.ok()) throw new Error(`the login was answered with ${reply.status()}`);
  const opened = await context.newPage();
  opened.setDefaultTimeout(PATIENCE_MS);
  await opened.goto(url + path);
  await opened.waitForSelector(drawn, { state: 'attached' });
  return opened;
}

async function watched(look, one) {
  const opened = await visit(look, one);
  const scriptKb = await scriptKbOf(opened);
  const cdp = await opened.context().newCDPSession(opened);
  await cdp.send('Performance.enable');
  await cdp.send('HeapProfiler.enable');
  await pause(SETTLE_MS);
  const longest = { wall: 0, cpu: 0 };
  const spent = {};
  const heaps = [];
  for (const ms of SPANS_MS) {
    const before = await metricsOf(cdp);
    await look.browser.startTracing(opened, { categories: ['toplevel'] });
    await pause(ms);
    const trace = await look.browser.stopTracing();
    const after = await metricsOf(cdp);
    for (const key of Object.keys(after)) spent[key] = (spent[key] ?? 0) + after[key] - before[key];
    const found = longestTask(trace);
    longest.wall = Math.max(longest.wall, found.wall);
    longest.cpu = Math.max(longest.cpu, found.cpu);
    // Between two traces: a collection is a long task of its own.
    heaps.push(await heapMb(cdp));
  }
  await opened.context().close();
  return { name: one.name, scriptKb, longest, spent, heaps };
}

/** The scripts of the first load as they were sent, kB. */
function scriptKbOf(opened) {
  return opened.evaluate(
    () =>
      performance
        .getEntriesByType('resource')
        .filter(({ name }) => name.endsWith('.js'))
        .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0) / 1000,
  );
}

/** Seconds so far. */
async function metricsOf(cdp) {
  const { metrics } = await cdp.send('Performance.getMetrics');
  const of = (name) => metrics.find((metric) => metric.name === name)?.value ?? 0;
  return {
    wall: of('Timestamp'),
    cpu: of('ThreadTime'),
    tasks: of('TaskDuration'),
    layout: of('LayoutDuration') + of('RecalcStyleDuration'),
  };
}

/** The least of several: what a frame of the server has just brought is in some of them, up to 1 MB. */
async function heapMb(cdp) {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < COLLECTIONS; i += 1) {
    await cdp.send('HeapProfiler.collectGarbage');
    least = Math.min(least, (await cdp.send('Runtime.getHeapUsage')).usedSize / 1e6);
    await pause(100);
  }
  return least;
}

/** Of the page's main thread, ms. Of several renderers the busiest is the page's; the others stand by. */
function longestTask(trace) {
  const { traceEvents } = JSON.parse(trace);
  const threads = new Map();
  for (const { ph, name, pid, tid, args } of traceEvents) {
    if (ph === 'M' && name === 'thread_name' && args.name === 'CrRendererMain')
      threads.set(`${pid} ${tid}`, { wall: 0, cpu: 0, sum: 0 });
  }
  for (const { ph, pid, tid, dur = 0, tdur = 0 } of traceEvents) {
    const thread = threads.get(`${pid} ${tid}`);
    if (ph !== 'X' || thread === undefined) continue;
    thread.sum += dur;
    thread.wall = Math.max(thread.wall, dur / 1000);
    thread.cpu = Math.max(thread.cpu, tdur / 1000);
  }
  return [...threads.values()].reduce((most, one) => (one.sum > most.sum ? one : most));
}

/** CPU of the server in turns without and with readers, shares of a core; `read` tells what those before have read. */
async function compared(server, read) {
  const turns = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await read(0);
    const without = await shareOf(server);
    await read(READERS);
    const during = await shareOf(server);
    const bytes = await read(0);
    const kbEach = bytes / READERS / (ROUND_MS + BETWEEN_MS);
    turns.push({ without, during, more: during - without, kbEach });
  }
  return turns;
}

async function shareOf({ pid }) {
  await pause(BETWEEN_MS);
  const before = cpuSeconds(pid);
  const startedAt = performance.now();
  await pause(ROUND_MS);
  return ((cpuSeconds(pid) - before) * 1000) / (performance.now() - startedAt);
}

function targetRow() {
  return {
    page: 'target',
    'longest task ms': `≤ ${TARGETS.taskMs}`,
    'main thread': `< ${percent(TARGETS.mainShare)}`,
    'style and layout': '',
    'heap MB at 20, 40, 60 s': `± ${percent(TARGETS.heapGrowth)}`,
    'first load JS kB': `≤ ${TARGETS.scriptKb}`,
  };
}

function viewRow({ name, scriptKb, longest, spent, heaps }) {
  const share = (key) => percent(spent[key] / spent.wall);
  const [first, last] = [heaps[0], heaps.at(-1)];
  const growth = percent(last / first - 1);
  return {
    page: name,
    'longest task ms': `${longest.wall.toFixed(0)} (${longest.cpu.toFixed(0)})`,
    'main thread': `${share('tasks')} (${share('cpu')})`,
    'style and layout': share('layout'),
    'heap MB at 20, 40, 60 s': `${heaps.map((mb) => mb.toFixed(1)).join(', ')} (${growth})`,
    'first load JS kB': scriptKb.toFixed(1),
  };
}

function turnRow({ without, during, more, kbEach }, index) {
  return {
    turn: index === undefined ? 'median' : index + 1,
    without: percent(without),
    with: percent(during),
    more: percent(more),
    'kB/s each': kbEach.toFixed(0),
  };
}

function middleRow(turns) {
  const of = (key) => median(turns.map((turn) => turn[key]));
  return turnRow({ without: of('without'), during: of('during'), more: of('more'), kbEach: of('kbEach') });
}

function percent(share) {
  return `${(share * 100).toFixed(1)} %`;
}
