import type { Page } from 'playwright-core';
import { expect } from 'vitest';
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
import { engine } from '../support/server.js';

const house = lazily(async () => {
  const server = await lastingServer({ TROUPE_HEALTH_INTERVAL_MS: '3600000' });
  const box = await lastingEngine({ models: ['alpha', 'org/model-1.5'] });
  const { id } = await server.register('my-box', box.url);
  await server.chat('alpha');
  await server.chat('org/model-1.5');
  return { server, box, id: id as string };
});

const tree = (page: Page) => page.getByRole('region', { name: 'Supervision tree' });
const rows = (page: Page) => tree(page).locator('tbody .row-line');
/** Every arrow that lights up from now on, in the order of the first time; read by the answer. */
async function litArrows(page: Page): Promise<() => Promise<string[]>> {
  await chart(page).evaluate((svg) => {
    const seen: string[] = [];
    Object.assign(window, { seen });
    const look = () => {
      for (const one of svg.querySelectorAll<SVGElement>('g.lit')) {
        const arrow = one.dataset.arrow ?? '';
        if (!seen.includes(arrow)) seen.push(arrow);
      }
    };
    new MutationObserver(look).observe(svg, { subtree: true, attributes: true, attributeFilter: ['class'] });
  });
  return () => page.evaluate(() => (window as unknown as { seen: string[] }).seen);
}

const chart = (page: Page) => page.getByRole('img', { name: /^Statechart of/ });

pageTest('the tree shows every actor, those of an endpoint by its name, and folds', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/actors');
  await see(() => rows(page).locator('td:first-child').allInnerTexts()).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/root/),
      expect.stringMatching(/ledger/),
      expect.stringMatching(/history/),
      expect.stringMatching(/box my-box/),
      expect.stringMatching(/endpoint my-box/),
      expect.stringMatching(/tps alpha/),
    ]),
  );
  await page.getByText(/^\d+ actors$/).waitFor();
  const count = await rows(page).count();
  await rows(page)
    .filter({ hasText: 'box my-box' })
    .getByRole('button', { name: 'Hide the children' })
    .click();
  await see(() => rows(page).count()).toBeLessThan(count);
  expect(pathOf(page)).toBe('/dashboard/actors');
  await rows(page)
    .filter({ hasText: 'box my-box' })
    .getByRole('button', { name: 'Show the children' })
    .click();
  await see(() => rows(page).count()).toBe(count);
});

pageTest('a search shows what fits with all above it, and stands in the address', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/actors');
  await page.getByRole('searchbox').fill('ledger');
  await see(() => rows(page).count()).toBe(2);
  await see(() => queryOf(page)).toEqual({ q: 'ledger' });
  await page.getByRole('searchbox').fill('no such actor');
  await page.getByText('Nothing fits the filter').waitFor();
});

pageTest(
  'an actor shows its chart with the active states lit, what it knows, and what has changed',
  async ({ open }) => {
    const { server, id } = await house();
    const page = await open(server, '/actors');
    await page.getByText('Choose an actor to see what it is doing.').waitFor();
    await rows(page).filter({ hasText: 'endpoint my-box' }).click();
    await see(() => pathOf(page)).toBe(`/dashboard/actors/endpoint:${id}`);
    await chart(page).waitFor();
    const state = await textOf(page.getByTestId('actor-state'));
    expect(state).toBe('health online, admission open, circuit closed');
    const active = await chart(page).locator('g.active text:not(.group-name)').allTextContents();
    expect(active).toEqual(['online', 'open', 'closed']);
    await page.getByText('failed_checks_in_a_row').waitFor();
    expect(await textOf(page.getByTestId('transitions'))).toMatch(/checked/);
  },
);

pageTest(
  'every actor that has states has a chart, also where something can happen in all of them',
  async ({ open }) => {
    const { server, id } = await house();
    const page = await open(server, '/actors');
    for (const name of ['root', 'endpoints', `box:${id}`, `endpoint:${id}`, 'ledger', 'ticker']) {
      await page.goto(`${server.url}/dashboard/actors/${name}`);
      await chart(page).waitFor();
      expect(await chart(page).locator('g.active').count(), name).toBeGreaterThan(0);
    }
  },
);

