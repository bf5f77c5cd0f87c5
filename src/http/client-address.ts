import type { IncomingMessage } from 'node:http';
import { BlockList, isIP, isIPv4 } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** A comma separated list of addresses, CIDRs and the word `loopback`; throws an `Error` that names what is none. */
export function parseTrusted(text: string): string[] {
  const entries = text
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
  for (const entry of entries) {
    if (entry !== 'loopback' && netOf(entry) === null) {
      throw new Error(`${JSON.stringify(entry)} is no IP address, no CIDR and not the word loopback`);
    }
  }
  return entries;
}

/** Whether an address is one of `trusted`, which is what `parseTrusted` gives. */
export function isTrustedAddress(trusted: string[]): (address: string) => boolean {
  if (trusted.length === 0) return () => false;
  const list = new BlockList();
  for (const entry of trusted.flatMap((one) => (one === 'loopback' ? ['127.0.0.0/8', '::1'] : [one]))) {
    const net = netOf(entry);
    if (net !== null) list.addSubnet(net.address, net.bits, net.family);
  }
  return (address) => list.check(withoutZone(address), familyOf(address));
}

/** Whether a request comes straight from a trusted proxy. */
export function isTrustedProxy(trusted: string[]): (req: IncomingMessage) => boolean {
  if (trusted.length === 0) return () => false;
  const isTrusted = isTrustedAddress(trusted);
  return (req) => {
    const peer = peerOf(req);
    return peer !== null && isTrusted(peer);
  };
}

/**
 * Who the client is: the peer or, behind trusted proxies, the last address of `X-Forwarded-For` that is none of theirs.
 * Null once the connection is gone.
 */
export function clientAddressOf(trusted: string[]): (req: IncomingMessage) => string | null {
  if (trusted.length === 0) return peerOf;
  const isTrusted = isTrustedAddress(trusted);
  return (req) => {
    const peer = peerOf(req);
    if (peer === null || !isTrusted(peer)) return peer;
    return lastUntrusted(req.headers['x-forwarded-for'], peer, isTrusted);
  };
}

/** Whether the client speaks TLS, with us or with a proxy that `isFromProxy` trusts. */
export function isSecure(req: IncomingMessage, isFromProxy: (req: IncomingMessage) => boolean): boolean {
  if ((req.socket as Partial<TLSSocket>).encrypted === true) return true;
  const told = req.headers['x-forwarded-proto'];
  if (told === undefined || !isFromProxy(req)) return false;
  return String(told).split(',').at(-1)?.trim().toLowerCase() === 'https';
}

/** What limits count by: an IPv4 address, or the /64 of an IPv6 one, since a host commonly has a whole /64. */
export function limitKey(address: string | null): string {
  if (address === null) return 'unknown';
  if (!address.includes(':')) return address;
  const bare = withoutMapping(withoutZone(address));
  if (!bare.includes(':')) return bare;
  const [head = '', tail] = bare.split('::');
  const groups = groupsOf(head);
  const last = groupsOf(tail ?? '');
  while (tail !== undefined && groups.length + last.length < 8) groups.push('0');
  const net = [...groups, ...last].slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${net.join(':')}::/64`;
}

function peerOf(req: IncomingMessage): string | null {
  const address = req.socket.remoteAddress;
  return address === undefined ? null : withoutMapping(address);
}

/** Read from the right, where the nearest proxy wrote; whatever stands before something that is no address is not believed. */
function lastUntrusted(
  forwarded: string | string[] | undefined,
  peer: string,
  isTrusted: (address: string) => boolean,
): string {
  let client = peer;
  for (const entry of String(forwarded ?? '')
    .split(',')
    .reverse()) {
    const address = addressOf(entry.trim());
    if (address === null) break;
    client = address;
    if (!isTrusted(address)) break;
  }
  return client;
}

/** The address of an entry such as `1.2.3.4`, `1.2.3.4:567`, `::1`, `[::1]` or `[::1]:567`. */
function addressOf(entry: string): string | null {
  const bare = entry.replace(/^\[(.*)\](:\d+)?$/, '$1').replace(/^([\d.]+):\d+$/, '$1');
  return isIP(bare) === 0 ? null : withoutMapping(bare);
}

function netOf(entry: string): { address: string; bits: number; family: 'ipv4' | 'ipv6' } | null {
  const [address = '', bits, more] = entry.split('/');
  const width = isIPv4(address) ? 32 : 128;
  if (isIP(address) === 0 || address.includes('%') || more !== undefined) return null;
  if (bits !== undefined && (!/^\d{1,3}$/.test(bits) || Number(bits) > width)) return null;
  return { address, bits: Number(bits ?? width), family: familyOf(address) };
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return address.includes(':') ? 'ipv6' : 'ipv4';
}

/** A dual-stack socket gives the address of an IPv4 peer as `::ffff:1.2.3.4`. */
function withoutMapping(address: string): string {
  if (!address.startsWith('::ffff:')) return address;
  const rest = address.slice(7);
  return isIPv4(rest) ? rest : address;
}

function withoutZone(address: string): string {
  const percent = address.indexOf('%');
  return percent < 0 ? address : address.slice(0, percent);
}

/** 16 bits each; an IPv4 tail is two of them, whose value no /64 contains. */
function groupsOf(part: string): string[] {
  return part.split(':').flatMap((group) => (group === '' ? [] : group.includes('.') ? ['0', '0'] : [group]));
}
