import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { csrfOf, digestOf, newApiKey, newSessionToken, sameText } from '../src/access/tokens.js';

test('an API key and a session token tell their kind and carry 32 random bytes', () => {
  for (const [prefix, make] of [
    ['sk_', newApiKey],
    ['ts_', newSessionToken],
  ] as const) {
    const made = Array.from({ length: 200 }, make);
    expect(new Set(made).size).toBe(200);
    for (const secret of made) {
      expect(secret).toMatch(/^(sk|ts)_[A-Za-z0-9_-]{43}$/);
      expect(secret.startsWith(prefix)).toBe(true);
      expect(Buffer.from(secret.slice(3), 'base64url')).toHaveLength(32);
    }
  }
});

test('a digest is SHA-256 of the UTF-8 text in hex', () => {
  expect(digestOf('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      expect(digestOf(text)).toBe(createHash('sha256').update(text, 'utf8').digest('hex'));
    }),
  );
});

test('the CSRF token of a session is always the same, another for each session, and not what is stored of it', () => {
  const sessions = Array.from({ length: 100 }, newSessionToken);
  const tokens = sessions.map(csrfOf);
  expect(sessions.map(csrfOf)).toEqual(tokens);
  expect(new Set(tokens).size).toBe(100);
  for (const [i, session] of sessions.entries()) {
    const token = tokens[i] as string;
    expect(token).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(Buffer.from(token, 'base64url').toString('hex')).not.toBe(digestOf(session));
    expect(token).not.toContain(session.slice(3));
  }
});

test('two texts are the same only if every character is, whatever their lengths', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 80 });
  fc.assert(
    fc.property(text, text, fc.nat(80), (a, b, at) => {
      expect(sameText(a, `${a}`)).toBe(true);
      expect(sameText(a, b)).toBe(a === b);
      expect(sameText(a, `${a.slice(0, at)}x${a.slice(at)}`)).toBe(false);
    }),
  );
});