pageTest('arrows light up when a check fails, when one succeeds again, and at a drain', async ({ open }) => {
  const { server, box, id } = await house();
  const page = await open(server, `/actors/endpoint:${id}`);
  await chart(page).waitFor();
  const lit = await litArrows(page);
  const state = () => textOf(page.getByTestId('actor-state'));
  const active = () => chart(page).locator('g.active text').allTextContents();
  const check = () => server.send('POST', `/api/endpoints/${id}/test`);
  box.faults.models = { kind: 'status', status: 500 };
  await check();
  await see(state).toMatch(/health error/);
  await see(active).toContain('error');
  box.faults.models = null;
  await check();
  await see(state).toMatch(/health online/);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  await see(active).toContain('draining');
  await server.send('POST', `/api/endpoints/${id}/resume`);
  await see(active).not.toContain('draining');
  await see(lit).toEqual([
    expect.stringMatching(/online→.*error$/),
    expect.stringMatching(/error→.*online$/),
    expect.stringMatching(/open→.*draining$/),
    expect.stringMatching(/draining→.*open$/),
  ]);
  await see(() => chart(page).locator('g.lit').count()).toBe(0);
});

pageTest('an actor that has only numbers says so in the place of a chart', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/actors/history');
  await page.getByText('this actor has numbers, no states').first().waitFor();
  await page.getByText('minutes_with_requests').waitFor();
});

pageTest('the actor of a model with dots and a slash in its name opens by its address', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/actors?q=model-1.5');
  await rows(page).filter({ hasText: 'tps org/model-1.5' }).click();
  await page.getByRole('heading', { name: 'tps org/model-1.5 (chat_completions)' }).waitFor();
  await page.reload();
  await page.getByRole('heading', { name: 'tps org/model-1.5 (chat_completions)' }).waitFor();
});

pageTest(
  'a restart is asked twice, the second time by the name of the actor, and counts among the restarts',
  async ({ open }) => {
    const server = await served();
    const { id } = await server.register('box', (await engine()).url);
    await server.chat('sim-small');
    const name = `endpoint:${id}`;
    const page = await open(server, `/actors/${name}`);
    await see(() => textOf(page.getByTestId('restarts'))).toBe('0');
    await page.getByRole('button', { name: 'Restart' }).click();
    const dialog = page.getByRole('dialog', { name: `Restart ${name}?` });
    await dialog.getByRole('button', { name: 'Restart' }).click();
    await dialog.getByTestId('sure').waitFor();
    expect(await dialog.getByRole('button', { name: 'Restart' }).isDisabled()).toBe(true);
    await dialog.getByTestId('sure').fill('endpoint');
    expect(await dialog.getByRole('button', { name: 'Restart' }).isDisabled()).toBe(true);
    await dialog.getByTestId('sure').fill(name);
    await dialog.getByRole('button', { name: 'Restart' }).click();
    await page.getByText('It was asked to restart.').waitFor();
    await see(() => textOf(page.getByTestId('restarts'))).toBe('1');
    await see(() => textOf(rows(page).filter({ hasText: 'endpoint box' }).locator('td').last())).toBe('1');
    expect((await server.get(`/api/endpoints/${id}`)).json.status).toBe('online');
    const audits = (await server.get('/api/dashboard/audit-logs?action=actor.restarted')).json;
    expect(audits.items).toMatchObject([{ actor: 'admin', target: name }]);
  },
);

pageTest('a question before a restart that is not answered restarts nothing', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/actors/history');
  await page.getByRole('button', { name: 'Restart' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Restart' }).click();
  await page.keyboard.press('Escape');
  await see(() => page.getByRole('dialog').count()).toBe(0);
  expect((await server.get('/api/dashboard/actors/history')).json.restarts).toBe(0);
});

pageTest('an actor that the house hangs on has no button to restart it', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/actors/ledger');
  await page.getByRole('heading', { name: 'ledger' }).waitFor();
  expect(await page.getByRole('button', { name: 'Restart' }).count()).toBe(0);
});

pageTest('an actor that does not exist says so', async ({ open, expects }) => {
  expects(/status of 404 .*\/api\/dashboard\/actors/);
  const { server } = await house();
  const page = await open(server, '/actors/endpoint:nobody');
  await page.getByText('This actor does not exist any more').waitFor();
});

pageTest('the actors of an endpoint that is removed go from the tree', async ({ open }) => {
  const server = await served();
  const { id } = await server.register('doomed', (await engine()).url);
  const page = await open(server, `/actors/endpoint:${id}`);
  await see(() => rows(page).filter({ hasText: 'box doomed' }).count()).toBe(1);
  await server.send('DELETE', `/api/endpoints/${id}`);
  await page.getByText('This actor does not exist any more').waitFor();
  await see(() =>
    rows(page)
      .filter({ hasText: `box:${id}` })
      .count(),
  ).toBe(0);
  await see(() => rows(page).filter({ hasText: 'doomed' }).count()).toBe(0);
});
