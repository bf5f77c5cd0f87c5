import { randomBytes, randomInt, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';
import { ApiError } from '../http/errors.js';

/** More hashes are asked for than are soon done. */
export class TooBusy extends Error {
  readonly code = 'too_busy';
}

/** node:crypto's scrypt. */
type Scrypt = (
  password: string,
  salt: Buffer,
  bytes: number,
  options: ScryptOptions,
  done: (error: Error | null, key: Buffer) => void,
) => void;

interface Hashed {
  /** log2 of scrypt's N. */
  cost: number;
  salt: Buffer;
  key: Buffer;
}

const COST = 17;
const BLOCK_SIZE = 8;
const MOST_MEMORY = 256 << 20;
const SALT_BYTES = 16;
const KEY_BYTES = 32;
/** In each lane. */
const MOST_WAITING = 64;
const present = () => false;
const FORMAT = /^\$scrypt\$ln=(\d{1,2}),r=8,p=1\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})$/;

/** Without what looks alike in print. */
const ALPHABET = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789';
const GENERATED_CHARS = 20;

/** Hashes passwords by scrypt with N = 2^cost, one at a time: about 0.3 s and 128 MiB each. */
export function passwordsOf({ cost = COST, derive = scrypt as Scrypt } = {}) {
  const inTurn = oneAtATime();
  const nobody: Hashed = { cost, salt: Buffer.alloc(SALT_BYTES), key: Buffer.alloc(KEY_BYTES) };

  function keyOf(
    password: string,
    ofCost: number,
    salt: Buffer,
    lane: Lane,
    isGone: () => boolean,
  ): Promise<Buffer> {
    const options = { N: 2 ** ofCost, r: BLOCK_SIZE, p: 1, maxmem: MOST_MEMORY };
    return inTurn(
      () =>
        new Promise((resolve, reject) => {
          // The same letters may be typed as other code points on another keyboard.
          derive(password.normalize('NFKC'), salt, KEY_BYTES, options, (error, key) =>
            error === null ? resolve(key) : reject(error),
          );
        }),
      lane,
      isGone,
    );
  }

  return {
    /** What to store of a password. Rejects with `TooBusy` when 64 wait. */
    async hash(password: string): Promise<string> {
      const salt = randomBytes(SALT_BYTES);
      return format({ cost, salt, key: await keyOf(password, cost, salt, 'known', present) });
    },

    /**
     * Whether the password is the one that was stored; null, for an unknown user, and what is malformed are never, and
     * take as long. Rejects with `TooBusy` when 64 wait.
     */
    async verify(
      password: string,
      stored: string | null,
      lane: Lane = 'known',
      isGone: () => boolean = present,
    ): Promise<boolean> {
      const known = stored === null ? null : parse(stored);
      const wanted = known ?? nobody;
      const key = await keyOf(password, wanted.cost, wanted.salt, lane, isGone);
      return timingSafeEqual(key, wanted.key) && known !== null;
    },
  };
}

/** What hashes passwords: one of it in a process. */
export type Passwords = ReturnType<typeof passwordsOf>;

/** A password for somebody to type once: about 116 bits. */
export function generatePassword(): string {
  return Array.from({ length: GENERATED_CHARS }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
}

function format({ cost, salt, key }: Hashed): string {
  return `$scrypt$ln=${cost},r=${BLOCK_SIZE},p=1$${base64(salt)}$${base64(key)}`;
}

function base64(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '');
}

function parse(stored: string): Hashed | null {
  const [, cost, salt, key] = FORMAT.exec(stored) ?? [];
  if (cost === undefined || salt === undefined || key === undefined) return null;
  // What is damaged must not ask for more memory than scrypt is given.
  if (Number(cost) < 1 || Number(cost) > COST) return null;
  return { cost: Number(cost), salt: Buffer.from(salt, 'base64'), key: Buffer.from(key, 'base64') };
}

/** Whoever was let in is not kept waiting by those who were not. */
export type Lane = 'known' | 'strangers';

interface Job {
  start: () => void;
  drop: (reason: Error) => void;
  /** Nobody waits for it any more. */
  isGone: () => boolean;
}

/** scrypt takes one of the four threads that SQLite, files and look-ups of names share. */
function oneAtATime() {
  const waiting: Record<Lane, Job[]> = { known: [], strangers: [] };
  let busy = false;

  function next(): Job | undefined {
    for (const lane of [waiting.known, waiting.strangers]) {
      for (let job = lane.shift(); job !== undefined; job = lane.shift()) {
        if (!job.isGone()) return job;
        job.drop(new TooBusy('nobody waits for it any more'));
      }
    }
    return undefined;
  }

  return async <T>(work: () => Promise<T>, lane: Lane, isGone: () => boolean): Promise<T> => {
    if (busy) {
      if (waiting[lane].length >= MOST_WAITING) throw new TooBusy('too many passwords wait to be checked');
      await new Promise<void>((resolve, reject) => {
        waiting[lane].push({ start: resolve, drop: reject, isGone });
      });
    }
    busy = true;
    try {
      return await work();
    } finally {
      // Whoever is next finds it busy still, so that nobody comes in between.
      const job = next();
      if (job === undefined) busy = false;
      else job.start();
    }
  };
}

/** What runs a hash; too many at once are an answer of 429. */
export async function unlessBusy<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw error instanceof TooBusy ? busy() : error;
  }
}

export function busy(): ApiError {
  return new ApiError('too_many_attempts', 'too many log-ins at once: try again in a moment', {
    headers: { 'retry-after': '1' },
  });
}
