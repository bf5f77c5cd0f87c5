import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import {
  ADMIN_PASSWORD,
  lastingEngine,
  lastingServer,
  lazily,
  pageTest,
  pathOf,
  queryOf,
  see,
  served,
  textOf,
  VIEWER_PASSWORD,
} from '../support/page.js';

const house = lazily(async () => {
  const server = await lastingServer();
  const { id } = await server.register('box', (await lastingEngine()).url);
  return { server, id: id as string };
});

async function logIn(page: Page, username: string, password: string): Promise<void> {
  await page.getByLabel('User name').fill(username);
  await page.getByLabel('Password', { exact: true }).fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
}

// Log-in.

pageTest(
  'whoever is not logged in comes to the log-in, and from there to the page that was asked for',
  async ({ open }) => {
    const { server } = await house();
    const page = await open(server, '/models?q=sim', { as: 'nobody' });
    await see(() => pathOf(page)).toBe('/dashboard/login');
    expect(queryOf(page)).toEqual({ next: '/models?q=sim' });
    await logIn(page, 'admin', ADMIN_PASSWORD);
    await see(() => pathOf(page)).toBe('/dashboard/models');
    expect(queryOf(page)).toEqual({ q: 'sim' });
    await page.getByText('sim-small').first().waitFor();
  },
);

pageTest(
  'a wrong password is told, and only the password is to be typed again',
  async ({ open, expects }) => {
    expects(/status of 401 .*\/api\/auth\/login/);
    const { server } = await house();
    const page = await open(server, '/login', { as: 'nobody' });
    await logIn(page, 'admin', 'wrong');
    await see(() => textOf(page.getByRole('alert'))).toBe('The user name or the password is wrong.');
    expect(await page.getByLabel('User name').inputValue()).toBe('admin');
    expect(await page.getByLabel('Password', { exact: true }).inputValue()).toBe('');
    await page.getByLabel('Password', { exact: true }).fill(ADMIN_PASSWORD);
    await page.keyboard.press('Enter');
    await see(() => pathOf(page)).toBe('/dashboard/');
  },
);

pageTest('a log-in leads nowhere else than into this page', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/login?next=//evil.example/x', { as: 'nobody' });
  await logIn(page, 'admin', ADMIN_PASSWORD);
  await see(() => pathOf(page)).toBe('/dashboard/');
  expect(new URL(page.url()).origin).toBe(server.url);
});

pageTest(
  'whoever logs out is out, by the back button too, and comes back to the same page',
  async ({ open }) => {
    const { server } = await house();
    const page = await open(server, '/endpoints', { as: 'nobody' });
    await logIn(page, 'admin', ADMIN_PASSWORD);
    await page.getByRole('button', { name: 'Log out' }).click();
    await see(() => pathOf(page)).toBe('/dashboard/login');
    expect(queryOf(page)).toEqual({ next: '/endpoints' });
    await page.goBack();
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    expect(await page.getByRole('navigation').count()).toBe(0);
    await page.reload();
    await page.getByRole('button', { name: 'Log in' }).waitFor();
  },
);

pageTest('a session that ends elsewhere leads to the log-in', async ({ open, expects }) => {
  expects(/status of 401 .*\/api\/(?!auth)/);
  const server = await served();
  const page = await open(server, '/settings', { as: 'nobody' });
  await logIn(page, 'admin', ADMIN_PASSWORD);
  await page.getByRole('rowheader').first().waitFor();
  // Changing the password ends every other session.
  const { token } = (
    await server.send('POST', '/api/auth/login', { username: 'admin', password: ADMIN_PASSWORD })
  ).json;
  await server.send(
    'PUT',
    '/api/auth/change-password',
    { current_password: ADMIN_PASSWORD, new_password: 'another password' },
    { authorization: `Bearer ${token}` },
  );
  // Its stream ends with it, so nobody has to click for that.
  await see(() => pathOf(page)).toBe('/dashboard/login');
});

// Keys.

