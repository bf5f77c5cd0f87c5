import type { Page } from 'playwright-core';
import { expect, vi } from 'vitest';
import { furnished, lazily, pagesWith, pageTest, pathOf, see, textOf } from '../support/page.js';

const house = lazily(furnished);

/** Every page, and every sheet that has an address. */
async function everywhere(): Promise<string[]> {
  const { id, failed, failedOver } = await house();
  return [
    ...pagesWith(id),
    `/endpoints/${id}`,
    '/endpoints?add=1',
    '/models?model=alpha',
    `/requests/${failed}`,
    `/requests/${failedOver}`,
  ];
}

/** Goes there and waits until what is asked of the server has come. */
async function settle(page: Page, path: string): Promise<void> {
  await page.goto(`/dashboard${path}`);
  await page.locator('main').waitFor();
  await see(() => page.locator('.waiting').count()).toBe(0);
  await see(() => page.getByText(/^(Loading|読み込み中) ?…$/).count()).toBe(0);
}

// The keyboard.

pageTest('a slash goes to the search, and Esc empties it', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/endpoints');
  await page.getByText('4 of 4').waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type('bad/g');
  expect(await page.getByRole('searchbox').inputValue()).toBe('bad/g');
  await page.getByText('Nothing fits the filter').waitFor();
  expect(pathOf(page)).toBe('/dashboard/endpoints');
  await page.keyboard.press('Escape');
  await page.getByText('4 of 4').waitFor();
});

pageTest('g and a letter goes to a page, but not while somebody writes', async ({ open }) => {
  const { server } = await house();
  const page = await open(server);
  await page.getByTestId('timeline').waitFor();
  const keys: [string, string][] = [
    ['e', 'endpoints'],
    ['m', 'models'],
    ['r', 'requests'],
    ['a', 'actors'],
    ['p', 'playground'],
    ['k', 'keys'],
    ['u', 'users'],
    ['l', 'audit'],
    ['s', 'settings'],
    ['o', ''],
  ];
  for (const [key, name] of keys) {
    await page.keyboard.press('g');
    await page.keyboard.press(key);
    await see(() => pathOf(page)).toBe(`/dashboard/${name}`);
  }
  await page.goto('/dashboard/playground');
  await page.getByRole('textbox', { name: 'Message' }).focus();
  await page.keyboard.type('ge?');
  expect(await page.getByRole('textbox', { name: 'Message' }).inputValue()).toBe('ge?');
  expect(pathOf(page)).toBe('/dashboard/playground');
});

pageTest('a question mark shows the shortcuts, and the focus comes back from them', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/endpoints');
  const link = page.getByRole('link', { name: 'Models' });
  const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim());
  const help = page.getByRole('dialog', { name: 'Keyboard shortcuts' });
  await link.focus();
  await page.keyboard.press('?');
  await help.getByText('Go to Endpoints').waitFor();
  await page.keyboard.press('Escape');
  await see(() => help.count()).toBe(0);
  await see(focused).toBe('Models');
  await page.keyboard.press('?');
  await help.getByRole('button', { name: 'Close' }).click();
  await see(() => help.count()).toBe(0);
  await see(focused).toBe('Models');
});

pageTest('the first Tab offers to skip the menu', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/endpoints');
  await page.getByText('4 of 4').waitFor();
  await page.keyboard.press('Tab');
  const skip = page.getByRole('link', { name: 'Skip to content' });
  await see(() => skip.evaluate((one) => one === document.activeElement)).toBe(true);
  await page.keyboard.press('Enter');
  expect(await page.evaluate(() => document.activeElement?.id)).toBe('main');
});

pageTest('the focus stays within a sheet, and comes back from the question in it', async ({ open }) => {
  const { server, id } = await house();
  const page = await open(server, `/endpoints/${id}`);
  const remove = page.getByRole('dialog').getByRole('button', { name: 'Remove' });
  await remove.focus();
  await page.keyboard.press('Enter');
  const question = page.getByRole('dialog', { name: /^Remove good/ });
  await question.waitFor();
  expect(
    await question.getByRole('button', { name: 'Cancel' }).evaluate((one) => one === document.activeElement),
  ).toBe(true);
  await page.keyboard.press('Escape');
  await see(() => question.count()).toBe(0);
  await see(() => remove.evaluate((one) => one === document.activeElement)).toBe(true);
});

// Missing values.

