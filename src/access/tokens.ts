import { hash, randomBytes, timingSafeEqual } from 'node:crypto';

const SECRET_BYTES = 32;
/** What is hashed with it differs from what is stored, and neither tells the other. */
const CSRF_PREFIX = 'troupe csrf ';

/** A secret that API clients send. */
export function newApiKey(): string {
  return `sk_${randomBytes(SECRET_BYTES).toString('base64url')}`;
}

/** A secret that stands in the cookie of a session. */
export function newSessionToken(): string {
  return `ts_${randomBytes(SECRET_BYTES).toString('base64url')}`;
}

/** SHA-256 in hex: what is stored of a secret of 32 random bytes, which needs no slow hash. */
export function digestOf(secret: string): string {
  // Takes 0.6 µs where createHash takes 1.6.
  return hash('sha256', secret, 'hex');
}

/** The token that a form of this session has to send; base64url. It can be told from the session's, but not back. */
export function csrfOf(sessionToken: string): string {
  return hash('sha256', CSRF_PREFIX + sessionToken, 'base64url');
}

/** Whether two texts of any lengths are the same, in a time that does not tell where they differ. */
export function sameText(a: string, b: string): boolean {
  return timingSafeEqual(hash('sha256', a, 'buffer'), hash('sha256', b, 'buffer'));
}