pageTest('a key is made, shown once, used, changed and revoked', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/keys');
  await page.getByRole('button', { name: 'New key' }).click();
  const form = page.getByRole('dialog', { name: 'A new API key' });
  await form.locator('[name=name]').fill('laptop');
  await form.getByLabel('Requests a minute').fill('500');
  await form.getByRole('button', { name: 'Save' }).click();
  const secret = await textOf(page.getByTestId('secret'));
  expect(secret).toMatch(/^sk_/);
  await page.getByText('This is shown once.').waitFor();
  const bearer = { authorization: `Bearer ${secret}` };
  expect((await server.get('/v1/models', bearer)).status).toBe(200);
  const chat = { model: 'sim-small', messages: [{ role: 'user', content: 'Hello' }] };
  expect((await server.send('POST', '/v1/chat/completions', chat, bearer)).status).toBe(200);
  await page.reload();
  const row = page.locator('tbody .row-line').filter({ hasText: 'laptop' });
  await row.waitFor();
  expect(await page.getByTestId('secret').count()).toBe(0);
  expect(await textOf(page.locator('main'))).not.toContain(secret);
  await see(() => textOf(row.locator('td').nth(2))).toBe('1');
  await row.getByRole('button', { name: 'Change' }).click();
  const change = page.getByRole('dialog', { name: 'Change the key laptop' });
  expect(await change.getByLabel('Requests a minute').inputValue()).toBe('500');
  await change.locator('[name=name]').fill('desktop');
  await change.getByRole('button', { name: 'Save' }).click();
  const renamed = page.locator('tbody .row-line').filter({ hasText: 'desktop' });
  await renamed.waitFor();
  expect((await server.get('/v1/models', bearer)).status).toBe(200);
  await renamed.getByRole('button', { name: 'Revoke' }).click();
  const asked = page.getByRole('dialog', { name: 'Revoke the key desktop?' });
  await asked.getByRole('button', { name: 'Revoke' }).click();
  await see(() => page.getByRole('dialog').count()).toBe(0);
  expect((await server.get('/v1/models', bearer)).status).toBe(401);
  await see(() => renamed.count()).toBe(0);
});

pageTest(
  'a key that the server refuses is told in the form, with what was written kept',
  async ({ open, expects }) => {
    expects(/status of 400 .*api-keys/);
    const { server } = await house();
    const page = await open(server, '/keys');
    await page.getByRole('button', { name: 'New key' }).click();
    const form = page.getByRole('dialog', { name: 'A new API key' });
    await form.locator('[name=name]').fill('late');
    await form.getByLabel('Models it may use').fill('x'.repeat(5000));
    await form.getByRole('button', { name: 'Save' }).click();
    await form.getByRole('alert').waitFor();
    expect(await form.locator('[name=name]').inputValue()).toBe('late');
  },
);

// Users and the account.

pageTest(
  'a user is made, must change the password, is made an admin, and is removed',
  async ({ open, expects }) => {
    expects(/status of 401 .*\/api\/dashboard/);
    const { server } = await house();
    const page = await open(server, '/users');
    await page.getByRole('textbox', { name: 'User name' }).fill('kim');
    await page.getByRole('button', { name: 'New user' }).click();
    await page.getByText('The password of kim is shown once').waitFor();
    const password = await textOf(page.getByTestId('secret'));
    const row = page.getByRole('row', { name: /^kim/ });
    await see(() => textOf(row)).toMatch(/must change the password[\s\S]*Viewer/);

    const theirs = await open(server, '/models', { as: 'nobody' });
    await logIn(theirs, 'kim', password);
    await see(() => pathOf(theirs)).toBe('/dashboard/account');
    await theirs.getByText('Your password was made for you.').waitFor();
    await theirs.getByRole('link', { name: 'Models' }).click();
    await see(() => pathOf(theirs)).toBe('/dashboard/account');
    await theirs.getByLabel('Current password').fill(password);
    await theirs.getByLabel('New password', { exact: false }).first().fill('a password of my own');
    await theirs.getByLabel('New password again').fill('a password of another');
    await theirs.getByRole('button', { name: 'Change the password' }).click();
    await theirs.getByText('The two new passwords differ.').waitFor();
    await theirs.getByLabel('New password again').fill('a password of my own');
    await theirs.getByRole('button', { name: 'Change the password' }).click();
    await see(() => pathOf(theirs)).toBe('/dashboard/models');

    await row.getByRole('button', { name: 'Make admin' }).click();
    const asked = page.getByRole('dialog', { name: 'Change the role of kim?' });
    await asked.getByRole('button', { name: 'Make admin' }).click();
    await see(() => textOf(row)).toMatch(/Admin/);
    // Their session has ended, and its stream with it.
    await see(() => pathOf(theirs)).toBe('/dashboard/login');
    await row.getByRole('button', { name: 'Remove' }).click();
    await page
      .getByRole('dialog', { name: 'Remove the user kim?' })
      .getByRole('button', { name: 'Remove' })
      .click();
    await see(() => row.count()).toBe(0);
  },
);

