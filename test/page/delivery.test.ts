import { expect, test } from 'vitest';
import { rawRequest } from '../support/clients.js';
import { lastingEngine, lastingServer, lazily, pageTest, see } from '../support/page.js';
import { startLocal } from '../support/server.js';

const MOST_SCRIPT_BYTES = 200_000;
const BROWSER = { 'accept-encoding': 'gzip, deflate, br', authorization: '' };

const house = lazily(async () => {
  const server = await lastingServer();
  await server.register('box', (await lastingEngine()).url);
  return server;
});

async function got(url: string, path: string, headers: Record<string, string> = BROWSER) {
  const reply = await rawRequest(url, path, { headers });
  await reply.whole;
  return reply;
}

const assetsIn = (html: string) =>
  [...html.matchAll(/(?:src|href)="(\/dashboard\/assets\/[^"]+)"/g)].map(([, path]) => path as string);

test('the root leads to the page', async () => {
  const { url } = await startLocal();
  const reply = await got(url, '/');
  expect([reply.status, reply.headers.location]).toEqual([302, '/dashboard']);
});

test('every path of the page answers with the page itself, which is asked about each time', async () => {
  const { url } = await startLocal();
  for (const path of [
    '/dashboard',
    '/dashboard/',
    '/dashboard/unknown/path',
    '/dashboard/requests/id.with.dots',
  ]) {
    const reply = await got(url, path, { authorization: '' });
    expect([path, reply.status]).toEqual([path, 200]);
    expect(reply.headers['content-type']).toContain('text/html');
    expect(reply.headers['cache-control']).toBe('no-cache');
    expect(reply.text()).toContain('<div id="app">');
  }
});

test('an asset that is missing is a 404 and not the page', async () => {
  const { url } = await startLocal();
  for (const path of [
    '/dashboard/assets/gone-12345678.js',
    '/dashboard/assets/x',
    '/dashboard/assets/../../server.js',
  ]) {
    const reply = await got(url, path);
    expect([path, reply.status]).toEqual([path, 404]);
    expect(reply.text()).not.toContain('<div id="app">');
  }
});

test('assets have a hash in their name, come compressed, and may be kept for a year', async () => {
  const { url } = await startLocal();
  const html = (await got(url, '/dashboard/', { authorization: '' })).text();
  const assets = assetsIn(html);
  expect(assets.filter((path) => path.endsWith('.js')).length).toBeGreaterThan(0);
  expect(assets.filter((path) => path.endsWith('.css')).length).toBeGreaterThan(0);
  for (const path of assets) {
    expect(path).toMatch(/-[\w-]{8}\.(js|css)$/);
    const reply = await got(url, path);
    expect(reply.status).toBe(200);
    expect(reply.headers['cache-control']).toBe('public, max-age=31536000, immutable');
    expect(reply.headers.vary).toMatch(/accept-encoding/i);
    const plain = await got(url, path, { authorization: '' });
    if (plain.bytes().length < 1024) continue;
    expect(reply.headers['content-encoding']).toBe('br');
    expect(plain.headers['content-encoding']).toBeUndefined();
    expect(reply.bytes().length).toBeLessThan(plain.bytes().length * 0.6);
    expect(
      (await got(url, path, { 'accept-encoding': 'gzip', authorization: '' })).headers['content-encoding'],
    ).toBe('gzip');
  }
});

test('the page has nothing inline that its policy would refuse, and asks nobody else', async () => {
  const { url } = await startLocal();
  const reply = await got(url, '/dashboard/', { authorization: '' });
  const html = reply.text();
  expect(html).not.toMatch(/<style|style=|<script(?![^>]*\bsrc=)|\son\w+=|https?:\/\//i);
  const policy = String(reply.headers['content-security-policy']);
  expect(policy).toContain("script-src 'self'");
  expect(policy).not.toMatch(/unsafe-|\*/);
});

test('a page that has not changed is not sent again', async () => {
  const { url } = await startLocal();
  const first = await got(url, '/dashboard/', { authorization: '' });
  const { etag } = first.headers;
  expect(etag).toBeTypeOf('string');
  const again = await got(url, '/dashboard/', { authorization: '', 'if-none-match': String(etag) });
  expect([again.status, again.bytes().length]).toEqual([304, 0]);
});

test('the page may only be read', async () => {
  const { url } = await startLocal();
  const reply = await rawRequest(url, '/dashboard/', { method: 'POST', body: '{}' });
  await reply.whole;
  expect([reply.status, reply.headers.allow]).toEqual([405, 'GET, HEAD']);
});

pageTest(
  'the overview needs at most 200 kB of script at the first visit, and none at the next',
  async ({ open }) => {
    const server = await house();
    const page = await open(server, '/no-page');
    // Of scripts alone; what comes from the browser's cache moves nothing.
    const moved = async () => {
      await page.goto('/dashboard/');
      await see(() => page.locator('canvas').count()).toBe(4);
      return page.evaluate(() =>
        performance
          .getEntriesByType('resource')
          .filter(({ name }) => name.endsWith('.js'))
          .reduce((sum, entry) => sum + (entry as PerformanceResourceTiming).transferSize, 0),
      );
    };
    // The other pages, which it fetches in its idle time, are not what it needs.
    await page.addInitScript(() => {
      window.requestIdleCallback = () => 0;
    });
    const cdp = await page.context().newCDPSession(page);
    await cdp.send('Network.clearBrowserCache');
    const first = await moved();
    expect(first).toBeGreaterThan(10_000);
    expect(first).toBeLessThanOrEqual(MOST_SCRIPT_BYTES);
    expect(await moved()).toBe(0);
  },
);

pageTest('no page breaks its policy, whatever is drawn on it', async ({ open }) => {
  const server = await house();
  const page = await open(server, '/');
  await see(() => page.locator('canvas').count()).toBe(4);
  await page.locator('.u-over').first().hover({ force: true });
  for (const name of [
    'endpoints',
    'models',
    'requests',
    'actors',
    'playground',
    'keys',
    'users',
    'audit',
    'settings',
  ]) {
    await page.goto(`/dashboard/${name}`);
    await page.getByRole('heading', { level: 1 }).waitFor();
  }
  await page.goto('/dashboard/actors/ledger');
  // The chart is laid out by a worker, which the policy must let run.
  await page.getByRole('img', { name: /^Statechart of ledger/ }).waitFor();
});
