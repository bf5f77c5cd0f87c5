import type { LookupAddress } from 'node:dns';
import { createServer, IncomingMessage, ServerResponse } from 'node:http';
import { type AddressInfo, Socket } from 'node:net';
import { type Dispatcher, request } from 'undici';
import { expect, onTestFinished, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { checkEndpoint } from '../src/engines/check.js';
import { addressProblem, isAllowedAddress } from '../src/http/allowed-address.js';
import { normaliseUrl } from '../src/http/endpoint-input.js';
import { cachedLookup } from '../src/http/lookup.js';
import { relay } from '../src/http/relay.js';
import { Reply } from '../src/http/reply.js';
import { Upstreams } from '../src/http/upstreams.js';

const METADATA = /metadata service is not allowed$/;
const LINK_LOCAL = /link-local addresses are not allowed$/;

test.each([
  ['169.254.169.254', METADATA],
  ['169.254.170.2', METADATA],
  ['169.254.0.1', LINK_LOCAL],
  ['169.254.255.255', LINK_LOCAL],
  ['100.100.100.200', METADATA],
  ['168.63.129.16', METADATA],
  ['192.0.0.192', METADATA],
  ['2852039166', METADATA],
  ['0xa9fea9fe', METADATA],
  ['0xA9.0xFE.0xA9.0xFE', METADATA],
  ['0251.0376.0251.0376', METADATA],
  ['169.254.43518', METADATA],
  ['169.16689662', METADATA],
  ['169.254.169.254.', METADATA],
  ['１６９.254.169.254', METADATA],
  ['169%2e254%2e169%2e254', METADATA],
  ['[fe80::1]', LINK_LOCAL],
  ['[febf:ffff::1]', LINK_LOCAL],
  ['[fd00:ec2::254]', METADATA],
  ['[fd00:0ec2:0::0254]', METADATA],
  ['[fd20:ce::254]', METADATA],
  ['[::ffff:169.254.169.254]', METADATA],
  ['[::ffff:a9fe:a9fe]', METADATA],
  ['[::FFFF:A9FE:1]', LINK_LOCAL],
  ['[::ffff:100.100.100.200]', METADATA],
  ['[::169.254.169.254]', METADATA],
  ['[64:ff9b::169.254.169.254]', METADATA],
  ['[64:ff9b::a9fe:1]', LINK_LOCAL],
  ['[64:ff9b:1::a9fe:a9fe]', METADATA],
  ['[64:ff9b::168.63.129.16]', METADATA],
  ['[2002:a9fe:a9fe::1]', METADATA],
  ['[2002:a9fe:1:2::]', LINK_LOCAL],
  ['[2002:6464:64c8::]', METADATA],
  ['metadata', METADATA],
  ['metadata.google.internal', METADATA],
  ['Metadata.Google.Internal.', METADATA],
  ['metadata.goog', METADATA],
  ['instance-data', METADATA],
  ['INSTANCE-DATA.ec2.internal..', METADATA],
])('http://%s is not a URL an endpoint may have', (host, problem) => {
  expect(normaliseUrl(`http://${host}:80/latest`)).toEqual({ problem: expect.stringMatching(problem) });
});

test.each([
  ['127.0.0.1', '127.0.0.1'],
  ['2130706433', '127.0.0.1'],
  ['localhost', 'localhost'],
  ['[::1]', '[::1]'],
  ['0.0.0.0', '0.0.0.0'],
  ['10.0.0.7', '10.0.0.7'],
  ['172.16.0.7', '172.16.0.7'],
  ['192.168.1.7', '192.168.1.7'],
  ['169.253.255.255', '169.253.255.255'],
  ['169.255.0.0', '169.255.0.0'],
  ['100.100.100.100', '100.100.100.100'],
  ['192.0.0.191', '192.0.0.191'],
  ['8.8.8.8', '8.8.8.8'],
  ['[fd00:ec2::1]', '[fd00:ec2::1]'],
  ['[fc00::7]', '[fc00::7]'],
  ['[fec0::1]', '[fec0::1]'],
  ['[::ffff:10.0.0.7]', '[::ffff:a00:7]'],
  ['[64:ff9b::8.8.8.8]', '[64:ff9b::808:808]'],
  ['[2002:a00:7::1]', '[2002:a00:7::1]'],
  ['[2001:db8::a9fe:a9fe]', '[2001:db8::a9fe:a9fe]'],
  ['metadata.example', 'metadata.example'],
  ['my-metadata', 'my-metadata'],
])('http://%s is a URL an endpoint may have', (host, canonical) => {
  expect(normaliseUrl(`http://${host}:8000`)).toEqual({ url: `http://${canonical}:8000` });
});

test('a resolved address is judged without brackets and with its zone', () => {
  expect(isAllowedAddress('fe80::1%eth0')).toBe(false);
  expect(isAllowedAddress('::ffff:169.254.169.254')).toBe(false);
  expect(isAllowedAddress('fd12::1%eth0')).toBe(true);
  expect(isAllowedAddress('127.0.0.1')).toBe(true);
  expect(addressProblem('::ffff:169.254.0.1')).toMatch(LINK_LOCAL);
});

test.each([
  'http://canary-user:canary-secret@[bad',
  'http://canary-user:canary-secret@127.0.0.1:8000',
  'http://canary-user:canary-secret@169.254.169.254',
  'http://canary-user@metadata.google.internal',
  'canary-user:canary-secret@127.0.0.1:8000',
  'ftp://canary-user:canary-secret@box',
  'canary-secret:x',
  'canary-secret',
  'http://box:8000/?key=canary-secret',
  'http://box:99999/?key=canary-secret',
])('%j is refused without a word of what may be secret', (url) => {
  const told = normaliseUrl(url);
  expect(told).toEqual({ problem: expect.any(String) });
  expect(JSON.stringify(told)).not.toContain('canary');
});

/** The connections to endpoints in a world where names lead where the test says. */
function upstreamsWith(names: Record<string, string[]>): Upstreams {
  const lookup = cachedLookup(
    () => performance.now(),
    (host, done) => {
      const found = (names[host] ?? []).map<LookupAddress>((address) => ({
        address,
        family: address.includes(':') ? 6 : 4,
      }));
      if (found.length > 0) done(null, found);
      else done(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }), []);
    },
  );
  const upstreams = new Upstreams(lookup, 2000);
  onTestFinished(() => upstreams.destroy());
  return upstreams;
}

