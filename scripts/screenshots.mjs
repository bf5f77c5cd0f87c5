// npm run screenshots [-- folder]: every page in light and dark, wide and narrow, empty, busy and in trouble.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { chromium } from 'playwright-core';
import { prepare, root } from './prepare.mjs';

await prepare();
const { startServer } = await import('../dist/server.js');
const { readConfig } = await import('../dist/config.js');
const { startSimulatedEngine } = await import('../dist/demo/simulated-engine.js');

const KEY = 'the-key-of-the-pictures';
const PASSWORD = 'the-password-of-the-pictures';
const PAGES = {
  overview: '/',
  endpoints: '/endpoints',
  models: '/models',
  requests: '/requests',
  actors: '/actors',
  playground: '/playground',
  keys: '/keys',
  users: '/users',
  audit: '/audit',
  settings: '/settings',
  account: '/account',
};
const LOOKS = [
  { name: 'light-wide', colorScheme: 'light', viewport: { width: 1440, height: 900 } },
  { name: 'dark-wide', colorScheme: 'dark', viewport: { width: 1440, height: 900 } },
  { name: 'light-narrow', colorScheme: 'light', viewport: { width: 390, height: 844 } },
  { name: 'dark-narrow', colorScheme: 'dark', viewport: { width: 390, height: 844 } },
];
const SETTLE_MS = 1200;
const CHART_MS = 2500;

const folder = process.argv[2] ?? join(root, '.cache', 'screenshots');
mkdirSync(folder, { recursive: true });

/** A minute a second for the first hour, so that a timeline is there; then time goes on as it does. */
function timeLapse() {
  const HOUR = 3_600_000;
  const startedAt = Date.now();
  return {
    now: () => {
      const real = Date.now() - startedAt;
      return startedAt - HOUR + Math.min(real * 60, HOUR + real);
    },
    mono: () => performance.now(),
    hour: () => pause(HOUR / 60),
  };
}

