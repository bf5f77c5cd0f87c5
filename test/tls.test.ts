import { execFileSync } from 'node:child_process';
import { pbkdf2 } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { createServer, request as httpsRequest } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { request } from 'undici';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { ConfigError } from '../src/config.js';
import type { TlsFiles } from '../src/http/certificate.js';
import { type Door, type DoorOptions, openDoor } from '../src/http/listen.js';
import { cachedLookup } from '../src/http/lookup.js';
import { Upstreams } from '../src/http/upstreams.js';
import { pause, until } from './support/server.js';

const deriveKey = promisify(pbkdf2);
const scratch = mkdtempSync(join(tmpdir(), 'troupe-tls-'));
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: scratch, stdio: 'pipe' });
const inScratch = (name: string) => join(scratch, name);
const filesOf = (name: string): TlsFiles => ({
  cert: inScratch(`${name}.crt`),
  key: inScratch(`${name}.key`),
});

/** A certificate for this machine that is signed by itself. */
function selfSigned(name: string): void {
  openssl(
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '7'],
    ...['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
    ...['-keyout', `${name}.key`, '-out', `${name}.crt`],
  );
}

/** A certificate for this machine, and the private CA that has signed it. */
function signedByCa(name: string): void {
  openssl(
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '7'],
    ...['-subj', `/CN=${name} CA`, '-keyout', `${name}-ca.key`, '-out', `${name}-ca.crt`],
  );
  openssl(
    ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`],
  );
  writeFileSync(inScratch('ext'), 'subjectAltName=DNS:localhost,DNS:box.test,IP:127.0.0.1\n');
  openssl(
    ...['x509', '-req', '-in', `${name}.csr`, '-CA', `${name}-ca.crt`, '-CAkey', `${name}-ca.key`],
    ...['-CAcreateserial', '-days', '7', '-extfile', 'ext', '-out', `${name}.crt`],
  );
}

beforeAll(() => {
  selfSigned('first');
  selfSigned('second');
  signedByCa('box');
  signedByCa('other');
  openssl('ec', '-in', 'first.key', '-aes256', '-passout', 'pass:secret', '-out', 'locked.key');
  writeFileSync(inScratch('locked.crt'), readFileSync(inScratch('first.crt')));
  return () => rmSync(scratch, { recursive: true });
});

interface Said {
  level: 'info' | 'warn';
  details: object;
  message: string;
}

async function door(
  options: DoorOptions = {},
  handler: RequestListener = (_req, res) => res.end('here'),
): Promise<Door & { said: Said[] }> {
  const said: Said[] = [];
  const log = {
    info: (details: object, message: string) => said.push({ level: 'info', details, message }),
    warn: (details: object, message: string) => said.push({ level: 'warn', details, message }),
  };
  const opened = await openDoor(handler, '127.0.0.1', 0, { log, ...options });
  onTestFinished(() => opened.close(0));
  return { ...opened, said };
}

/** The files of a door that a test changes while it runs. */
function ownFiles(from: string): TlsFiles {
  const dir = mkdtempSync(join(scratch, 'own-'));
  const own = { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') };
  copy(from, own);
  return own;
}

function copy(from: string, { cert, key }: TlsFiles): void {
  writeFileSync(cert, readFileSync(filesOf(from).cert));
  writeFileSync(key, readFileSync(filesOf(from).key));
}

/** The name in the certificate that a new connection gets. */
async function servedBy({ port }: Door): Promise<string> {
  const socket = await shake(port);
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return String(CN);
}

function shake(port: number, more: object = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false, ...more });
    onTestFinished(() => {
      socket.destroy();
    });
    socket.once('secureConnect', () => resolve(socket));
    socket.once('error', reject);
  });
}

function getOver(url: string, ca: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    httpsRequest(url, { ca, agent: false }, (res) => {
      let text = '';
      res.on('data', (chunk) => {
        text += chunk;
      });
      res.on('end', () => resolve(text));
    })
      .on('error', reject)
      .end();
  });
}

/** A bare connection that keeps what it gets. */
function dial(port: number): { socket: Socket; closed: Promise<void>; open: Promise<void>; text(): string } {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => {
    socket.destroy();
  });
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.on('error', () => {});
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const open = new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  return { socket, closed, open, text: () => text };
}

/** A connection that has certainly been accepted: its request is answered, and it stays. */
async function used(port: number): Promise<Socket> {
  const { socket, text } = dial(port);
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await until(() => text().includes('here'));
  return socket;
}

async function isRefused(port: number): Promise<boolean> {
  const { socket, closed, text } = dial(port);
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await Promise.race([closed, until(() => text() !== '')]);
  socket.destroy();
  return text() === '';
}

// The certificate.

test('a door with a certificate speaks HTTPS, from TLS 1.2 on, and says so in its URL', async () => {
  const opened = await door({ tls: filesOf('first') });
  expect(opened.url).toBe(`https://127.0.0.1:${opened.port}`);
  expect(await getOver(opened.url, readFileSync(filesOf('first').cert))).toBe('here');
  expect((await shake(opened.port, { maxVersion: 'TLSv1.2' })).getProtocol()).toBe('TLSv1.2');
  const old = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
  await expect(shake(opened.port, old)).rejects.toThrow(/protocol version/);
  const plain = dial(opened.port);
  plain.socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await plain.closed;
  expect(plain.text()).not.toContain('here');
});

