import { readFileSync } from 'node:fs';
import type { Locator, Page } from 'playwright-core';
import { expect } from 'vitest';
import { chatBody, openStream, startRequest } from '../support/clients.js';
import {
  lastingEngine,
  lastingServer,
  lazily,
  pageTest,
  pathOf,
  queryOf,
  see,
  textOf,
} from '../support/page.js';
import { pause, until } from '../support/server.js';

const MANY = 170;

/** A hundred and seventy finished requests: those of `bulk` in order, then a failed one and one that failed over. */
const past = lazily(async () => {
  const server = await lastingServer();
  const box = await lastingEngine({ models: ['bulk', 'alpha', 'weak'], outputTokens: 3 });
  const broken = await lastingEngine({ models: ['alpha', 'weak'] });
  const { id } = await server.register('good-box', box.url);
  const other = await server.register('broken-box', broken.url, { priority: 0 });
  await server.send('PUT', `/api/endpoints/${id}`, { priority: 1 });
  for (let i = 0; i < MANY; i += 1) await server.chat('bulk', { max_tokens: 1 + (i % 3) });
  broken.faults.next.push({ kind: 'status', status: 500 });
  await server.chat('alpha');
  broken.faults.next.push({ kind: 'status', status: 400 });
  await server.chat('weak');
  return { server, box, broken, id: id as string, other: other.id as string };
});

const history = (page: Page) => page.getByRole('region', { name: 'Finished' });
const rowsIn = (part: Locator) => part.locator('tbody .row-line');
const live = (page: Page) => page.getByTestId('live');

pageTest(
  'a request under way shows its phase and its tokens, and is among the finished ones once it ends',
  async ({ open }) => {
    const { server, box } = await past();
    const page = await open(server, '/requests');
    await live(page).getByText('Nothing is under way').waitFor();
    box.faults.next.push({ kind: 'stall', afterTokens: 2 });
    const stream = await openStream(server.url, 'bulk');
    const row = rowsIn(live(page)).first();
    await row.getByText('streaming').waitFor();
    await see(() => textOf(row)).toMatch(/bulk\s+good-box\s+.+\s+2\s+1/);
    box.release();
    await stream.whole;
    await live(page).getByText('Nothing is under way').waitFor();
    const newest = rowsIn(history(page)).first();
    await see(() => textOf(newest)).toMatch(/Success\s+200\s+bulk\s+good-box/);
  },
);

pageTest('a request that waits for its first byte says so', async ({ open }) => {
  const { server, box } = await past();
  const page = await open(server, '/requests');
  box.faults.next.push({ kind: 'hang' });
  const asked = server.chat('bulk');
  await rowsIn(live(page)).first().getByText('waiting for the first byte').waitFor();
  expect(await textOf(live(page).getByRole('status'))).toBe('1');
  box.release();
  await asked;
  await live(page).getByText('Nothing is under way').waitFor();
});

pageTest('what ends while somebody looks comes by itself, newest first', async ({ open }) => {
  const { server } = await past();
  const page = await open(server, '/requests?model=alpha');
  await rowsIn(history(page)).first().waitFor();
  const before = await rowsIn(history(page)).count();
  await server.chat('alpha');
  await server.chat('bulk');
  await see(() => rowsIn(history(page)).count()).toBe(before + 1);
  await page.getByRole('combobox', { name: 'Result' }).selectOption('error');
  await page.getByText('Nothing fits the filter').waitFor();
});

pageTest(
  'filters stand in the address, are there after a reload, and can be cleared at once',
  async ({ open }) => {
    const { server, id, other } = await past();
    const page = await open(server, '/requests');
    await page.getByRole('searchbox').fill('w*k');
    await page.getByRole('combobox', { name: 'Result' }).selectOption('error');
    await page.getByRole('combobox', { name: 'Endpoint' }).selectOption({ label: 'broken-box' });
    await page.getByRole('combobox', { name: 'Ended' }).selectOption({ label: 'Last 1 h' });
    await see(() => rowsIn(history(page)).count()).toBe(1);
    expect(queryOf(page)).toEqual({ model: 'w*k', status: 'error', endpoint: other, span: '1 h' });
    await page.reload();
    await see(() => rowsIn(history(page)).count()).toBe(1);
    expect(await textOf(rowsIn(history(page)).first())).toMatch(/Error\s+400\s+weak\s+broken-box/);
    await page.getByRole('combobox', { name: 'Endpoint' }).selectOption(id);
    await page.getByRole('button', { name: 'Clear the filter' }).click();
    await see(() => queryOf(page)).toEqual({});
    await see(() => rowsIn(history(page)).count()).toBeGreaterThan(5);
  },
);

