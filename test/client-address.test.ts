import type { IncomingMessage } from 'node:http';
import { expect, test } from 'vitest';
import {
  clientAddressOf,
  isSecure,
  isTrustedAddress,
  isTrustedProxy,
  limitKey,
  parseTrusted,
} from '../src/http/client-address.js';

/** As much of a request as tells where it comes from. */
function from(
  remoteAddress: string | undefined,
  headers: Record<string, string> = {},
  encrypted?: boolean,
): IncomingMessage {
  return { socket: { remoteAddress, encrypted }, headers } as unknown as IncomingMessage;
}

const forwarded = (value: string) => ({ 'x-forwarded-for': value });

test('without trusted proxies the client is the peer, whatever the headers say', () => {
  const address = clientAddressOf([]);
  expect(address(from('192.0.2.1', forwarded('198.51.100.9')))).toBe('192.0.2.1');
  expect(address(from('::ffff:192.0.2.1'))).toBe('192.0.2.1');
  expect(address(from('2001:db8::1'))).toBe('2001:db8::1');
  expect(address(from(undefined))).toBeNull();
});

test('a peer that is not trusted cannot say who it is', () => {
  const address = clientAddressOf(['10.0.0.0/8']);
  expect(address(from('192.0.2.1', forwarded('198.51.100.9')))).toBe('192.0.2.1');
  expect(address(from(undefined, forwarded('198.51.100.9')))).toBeNull();
});

test.each([
  ['198.51.100.9', '198.51.100.9'],
  ['1.1.1.1, 198.51.100.9', '198.51.100.9'],
  ['1.1.1.1, 198.51.100.9, 10.0.0.2, 127.0.0.1', '198.51.100.9'],
  ['198.51.100.9:4711', '198.51.100.9'],
  ['[2001:db8::7]:4711', '2001:db8::7'],
  ['[2001:db8::7]', '2001:db8::7'],
  ['2001:db8::7', '2001:db8::7'],
  ['::ffff:198.51.100.9', '198.51.100.9'],
  ['::ffff:10.0.0.2', '10.0.0.2'],
  ['10.0.0.3, 10.0.0.2', '10.0.0.3'],
  ['198.51.100.9, unknown, 10.0.0.2', '10.0.0.2'],
  ['198.51.100.9, unknown', '10.0.0.1'],
  ['198.51.100.9,, 10.0.0.2', '10.0.0.2'],
  ['1.2.3', '10.0.0.1'],
  ['1.2.3.4:', '10.0.0.1'],
  ['', '10.0.0.1'],
])('behind a trusted proxy %j means %s', (value, client) => {
  const address = clientAddressOf(['10.0.0.0/8', 'loopback', 'fd00::/8']);
  expect(address(from('10.0.0.1', forwarded(value)))).toBe(client);
  expect(address(from('::ffff:10.0.0.1', forwarded(value)))).toBe(
    client === '10.0.0.1' ? '10.0.0.1' : client,
  );
});

test('a trusted proxy that says nothing is the client itself', () => {
  expect(clientAddressOf(['10.0.0.1'])(from('10.0.0.1'))).toBe('10.0.0.1');
});

test('trusted are single addresses, nets and this machine, however they are written', () => {
  const trusts = isTrustedAddress([
    '10.1.0.0/16',
    '192.0.2.7',
    '2001:db8::/32',
    '::ffff:203.0.113.0/120',
    'loopback',
  ]);
  for (const address of [
    '10.1.255.255',
    '192.0.2.7',
    '2001:db8:1::1',
    '203.0.113.9',
    '127.0.0.1',
    '127.9.9.9',
    '::1',
    '::ffff:127.0.0.1',
  ]) {
    expect([address, trusts(address)]).toEqual([address, true]);
  }
  for (const address of [
    '10.2.0.0',
    '192.0.2.8',
    '2001:db9::1',
    '203.0.114.9',
    '::2',
    'fe80::1%eth0',
    'nonsense',
  ]) {
    expect([address, trusts(address)]).toEqual([address, false]);
  }
  expect(isTrustedAddress(['fe80::/10'])('fe80::1%eth0')).toBe(true);
  expect(isTrustedAddress([])('127.0.0.1')).toBe(false);
  const proxy = isTrustedProxy(['loopback']);
  expect([from('127.0.0.1'), from('::1'), from('10.0.0.1'), from(undefined)].map(proxy)).toEqual([
    true,
    true,
    false,
    false,
  ]);
  expect(isTrustedProxy([])(from('127.0.0.1'))).toBe(false);
});

test('a list of trusted proxies is read, and an entry that is none is named', () => {
  expect(parseTrusted(' 10.0.0.0/8 , loopback,::1,')).toEqual(['10.0.0.0/8', 'loopback', '::1']);
  expect(parseTrusted('')).toEqual([]);
  for (const entry of [
    '10.0.0.0/33',
    '::1/129',
    'proxy.example',
    '10.0.0',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
    'fe80::1%eth0',
  ]) {
    expect(() => parseTrusted(`loopback,${entry}`)).toThrow(JSON.stringify(entry));
  }
});

test('a client is secure on TLS of our own, or when the trusted proxy nearest to us says so', () => {
  const trusted = isTrustedProxy(['loopback']);
  const proto = (value: string) => ({ 'x-forwarded-proto': value });
  expect(isSecure(from('192.0.2.1', {}, true), trusted)).toBe(true);
  expect(isSecure(from('192.0.2.1', proto('https')), trusted)).toBe(false);
  expect(isSecure(from('127.0.0.1'), trusted)).toBe(false);
  expect(isSecure(from('127.0.0.1', proto('https')), trusted)).toBe(true);
  expect(isSecure(from('127.0.0.1', proto('http, HTTPS ')), trusted)).toBe(true);
  expect(isSecure(from('127.0.0.1', proto('https, http')), trusted)).toBe(false);
  expect(isSecure(from('127.0.0.1', proto('https')), isTrustedProxy([]))).toBe(false);
});

test('limits count an IPv4 address by itself and an IPv6 one by its /64', () => {
  expect(limitKey('192.0.2.1')).toBe('192.0.2.1');
  expect(limitKey('::ffff:192.0.2.1')).toBe('192.0.2.1');
  const net = limitKey('2001:db8:0:1::1');
  expect(net).toBe('2001:db8:0:1::/64');
  for (const same of [
    '2001:db8:0:1:ffff:ffff:ffff:ffff',
    '2001:0DB8:0000:0001::7',
    '2001:db8::1:0:0:0:9',
    '2001:db8:0:1::192.0.2.1',
  ]) {
    expect([same, limitKey(same)]).toEqual([same, net]);
  }
  expect(limitKey('2001:db8:0:2::1')).not.toBe(net);
  expect(limitKey('::1')).toBe('0:0:0:0::/64');
  expect(limitKey('fe80::1%eth0')).toBe('fe80:0:0:0::/64');
  expect(limitKey('1:2:3:4:5:6:192.0.2.1')).toBe('1:2:3:4::/64');
  expect(limitKey('1:2:3::')).toBe('1:2:3:0::/64');
  expect(limitKey(null)).toBe('unknown');
});