async function startHouse(clock) {
  const dataDir = mkdtempSync(join(tmpdir(), 'troupe-pictures-'));
  const env = {
    TROUPE_API_KEY: KEY,
    TROUPE_ADMIN_PASSWORD: PASSWORD,
    TROUPE_HEALTH_INTERVAL_MS: '1000',
    TROUPE_SHUTDOWN_GRACE_MS: '500',
  };
  const { config } = readConfig(['--port', '0', '--data-dir', dataDir], env);
  const seams = { passwordCost: 4, ...(clock === undefined ? {} : { clock }) };
  const server = await startServer(config, pino({ level: 'silent' }), seams);
  const call = (method, path, body) =>
    fetch(server.url + path, {
      method,
      headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  return {
    url: server.url,
    call,
    async end() {
      await server.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

const BOXES = [
  {
    name: 'rack-h100',
    engine: 'vllm',
    tokensPerSecond: 180,
    firstTokenMs: 60,
    models: ['llama3.3:70b', 'qwen3:32b'],
  },
  { name: 'rack-a6000', engine: 'sglang', tokensPerSecond: 90, firstTokenMs: 90, models: ['qwen3:32b'] },
  {
    name: 'studio-mac',
    engine: 'ollama',
    tokensPerSecond: 45,
    firstTokenMs: 160,
    models: ['qwen3:32b', 'gemma3:4b'],
  },
  { name: 'desk-4090', engine: 'llamacpp', tokensPerSecond: 70, firstTokenMs: 120, models: ['gemma3:4b'] },
  {
    name: 'lab-lmstudio',
    engine: 'lm_studio',
    tokensPerSecond: 40,
    firstTokenMs: 200,
    models: ['gemma3:4b', 'phi4'],
  },
];

/** A house with an hour of requests behind it, and more coming until `stop`. */
async function busyHouse() {
  const clock = timeLapse();
  const house = await startHouse(clock);
  const engines = [];
  for (const { name, ...options } of BOXES) {
    const engine = await startSimulatedEngine({ outputTokens: 40, ...options });
    engines.push(engine);
    await house.call('POST', '/api/endpoints', { name, base_url: engine.url });
  }
  for (const name of ['website', 'nightly batch', 'code assistant']) {
    await house.call('POST', '/api/api-keys', { name });
  }
  await house.call('POST', '/api/users', { username: 'night-shift', role: 'viewer' });
  const models = [...new Set(BOXES.flatMap((box) => box.models))];
  let isOver = false;
  let count = 0;
  async function ask() {
    count += 1;
    const model = models[count % models.length];
    const content = 'Tell me something about load balancing. '.repeat(1 + (count % 7));
    const body = { model, stream: count % 3 !== 0, messages: [{ role: 'user', content }] };
    // Somebody asks for too much now and then.
    if (count % 41 === 0) engines[count % engines.length].options.failureRate = 1;
    if (count % 41 === 1) for (const engine of engines) engine.options.failureRate = 0;
    const reply = await house.call('POST', '/v1/chat/completions', body).catch(() => null);
    await reply?.text().catch(() => {});
  }
  const asking = (async () => {
    const open = new Set();
    while (!isOver) {
      const one = ask().finally(() => open.delete(one));
      open.add(one);
      await pause(40 + 120 * Math.abs(Math.sin(Date.now() / 9000)));
      if (open.size > 24) await Promise.race(open);
    }
    await Promise.all(open);
  })();
  return {
    ...house,
    engines,
    hour: clock.hour,
    async end() {
      isOver = true;
      await asking;
      await house.end();
      await Promise.allSettled(engines.map((engine) => engine.stop()));
    },
  };
}

async function picture(browser, house, state, more = {}) {
  for (const look of LOOKS) {
    const { name, ...options } = look;
    const context = await browser.newContext({ ...options, locale: 'en-GB', deviceScaleFactor: 1 });
    const page = await context.newPage();
    await page.goto(`${house.url}/dashboard/login`);
    await page.screenshot({ path: join(folder, `${state}-login-${name}.png`) });
    await page.fill('[name=username]', 'admin');
    await page.fill('[name=password]', PASSWORD);
    await page.click('button[type=submit]');
    await page.waitForSelector('#main');
    for (const [label, path] of Object.entries({ ...PAGES, ...more })) {
      await page.goto(`${house.url}/dashboard${path}`);
      await pause(/\/(endpoints|actors)\/./.test(path) ? CHART_MS : SETTLE_MS);
      await page.screenshot({ path: join(folder, `${state}-${label}-${name}.png`) });
    }
    await context.close();
    say(`${state}, ${name}`);
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function say(text) {
  process.stderr.write(`screenshots: ${text}\n`);
}

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
try {
  const empty = await startHouse();
  await picture(browser, empty, 'empty');
  await empty.end();

  const busy = await busyHouse();
  say('an hour of requests, which takes a minute …');
  await busy.hour();
  const { endpoints } = await (await busy.call('GET', '/api/endpoints')).json();
  const { records } = await (await busy.call('GET', '/api/dashboard/request-responses?per_page=50')).json();
  const tried = records.find(({ attempts }) => attempts.length > 1) ?? records[0];
  const open = {
    endpoint: `/endpoints/${endpoints.at(-1).id}`,
    adding: '/endpoints?add=1',
    request: `/requests/${tried.id}`,
    actor: `/actors/endpoint:${endpoints.at(-1).id}`,
    model: '/models?model=qwen3:32b',
  };
  await picture(browser, busy, 'busy', open);

  say('trouble …');
  await busy.engines[1].stop();
  busy.engines[3].options.failureRate = 1;
  await busy.call('POST', `/api/endpoints/${endpoints[2].id}/drain`, {});
  await pause(6000);
  await picture(browser, busy, 'trouble', open);
  await busy.end();
} finally {
  await browser.close();
}
say(`the pictures are in ${folder}`);
