import { expect } from 'vitest';
import { openStream } from '../support/clients.js';
import {
  lastingEngine,
  lastingServer,
  lazily,
  pageTest,
  pathOf,
  queryOf,
  see,
  served,
  textOf,
} from '../support/page.js';
import { engine, until } from '../support/server.js';

const fleet = lazily(async () => {
  const server = await lastingServer();
  const one = await lastingEngine({ models: ['alpha'], outputTokens: 10 });
  const other = await lastingEngine({ models: ['beta'] });
  const { id } = await server.register('box-1', one.url);
  await server.register('box-2', other.url);
  for (let i = 0; i < 3; i += 1) await server.chat('alpha', { stream: true });
  one.faults.next.push({ kind: 'status', status: 418 });
  await server.chat('alpha');
  return { server, one, other, id: id as string };
});

pageTest('an empty house says so and leads to the form for the first endpoint', async ({ open }) => {
  const server = await served();
  const page = await open(server);
  await page.getByText('No endpoints yet').first().waitFor();
  await page.getByRole('link', { name: 'Add an endpoint' }).click();
  await page.getByRole('dialog', { name: 'Add an endpoint' }).waitFor();
});

pageTest('the square of an endpoint whose requests fail says so in colour and words', async ({ open }) => {
  const server = await served();
  const box = await engine({ models: ['weak'] });
  const { id } = await server.register('weak-box', box.url);
  await server.register('well-box', (await engine({ models: ['strong'] })).url);
  const page = await open(server);
  const square = page.getByRole('link', { name: /^weak-box: / });
  const well = page.getByRole('link', { name: /^well-box: Online, 0 in flight/ });
  const colourOf = (one: typeof well) => one.evaluate((part) => getComputedStyle(part).borderBottomColor);
  await well.waitFor();
  await see(() => square.getAttribute('aria-label')).toBe('weak-box: Online, 0 in flight');
  expect(await colourOf(square)).toBe(await colourOf(well));
  box.faults.always = { kind: 'status', status: 500 };
  await until(async () => {
    await server.chat('weak');
    return (await server.get(`/api/endpoints/${id}`)).json.circuit !== 'closed';
  });
  await see(() => square.getAttribute('data-tip')).toMatch(/^weak-box: Online, circuit (open|on trial), /);
  expect(await square.getAttribute('aria-label')).toBe(await square.getAttribute('data-tip'));
  expect(await colourOf(square)).not.toBe(await colourOf(well));
});

pageTest('the cards follow what happens, without a reload', async ({ open }) => {
  const server = await served();
  const box = await engine();
  await server.register('box', box.url);
  const page = await open(server);
  const card = (name: string) => textOf(page.getByTestId(`card-${name}`));
  await see(() => card('endpoints')).toMatch(/1\s+of 1\s+all serving/);
  expect(await card('requests')).toContain('no requests yet');
  await server.chat('sim-small');
  await see(() => card('requests')).toMatch(/^Requests, 60 minutes\s+1\s+100 %/);
  await see(() => card('response-time')).toMatch(/ (ms|s)\b/);
  await see(() => card('tokens-out')).toMatch(/\s12\s/);
  box.faults.next.push({ kind: 'stall', afterTokens: 1 });
  const stream = await openStream(server.url, 'sim-small');
  await see(() => card('in-flight')).toMatch(/In flight\s+1\s/);
  box.release();
  await stream.whole;
  await see(() => card('in-flight')).toMatch(/In flight\s+0\s/);
});

pageTest(
  'the timeline stands for the clients of the last hour, and says so of each minute',
  async ({ open }) => {
    const { server } = await fleet();
    const page = await open(server);
    const timeline = page.getByTestId('timeline');
    await see(() => timeline.getAttribute('aria-label')).toBe(
      'Requests of the last 60 minutes: 3 success, 1 error',
    );
    expect(await timeline.locator('g').count()).toBe(60);
    const sums = await timeline
      .locator('g')
      .evaluateAll((bars) => bars.map((bar) => [Number(bar.dataset.success), Number(bar.dataset.error)]));
    const sum = (index: number) => sums.reduce((all, one) => all + (one[index] ?? 0), 0);
    expect([sum(0), sum(1)]).toEqual([3, 1]);
    await timeline.locator('g').last().hover({ force: true });
    await see(() => page.getByRole('tooltip').allInnerTexts()).toEqual([
      expect.stringMatching(/still running/),
    ]);
  },
);

pageTest('four charts are drawn over the chosen time, which stands in the address', async ({ open }) => {
  const { server } = await fleet();
  const page = await open(server);
  await see(() => page.locator('canvas').count()).toBe(4);
  const chart = page.getByRole('img', { name: /^Response time: / });
  await see(() => chart.getAttribute('aria-label')).toMatch(/^Response time: .+ – .+/);
  await page.getByRole('group', { name: 'Range' }).getByRole('button', { name: '7d' }).click();
  await see(() => queryOf(page)).toEqual({ range: '7d' });
  await page.reload();
  await see(() => page.getByRole('button', { name: '7d' }).getAttribute('aria-pressed')).toBe('true');
});

pageTest('the fleet map has a square for each endpoint, which leads to it', async ({ open }) => {
  const { server, id } = await fleet();
  const page = await open(server);
  await page.getByRole('link', { name: 'box-2: Online, 0 in flight' }).waitFor();
  await page.getByRole('link', { name: 'box-1: Online, 0 in flight' }).click();
  await see(() => pathOf(page)).toBe(`/dashboard/endpoints/${id}`);
});

pageTest(
  'what needs attention is told with what to do, leads there, and goes when it is mended',
  async ({ open }) => {
    const { server, other } = await fleet();
    const page = await open(server);
    await page.getByTestId('timeline').waitFor();
    other.faults.models = { kind: 'status', status: 500 };
    const problems = page.getByTestId('problems');
    await problems.getByText('box-2 is offline').waitFor();
    expect(await textOf(problems)).toMatch(/Requests go elsewhere[\s\S]*answered 500/);
    await problems.getByRole('link', { name: 'box-2 is offline' }).click();
    await page.getByRole('dialog', { name: 'box-2' }).getByText('Last error').waitFor();
    await page.goBack();
    other.faults.models = null;
    await see(() => problems.count()).toBe(0);
  },
);
