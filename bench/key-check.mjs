// What the check of a credential costs, inside the server's own gate, beside the bare SHA-256 of the same key.
import { hash } from 'node:crypto';
import { Directory } from '../dist/access/directory.js';
import { PERMISSIONS } from '../dist/access/permissions.js';
import { NOBODY } from '../dist/access/principal.js';
import { NO_LIMITS, RateLimits } from '../dist/access/rate-limits.js';
import { digestOf, newApiKey } from '../dist/access/tokens.js';
import { gateOf } from '../dist/http/gate.js';
import { median, table } from './processes.mjs';

const KEYS = 10_000;
const CHECKS = 200_000;
const ROUNDS = 5;
const clock = { now: () => Date.now(), mono: () => performance.now() };

export async function keyCheck() {
  const directory = new Directory('another-key');
  const secrets = Array.from({ length: KEYS }, newApiKey);
  directory.seedKeys(secrets.map(keyOf));
  const gate = gateOf({
    directory,
    clock,
    isOpen: false,
    addressOf: () => '127.0.0.1',
    isSecure: () => false,
  });
  const requests = secrets.map((secret) => ({
    method: 'POST',
    headers: { authorization: `Bearer ${secret}` },
  }));
  const limits = new RateLimits();
  const most = {
    requestsPerMinute: 1_000_000,
    tokensPerMinute: 1e12,
    concurrent: 100,
    tokensPerDay: null,
    tokensPerMonth: null,
  };

  const parts = {
    'SHA-256 alone': (i) => hash('sha256', secrets[i % KEYS], 'hex'),
    [`one of ${KEYS} keys, each in turn`]: (i) => gate.enter(requests[i % KEYS]),
    'the same key again': () => gate.enter(requests[0]),
    'with limits of three kinds': () => {
      const { keyId } = gate.enter(requests[0]);
      limits.admit(keyId, most, () => null, performance.now(), Date.now());
      limits.release(keyId);
    },
    'an unknown key': () => {
      try {
        gate.enter({ method: 'POST', headers: { authorization: 'Bearer sk_unknown' } });
      } catch {
        // Refused, as it should be.
      }
    },
  };
  const rows = Object.entries(parts).map(([what, check]) => {
    const rounds = Array.from({ length: ROUNDS }, () => microsOf(check));
    return { 'the check of': what, 'µs (median of 5)': median(rounds).toFixed(2) };
  });
  table('The check of a key', rows);
}

function microsOf(check) {
  const started = performance.now();
  for (let i = 0; i < CHECKS; i += 1) check(i);
  return ((performance.now() - started) * 1000) / CHECKS;
}

function keyOf(secret, i) {
  return {
    id: `key-${i}`,
    name: `key ${i}`,
    keyPrefix: secret.slice(0, 10),
    keyHash: digestOf(secret),
    createdBy: NOBODY,
    createdAt: 0,
    expiresAt: null,
    permissions: [...PERMISSIONS],
    models: null,
    rateLimit: NO_LIMITS,
    priority: 0,
  };
}