test('a certificate with words before it is read, and the whole chain is served', async () => {
  const files = ownFiles('box');
  const chain = Buffer.concat([readFileSync(files.cert), readFileSync(inScratch('box-ca.crt'))]);
  writeFileSync(files.cert, `Bag Attributes\n  friendlyName: box\n${chain}`);
  const opened = await door({ tls: files });
  const socket = await shake(opened.port);
  expect(socket.getPeerCertificate(true).issuerCertificate.subject.CN).toBe('box CA');
});

test('a new certificate is in use for the next connections; those that are open go on', async () => {
  const files = ownFiles('first');
  const opened = await door({ tls: files, limits: { watchMs: 40 } });
  const before = await shake(opened.port);
  expect(await servedBy(opened)).toBe('first');
  copy('second', files);
  await until(async () => (await servedBy(opened)) === 'second');
  expect(opened.said.map(({ level }) => level)).toEqual(['info']);
  let answer = '';
  before.on('data', (chunk) => {
    answer += chunk;
  });
  before.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await until(() => answer.includes('here'));
});

test('a pair that cannot be used is warned of once and the one before stays, until there is a good one', async () => {
  const files = ownFiles('first');
  const opened = await door({ tls: files, limits: { watchMs: 40 } });
  // A key of somebody else's.
  writeFileSync(files.key, readFileSync(filesOf('second').key));
  await until(() => opened.said.length > 0);
  expect(opened.said[0]).toMatchObject({
    level: 'warn',
    details: { reason: expect.stringContaining(files.key) },
  });
  await pause(200);
  expect(opened.said).toHaveLength(1);
  expect(await servedBy(opened)).toBe('first');
  rmSync(files.cert);
  await until(() => opened.said.length > 1);
  expect(opened.said[1]).toMatchObject({
    level: 'warn',
    details: { reason: expect.stringContaining('ENOENT') },
  });
  expect(await servedBy(opened)).toBe('first');
  writeFileSync(files.cert, readFileSync(filesOf('second').cert));
  await until(async () => (await servedBy(opened)) === 'second');
  expect(JSON.stringify(opened.said)).not.toContain('BEGIN');
});

test('a certificate that is replaced just after the start is in use, however busy the machine is', async () => {
  const files = ownFiles('first');
  // Nothing of a file is known before these are done.
  const busy = Array.from({ length: 8 }, () => deriveKey('a', 'b', 200_000, 64, 'sha512'));
  const opened = await door({ tls: files, limits: { watchMs: 40 } });
  copy('second', files);
  await Promise.all(busy);
  await until(async () => (await servedBy(opened)) === 'second', 30_000);
  expect(opened.said.map(({ level }) => level)).toEqual(['info']);
}, 40_000);

test('a closed door watches its files no more', async () => {
  const files = ownFiles('first');
  const opened = await door({ tls: files, limits: { watchMs: 40 } });
  await opened.close(0);
  writeFileSync(files.cert, 'nonsense');
  await pause(300);
  expect(opened.said).toEqual([]);
});