pageTest(
  'scrolling goes through all there are, page after page, without a gap and without a double',
  async ({ open }) => {
    const { server } = await past();
    const wanted: string[] = [];
    let before = '';
    for (;;) {
      const query = `?model=bulk&limit=100${before === '' ? '' : `&before=${before}`}`;
      const { records } = (await server.get(`/api/dashboard/request-responses${query}`)).json;
      wanted.push(...records.map(({ id }: { id: string }) => id));
      if (records.length < 100) break;
      before = wanted.at(-1) as string;
    }
    const page = await open(server, '/requests?model=bulk');
    const table = history(page);
    await rowsIn(table).first().waitFor();
    const seen = new Map<number, string>();
    const collect = async () => {
      const shown = await rowsIn(table).evaluateAll((rows) =>
        rows.map((row) => [
          Number(row.getAttribute('aria-rowindex')) - 2,
          row.querySelector('time')?.getAttribute('datetime') ?? '',
        ]),
      );
      for (const [index, at] of shown as [number, string][]) seen.set(index, at);
    };
    await until(
      async () => {
        await collect();
        await table.evaluate((element) => element.scrollBy(0, 320));
        return (await table.getByText('That is all of them').count()) > 0 && seen.size >= wanted.length;
      },
      40_000,
      'the end of the list',
    );
    await collect();
    expect([...seen.keys()].sort((a, b) => a - b)).toEqual(wanted.map((_, index) => index));
    const { records } = (await server.get('/api/dashboard/request-responses?model=bulk&limit=1')).json;
    expect(seen.get(0)).toBe(records[0].completed_at);
    const times = [...seen].sort(([a], [b]) => a - b).map(([, at]) => at);
    expect(times).toEqual([...times].sort().reverse());
    expect(await table.locator('table').getAttribute('aria-rowcount')).toBe(String(wanted.length + 1));
  },
);

pageTest('new requests that come while somebody has scrolled down double nothing', async ({ open }) => {
  const { server } = await past();
  const page = await open(server, '/requests?model=bulk');
  const table = history(page);
  await rowsIn(table).first().waitFor();
  const total = async () =>
    (await server.get('/api/dashboard/request-responses?model=bulk&limit=1')).json.total_count as number;
  await table.evaluate((element) => element.scrollTo(0, 1200));
  await Promise.all(Array.from({ length: 5 }, () => server.chat('bulk')));
  await until(
    async () => {
      await table.evaluate((element) => element.scrollTo(0, element.scrollHeight));
      return (await table.getByText('That is all of them').count()) > 0;
    },
    40_000,
    'the end of the list',
  );
  const count = await total();
  await see(() => table.locator('table').getAttribute('aria-rowcount')).toBe(String(count + 1));
});

pageTest(
  'a request that failed over tells who could have answered, where the time went, and both attempts',
  async ({ open }) => {
    const { server } = await past();
    const page = await open(server, '/requests');
    await page.getByRole('searchbox').fill('alpha');
    const row = rowsIn(history(page)).last();
    await see(() => textOf(row)).toMatch(/alpha/);
    await row.click();
    const sheet = page.getByRole('dialog', { name: 'alpha' });
    await sheet.waitFor();
    expect(pathOf(page)).toMatch(/\/requests\/.+/);
    const attempts = sheet.getByTestId('attempts').getByRole('listitem');
    await see(() => attempts.count()).toBe(2);
    expect(await textOf(attempts.nth(0))).toMatch(/1\.\s+broken-box\s*Error 500/);
    expect(await textOf(attempts.nth(1))).toMatch(/2\.\s+good-box\s*Success 200/);
    const candidates = sheet.getByTestId('decision').getByRole('listitem');
    expect(await candidates.count()).toBeGreaterThanOrEqual(1);
    const chosen = candidates.filter({ hasText: 'chosen' });
    expect(await textOf(chosen)).toContain('good-box');
    expect(await textOf(sheet.getByTestId('decision'))).toMatch(/broken-box|tried already/);
    await see(() => textOf(sheet.getByTestId('phases'))).toMatch(/Waiting for the first byte/);
    await page.reload();
    await see(() => sheet.getByTestId('attempts').getByRole('listitem').count()).toBe(2);
  },
);

