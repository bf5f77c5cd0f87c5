import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import { pageTest, pathOf, SERVER_GONE, see, served, textOf } from '../support/page.js';
import { engine, until } from '../support/server.js';

/** Freed by a server that has ended; the next one of the same test gets it again. */
const samePort = (url: string) => ['--port', new URL(url).port];

/** The five metrics as a person reads them, on the overview and in the sheet of an endpoint. */
async function metricsOf(page: Page, id: string) {
  await page.goto('/dashboard/');
  const card = (name: string) => textOf(page.getByTestId(`card-${name}`));
  await see(() => card('endpoints')).toContain('all serving');
  const timeline = page.getByTestId('timeline');
  const overview = {
    requests: await card('requests'),
    responseTime: await card('response-time'),
    tokensIn: await card('tokens-in'),
    tokensOut: await card('tokens-out'),
    timeline: await timeline.getAttribute('aria-label'),
    bars: await timeline
      .locator('g')
      .evaluateAll((bars) =>
        bars.map((bar) => `${bar.getAttribute('data-success')}/${bar.getAttribute('data-error')}`),
      ),
  };
  await page.goto(`/dashboard/endpoints/${id}`);
  const sheet = page.getByRole('dialog', { name: 'box' });
  const told = (name: string) => textOf(sheet.getByTestId(name).first());
  await see(() => told('today')).toMatch(/^\d/);
  await see(() => told('model-tps')).toMatch(/tok\/s$/);
  return {
    ...overview,
    total: await told('total'),
    successful: await told('successful'),
    failed: await told('failed'),
    latency: await told('latency'),
    today: await told('today'),
    tps: await told('model-tps'),
  };
}

/** Bars of requests, wherever in the hour they stand by now. */
const filled = (bars: string[]) => bars.filter((bar) => bar !== '0/0');

pageTest('the five metrics read the same after a restart as before', async ({ open, expects }) => {
  expects(SERVER_GONE);
  const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };
  const first = await served({ env: QUIET });
  const box = await engine({ tokensPerSecond: 100, outputTokens: 10 });
  const { id } = await first.register('box', box.url);
  for (let i = 0; i < 4; i += 1) await first.chat('sim-small', { stream: i % 2 === 0 });
  box.faults.next.push({ kind: 'status', status: 400 });
  await first.chat('sim-small');
  const page = await open(first);
  const before = await metricsOf(page, id);
  expect(before).toMatchObject({
    total: '5',
    successful: '4',
    failed: '1',
    tokensOut: expect.stringContaining('40'),
  });
  expect(before.requests).toMatch(/5[\s\S]*80 % succeeded/);
  expect(before.timeline).toBe('Requests of the last 60 minutes: 4 success, 1 error');
  expect(await first.end()).toBe(0);
  const second = await served({ dataDir: first.dataDir, env: QUIET, args: samePort(first.url) });
  expect(second.url).toBe(first.url);
  const after = await metricsOf(page, id);
  // The first check of the new run measures the latency anew, and a rate that is restored is that of the whole day.
  expect({ ...after, bars: filled(after.bars), latency: '', tps: '' }).toEqual({
    ...before,
    bars: filled(before.bars),
    latency: '',
    tps: '',
  });
  for (const { latency } of [before, after]) expect(latency).toMatch(/^[\d.]+ (ms|s)$/);
  const { tps } = await rateOf(second, id);
  expect(after.tps).toBe(`${new Intl.NumberFormat('en', { maximumFractionDigits: 1 }).format(tps)} tok/s`);
});

async function rateOf(server: { get(path: string): Promise<{ json: { tps: number }[] }> }, id: string) {
  return (await server.get(`/api/endpoints/${id}/model-tps`)).json[0] as { tps: number };
}

pageTest(
  'a latency that was measured before a restart is shown although its endpoint is gone',
  async ({ open }) => {
    const first = await served({ env: { TROUPE_HEALTH_INTERVAL_MS: '3600000' } });
    const box = await engine({ healthDelayMs: 30 });
    const { id } = await first.register('box', box.url);
    const latency = (await first.get(`/api/endpoints/${id}`)).json.latency_ms;
    expect(await first.end()).toBe(0);
    await box.stop();
    const second = await served({ dataDir: first.dataDir, args: samePort(first.url) });
    const page = await open(second, `/endpoints/${id}`);
    const sheet = page.getByRole('dialog', { name: 'box' });
    await see(() => textOf(sheet.locator('header').first())).toContain('Offline');
    expect(await textOf(sheet.getByTestId('latency'))).toBe(`${latency} ms`);
  },
);