test.each<[string, () => TlsFiles, string, string]>([
  [
    'a certificate that is not there',
    () => ({ ...filesOf('first'), cert: '/nowhere/c.pem' }),
    '--tls-cert',
    '/nowhere/c.pem',
  ],
  [
    'a key that is not there',
    () => ({ ...filesOf('first'), key: '/nowhere/k.pem' }),
    '--tls-key',
    '/nowhere/k.pem',
  ],
  [
    'a key as a certificate',
    () => ({ ...filesOf('first'), cert: inScratch('first.key') }),
    '--tls-cert',
    'first.key',
  ],
  [
    'a certificate as a key',
    () => ({ ...filesOf('first'), key: inScratch('first.crt') }),
    '--tls-key',
    'first.crt',
  ],
  ['a directory', () => ({ ...filesOf('first'), cert: scratch }), '--tls-cert', scratch],
  ['a key with a passphrase', () => filesOf('locked'), '--tls-key', 'locked.key'],
  [
    'a key of another certificate',
    () => ({ ...filesOf('first'), key: inScratch('second.key') }),
    '--tls-key',
    'second.key',
  ],
])('%s is refused at the start, by its option and its name', async (_, files, option, name) => {
  const error = await openDoor(() => {}, '127.0.0.1', 0, { tls: files() }).catch((reason) => reason);
  expect(error).toBeInstanceOf(ConfigError);
  expect(error.message.startsWith(`${option} `)).toBe(true);
  expect(error.message).toContain(name);
  expect(error.message).not.toContain('BEGIN');
});

// Time.

test('half a request head is cut off', async () => {
  const opened = await door({ limits: { headMs: 100, checkEveryMs: 30 } });
  const { socket, closed, text } = dial(opened.port);
  socket.write('GET / HTTP/1.1\r\nHost: loc');
  await closed;
  expect(text()).toMatch(/^HTTP\/1.1 408 /);
});

test('half a request head is cut off on a connection that has served before, and under TLS', async () => {
  const opened = await door({ tls: filesOf('first'), limits: { headMs: 100, checkEveryMs: 30 } });
  const socket = await shake(opened.port);
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await until(() => text.includes('here'));
  socket.write('GET / HTTP/1.1\r\nHost: loc');
  await new Promise((resolve) => socket.once('close', resolve));
  expect(text).toMatch(/HTTP\/1.1 408 /);
});

test('a body that does not come is cut off', async () => {
  const opened = await door({ limits: { headMs: 100, requestMs: 200, checkEveryMs: 30 } }, (req) => {
    req.on('error', () => {});
    req.resume();
  });
  const { socket, closed } = dial(opened.port);
  socket.write('POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n1');
  await closed;
});

test('a request that was whole in time may take as long as it likes to be answered', async () => {
  const limits = { headMs: 50, requestMs: 100, checkEveryMs: 20 };
  const opened = await door({ limits }, (_req, res) => setTimeout(() => res.end('at last'), 400));
  const { socket, text } = dial(opened.port);
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await until(() => text().includes('at last'));
});

test('a TLS handshake that does not come to an end is cut off; one that has is left alone', async () => {
  const opened = await door({ tls: filesOf('first'), limits: { headMs: 150 } });
  const good = await shake(opened.port);
  let closedGood = false;
  good.once('close', () => {
    closedGood = true;
  });
  const { socket, closed } = dial(opened.port);
  socket.write(Buffer.from([0x16, 0x03, 0x01]));
  await closed;
  await pause(100);
  expect(closedGood).toBe(false);
});

test('a handshake that is still going on does not hold up the closing of the door', async () => {
  const opened = await door({ tls: filesOf('first') });
  const { open, closed } = dial(opened.port);
  await open;
  await until(() => connections(opened).then((count) => count === 1));
  await opened.close(0);
  await closed;
});

// Connections.

function connections({ server }: Door): Promise<number> {
  return new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))),
  );
}

test('one address gets so many connections and no more, until some of them are closed', async () => {
  const opened = await door({ limits: { perAddress: 3 } });
  const held = await Promise.all(Array.from({ length: 3 }, () => used(opened.port)));
  const over = await Promise.all(Array.from({ length: 6 }, () => isRefused(opened.port)));
  expect(over).toEqual([true, true, true, true, true, true]);
  expect(opened.said).toMatchObject([{ level: 'warn', details: { address: '127.0.0.1', connections: 3 } }]);
  held[0]?.destroy();
  await until(async () => !(await isRefused(opened.port)));
  // The refused ones have not been counted off as well.
  await until(async () => (await connections(opened)) === 2);
  const again = await used(opened.port);
  expect(await isRefused(opened.port)).toBe(true);
  again.destroy();
});

test('connections under TLS are counted once, from before the handshake, and counted off', async () => {
  const opened = await door({ tls: filesOf('first'), limits: { perAddress: 2 } });
  for (let round = 0; round < 3; round += 1) {
    const first = await shake(opened.port);
    const raw = dial(opened.port);
    await raw.open;
    await until(async () => (await connections(opened)) === 2);
    await expect(shake(opened.port)).rejects.toThrow();
    first.destroy();
    raw.socket.destroy();
    await until(async () => (await connections(opened)) === 0);
  }
});