pageTest("dates are written as in the reader's own English, hours from 0 to 23", async ({ open }) => {
  const { server } = await past();
  for (const [locale, form] of [
    ['en-GB', /^\d+ \w+ \d{4}, \d\d:\d\d:\d\d UTC$/],
    ['en-US', /^\w+ \d+, \d{4}, \d\d:\d\d:\d\d UTC$/],
  ] as const) {
    const page = await open(server, '/requests?model=bulk', { locale });
    const time = rowsIn(history(page)).first().locator('time').first();
    await see(() => time.getAttribute('data-tip')).toMatch(form);
    expect(await textOf(time)).toMatch(/\d\d:\d\d(:\d\d)?$/);
  }
});

pageTest('a request that was given up shows what it waited for', async ({ open }) => {
  const { server, box } = await past();
  box.faults.next.push({ kind: 'hang' });
  const sent = startRequest(server.url, '/v1/chat/completions', { method: 'POST', body: chatBody('bulk') });
  sent.on('error', () => {});
  await until(() => box.active === 1);
  await pause(400);
  sent.destroy();
  const newest = async () =>
    (await server.get('/api/dashboard/request-responses?model=bulk&limit=1')).json.records[0];
  await until(async () => (await newest()).attempts[0]?.outcome === 'cancelled');
  box.release();
  const page = await open(server, `/requests/${(await newest()).id}`);
  const phases = page.getByTestId('phases');
  await see(() => textOf(phases)).toMatch(/Waiting for the first byte ([3-9]\d\d ms|[\d.]+ s)/);
  const bar = await phases.locator('.phases').boundingBox();
  const waited = await phases.locator('.phases .firstByte').boundingBox();
  expect(waited?.width).toBeGreaterThan((bar?.width ?? 0) * 0.8);
});

pageTest('a request that does not exist says so', async ({ open, expects }) => {
  expects(/status of 404 .*request-responses/);
  const { server } = await past();
  const page = await open(server, '/requests/00000000-0000-4000-8000-000000000000');
  await page.getByText('There is no such request, or it is older than what is kept').waitFor();
});

pageTest('a request whose id a client chose, with dots, opens by its address', async ({ open }) => {
  const { server } = await past();
  const id = 'my.request.v1.2';
  await server.send(
    'POST',
    '/v1/chat/completions',
    { model: 'bulk', messages: [{ role: 'user', content: 'Hello' }] },
    { 'x-request-id': id },
  );
  const page = await open(server, `/requests/${id}`);
  await page.getByRole('dialog', { name: 'bulk' }).getByText(id).waitFor();
});

pageTest(
  'what is filtered can be downloaded as CSV and as JSON, all of it and nothing else',
  async ({ open }) => {
    const { server } = await past();
    const page = await open(server, '/requests?model=bulk&status=success');
    const wanted = (await server.get('/api/dashboard/request-responses?model=bulk&status=success&limit=1'))
      .json;
    const download = async (name: string) => {
      const started = page.waitForEvent('download');
      await page.getByRole('link', { name, exact: true }).click();
      const file = await started;
      return { name: file.suggestedFilename(), text: readFileSync(await file.path(), 'utf8') };
    };
    const csv = await download('CSV');
    expect(csv.name).toMatch(/\.csv$/);
    const [head, ...lines] = csv.text.trim().split('\r\n');
    expect(head).toContain('model');
    expect(lines).toHaveLength(wanted.total_count);
    for (const line of lines) expect(line).toContain('bulk');
    const json = await download('JSON');
    expect(json.name).toMatch(/\.json$/);
    const rows = JSON.parse(json.text);
    expect(rows).toHaveLength(wanted.total_count);
    expect(new Set(rows.map(({ model }: { model: string }) => model))).toEqual(new Set(['bulk']));
  },
);

pageTest('a house without requests tells how to send the first', async ({ open }) => {
  const server = await lastingServer();
  const page = await open(server, '/requests');
  await page.getByText('No requests yet').waitFor();
  await page.getByText(`${server.url}/v1`).waitFor();
});