pageTest('a first log-in goes on to the page that was asked for, without a warning', async ({ open }) => {
  const server = await served();
  await server.register('box', (await lastingEngine()).url);
  const made = await server.send('POST', '/api/users', { username: 'noor', role: 'viewer' });
  const page = await open(server, '/endpoints?sort=-name', { as: 'nobody' });
  await page.evaluate(() => {
    const warnings: string[] = [];
    new MutationObserver(() => {
      for (const bar of document.querySelectorAll('[data-testid=connection]'))
        warnings.push(bar.textContent ?? '');
    }).observe(document.body, { childList: true, subtree: true });
    Object.assign(window, { warnings });
  });
  await logIn(page, 'noor', made.json.generated_password);
  await page.getByText('Your password was made for you.').waitFor();
  await page.getByLabel('Current password').fill(made.json.generated_password);
  await page.getByLabel('New password', { exact: false }).first().fill('a password of my own');
  await page.getByLabel('New password again').fill('a password of my own');
  const stream = page.waitForRequest('**/api/dashboard/events');
  await page.getByRole('button', { name: 'Change the password' }).click();
  await stream;
  await see(() => pathOf(page)).toBe('/dashboard/endpoints');
  expect(queryOf(page)).toEqual({ sort: '-name' });
  // The new session hears of what changes.
  await server.register('new-box', (await lastingEngine({ models: ['new'] })).url);
  await page.getByRole('link', { name: 'new-box' }).waitFor();
  expect(await page.evaluate(() => (window as unknown as { warnings: string[] }).warnings)).toEqual([]);
});