pageTest(
  'an endpoint that dies is shown as such within two seconds of the server knowing, and keeps its latency',
  async ({ open }) => {
    const server = await served({ env: { TROUPE_HEALTH_INTERVAL_MS: '200' } });
    const box = await engine();
    const { id } = await server.register('box', box.url);
    await server.register('other', (await engine()).url);
    const page = await open(server, '/endpoints');
    const row = page.locator('tbody .row-line').filter({ hasText: 'box' }).first();
    await see(() => textOf(row)).toMatch(/Online[\s\S]* ms/);
    await box.stop();
    const isKnown = async () => (await server.get(`/api/endpoints/${id}`)).json.status === 'offline';
    await until(isKnown, 20_000, 'the failure of two checks');
    const knownAt = Date.now();
    await row.getByText('Offline').waitFor({ timeout: 2000 });
    expect(Date.now() - knownAt).toBeLessThan(2000);
    expect(await textOf(row)).toMatch(/ ms/);
    expect(await textOf(row)).not.toContain('never measured');
    await page.getByRole('link', { name: 'Overview' }).click();
    await page.getByTestId('problems').getByText('box is offline').waitFor();
    await see(() => textOf(page.getByTestId('card-endpoints'))).toMatch(/1\s+of 2[\s\S]*1 not serving/);
    await page.getByRole('link', { name: /^box: Offline/ }).waitFor();
    await box.restart();
    await see(() => page.getByTestId('problems').count()).toBe(0);
    await see(() => textOf(page.getByTestId('card-endpoints'))).toContain('all serving');
  },
);

pageTest(
  'a server that is killed is told as lost, and when it is back the page goes on by itself',
  async ({ open, expects }) => {
    expects(SERVER_GONE);
    const first = await served();
    const box = await engine();
    const { id } = await first.register('box', box.url);
    await first.chat('sim-small');
    const page = await open(first);
    await see(() => textOf(page.getByTestId('card-requests'))).toMatch(/minutes\s+1\s/);
    await page.evaluate(() => {
      (window as unknown as { isSame: boolean }).isSame = true;
    });
    await first.end('SIGKILL');
    await page
      .getByTestId('connection')
      .getByText(/^Connection lost\. The numbers are those of/)
      .waitFor();
    await see(() => textOf(page.getByTestId('connection'))).toMatch(/Trying again/);
    // What was known stays in sight.
    await see(() => textOf(page.getByTestId('card-requests'))).toMatch(/minutes\s+1\s/);
    const second = await served({ dataDir: first.dataDir, args: samePort(first.url) });
    await second.register('newcomer', (await engine({ models: ['new'] })).url);
    await second.send('PUT', `/api/endpoints/${id}`, { name: 'renamed' });
    for (let i = 0; i < 2; i += 1) await second.chat('sim-small');
    await see(() => page.getByTestId('connection').count()).toBe(0);
    await see(() => textOf(page.getByTestId('card-requests'))).toMatch(/minutes\s+3\s/);
    await page.getByRole('link', { name: /^newcomer: / }).waitFor();
    await page.getByRole('link', { name: /^renamed: / }).waitFor();
    expect(await page.evaluate(() => (window as unknown as { isSame?: boolean }).isSame)).toBe(true);
  },
);

pageTest('the list of requests has what ended while the connection was lost', async ({ open, expects }) => {
  expects(SERVER_GONE);
  const first = await served();
  const box = await engine({ models: ['before', 'meanwhile'] });
  await first.register('box', box.url);
  await first.chat('before');
  const page = await open(first, '/requests');
  const rows = page.getByRole('region', { name: 'Finished' }).locator('tbody .row-line');
  await see(() => rows.count()).toBe(1);
  await first.end('SIGKILL');
  await page.getByTestId('connection').waitFor();
  const second = await served({ dataDir: first.dataDir, args: samePort(first.url) });
  await until(async () => (await second.chat('meanwhile')).status === 200);
  await see(() => page.getByTestId('connection').count()).toBe(0);
  await see(async () => textOf(rows.first())).toContain('meanwhile');
});

pageTest('pages that nobody has opened yet open while the server is away', async ({ open, expects }) => {
  expects(SERVER_GONE);
  const first = await served();
  await first.register('box', (await engine()).url);
  const page = await open(first);
  const settings = page.waitForResponse(/assets\/Settings-.*\.js$/);
  await page.reload();
  await (await settings).finished();
  await page.getByRole('link', { name: /^box: / }).waitFor();
  await first.end('SIGKILL');
  await page.getByTestId('connection').waitFor();
  await page.getByRole('link', { name: 'Settings' }).click();
  await page.getByRole('heading', { level: 1, name: 'Settings' }).waitFor();
  await page.getByTestId('connection').waitFor();
  await served({ dataDir: first.dataDir, args: samePort(first.url) });
  await see(() => page.getByTestId('connection').count()).toBe(0);
  await page.getByRole('link', { name: 'Models' }).click();
  await page.getByRole('link', { name: 'sim-small' }).waitFor();
});