/** A server on this machine; answers its port. */
async function serverHere(): Promise<number> {
  const server = createServer((_req, res) => res.end('here'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function get(dispatcher: Dispatcher, origin: string): Promise<string> {
  const { body } = await request(origin, { dispatcher });
  return body.text();
}

const ways: [string, (upstreams: Upstreams, origin: string) => Dispatcher][] = [
  ['the pool of an endpoint', (upstreams, origin) => upstreams.target('box', origin).pool],
  ['a fresh connection', (upstreams, origin) => upstreams.fresh(origin)],
  ['a health check', (upstreams) => upstreams.checks],
];

test.each(ways)(
  '%s refuses a name that leads to nothing but metadata and link-local addresses',
  async (_, dispatcherOf) => {
    const upstreams = upstreamsWith({
      'box.test': ['169.254.169.254', 'fe80::1%eth0', '::ffff:169.254.169.254', 'fd00:ec2::254'],
    });
    const origin = 'http://box.test:8000';
    const error = await get(dispatcherOf(upstreams, origin), origin).catch((reason) => reason);
    expect(error.code).toBe('ERR_ADDRESS_NOT_ALLOWED');
    expect(error.message).toContain('box.test');
    expect(error.message).not.toMatch(/169\.254|fe80|ec2/);
  },
);

test.each(ways)(
  '%s uses the allowed address of a name that also leads to others',
  async (_, dispatcherOf) => {
    const port = await serverHere();
    const upstreams = upstreamsWith({ 'box.test': ['169.254.169.254', 'fe80::1', '127.0.0.1'] });
    const origin = `http://box.test:${port}`;
    expect(await get(dispatcherOf(upstreams, origin), origin)).toBe('here');
  },
);

test.each(ways)(
  '%s refuses what is in the store from before it was refused there',
  async (_, dispatcherOf) => {
    const upstreams = upstreamsWith({ metadata: ['127.0.0.1'] });
    for (const origin of [
      'http://169.254.169.254',
      'https://169.254.169.254',
      'http://[::ffff:a9fe:a9fe]:80',
      'http://[fe80::1]:8000',
      'http://metadata:8000',
    ]) {
      const error = await get(dispatcherOf(upstreams, origin), origin).catch((reason) => reason);
      expect([origin, error.code]).toEqual([origin, 'ERR_ADDRESS_NOT_ALLOWED']);
    }
  },
);

test('a name that is there but has no address of the wanted family is still just not found', async () => {
  const lookup = cachedLookup(
    () => 0,
    (_host, done) =>
      done(null, [
        { address: 'fe80::1', family: 6 },
        { address: '127.0.0.1', family: 4 },
      ]),
  );
  const code = await new Promise((resolve) => lookup('box', { family: 6 }, (error) => resolve(error?.code)));
  expect(code).toBe('ENOTFOUND');
});

test('a health check says in words that the address is not allowed, and does not name it', async () => {
  const upstreams = upstreamsWith({ 'box.test': ['169.254.169.254'] });
  const result = await checkEndpoint(
    { baseUrl: 'http://box.test:8000', apiKey: null, headers: {}, engineType: null },
    { timeoutMs: 5000, dispatcher: upstreams.checks, mono: () => performance.now() },
  );
  expect(result).toEqual({
    ok: false,
    reason: 'unreachable',
    error: 'its name leads to an address that is not allowed (link-local or cloud metadata)',
  });
});

test('a client is told that the address is not allowed, and not which one it is', async () => {
  const upstreams = upstreamsWith({ 'box.test': ['169.254.169.254'] });
  const { pool, prefix } = upstreams.target('box', 'http://box.test:8000');
  const kind = 'chat_completions';
  const req = new IncomingMessage(new Socket());
  const reply = new Reply(req, new ServerResponse(req), {
    kind,
    stream: false,
    requestId: 'one',
    told: () => ({ attempts: 1, overheadMs: 0 }),
    limits: () => [],
    hasLimits: false,
  });
  const nothing = () => {};
  const unsent = await relay({
    pool,
    fresh: () => upstreams.fresh('http://box.test:8000'),
    path: `${prefix}/v1/chat/completions`,
    headers: [],
    body: Buffer.from('{}'),
    plainBody: null,
    kind,
    stream: false,
    stores: true,
    deadlines: { connectMs: 5000, firstByteMs: 0, idleMs: 0, totalMs: 0 },
    clock: systemClock,
    reply,
    ownHeaders: () => [],
    keepsBack: () => false,
    sent: nothing,
    byteCame: nothing,
    begins: nothing,
    settle: nothing,
    refusesUsage: nothing,
  }).done;
  expect(unsent).toMatchObject({
    code: 'upstream_unreachable',
    message: 'the endpoint could not be reached: its address is not allowed (link-local or cloud metadata)',
  });
});
