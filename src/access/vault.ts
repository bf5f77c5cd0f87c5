import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import type { EndpointSecrets } from '../persistence/store.js';

const NONE: EndpointSecrets = { apiKey: null, headers: {} };
const VERSION = 'v1.';
const KEY_BYTES = 32;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * The secrets of endpoints: open in this memory alone, sealed with AES-256-GCM everywhere else. What is sealed for one
 * endpoint opens for no other.
 */
export class Vault {
  /** Until it is unlocked, one that opens nothing. */
  #key: Buffer = randomBytes(KEY_BYTES);
  readonly #secrets = new Map<string, EndpointSecrets>();
  /** Endpoints whose stored secrets this key does not open. */
  readonly #lost = new Set<string>();

  /** `secret`: of any length; the key is derived from it. Before anything is opened or sealed. */
  unlock(secret: string): void {
    this.#key = Buffer.from(hkdfSync('sha256', secret, '', 'troupe endpoint secrets', KEY_BYTES));
  }

  get(endpointId: string): EndpointSecrets {
    return this.#secrets.get(endpointId) ?? NONE;
  }

  isLost(endpointId: string): boolean {
    return this.#lost.has(endpointId);
  }

  set(endpointId: string, secrets: EndpointSecrets): void {
    this.#lost.delete(endpointId);
    if (isEmpty(secrets)) this.#secrets.delete(endpointId);
    else this.#secrets.set(endpointId, secrets);
  }

  forget(endpointId: string): void {
    this.#lost.delete(endpointId);
    this.#secrets.delete(endpointId);
  }

  /** As they are stored; null: there are none. */
  seal(endpointId: string, secrets: EndpointSecrets): string | null {
    if (isEmpty(secrets)) return null;
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key, iv);
    cipher.setAAD(Buffer.from(endpointId));
    const sealed = Buffer.concat([
      iv,
      cipher.update(JSON.stringify(secrets), 'utf8'),
      cipher.final(),
      cipher.getAuthTag(),
    ]);
    return VERSION + sealed.toString('base64');
  }

  /** Takes in what is stored; false if another key sealed it, or it was changed. */
  open(endpointId: string, sealed: string): boolean {
    const secrets = this.#opened(endpointId, sealed);
    if (secrets === null) this.#lost.add(endpointId);
    else this.set(endpointId, secrets);
    return secrets !== null;
  }

  #opened(endpointId: string, sealed: string): EndpointSecrets | null {
    if (!sealed.startsWith(VERSION)) return null;
    const bytes = Buffer.from(sealed.slice(VERSION.length), 'base64');
    if (bytes.length < IV_BYTES + TAG_BYTES) return null;
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#key, bytes.subarray(0, IV_BYTES));
      decipher.setAAD(Buffer.from(endpointId));
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      const text = Buffer.concat([decipher.update(bytes.subarray(IV_BYTES, -TAG_BYTES)), decipher.final()]);
      return JSON.parse(text.toString('utf8')) as EndpointSecrets;
    } catch {
      // A tag that does not fit says no more than that.
      return null;
    }
  }
}

function isEmpty({ apiKey, headers }: EndpointSecrets): boolean {
  return apiKey === null && Object.keys(headers).length === 0;
}