pageTest(
  'a page whose file cannot be had leaves what is shown alone, and opens once the server is back',
  async ({ open, expects }) => {
    expects(SERVER_GONE);
    const first = await served();
    await first.register('box', (await engine()).url);
    const page = await open(first);
    await new Promise((r) => setTimeout(r, 4000));
    // A tab that was opened a moment before the end has not fetched the other pages yet.
    await page.addInitScript(() => {
      window.requestIdleCallback = () => 0;
    });
    // What this first tab has fetched in its idle time must not serve the next.
    const network = await page.context().newCDPSession(page);
    await network.send('Network.enable');
    await network.send('Network.setCacheDisabled', { cacheDisabled: true });
    await page.reload();
    const square = page.getByRole('link', { name: /^box: / });
    await square.waitFor();
    await first.end('SIGKILL');
    await page.getByTestId('connection').waitFor();
    for (const [key, name] of [
      ['m', 'models'],
      ['k', 'keys'],
    ] as const) {
      // The page looks whether the server has it.
      const looked = page.waitForRequest(`${first.url}/dashboard/${name}`);
      await page.keyboard.press('g');
      await page.keyboard.press(key);
      await looked;
      expect(pathOf(page)).toBe('/dashboard/');
      expect(await square.count()).toBe(1);
      await page.getByTestId('connection').waitFor();
    }
    await served({ dataDir: first.dataDir, args: samePort(first.url) });
    await page.getByRole('button', { name: 'New key' }).waitFor();
    expect(pathOf(page)).toBe('/dashboard/keys');
    await see(() => page.getByTestId('connection').count()).toBe(0);
    await page.getByRole('link', { name: 'Models' }).click();
    await page.getByRole('link', { name: 'sim-small' }).waitFor();
  },
);

pageTest('an impatient person can ask for the next try at once', async ({ open, expects }) => {
  expects(SERVER_GONE);
  const first = await served();
  await first.register('box', (await engine()).url);
  const page = await open(first, '/endpoints');
  await page.getByText('1 of 1').waitFor();
  await first.end('SIGKILL');
  await page.getByTestId('connection').waitFor();
  await served({ dataDir: first.dataDir, args: samePort(first.url) });
  await page
    .getByTestId('connection')
    .getByRole('button', { name: 'Try again' })
    .click({ timeout: 2000 })
    .catch(() => {});
  await see(() => page.getByTestId('connection').count()).toBe(0);
});

for (const [width, height] of [
  [1440, 900],
  [390, 740],
] as const) {
  pageTest(
    `a lost connection is seen in an open sheet, and tried anew from there (${width} px)`,
    async ({ open, expects }) => {
      expects(SERVER_GONE);
      const first = await served();
      const { id } = await first.register('box', (await engine()).url);
      await first.chat('sim-small');
      const page = await open(first, `/endpoints/${id}`, { viewport: { width, height } });
      const sheet = page.getByRole('dialog', { name: 'box' });
      await see(() => textOf(sheet.getByTestId('total'))).toBe('1');
      expect(await page.getByTestId('connection').count()).toBe(0);
      await first.end('SIGKILL');
      const bar = sheet.getByTestId('connection');
      await bar.getByText(/^Connection lost\./).waitFor();
      expect(await textOf(sheet.getByTestId('total'))).toBe('1');
      const box = await bar.boundingBox();
      expect(box?.y).toBeLessThan(height / 2);
      const again = bar.getByRole('button', { name: 'Try again' });
      // What lies under something else, or out of the window, cannot be clicked.
      await again.click({ trial: true });
      await page.keyboard.press('Tab');
      await see(() => again.evaluate((one) => one === document.activeElement)).toBe(true);
      await served({ dataDir: first.dataDir, args: samePort(first.url) });
      await page.keyboard.press('Enter');
      await see(() => page.getByTestId('connection').count()).toBe(0);
      await sheet.getByRole('button', { name: 'Close' }).click();
      await page.getByText('1 of 1').waitFor();
    },
  );
}

pageTest('what cannot be loaded says so and is tried again on request', async ({ open, expects }) => {
  expects(/net::ERR_FAILED .*settings/);
  const server = await served();
  const page = await open(server, '/');
  await page.route('**/api/dashboard/settings', (route) => route.abort());
  await page.getByRole('link', { name: 'Settings' }).click();
  await page.getByText('This could not be loaded').waitFor({ timeout: 30_000 });
  await page.getByText('The server cannot be reached.').waitFor();
  await page.unroute('**/api/dashboard/settings');
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByRole('rowheader').first().waitFor();
});
