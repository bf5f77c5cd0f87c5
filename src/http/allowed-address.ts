import { BlockList, isIP } from 'node:net';

/** Of AWS and most others, of its containers and pods, of Alibaba, Azure and Oracle. */
const METADATA_V4 = [
  '169.254.169.254',
  '169.254.170.2',
  '169.254.170.23',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
];
/** Of AWS and its pods, Google, Oracle and Scaleway: all within fc00::/7, where inference boxes live too. */
const METADATA_V6 = ['fd00:ec2::254', 'fd00:ec2::23', 'fd20:ce::254', 'fd00:c1::a9fe:a9fe', 'fd00:42::42'];
const METADATA_NAMES = new Set([
  'metadata.google.internal',
  'metadata.goog',
  'metadata',
  'instance-data',
  'instance-data.ec2.internal',
]);

const metadata = new BlockList();
for (const address of METADATA_V4) refuse(metadata, address, 32);
for (const address of METADATA_V6) metadata.addAddress(address, 'ipv6');

const linkLocal = new BlockList();
refuse(linkLocal, '169.254.0.0', 16);
linkLocal.addSubnet('fe80::', 10, 'ipv6');

const METADATA = "the address of a cloud's metadata service is not allowed";
const LINK_LOCAL = 'link-local addresses are not allowed';

/** Why the host of a URL, a name or a literal address with or without brackets, may not be an endpoint's; null if it may. */
export function addressProblem(host: string): string | null {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (isIP(bare) !== 0) return problemOf(bare);
  return METADATA_NAMES.has(bare.toLowerCase().replace(/\.+$/, '')) ? METADATA : null;
}

/** Whether a connection may be made to an IP address that a name led to. */
export function isAllowedAddress(address: string): boolean {
  return problemOf(address) === null;
}

function problemOf(address: string): string | null {
  // A BlockList knows no zones, such as the one of fe80::1%eth0.
  const [bare = address] = address.split('%', 1);
  const family = isIP(bare) === 6 ? 'ipv6' : 'ipv4';
  if (metadata.check(bare, family)) return METADATA;
  return linkLocal.check(bare, family) ? LINK_LOCAL : null;
}

/** Also as it is written in IPv6; the IPv4-mapped form a BlockList sees through by itself. */
function refuse(list: BlockList, net: string, bits: number): void {
  list.addSubnet(net, bits, 'ipv4');
  const [a = 0, b = 0, c = 0, d = 0] = net.split('.').map(Number);
  const hex = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  // NAT64, the same with a prefix of the site's own, and the old IPv4-compatible form.
  for (const prefix of ['64:ff9b::', '64:ff9b:1::', '::']) list.addSubnet(prefix + hex, 96 + bits, 'ipv6');
  // 6to4.
  list.addSubnet(`2002:${hex}::`, 16 + bits, 'ipv6');
}
