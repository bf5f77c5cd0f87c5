import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import {
  lastingEngine,
  lastingServer,
  lazily,
  pageTest,
  queryOf,
  see,
  served,
  textOf,
} from '../support/page.js';
import { engine, until } from '../support/server.js';

const fleet = lazily(async () => {
  const server = await lastingServer();
  const ollama = await lastingEngine({ models: ['shared', 'only-here'], engine: 'ollama', outputTokens: 20 });
  const vllm = await lastingEngine({ models: ['shared'], engine: 'vllm' });
  await server.register('warm-box', ollama.url);
  const { id } = await server.register('other-box', vllm.url);
  for (let i = 0; i < 2; i += 1) await server.chat('only-here', { stream: true });
  return { server, ollama, vllm, id: id as string };
});

const row = (page: Page, model: string) => page.locator('tbody .row-line').filter({ hasText: model });

pageTest(
  'every model of the fleet stands with where it lives, how often it was asked, and its best speed',
  async ({ open }) => {
    const { server } = await fleet();
    const page = await open(server, '/models');
    await page.getByText('2 models').waitFor();
    await see(() => textOf(row(page, 'shared'))).toContain('2 of 2 serving');
    await see(() => textOf(row(page, 'only-here'))).toMatch(/1 of 1 serving[\s\S]*\s2\s[\s\S]*tok\/s/);
    expect(await textOf(row(page, 'shared'))).toContain('no answer has been measured');
  },
);

pageTest(
  'a model tells for each endpoint whether it is in memory there, and how fast it is',
  async ({ open }) => {
    const { server } = await fleet();
    const page = await open(server, '/models');
    await row(page, 'only-here').click();
    const sheet = page.getByRole('dialog', { name: 'only-here' });
    const place = sheet.getByRole('row', { name: /warm-box/ });
    await see(() => textOf(place)).toMatch(/Online/);
    expect(await textOf(place.getByRole('cell').nth(1))).toMatch(/warm|cold/);
    expect(await textOf(place.getByRole('cell').nth(2))).toMatch(/tok\/s$/);
    expect(await textOf(place.getByRole('cell').nth(5))).toBe('2');
    expect(await textOf(place.getByRole('cell').nth(6))).toBe('100 %');
    expect(queryOf(page)).toEqual({ model: 'only-here' });
    await page.keyboard.press('Escape');
    await row(page, 'shared').click();
    const shared = page.getByRole('dialog', { name: 'shared' });
    const unknown = shared
      .getByRole('row', { name: /other-box/ })
      .getByRole('cell')
      .nth(1);
    await see(() => textOf(unknown)).toContain('its engine does not tell');
    await shared.getByRole('link', { name: 'Try it' }).click();
    await see(() => page.locator('[name=model]').inputValue()).toBe('shared');
  },
);

pageTest('a model that nobody can serve now says so, and is found by its endpoint', async ({ open }) => {
  const { server, id } = await fleet();
  const page = await open(server, '/models');
  await page.getByRole('searchbox').fill('other-box');
  await see(() => page.locator('tbody .row-line').count()).toBe(1);
  await server.send('POST', `/api/endpoints/${id}/drain`);
  await see(() => textOf(row(page, 'shared'))).toContain('1 of 2 serving');
  await server.send('POST', `/api/endpoints/${id}/resume`);
  await see(() => textOf(row(page, 'shared'))).toContain('2 of 2 serving');
  await page.getByRole('searchbox').fill('nowhere');
  await page.getByRole('button', { name: 'Clear the filter' }).click();
  await see(() => page.locator('tbody .row-line').count()).toBe(2);
});

pageTest(
  'a model whose requests all fail is not told as serving although its endpoint is online',
  async ({ open }) => {
    const server = await served();
    const box = await engine({ models: ['weak', 'strong'] });
    const { id } = await server.register('box', box.url);
    await server.chat('strong');
    box.faults.always = { kind: 'status', status: 500 };
    await until(async () => {
      await server.chat('weak');
      return (await server.get(`/api/endpoints/${id}`)).json.circuit !== 'closed';
    });
    const page = await open(server, '/models');
    await see(() => textOf(row(page, 'weak'))).toContain('0 of 1 serving');
    await see(() => textOf(row(page, 'strong'))).toContain('1 of 1 serving');
    await row(page, 'weak').click();
    const place = page.getByRole('dialog', { name: 'weak' }).getByRole('row', { name: /box/ });
    await see(() => textOf(place)).toMatch(/Online\s+circuit (open|on trial)/);
    await page.keyboard.press('Escape');
    // A tip of the row that the pointer rests on may lie over the next one.
    await page.getByRole('heading', { level: 1 }).hover();
    await row(page, 'strong').click();
    const well = page.getByRole('dialog', { name: 'strong' }).getByRole('row', { name: /box/ });
    await see(() => textOf(well)).toContain('Online');
    expect(await textOf(well)).not.toContain('circuit');
  },
);

pageTest('a long name of an endpoint leaves the other columns of a model in sight', async ({ open }) => {
  const server = await served();
  const box = await engine();
  await server.register('n'.repeat(120), box.url);
  await server.chat('sim-small');
  const page = await open(server, '/models?model=sim-small', { viewport: { width: 390, height: 740 } });
  const sheet = page.getByRole('dialog', { name: 'sim-small' });
  const memory = sheet.getByRole('columnheader', { name: 'In memory' });
  await sheet.getByText('n'.repeat(120)).waitFor();
  const place = await memory.boundingBox();
  expect((place?.x ?? 0) + (place?.width ?? 0)).toBeLessThanOrEqual(390);
});

pageTest('the order of the models stands in the address over a reload', async ({ open }) => {
  const { server } = await fleet();
  const page = await open(server, '/models?sort=-requests');
  const names = () => page.locator('tbody .row-line td:first-child').allInnerTexts();
  await see(names).toEqual(['only-here', 'shared']);
  await page.getByRole('button', { name: 'Sort by Requests' }).click();
  await see(() => queryOf(page)).toEqual({ sort: 'requests' });
  await page.reload();
  await see(names).toEqual(['shared', 'only-here']);
});