for (const locale of ['en-US', 'ja-JP']) {
  pageTest(`users can be changed on a narrow screen (${locale})`, async ({ open }) => {
    const { server } = await house();
    await server.send('POST', '/api/users', { username: 'sasha', role: 'viewer' });
    const page = await open(server, '/users', { locale, viewport: { width: 390, height: 740 } });
    const row = page.getByRole('row', { name: /^sasha/ });
    const buttons = row.getByRole('button');
    await see(() => buttons.count()).toBe(3);
    for (const button of await buttons.all()) {
      const box = await button.boundingBox();
      expect(box?.x).toBeGreaterThan(0);
      expect((box?.x ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual(390);
    }
    const lines = await row.getByText(/^(Viewer|閲覧者)$/).evaluate((cell) => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      return range.getClientRects().length;
    });
    expect(lines).toBe(1);
  });
}

pageTest('a password is reset after a question, and the new one is shown', async ({ open }) => {
  const { server } = await house();
  await server.send('POST', '/api/users', { username: 'lee', role: 'viewer' });
  const page = await open(server, '/users');
  const row = page.getByRole('row', { name: /^lee/ });
  await row.getByRole('button', { name: 'Reset password' }).click();
  const asked = page.getByRole('dialog', { name: 'Reset the password of lee?' });
  await asked.getByRole('button', { name: 'Reset password' }).click();
  const password = await textOf(page.getByTestId('secret'));
  const reply = await server.send('POST', '/api/auth/login', { username: 'lee', password });
  expect(reply.json.user).toMatchObject({ username: 'lee', must_change_password: true });
});

pageTest(
  'a taken name is refused beside the form, and the last admin cannot be removed',
  async ({ open, expects }) => {
    expects(/status of 409 .*\/api\/users/, /status of 400 .*\/api\/users/);
    const { server } = await house();
    const page = await open(server, '/users');
    await page.getByRole('textbox', { name: 'User name' }).fill('admin');
    await page.getByRole('button', { name: 'New user' }).click();
    await see(() => textOf(page.getByRole('alert'))).toContain('admin');
    expect(await page.getByRole('textbox', { name: 'User name' }).inputValue()).toBe('admin');
    await page
      .getByRole('row', { name: /^admin/ })
      .getByRole('button', { name: 'Remove' })
      .click();
    const asked = page.getByRole('dialog', { name: 'Remove the user admin?' });
    await asked.getByRole('button', { name: 'Remove' }).click();
    await asked.getByRole('alert').waitFor();
    await asked.getByRole('button', { name: 'Cancel' }).click();
    await see(() => page.getByRole('dialog').count()).toBe(0);
  },
);

pageTest('a wrong current password is told by the account page', async ({ open, expects }) => {
  expects(/status of 40[013] .*change-password/);
  const { server } = await house();
  const page = await open(server, '/account');
  await page.getByLabel('Current password').fill('not it');
  await page.getByLabel('New password', { exact: false }).first().fill('a password of my own');
  await page.getByLabel('New password again').fill('a password of my own');
  await page.getByRole('button', { name: 'Change the password' }).click();
  await page.getByRole('alert').waitFor();
  expect(pathOf(page)).toBe('/dashboard/account');
  await page.reload();
  await page.getByRole('heading', { name: 'Account' }).waitFor();
});

// The audit log and the settings.

pageTest('the audit log shows who did what, is filtered, and proves itself', async ({ open }) => {
  const { server, id } = await house();
  const page = await open(server, `/endpoints/${id}`);
  await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
  await page.getByRole('dialog', { name: 'Drain box?' }).getByRole('button', { name: 'Drain' }).click();
  await page.getByText('It takes no new requests').waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
  await page.getByText('It takes requests again.').waitFor();
  await page.goto('/dashboard/audit');
  const lines = page.locator('tbody tr');
  await see(() => textOf(lines.first())).toMatch(/admin[\s\S]*endpoint\.resumed?[\s\S]*127\.0\.0\.1/);
  await page.getByRole('searchbox', { name: 'What' }).fill('endpoint.drain*');
  await page.keyboard.press('Enter');
  await see(() => lines.locator('td:nth-child(3)').allInnerTexts()).not.toContain('endpoint.resumed');
  const action = (await server.get('/api/dashboard/audit-logs')).json.items.find((line: { action: string }) =>
    line.action.includes('drain'),
  ).action;
  await page.getByRole('searchbox', { name: 'What' }).fill(action);
  await page.keyboard.press('Enter');
  await see(async () => new Set(await lines.locator('td:nth-child(3)').allInnerTexts())).toEqual(
    new Set([action]),
  );
  await page.reload();
  await see(() => lines.count()).toBeGreaterThan(0);
  expect(await page.getByRole('searchbox', { name: 'What' }).inputValue()).toBe(action);
  await page.getByRole('button', { name: 'Verify the chain' }).click();
  await page.getByText(/^All \d+ lines are whole and in order\.$/).waitFor();
});

pageTest('a long name leaves all columns of the audit log in sight', async ({ open }) => {
  const server = await served();
  await server.register('n'.repeat(120), (await lastingEngine()).url);
  const page = await open(server, '/audit', { viewport: { width: 1440, height: 900 } });
  await page.locator('tbody').getByText('n'.repeat(120)).first().waitFor();
  const box = await page.getByRole('columnheader', { name: 'Detail' }).boundingBox();
  expect((box?.x ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual(1440);
});

pageTest('the audit log has pages', async ({ open }) => {
  const server = await served();
  for (let i = 0; i < 60; i += 1) await server.send('POST', '/api/api-keys', { name: `key ${i}` });
  const page = await open(server, '/audit');
  await see(() => page.locator('tbody tr').count()).toBe(50);
  await page.getByRole('button', { name: 'Older' }).click();
  await page.getByText('Page 2 of 2').waitFor();
  await see(() => page.locator('tbody tr').count()).toBeLessThan(50);
  expect(queryOf(page)).toEqual({ page: '2' });
  await page.getByRole('button', { name: 'Newer' }).click();
  await see(() => page.locator('tbody tr').count()).toBe(50);
});

pageTest('the settings in force stand with where they come from, without a secret', async ({ open }) => {
  const { server } = await house();
  const page = await open(server, '/settings');
  const row = page.getByRole('row', { name: /TROUPE_HEALTH_INTERVAL_MS|health.?interval/i });
  await see(() => textOf(row)).toMatch(/200[\s\S]*environment/);
  const { version } = (await server.get('/api/version')).json;
  await page.getByText(`Version ${version}`).waitFor();
  await page.getByText('Days are counted in UTC').waitFor();
  expect(await textOf(page.locator('main'))).not.toContain(ADMIN_PASSWORD);
  expect(await textOf(page.locator('main'))).not.toContain('the-key-of-the-tests');
});

// What a viewer may not.

pageTest('a viewer sees neither what is for admins nor a way to change anything', async ({ open }) => {
  const { server, id } = await house();
  const page = await open(server, '/', { as: 'viewer' });
  const menu = page.getByRole('navigation');
  await see(() => menu.getByRole('link').allInnerTexts()).toEqual([
    'Overview',
    'Endpoints',
    'Models',
    'Requests',
    'Actors',
    'API keys',
    'Settings',
  ]);
  for (const path of ['/playground', '/users', '/audit']) {
    await page.goto(`/dashboard${path}`);
    await page.getByText('This is for admins').waitFor();
  }
  await page.goto('/dashboard/endpoints?add=1');
  await page.getByText('1 of 1').waitFor();
  expect(await page.getByRole('button', { name: 'Add endpoint' }).count()).toBe(0);
  expect(await page.getByRole('dialog').count()).toBe(0);
  await page.goto(`/dashboard/endpoints/${id}`);
  const sheet = page.getByRole('dialog', { name: 'box' });
  await sheet.getByRole('img', { name: /^Statechart/ }).waitFor();
  expect(await sheet.getByTestId('actions').count()).toBe(0);
  const buttons = await sheet.getByRole('button').allInnerTexts();
  expect(buttons).toEqual(['✕', '7 days', '30 days', '90 days']);
  await page.goto(`/dashboard/actors/endpoint:${id}`);
  await page.getByTestId('restarts').waitFor();
  expect(await page.getByRole('button', { name: 'Restart' }).count()).toBe(0);
  await page.goto('/dashboard/models?model=sim-small');
  await page.getByRole('dialog').getByText('box').waitFor();
  expect(await page.getByRole('link', { name: 'Try it' }).count()).toBe(0);
  await page.keyboard.press('Escape');
  await page.keyboard.press('g');
  await page.keyboard.press('u');
  await page.keyboard.press('g');
  await page.keyboard.press('e');
  await see(() => pathOf(page)).toBe('/dashboard/endpoints');
});

pageTest('a viewer has keys of its own, with no permission that a viewer lacks', async ({ open }) => {
  const { server } = await house();
  await server.send('POST', '/api/api-keys', { name: 'of somebody else' });
  const page = await open(server, '/keys', { as: 'viewer' });
  await page.getByRole('button', { name: 'New key' }).click();
  const form = page.getByRole('dialog', { name: 'A new API key' });
  expect(
    await form.getByRole('group', { name: 'Permissions' }).locator('label').allInnerTexts(),
  ).not.toContain('endpoints.manage');
  await form.locator('[name=name]').fill('mine');
  await form.getByRole('button', { name: 'Save' }).click();
  await page.getByTestId('secret').waitFor();
  await see(() => page.locator('tbody .row-line').count()).toBe(1);
  expect(await textOf(page.locator('main'))).not.toContain('of somebody else');
  expect(VIEWER_PASSWORD).not.toBe(ADMIN_PASSWORD);
});
