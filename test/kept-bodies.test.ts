import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { openStream } from './support/clients.js';
import { memoryInUse } from './support/memory.js';
import { startLocal } from './support/server.js';

const MIB = 1024 * 1024;
const STREAMS = 24;

/** An engine that forgets what it reads, begins a stream and goes on with it for as long as the test. */
async function forgetfulEngine(): Promise<string> {
  const server = createServer((req, res) => {
    if (req.method === 'GET') {
      res.writeHead(200, { 'content-type': 'application/json' });
      res.end('{"object":"list","data":[{"id":"m","object":"model"}]}');
      return;
    }
    req.resume();
    req.on('end', () => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Bytes of all buffers that somebody still holds. */
async function heldBytes(): Promise<number> {
  return (await memoryInUse(3, 10)).arrayBuffers;
}

test.each([
  ['as they came', {}],
  ['with a wish for usage of ours', { stream_options: null }],
])('bodies %s are let go of once their answers have begun', async (_how, more) => {
  const server = await startLocal();
  await server.register('box', await forgetfulEngine());
  const before = await heldBytes();
  const streams = [];
  for (let i = 0; i < STREAMS; i += 1) {
    const filler = { ...more, filler: 'x'.repeat(2 * MIB) };
    streams.push(await openStream(server.url, 'm', filler));
  }
  expect(((await heldBytes()) - before) / MIB).toBeLessThan(4);
  for (const stream of streams) stream.leave();
});
