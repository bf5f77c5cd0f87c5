import { readFileSync } from 'node:fs';
import type { AxeResults } from 'axe-core';
import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import { furnished, lazily, pagesWith, pageTest, see } from '../support/page.js';

const AXE = readFileSync(new URL('../../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'];

const house = lazily(furnished);

/** What axe has against the page as it stands. */
async function violations(page: Page, where: string): Promise<string[]> {
  await see(() => page.locator('.waiting').count()).toBe(0);
  await see(() => page.getByText(/^Loading …$/).count()).toBe(0);
  // What is still on its way in is paler than it will be.
  await see(() => page.evaluate(() => document.getAnimations().length)).toBe(0);
  // The page's policy lets no script in but by the debugger.
  await page.evaluate(`${AXE};undefined`);
  const { violations: found } = (await page.evaluate(
    `axe.run(document, { runOnly: { type: 'tag', values: ${JSON.stringify(TAGS)} }, resultTypes: ['violations'], rules: { region: { enabled: true } } })`,
  )) as AxeResults;
  return found.flatMap(({ id, nodes }) =>
    nodes.map(
      ({ target, failureSummary }) => `${where}: ${id} ${target} ${failureSummary?.split('\n')[1]?.trim()}`,
    ),
  );
}

for (const colorScheme of ['light', 'dark'] as const) {
  pageTest(`every page is free of faults that keep people out (${colorScheme})`, async ({ open }) => {
    const { server, id } = await house();
    const page = await open(server, '/', { colorScheme });
    const found: string[] = [];
    for (const path of pagesWith(id)) {
      await page.goto(`/dashboard${path}`);
      await page.locator('main').waitFor();
      if (path.includes('endpoint:')) await page.getByRole('img', { name: /^Statechart/ }).waitFor();
      found.push(...(await violations(page, path)));
    }
    expect(found).toEqual([]);
  });

  pageTest(`every sheet, form, question and help is so too (${colorScheme})`, async ({ open }) => {
    const { server, id, failed, failedOver } = await house();
    const page = await open(server, `/endpoints/${id}`, { colorScheme });
    const found: string[] = [];
    const look = async (where: string) => {
      found.push(...(await violations(page, where)));
    };
    await page.getByRole('img', { name: /^Statechart/ }).waitFor();
    await look('sheet of an endpoint');
    await page.getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('dialog', { name: /^Remove/ }).waitFor();
    await look('question');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('button', { name: 'Edit' }).click();
    await page.getByRole('dialog', { name: /^Edit/ }).waitFor();
    await look('form of a change');
    await page.goto('/dashboard/endpoints?add=1');
    const address = page.locator('[name=base_url]');
    await address.fill('http://127.0.0.1:9');
    await page.getByText(/^Nobody answers there/).waitFor();
    await look('form of a new endpoint');
    for (const request of [failed, failedOver]) {
      await page.goto(`/dashboard/requests/${request}`);
      await page.getByTestId('decision').waitFor();
      await look('sheet of a request');
    }
    await page.goto('/dashboard/models?model=alpha');
    await page.getByRole('dialog').getByRole('table').waitFor();
    await look('sheet of a model');
    await page.goto('/dashboard/keys');
    await page.getByRole('button', { name: 'New key' }).click();
    await page.getByRole('dialog').waitFor();
    await look('form of a key');
    await page.locator('[name=name]').fill(`seen in ${colorScheme}`);
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByTestId('secret').waitFor();
    await look('a secret');
    await page.goto('/dashboard/actors/history');
    await page.getByRole('button', { name: 'Restart' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Restart' }).click();
    await page.getByTestId('sure').waitFor();
    await look('the second question');
    await page.goto('/dashboard/playground?model=alpha');
    await page.getByRole('textbox', { name: 'Message' }).fill('Hello');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.getByTestId('answer-facts').getByText(/^took/).waitFor();
    await page.getByRole('button', { name: 'Where would it go?' }).click();
    await page.locator('.candidates li').first().waitFor();
    await look('a conversation');
    await page.getByRole('link', { name: 'Overview' }).focus();
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keyboard shortcuts' }).waitFor();
    await look('help');
    expect(found).toEqual([]);
  });

  pageTest(`the log-in is so too (${colorScheme})`, async ({ open, expects }) => {
    expects(/status of 401 .*\/api\/auth\/login/);
    const { server } = await house();
    const page = await open(server, '/login', { as: 'nobody', colorScheme });
    await page.getByLabel('User name').fill('x');
    await page.getByLabel('Password', { exact: true }).fill('y');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('alert').waitFor();
    expect(await violations(page, 'log-in')).toEqual([]);
  });
}
