import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { ApiError } from '../src/http/errors.js';
import { type Page, pageOf } from '../src/http/page.js';
import { dial, type RawReply, type RawRequest, rawRequest } from './support/clients.js';
import { startLocal } from './support/server.js';

async function fetched(url: string, path: string, options: RawRequest = {}): Promise<RawReply> {
  const reply = await rawRequest(url, path, options);
  await reply.whole;
  return reply;
}

/** Where a page alone is served. */
async function serving(page: Page): Promise<string> {
  const server = createServer((req, res) => {
    if (!page.serve(req, res)) res.end('not the page');
  }).listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
}

test('the page comes without a credential, under every path of its own', async () => {
  const server = await startLocal();
  for (const path of [
    '/dashboard',
    '/dashboard/',
    '/dashboard/endpoints',
    '/dashboard/requests/some-id?x=1',
  ]) {
    const { status, headers, text } = await fetched(server.url, path, { headers: { authorization: '' } });
    expect([path, status, headers['content-type']]).toEqual([path, 200, 'text/html; charset=utf-8']);
    expect(headers['cache-control']).toBe('no-cache');
    expect(headers['content-security-policy']).toContain("script-src 'self'");
    expect(text()).toContain('<div id="app">');
  }
});

test('the root leads to the page', async () => {
  const server = await startLocal();
  const { status, headers } = await fetched(server.url, '/', { headers: { authorization: '' } });
  expect([status, headers.location]).toEqual([302, '/dashboard']);
});

test('hashed files are kept for a year and come compressed to whoever takes that', async () => {
  const server = await startLocal();
  const html = (await fetched(server.url, '/dashboard')).text();
  const script = /src="(\/dashboard\/assets\/[^"]+\.js)"/.exec(html)?.[1] ?? '';
  const packed = await fetched(server.url, script, { headers: { 'accept-encoding': 'br' } });
  expect(packed.headers).toMatchObject({
    'content-encoding': 'br',
    'content-type': 'text/javascript',
    'cache-control': 'public, max-age=31536000, immutable',
    vary: 'accept-encoding',
  });
  const plain = await fetched(server.url, script);
  expect(plain.headers['content-encoding']).toBeUndefined();
  expect(Number(plain.headers['content-length'])).toBeGreaterThan(Number(packed.headers['content-length']));
});

test('who has the page already is told that it is the same', async () => {
  const server = await startLocal();
  const { headers } = await fetched(server.url, '/dashboard');
  const again = await fetched(server.url, '/dashboard', { headers: { 'if-none-match': headers.etag ?? '' } });
  expect([again.status, again.text()]).toEqual([304, '']);
});

test('a build beside a running server takes nothing away from it', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-page-'));
  mkdirSync(join(directory, 'assets'));
  writeFileSync(join(directory, 'index.html'), 'the page');
  writeFileSync(join(directory, 'assets', 'main-12345678.js'), 'the script');
  const url = await serving(pageOf(directory, false));
  rmSync(directory, { recursive: true });
  expect(await (await fetch(`${url}/dashboard`)).text()).toBe('the page');
  expect(await (await fetch(`${url}/dashboard/assets/main-12345678.js`)).text()).toBe('the script');
});

test('a file that is not there is missing, not the page', async () => {
  const server = await startLocal();
  const { status, headers } = await fetched(server.url, '/dashboard/assets/gone-12345678.js');
  expect([status, headers['cache-control']]).toEqual([404, 'no-store']);
});

test('nothing outside the folder of the page is served', async () => {
  const server = await startLocal();
  for (const path of [
    '/dashboard/../server.js',
    '/dashboard/%2e%2e/server.js',
    '/dashboard/..%2fserver.js',
  ]) {
    const wire = await dial(server.url);
    wire.socket.write(`GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n`);
    await wire.closed;
    expect(wire.received()).not.toContain('startServer');
  }
});

test('the page can only be read', async () => {
  const server = await startLocal();
  const { status, headers, json } = await fetched(server.url, '/dashboard', { method: 'POST', body: '{}' });
  expect([status, headers.allow]).toEqual([405, 'GET, HEAD']);
  expect(json().error.code).toBe('method_not_allowed');
});

test('the page learns whether anybody has to log in', async () => {
  const closed = await startLocal();
  expect((await fetched(closed.url, '/dashboard/access.json')).json()).toEqual({ is_open: false });
  const open = await startLocal({ args: ['--no-auth'] });
  expect((await fetched(open.url, '/dashboard/access.json')).json()).toEqual({ is_open: true });
});

test('without a built page the server says how to build it', async () => {
  const page = pageOf(join(tmpdir(), 'no-such-folder-of-a-page'), false);
  const serve = () => page.serve({ url: '/dashboard', method: 'GET' } as never, {} as never);
  expect(serve).toThrow(ApiError);
  expect(serve).toThrow('npm run build');
});

test('other paths are none of the page', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-page-'));
  writeFileSync(join(directory, 'index.html'), 'the page');
  const url = await serving(pageOf(directory, false));
  const text = async (path: string) => (await fetch(url + path)).text();
  expect(await text('/dashboards')).toBe('not the page');
  expect(await text('/v1/models')).toBe('not the page');
  expect(await text('/dashboard/x')).toBe('the page');
});