test('a trusted address may have any number of connections', async () => {
  const opened = await door({ limits: { perAddress: 1 }, trusted: (address) => address === '127.0.0.1' });
  await Promise.all(Array.from({ length: 6 }, () => used(opened.port)));
  expect(opened.said).toEqual([]);
});

test('there is a limit for all addresses together', async () => {
  const opened = await door({ limits: { connections: 2 }, trusted: () => true });
  await used(opened.port);
  const second = await used(opened.port);
  expect(await isRefused(opened.port)).toBe(true);
  expect(opened.said).toMatchObject([{ level: 'warn', details: { connections: 2 } }]);
  second.destroy();
  await until(async () => !(await isRefused(opened.port)));
});

test('a door on all addresses is open on this one', async () => {
  const opened = await openDoor((_req, res) => res.end('here'), '0.0.0.0', 0);
  onTestFinished(() => opened.close(0));
  expect(opened.server.address()).toMatchObject({ address: '0.0.0.0' });
  await used(opened.port);
});

test('an address that is not of this machine is refused by its option', async () => {
  const error = await openDoor(() => {}, '192.0.2.77', 0).catch((reason) => reason);
  expect(error).toBeInstanceOf(ConfigError);
  expect(error.message).toContain('--host 192.0.2.77');
});

// The other side.

/** An HTTPS server with the certificate of that name; answers its origin. */
async function upstream(name: string, host = '127.0.0.1'): Promise<string> {
  const { cert, key } = filesOf(name);
  const options = { cert: readFileSync(cert), key: readFileSync(key) };
  const server = createServer(options, (_req, res) => res.end(`from ${name}`));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `https://${host}:${(server.address() as AddressInfo).port}`;
}

function newUpstreams(): Upstreams {
  const upstreams = new Upstreams(
    cachedLookup(
      () => 0,
      (_host, done) => done(null, [{ address: '127.0.0.1', family: 4 }]),
    ),
    2000,
  );
  onTestFinished(() => upstreams.destroy());
  return upstreams;
}

const caOf = (name: string) => readFileSync(inScratch(`${name}-ca.crt`), 'utf8');

test('an upstream with a private CA is reached with that CA, and not without or with another', async () => {
  for (const origin of [await upstream('box'), await upstream('box', 'box.test')]) {
    const upstreams = newUpstreams();
    const ways = [
      (tlsCa: string | null) => upstreams.target('box', origin, tlsCa).pool,
      (tlsCa: string | null) => upstreams.fresh(origin, tlsCa),
      (tlsCa: string | null) => upstreams.checksFor(tlsCa),
    ];
    for (const way of ways) {
      const answered = await request(origin, { dispatcher: way(caOf('box')) });
      expect(await answered.body.text()).toBe('from box');
      for (const wrong of [null, caOf('other')]) {
        const error = await request(origin, { dispatcher: way(wrong) }).catch((reason) => reason);
        expect(error.code).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE');
      }
    }
  }
});

test('a private CA makes no certificate good that is for another host', async () => {
  const origin = await upstream('box', 'elsewhere.test');
  const upstreams = newUpstreams();
  const error = await request(origin, { dispatcher: upstreams.checksFor(caOf('box')) }).catch(
    (reason) => reason,
  );
  expect(error.code).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
});

test('a changed CA makes a new pool, the same one does not', () => {
  const upstreams = newUpstreams();
  const target = (tlsCa?: string | null) => upstreams.target('box', 'https://box.test', tlsCa).pool;
  const without = target();
  expect(target(null)).toBe(without);
  const withOne = target(caOf('box'));
  expect(withOne).not.toBe(without);
  expect(target(caOf('box'))).toBe(withOne);
  expect(target(caOf('other'))).not.toBe(withOne);
});

test('checks share their connections by CA', () => {
  const upstreams = newUpstreams();
  expect(upstreams.checksFor(null)).toBe(upstreams.checks);
  const ofBox = upstreams.checksFor(caOf('box'));
  expect(ofBox).not.toBe(upstreams.checks);
  expect(upstreams.checksFor(caOf('box'))).toBe(ofBox);
  expect(upstreams.checksFor(caOf('other'))).not.toBe(ofBox);
});

test('nothing is left open of a private CA when all connections are destroyed', async () => {
  const origin = await upstream('box');
  const upstreams = newUpstreams();
  const checks = upstreams.checksFor(caOf('box'));
  await (await request(origin, { dispatcher: checks })).body.dump();
  await upstreams.destroy();
  expect(checks.destroyed).toBe(true);
});
