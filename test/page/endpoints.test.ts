import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import { serve } from '../engines/fakes.js';
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
  const fast = await lastingEngine({ models: ['alpha', 'beta'], engine: 'ollama' });
  const slow = await lastingEngine({ models: ['alpha'], engine: 'vllm' });
  const one = await server.register('fast-box', fast.url);
  const other = await server.register('slow-box', slow.url);
  for (let i = 0; i < 3; i += 1) await server.chat('beta');
  return { server, fast, slow, one: one.id as string, other: other.id as string };
});

const names = (page: Page) => page.locator('tbody .row-line .name').allInnerTexts();
const sheet = (page: Page, name: string | RegExp) => page.getByRole('dialog', { name });

pageTest(
  'search, filters and sorting stand in the address and are there again after a reload',
  async ({ open }) => {
    const { server } = await fleet();
    const page = await open(server, '/endpoints');
    await see(() => names(page)).toEqual(['fast-box', 'slow-box']);
    await page.getByRole('button', { name: 'Sort by Requests' }).click();
    await page.getByRole('button', { name: 'Sort by Requests' }).click();
    await see(() => names(page)).toEqual(['slow-box', 'fast-box']);
    await page.getByRole('searchbox').fill('box');
    await page.getByRole('combobox', { name: 'State' }).selectOption('online');
    await see(() => queryOf(page)).toEqual({ sort: 'requests', q: 'box', status: 'online' });
    await page.reload();
    await see(() => names(page)).toEqual(['slow-box', 'fast-box']);
    expect(await page.getByRole('searchbox').inputValue()).toBe('box');
    await page.getByRole('combobox', { name: 'Engine' }).selectOption('vllm');
    await see(() => names(page)).toEqual(['slow-box']);
    await page.getByText('1 of 2').waitFor();
    await page.getByRole('searchbox').fill('nowhere');
    await page.getByRole('button', { name: 'Clear the filter' }).click();
    await see(() => names(page)).toEqual(['slow-box', 'fast-box']);
    expect(await page.getByRole('searchbox').inputValue()).toBe('');
  },
);

pageTest('a sheet that was opened by its address is closed by Esc', async ({ open }) => {
  const { server, one } = await fleet();
  const page = await open(server, `/endpoints/${one}`);
  await sheet(page, 'fast-box').waitFor();
  await page.keyboard.press('Escape');
  await see(() => pathOf(page)).toBe('/dashboard/endpoints');
  await page.getByText('fast-box').first().click();
  await sheet(page, 'fast-box').waitFor();
});

pageTest('Esc closes what lies on top, then what lies below', async ({ open }) => {
  const { server, one } = await fleet();
  const page = await open(server, '/endpoints');
  await page.getByText('fast-box').first().click();
  await sheet(page, 'fast-box').getByRole('button', { name: 'Edit' }).click();
  await sheet(page, 'Edit fast-box').waitFor();
  await page.keyboard.press('Escape');
  await see(() => sheet(page, 'Edit fast-box').count()).toBe(0);
  expect(pathOf(page)).toBe(`/dashboard/endpoints/${one}`);
  await page.keyboard.press('Escape');
  await see(() => pathOf(page)).toBe('/dashboard/endpoints');
  await page.getByText('fast-box').first().click();
  await sheet(page, 'fast-box').waitFor();
});

pageTest(
  'a row is opened by Enter, and the focus comes back to it when the sheet is closed',
  async ({ open }) => {
    const { server } = await fleet();
    const page = await open(server, '/endpoints');
    await page.locator('tbody .row-line a').nth(0).focus();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await sheet(page, 'slow-box').waitFor();
    expect(await page.evaluate(() => document.activeElement?.closest('dialog') !== null)).toBe(true);
    await page.keyboard.press('Escape');
    await see(() => sheet(page, 'slow-box').count()).toBe(0);
    await see(() => page.evaluate(() => document.activeElement?.textContent ?? '')).toContain('slow-box');
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe('A');
  },
);