pageTest('a missing value is an em dash whose tooltip says why, under the pointer', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/endpoints');
  const cell = page
    .locator('tbody .row-line')
    .filter({ hasText: 'dead-box' })
    .locator('[data-tip="never measured"]');
  await cell.hover();
  await see(() => page.getByRole('tooltip').allInnerTexts()).toEqual(['never measured']);
  await page.keyboard.press('Escape');
  await see(() => page.getByRole('tooltip').count()).toBe(0);
});

pageTest(
  'every em dash on every page says why, under the pointer and to a screen reader',
  async ({ open }) => {
    const { server } = await house();
    const page = await open(server);
    const found: string[] = [];
    let count = 0;
    for (const path of await everywhere()) {
      await settle(page, path);
      const silent = await page.evaluate(() => {
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const dashes: { where: string; tip: string; spoken: string }[] = [];
        for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
          if (node.textContent?.trim() !== '—') continue;
          const holder = (node.parentElement as Element).closest('[data-tip]');
          const copy = holder?.cloneNode(true) as Element | undefined;
          for (const hidden of copy?.querySelectorAll('[aria-hidden=true]') ?? []) hidden.remove();
          dashes.push({
            where: node.parentElement?.closest('td, dd, tr, p')?.textContent?.trim().slice(0, 80) ?? '',
            tip: holder?.getAttribute('data-tip') ?? '',
            spoken: copy?.textContent?.trim() ?? '',
          });
        }
        return dashes;
      });
      count += silent.length;
      found.push(
        ...silent
          .filter(({ tip, spoken }) => tip === '' || spoken !== tip)
          .map(({ where, tip, spoken }) => `${path}: ${where} (tip ${tip}, spoken ${spoken})`),
      );
    }
    expect(count).toBeGreaterThan(10);
    expect([...new Set(found)]).toEqual([]);
  },
);

// Languages.

/** Every section of the catalogue, without the page around it. */
const catalogues = vi.hoisted(() => [] as Record<string, { en: string; ja: string }>[]);
vi.mock('../../src/dashboard/words/index.js', () => ({
  section: (_: string, words: Record<string, { en: string; ja: string }>) => {
    catalogues.push(words);
    return () => '';
  },
}));

/** Texts of the catalogue that differ between the languages, as patterns of what stands on the page. */
async function catalogue(): Promise<{ english: RegExp[]; japanese: RegExp[] }> {
  for (const load of Object.values(import.meta.glob('../../src/dashboard/words/*.ts'))) await load();
  const words = catalogues.flatMap((one) => Object.values(one));
  const [en, ja] = [words.map((word) => word.en), words.map((word) => word.ja)];
  const same = new Set(en.filter((text, index) => text === ja[index]));
  const patterns = (all: string[]) =>
    all
      .filter((text) => !same.has(text) && /[a-zぁ-ヿ一-鿿]/.test(text.replace(/\{\w+\}/g, '')))
      .flatMap((text) => text.split(' | '))
      .map((text) => {
        const parts = text.split(/\{\w+\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
        return new RegExp(`^${parts.join('.+')}$`, 's');
      });
  return { english: patterns(en), japanese: patterns(ja) };
}

/** What can be read or is read out, each text by itself. */
const textsIn = (page: Page) =>
  page.evaluate(() => {
    const found: string[] = [document.title];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
      if (node.parentElement?.closest('.mono, [lang]:not(html), pre, kbd, code, svg') === null)
        found.push(node.textContent ?? '');
    }
    for (const name of ['aria-label', 'placeholder', 'data-tip', 'title', 'alt']) {
      for (const one of document.querySelectorAll(`body [${name}]`)) found.push(one.getAttribute(name) ?? '');
    }
    return [...new Set(found.map((text) => text.trim()).filter((text) => text !== ''))];
  });

pageTest(
  'switching the language changes every text of the page and its lang, and is remembered',
  async ({ open }) => {
    const { server } = await house();
    const { english, japanese } = await catalogue();
    const fits = (patterns: RegExp[]) => (text: string) => patterns.some((pattern) => pattern.test(text));
    const page = await open(server);
    expect(await page.locator('html').getAttribute('lang')).toBe('en');
    await page.getByRole('combobox', { name: 'Language' }).selectOption('ja');
    await see(() => page.locator('html').getAttribute('lang')).toBe('ja');
    await page.getByRole('link', { name: 'エンドポイント', exact: true }).waitFor();
    expect(await page.title()).toBe('概要 · Troupe');
    const left: string[] = [];
    for (const path of await everywhere()) {
      await settle(page, path);
      const texts = await textsIn(page);
      expect(texts.filter(fits(japanese)).length, path).toBeGreaterThan(10);
      left.push(...texts.filter(fits(english)).map((text) => `${path}: ${text}`));
    }
    expect(left).toEqual([]);
    expect(await page.locator('html').getAttribute('lang')).toBe('ja');
    await page.goto('/dashboard/');
    await page.getByRole('combobox', { name: '言語' }).selectOption('en');
    await page.getByRole('link', { name: 'Endpoints', exact: true }).waitFor();
    expect((await textsIn(page)).filter(fits(japanese))).toEqual([]);
  },
);

pageTest('a browser that speaks Japanese is greeted in it', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/', { as: 'nobody', locale: 'ja-JP' });
  await page.getByRole('button', { name: 'ログイン' }).waitFor();
  expect(await page.locator('html').getAttribute('lang')).toBe('ja');
});

