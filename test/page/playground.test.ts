import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import { lastingEngine, lastingServer, lazily, pageTest, pathOf, see, textOf } from '../support/page.js';

const fleet = lazily(async () => {
  const server = await lastingServer();
  const one = await lastingEngine({ models: ['alpha', 'beta'], outputTokens: 8 });
  const other = await lastingEngine({ models: ['gamma'], outputTokens: 5 });
  const first = await server.register('first-box', one.url);
  const second = await server.register('second-box', other.url);
  return { server, one, other, first: first.id as string, second: second.id as string };
});

const answers = (page: Page) => page.getByTestId('answer');
const facts = (page: Page) => page.getByTestId('answer-facts');

async function ask(page: Page, text: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Message' }).fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

pageTest('an answer comes word by word, and tells who gave it, how soon and how fast', async ({ open }) => {
  const { server, one } = await fleet();
  const page = await open(server, '/playground');
  await see(() => page.locator('[name=model]').inputValue()).toBe('alpha');
  one.faults.next.push({ kind: 'stall', afterTokens: 3 });
  await ask(page, 'Hello there');
  await see(() => textOf(answers(page))).not.toBe('');
  const half = await textOf(answers(page));
  await page.getByRole('button', { name: 'Stop' }).waitFor();
  one.release();
  await see(() => textOf(facts(page))).toMatch(/answered by first-box/);
  await see(() => textOf(facts(page))).toMatch(
    /1 attempt[\s\S]*first token .+[\s\S]*tok\/s[\s\S]*8 tokens[\s\S]*took .+[\s\S]*in Troupe/,
  );
  const whole = await textOf(answers(page));
  expect(whole.length).toBeGreaterThan(half.length);
  expect(whole.startsWith(half)).toBe(true);
  await facts(page).getByRole('link', { name: 'why there' }).click();
  await page.getByRole('dialog', { name: 'alpha' }).getByTestId('attempts').waitFor();
  expect(pathOf(page)).toMatch(/^\/dashboard\/requests\//);
});

pageTest('what was set and said before is what the engine gets', async ({ open }) => {
  const { server, one } = await fleet();
  const page = await open(server, '/playground?model=beta');
  await page.getByLabel('System prompt').fill('Be brief.');
  await page.getByLabel('Temperature').fill('0.3');
  await page.getByLabel('Top p').fill('0.9');
  await page.getByLabel('Tokens at most').fill('4');
  await ask(page, 'First');
  await see(() => textOf(facts(page).first())).toContain('4 tokens');
  const answer = await textOf(answers(page).first());
  await ask(page, 'Second');
  await see(() => facts(page).count()).toBe(2);
  await see(() => textOf(facts(page).nth(1))).toContain('took');
  const sent = JSON.parse(
    one.requests.findLast(({ path }) => path.endsWith('/chat/completions'))?.body ?? '',
  );
  expect(sent).toMatchObject({ model: 'beta', stream: true, temperature: 0.3, top_p: 0.9, max_tokens: 4 });
  expect(sent.messages).toEqual([
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'First' },
    { role: 'assistant', content: answer },
    { role: 'user', content: 'Second' },
  ]);
});

pageTest('an answer that is not streamed comes whole', async ({ open }) => {
  const { server, one } = await fleet();
  const page = await open(server, '/playground?model=alpha');
  await page.getByLabel('Stream the answer').uncheck();
  await ask(page, 'Hello');
  await see(() => textOf(facts(page))).toMatch(/8 tokens[\s\S]*took/);
  expect(await textOf(facts(page))).not.toContain('first token');
  expect(await textOf(answers(page))).not.toBe('');
  const sent = JSON.parse(
    one.requests.findLast(({ path }) => path.endsWith('/chat/completions'))?.body ?? '',
  );
  expect(sent.stream).toBe(false);
});

pageTest('a request can go straight to one endpoint, and then counts nowhere', async ({ open }) => {
  const { server, second } = await fleet();
  const before = (await server.get('/api/dashboard/stats')).json.total_requests;
  const page = await open(server, `/endpoints/${second}`);
  await page.getByRole('link', { name: 'Try it out' }).click();
  await see(() => page.locator('[name=endpoint]').inputValue()).toBe(second);
  await see(() => page.locator('[name=model]').inputValue()).toBe('gamma');
  await ask(page, 'Hello');
  await see(() => textOf(facts(page))).toMatch(/5 tokens[\s\S]*took/);
  expect((await server.get('/api/dashboard/stats')).json.total_requests).toBe(before);
});

pageTest('an answer can be stopped, and what it had said stays', async ({ open }) => {
  const { server, one } = await fleet();
  const page = await open(server, '/playground?model=alpha');
  one.faults.next.push({ kind: 'stall', afterTokens: 3 });
  await ask(page, 'Hello');
  await see(() => textOf(answers(page))).not.toBe('');
  const said = await textOf(answers(page));
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Send' }).waitFor();
  expect(await textOf(answers(page))).toBe(said);
  await see(() => one.requests.findLast(({ path }) => path.endsWith('/chat/completions'))?.aborted).toBe(
    true,
  );
  await ask(page, 'Again');
  await see(() => facts(page).nth(1).count()).toBe(1);
  await see(() => textOf(facts(page).nth(1))).toContain('took');
});

pageTest(
  'an error is told in the words of the server, and the conversation goes on',
  async ({ open, expects }) => {
    expects(/status of 418 .*\/v1\/chat\/completions/);
    const { server, one } = await fleet();
    const page = await open(server, '/playground?model=alpha');
    one.faults.next.push({ kind: 'status', status: 418 });
    await ask(page, 'Hello');
    await page.getByRole('alert').waitFor();
    expect(await textOf(page.getByRole('alert'))).toContain('the simulated engine answers 418');
    one.faults.next.push({ kind: 'error_event', afterTokens: 2 });
    await ask(page, 'Hello again');
    await see(() => page.getByRole('alert').count()).toBe(2);
    await ask(page, 'Once more');
    await see(() => textOf(facts(page).last())).toContain('took');
  },
);

pageTest('an answer keeps the name of the model that gave it', async ({ open }) => {
  const { server } = await fleet();
  const page = await open(server, '/playground?model=alpha');
  await ask(page, 'Hello');
  await see(() => textOf(facts(page))).toContain('took');
  await page.locator('[name=model]').selectOption('beta');
  await ask(page, 'Hello');
  await see(() => facts(page).count()).toBe(2);
  await see(() => page.locator('article.assistant h2').allInnerTexts()).toEqual(['alpha', 'beta']);
});

pageTest('it tells where a request would go without sending it', async ({ open }) => {
  const { server, one } = await fleet();
  const page = await open(server, '/playground?model=alpha');
  await see(() => page.locator('[name=model]').inputValue()).toBe('alpha');
  const before = one.requests.filter(({ method }) => method === 'POST').length;
  await page.getByRole('button', { name: 'Where would it go?' }).click();
  await page.getByText('Nothing is sent: this is what would be chosen now.').waitFor();
  await see(() => textOf(page.locator('.candidates li').first())).toMatch(/first-box/);
  expect(one.requests.filter(({ method }) => method === 'POST').length).toBe(before);
});

pageTest('the same request stands there for curl, Python and JavaScript, as it is set', async ({ open }) => {
  const { server } = await fleet();
  const page = await open(server, '/playground?model=beta');
  await page.getByLabel('Temperature').fill('0.5');
  await page.getByRole('textbox', { name: 'Message' }).fill("What's up?");
  const code = page.locator('pre');
  await see(() => textOf(code)).toContain(`curl ${server.url}/v1/chat/completions`);
  expect(await textOf(code)).toContain('"temperature": 0.5');
  expect(await textOf(code)).toContain("What'\\''s up?");
  await page.getByRole('button', { name: 'Python' }).click();
  await see(() => textOf(code)).toContain('temperature=0.5');
  await page.getByRole('button', { name: 'JavaScript' }).click();
  await see(() => textOf(code)).toContain('new OpenAI(');
  await page.getByRole('button', { name: 'Copy' }).click();
  await page.getByRole('button', { name: 'Copied' }).waitFor();
});

pageTest('Enter sends and Shift+Enter begins a new line', async ({ open }) => {
  const { server } = await fleet();
  const page = await open(server, '/playground?model=alpha');
  const field = page.getByRole('textbox', { name: 'Message' });
  await field.fill('one');
  await see(() => page.locator('[name=model]').inputValue()).toBe('alpha');
  await field.press('Shift+Enter');
  await field.pressSequentially('two');
  expect(await field.inputValue()).toBe('one\ntwo');
  await field.press('Enter');
  await see(() => textOf(facts(page))).toContain('took');
  expect(await field.inputValue()).toBe('');
  expect(await textOf(page.locator('article.user p'))).toBe('one\ntwo');
});
