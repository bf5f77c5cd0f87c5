import { expect, test } from 'vitest';
import { chatBody, dial, openStream, wireRequest } from './support/clients.js';
import { engine, startLocal, TEST_KEY, until } from './support/server.js';

const CHAT = '/v1/chat/completions';

const HEAD = `POST ${CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${TEST_KEY}\r\nContent-Type: application/json\r\n`;

interface Told {
  status: number;
  headers: string;
  error: { code: string; type: string; message: string; param: null };
}

/** What came last on a connection that is closed after it. */
function lastOf(received: string): Told {
  const start = received.lastIndexOf('HTTP/1.1 ');
  const [headers = '', body = ''] = received.slice(start).split('\r\n\r\n');
  return { status: Number(headers.split(' ')[1]), headers, error: JSON.parse(body).error };
}

test.each<[string, string, number, string]>([
  ['no HTTP at all', 'hello\r\n\r\n', 400, 'invalid_request'],
  ['a method that there is not', 'BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n', 400, 'invalid_request'],
  ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc', 400, 'invalid_request'],
  [
    'two lengths',
    `POST ${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}`,
    400,
    'invalid_request',
  ],
  [
    'a head of 20 kB',
    `GET /health HTTP/1.1\r\nHost: x\r\nCookie: ${'c'.repeat(20_000)}\r\n\r\n`,
    431,
    'headers_too_large',
  ],
  ['a chunk that is none', `${HEAD}Transfer-Encoding: chunked\r\n\r\nxyz\r\n`, 400, 'invalid_request'],
])('%s is answered like every other error, and the connection is closed', async (_, text, status, code) => {
  const server = await startLocal();
  for (const before of ['', 'GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n']) {
    const wire = await dial(server.url);
    if (before !== '') {
      wire.socket.write(before);
      await until(() => wire.received().includes('"ok"'));
    }
    wire.socket.write(Buffer.from(text, 'latin1'));
    await wire.closed;
    const { headers, error, ...told } = lastOf(wire.received());
    expect([told.status, error.code, error.param]).toEqual([status, code, null]);
    expect(headers.toLowerCase()).toContain('connection: close');
    expect(headers.toLowerCase()).toContain('content-type: application/json');
  }
  expect((await server.get('/health')).status).toBe(200);
});

test('the answer to a malformed HEAD has no body', async () => {
  const server = await startLocal();
  const wire = await dial(server.url);
  wire.socket.write(Buffer.from('HEAD /\x01 HTTP/1.1\r\nHost: x\r\n\r\n'));
  await wire.closed;
  expect(wire.received()).toMatch(/^HTTP\/1\.1 400 [^{]+\r\n\r\n$/);
});

test('garbage behind a request does not get into the answer that is on its way', async () => {
  const box = await engine();
  const server = await startLocal();
  await server.register('box', box.url);
  box.faults.next.push({ kind: 'stall', afterTokens: 3 });
  const wire = await dial(server.url);
  wire.socket.write(wireRequest(CHAT, chatBody('sim-small', { stream: true })));
  await until(() => wire.received().includes('"content"'));
  wire.socket.write('garbage\r\n\r\n');
  await wire.closed;
  expect(wire.received().match(/HTTP\/1\.1/g)).toHaveLength(1);
  await until(() => box.active === 0, 4000, 'the endpoint to be let go');
  // Somebody else is served as before.
  const stream = await openStream(server.url, 'sim-small');
  expect(await stream.whole).toBe(true);
});

test('what else a client expects of the server is nothing to refuse it for', async () => {
  const box = await engine();
  const server = await startLocal();
  await server.register('box', box.url);
  const wire = await dial(server.url);
  wire.socket.write(wireRequest(CHAT, chatBody('sim-small'), { expect: 'the-best' }));
  await until(() => wire.received().includes('\r\n\r\n'));
  expect(wire.received()).toMatch(/^HTTP\/1\.1 200 /);
});
