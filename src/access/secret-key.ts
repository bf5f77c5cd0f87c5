import { randomBytes } from 'node:crypto';
import { chmod, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { ConfigError } from '../config.js';

interface Log {
  warn(details: object, message: string): void;
}

/** Fewer bits than this are guessed. */
const LEAST_CHARS = 16;
const OTHERS_MAY = 0o077;

/**
 * What secrets at rest are sealed under: the one that was given, or that of the key file (0600), which is made if it is
 * missing. A data dir that cannot be written gets a secret for this run; nothing can be stored there anyway. Throws a
 * `ConfigError` if the file can be neither read nor made otherwise.
 */
export async function secretKey(given: string | null, file: string, log: Log): Promise<string> {
  if (given !== null) return given;
  const known = await read(file);
  if (known !== null && known.length >= LEAST_CHARS) {
    await tighten(file, log);
    return known;
  }
  if (known !== null) {
    const aside = `${file}.unusable-${Date.now()}`;
    await rename(file, aside);
    log.warn({ file, aside }, 'the key file was too short to be one: it was set aside and a new one made');
  }
  const fresh = randomBytes(32).toString('base64url');
  try {
    // One that is cut short by a crash is too short the next time.
    await writeFile(file, `${fresh}\n`, { mode: 0o600, flag: 'wx', flush: true });
    return fresh;
  } catch (error) {
    if (!READ_ONLY.has((error as NodeJS.ErrnoException).code ?? '')) throw unusable(file, 'made', error);
    log.warn(
      { file, reason: (error as NodeJS.ErrnoException).code },
      'the key file cannot be written: secrets are sealed for this run only',
    );
    return fresh;
  }
}

async function read(file: string): Promise<string | null> {
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw unusable(file, 'read', error);
  }
}

const READ_ONLY = new Set(['EROFS', 'EACCES', 'EPERM']);

function unusable(file: string, what: 'read' | 'made', error: unknown): ConfigError {
  const { code } = error as NodeJS.ErrnoException;
  return new ConfigError(`the key file ${file} cannot be ${what} (${code})`, { cause: error });
}

async function tighten(file: string, log: Log): Promise<void> {
  const { mode } = await stat(file);
  if ((mode & OTHERS_MAY) === 0) return;
  const closed = await chmod(file, 0o600).then(
    () => true,
    () => false,
  );
  log.warn({ file, closed }, 'the key file could be read by others on this machine');
}