pageTest(
  'the sheet of an endpoint shows its counters, its days, its models and its state',
  async ({ open }) => {
    const { server, one } = await fleet();
    const page = await open(server, `/endpoints/${one}`);
    const dialog = sheet(page, 'fast-box');
    await see(() => textOf(dialog.getByTestId('total'))).toBe('3');
    expect(await textOf(dialog.getByTestId('successful'))).toBe('3');
    expect(await textOf(dialog.getByTestId('failed'))).toBe('0');
    expect(await textOf(dialog.getByTestId('latency'))).toMatch(/ ms$/);
    await see(() => textOf(dialog.getByTestId('today'))).toBe('3');
    await dialog.getByRole('img', { name: 'By day: 3 Successful, 0 Failed' }).waitFor();
    await dialog.getByRole('button', { name: '30 days' }).click();
    await dialog.getByRole('img', { name: 'By day: 3 Successful, 0 Failed' }).waitFor();
    const beta = dialog.getByRole('row', { name: /beta/ });
    await see(() => textOf(beta.getByRole('cell').nth(1))).toBe('3');
    expect(await textOf(beta.getByRole('cell').nth(2))).toBe('100 %');
    expect(await textOf(beta.getByTestId('model-tps'))).toMatch(/tok\/s$/);
    expect(await textOf(dialog.getByRole('row', { name: /alpha/ }).getByTestId('model-tps'))).toContain(
      'no requests today',
    );
    const chart = dialog.getByRole('img', { name: /^Statechart of endpoint; active now: online/ });
    await chart.waitFor();
    const lit = chart.locator('g.active');
    await see(() => lit.locator('text').allTextContents()).toContain('online');
    await dialog
      .getByText(/Ollama/)
      .first()
      .waitFor();
  },
);

pageTest('the numbers of an open sheet follow the requests', async ({ open }) => {
  const { server, slow, other } = await fleet();
  const page = await open(server, `/endpoints/${other}`);
  const total = sheet(page, 'slow-box').getByTestId('total');
  const before = Number(await textOf(total));
  slow.faults.next.push({ kind: 'status', status: 400 });
  const { one } = await fleet();
  await server.send('POST', `/api/endpoints/${one}/drain`);
  await server.chat('alpha');
  await server.chat('alpha');
  await server.send('POST', `/api/endpoints/${one}/resume`);
  await see(() => textOf(total)).toBe(String(before + 2));
  await see(() => textOf(sheet(page, 'slow-box').getByTestId('failed'))).toBe('1');
  await sheet(page, 'slow-box')
    .getByRole('img', { name: /1 Successful, 1 Failed/ })
    .waitFor();
  await see(() => textOf(sheet(page, 'slow-box').getByTestId('today'))).toMatch(/1 failed/i);
});

pageTest('an answer that is older than what was pushed meanwhile is not the last', async ({ open }) => {
  const server = await served();
  const { id } = await server.register('box', (await engine()).url);
  const page = await open(server, '/endpoints');
  let release = () => {};
  const held = new Promise<void>((done) => {
    release = done;
  });
  let answers = 0;
  for (const name of ['today-stats', 'daily-stats?*']) {
    await page.route(
      `**/api/endpoints/${id}/${name}`,
      async (route) => {
        const response = await route.fetch();
        answers += 1;
        await held;
        await route.fulfill({ response });
      },
      { times: 1 },
    );
  }
  await page.getByText('box').first().click();
  await until(() => answers === 2, 10_000, 'both answers');
  await server.chat('sim-small');
  await see(() => textOf(sheet(page, 'box').getByTestId('total'))).toBe('1');
  release();
  await sheet(page, 'box')
    .getByRole('img', { name: /1 Successful, 0 Failed/ })
    .waitFor();
  await see(() => textOf(sheet(page, 'box').getByTestId('today'))).toMatch(/^1/);
});

pageTest('an admin tests an endpoint and syncs its models, and is told what came of it', async ({ open }) => {
  const server = await served();
  const box = await engine({ models: ['one'] });
  const { id } = await server.register('box', box.url, { health_check_interval_secs: 3600 });
  const page = await open(server, `/endpoints/${id}`);
  const dialog = sheet(page, 'box');
  await dialog.getByRole('button', { name: 'Test', exact: true }).click();
  await dialog.getByText(/^It answered in .* and lists 1 model\.$/).waitFor();
  box.options.models = ['two', 'three'];
  await dialog.getByRole('button', { name: 'Sync models' }).click();
  await dialog.getByText('2 added, 1 removed, 0 changed.').waitFor();
  await dialog.getByRole('row', { name: /three/ }).waitFor();
  box.faults.models = { kind: 'status', status: 500 };
  await dialog.getByRole('button', { name: 'Test', exact: true }).click();
  await dialog.getByText(/^It did not: .*500/).waitFor();
  await dialog.getByText('1 failed check in a row').waitFor();
});