// Light and dark.

const isDark = (page: Page) =>
  page.evaluate(() => {
    const parts = getComputedStyle(document.documentElement).backgroundColor.match(/[\d.]+/g) ?? [];
    return parts
      .slice(0, 3)
      .map(Number)
      .every((part) => part < 60);
  });

pageTest('it is light or dark as the system is, and as it changes', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/', { colorScheme: 'dark' });
  await page.getByTestId('timeline').waitFor();
  expect(await isDark(page)).toBe(true);
  await page.emulateMedia({ colorScheme: 'light' });
  await see(() => isDark(page)).toBe(false);
});

pageTest('the switch and the key t go over the system, over a reload too', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/', { colorScheme: 'light' });
  await page.getByRole('combobox', { name: 'Theme' }).selectOption('dark');
  await see(() => isDark(page)).toBe(true);
  await page.reload();
  expect(await isDark(page)).toBe(true);
  await page.getByTestId('timeline').waitFor();
  expect(await page.getByRole('combobox', { name: 'Theme' }).inputValue()).toBe('dark');
  await page.locator('body').press('t');
  await see(() => isDark(page)).toBe(false);
  await page.locator('body').press('t');
  await see(() => isDark(page)).toBe(true);
  await page.getByRole('combobox', { name: 'Theme' }).selectOption('system');
  await see(() => isDark(page)).toBe(false);
  await page.reload();
  await page.getByTestId('timeline').waitFor();
  expect(await isDark(page)).toBe(false);
});

// Small screens.

pageTest('on a screen 360 pixels wide no page is wider than it', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/', { viewport: { width: 360, height: 740 } });
  const wide: string[] = [];
  for (const path of await everywhere()) {
    await settle(page, path);
    const found = await page.evaluate(() => {
      const sheet = document.querySelector('dialog[open] .content');
      const tooWide = document.documentElement.scrollWidth > innerWidth;
      const overflows = sheet !== null && sheet.scrollWidth > sheet.clientWidth;
      // Only its content scrolls: the head with the way out stays.
      const dialog = document.querySelector('dialog[open]');
      if (dialog !== null && dialog.scrollHeight > dialog.clientHeight) return ['the sheet itself scrolls'];
      if (!tooWide && !overflows) return [];
      // What sticks out and lies in nothing that scrolls by itself.
      const isFree = (one: Element) =>
        one.closest('.scroll-x, .scroller, .scroll, .holder, pre, .sr-only') === null;
      const culprits = [...document.querySelectorAll('body *')]
        .filter((one) => isFree(one) && one.getBoundingClientRect().right > innerWidth + 1)
        .map((one) => `${one.tagName.toLowerCase()}.${one.getAttribute('class') ?? ''}`)
        .slice(0, 8);
      return culprits.length > 0 ? culprits : ['something that is hidden'];
    });
    if (found.length > 0) wide.push(`${path}: ${found.join(', ')}`);
  }
  expect(wide).toEqual([]);
});

pageTest(
  'on a small screen the menu opens from a button and closes when a page is chosen',
  async ({ open }) => {
    const { server } = await house();
    const page = await open(server, '/', { viewport: { width: 360, height: 740 } });
    const menu = page.getByRole('button', { name: 'Menu' });
    expect(await page.getByRole('link', { name: 'Models' }).isVisible()).toBe(false);
    await menu.click();
    expect(await menu.getAttribute('aria-expanded')).toBe('true');
    await page.getByRole('link', { name: 'Models' }).click();
    await see(() => pathOf(page)).toBe('/dashboard/models');
    expect(await menu.getAttribute('aria-expanded')).toBe('false');
    expect(await textOf(page.locator('h1'))).toBe('Models');
  },
);