pageTest('draining is asked first and lasts until the endpoint is resumed', async ({ open }) => {
  const server = await served();
  const { id } = await server.register('box', (await engine()).url);
  const status = async () => (await server.get(`/api/endpoints/${id}`)).json.status;
  const page = await open(server, `/endpoints/${id}`);
  await sheet(page, 'box').getByRole('button', { name: 'Drain' }).click();
  await sheet(page, 'Drain box?').getByRole('button', { name: 'Cancel' }).click();
  expect(await status()).toBe('online');
  await sheet(page, 'box').getByRole('button', { name: 'Drain' }).click();
  await sheet(page, 'Drain box?').getByRole('button', { name: 'Drain' }).click();
  await sheet(page, 'box').getByText('It takes no new requests; running ones finish.').waitFor();
  await see(status).toBe('draining');
  await sheet(page, 'box').getByText('Draining').first().waitFor();
  await sheet(page, 'box')
    .getByRole('img', { name: /active now: .*draining/ })
    .waitFor();
  await sheet(page, 'box').getByRole('button', { name: 'Resume' }).click();
  await sheet(page, 'box').getByText('It takes requests again.').waitFor();
  await see(status).toBe('online');
});

pageTest(
  'an endpoint is changed in its form, and a taken name is refused there',
  async ({ open, expects }) => {
    expects(/status of 409 .*\/api\/endpoints\//);
    const server = await served();
    const { id } = await server.register('box', (await engine()).url);
    await server.register('other', (await engine()).url);
    const page = await open(server, `/endpoints/${id}`);
    await sheet(page, 'box').getByRole('button', { name: 'Edit' }).click();
    const form = sheet(page, 'Edit box');
    await form.locator('[name=name]').fill('other');
    await form.getByLabel('Weight').fill('2.5');
    await form.getByLabel('Notes').fill('in the cellar');
    await form.getByRole('button', { name: 'Save' }).click();
    await form.getByRole('alert').waitFor();
    expect(await textOf(form.getByRole('alert'))).toContain('other');
    expect(await form.getByLabel('Notes').inputValue()).toBe('in the cellar');
    await form.locator('[name=name]').fill('renamed');
    await form.getByLabel('More headers').fill('x-one: 1\nnonsense');
    await form.getByRole('button', { name: 'Save' }).click();
    await form.getByText('Headers: line 2 is not Name: value').waitFor();
    await form.getByLabel('More headers').fill('x-one: 1');
    await form.getByRole('button', { name: 'Save' }).click();
    await sheet(page, 'renamed').getByText('in the cellar').waitFor();
    const stored = (await server.get(`/api/endpoints/${id}`)).json;
    expect(stored).toMatchObject({ name: 'renamed', weight: 2.5, notes: 'in the cellar' });
  },
);

pageTest('an endpoint is removed only after the question, and its row goes', async ({ open }) => {
  const server = await served();
  const { id } = await server.register('doomed', (await engine()).url);
  await server.register('staying', (await engine()).url);
  const page = await open(server, `/endpoints/${id}`);
  await sheet(page, 'doomed').getByRole('button', { name: 'Remove' }).click();
  await page.keyboard.press('Escape');
  await see(() => sheet(page, 'Remove doomed?').count()).toBe(0);
  expect((await server.get(`/api/endpoints/${id}`)).status).toBe(200);
  await sheet(page, 'doomed').getByRole('button', { name: 'Remove' }).click();
  await sheet(page, 'Remove doomed?').getByRole('button', { name: 'Remove' }).click();
  await see(() => pathOf(page)).toBe('/dashboard/endpoints');
  await see(() => names(page)).toEqual(['staying']);
  expect((await server.get(`/api/endpoints/${id}`)).status).toBe(404);
});

pageTest('an endpoint that somebody else removes is gone from the open sheet', async ({ open }) => {
  const server = await served();
  const { id } = await server.register('doomed', (await engine()).url);
  const page = await open(server, `/endpoints/${id}`);
  await see(() => textOf(sheet(page, 'doomed').getByTestId('today'))).toBe('0');
  await sheet(page, 'doomed')
    .getByRole('img', { name: /0 Successful, 0 Failed/ })
    .waitFor();
  await server.send('DELETE', `/api/endpoints/${id}`);
  await page.getByText('This endpoint does not exist any more').waitFor();
});

pageTest(
  'a pasted address is looked at, and its engine and models are shown before anything is saved',
  async ({ open }) => {
    const server = await served();
    const box = await engine({ models: ['llama3:8b', 'nomic-embed'], engine: 'ollama' });
    const page = await open(server, '/endpoints');
    await page.getByRole('button', { name: 'Add endpoint' }).click();
    const form = sheet(page, 'Add an endpoint');
    await form.locator('[name=base_url]').fill(box.url);
    await see(() => textOf(form.getByTestId('detected'))).toMatch(/Ollama answered in .*\n?2 models/s);
    expect(await textOf(form.getByTestId('detected'))).toContain('llama3:8b');
    expect(await form.locator('[name=name]').inputValue()).toBe('ollama-127.0.0.1');
    expect((await server.get('/api/endpoints')).json.total).toBe(0);
    await form.locator('[name=name]').fill('my box');
    await form.getByRole('button', { name: 'Save' }).click();
    await sheet(page, 'my box').waitFor();
    await see(() => names(page)).toEqual(['my box']);
    const { endpoints } = (await server.get('/api/endpoints')).json;
    expect(endpoints).toMatchObject([{ name: 'my box', endpoint_type: 'ollama', model_count: 2 }]);
    expect(pathOf(page)).toBe(`/dashboard/endpoints/${endpoints[0].id}`);
  },
);

pageTest('an address at which nobody answers says so, and can be saved all the same', async ({ open }) => {
  const server = await served();
  const dead = await engine();
  await dead.stop();
  const page = await open(server, '/endpoints?add=1');
  const form = sheet(page, 'Add an endpoint');
  await form.locator('[name=base_url]').fill(dead.url);
  await form.getByText(/^Nobody answers there: /).waitFor();
  await form.getByText('It can be saved all the same').waitFor();
  await form.locator('[name=name]').fill('later');
  await form.getByRole('button', { name: 'Save' }).click();
  await sheet(page, 'later').getByText('Offline').first().waitFor();
});

pageTest(
  'an address that is not allowed is refused with what was typed kept, and the refusal goes with it',
  async ({ open, expects }) => {
    expects(/status of 400 .*\/api\/endpoints/);
    const server = await served();
    const box = await engine();
    const page = await open(server, '/endpoints?add=1');
    const form = sheet(page, 'Add an endpoint');
    await form.locator('[name=name]').fill('metadata');
    await form.locator('[name=api_key]').fill('secret');
    await form.locator('[name=base_url]').fill('http://169.254.169.254/latest');
    await form.getByRole('alert').waitFor();
    await form.getByRole('button', { name: 'Save' }).click();
    await see(() => textOf(form.getByRole('alert'))).not.toBe('');
    expect(await form.locator('[name=name]').inputValue()).toBe('metadata');
    expect(await form.locator('[name=api_key]').inputValue()).toBe('secret');
    expect(await form.locator('[name=base_url]').inputValue()).toBe('http://169.254.169.254/latest');
    expect((await server.get('/api/endpoints')).json.total).toBe(0);
    await form.locator('[name=base_url]').fill(box.url);
    await form.getByText(/answered in/).waitFor();
    expect(await form.getByRole('alert').count()).toBe(0);
  },
);

pageTest('what is found at an address that was typed over is not shown', async ({ open }) => {
  const server = await served();
  const slow = await engine({ healthDelayMs: 1500 });
  const page = await open(server, '/endpoints?add=1');
  const form = sheet(page, 'Add an endpoint');
  const answered = page.waitForResponse(/endpoints\/detect/);
  await form.locator('[name=base_url]').fill(slow.url);
  await form.getByText('Looking …').waitFor();
  await form.locator('[name=base_url]').fill('http');
  await (await answered).finished();
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
  expect(await textOf(form.getByTestId('detected'))).toBe('');
  expect(await form.locator('[name=name]').inputValue()).toBe('');
});

pageTest(
  'something that is no inference server is refused by name when it is saved',
  async ({ open, expects }) => {
    expects(/status of 422 .*\/api\/endpoints/);
    const server = await served();
    const site = await serve({});
    const page = await open(server, '/endpoints?add=1');
    const form = sheet(page, 'Add an endpoint');
    await form.locator('[name=base_url]').fill(site.url);
    await form.getByText(/^Something answers there, but: /).waitFor();
    await form.locator('[name=name]').fill('no engine');
    await form.getByRole('button', { name: 'Save' }).click();
    await form.getByRole('alert').waitFor();
    expect(await form.locator('[name=name]').inputValue()).toBe('no engine');
    expect((await server.get('/api/endpoints')).json.total).toBe(0);
  },
);

pageTest('the arrows of a chart light up as an endpoint fails', async ({ open }) => {
  const server = await served();
  const box = await engine();
  const { id } = await server.register('box', box.url, { health_check_interval_secs: 3600 });
  const page = await open(server, `/endpoints/${id}`);
  const chart = sheet(page, 'box').getByRole('img', { name: /^Statechart of endpoint/ });
  await chart.waitFor();
  box.faults.models = { kind: 'status', status: 500 };
  const test = () => server.send('POST', `/api/endpoints/${id}/test`);
  await test();
  await see(() => chart.locator('g.lit').evaluateAll((all) => all.map((one) => one.dataset.arrow))).toEqual([
    expect.stringMatching(/online→.*error$/),
  ]);
  await see(() => chart.getAttribute('aria-label')).toContain('active now: error');
  await until(async () => (await chart.locator('g.lit').count()) === 0);
});
