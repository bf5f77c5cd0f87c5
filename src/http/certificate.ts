import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { createSecureContext, type Server as TlsServer } from 'node:tls';
import { ConfigError } from '../config.js';

const MIN_TLS = 'TLSv1.2';

/** PEM files, by their paths. */
export interface TlsFiles {
  cert: string;
  key: string;
}

/** A certificate and its private key, PEM. */
export interface Pair {
  cert: string;
  key: string;
}

/** Both files, and that they belong together. Throws a `ConfigError` that names the option and the file. */
export function readPair({ cert: certFile, key: keyFile }: TlsFiles): Pair {
  const cert = readPem('--tls-cert', certFile);
  const key = readPem('--tls-key', keyFile);
  const certificate = attempt(`--tls-cert ${certFile}: it is no certificate in PEM`, () => {
    return new X509Certificate(cert);
  });
  const privateKey = attempt(`--tls-key ${keyFile}: it is no private key in PEM without a passphrase`, () => {
    return createPrivateKey(key);
  });
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new ConfigError(
      `--tls-key ${keyFile}: it does not belong to the certificate in ${certFile} (--tls-cert)`,
    );
  }
  attempt(`--tls-cert ${certFile}: it cannot be used with the key in ${keyFile} (--tls-key)`, () => {
    return createSecureContext({ cert, key, minVersion: MIN_TLS });
  });
  return { cert, key };
}

function readPem(option: string, file: string): string {
  try {
    return pemOf(readFileSync(file, 'utf8'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError(`${option} ${file}: it cannot be read (${code})`, { cause: error });
  }
}

/** listhen takes a text that does not begin with its first block for the name of a file. */
function pemOf(text: string): string {
  return text.slice(Math.max(0, text.indexOf('-----BEGIN')));
}

function attempt<T>(problem: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new ConfigError(problem, { cause: error });
  }
}

interface Log {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

/** Connections that are open keep the certificate they began with. The answer ends the watch. */
export function watchPair(
  server: TlsServer,
  files: TlsFiles,
  first: Pair,
  watchMs: number,
  log: Log,
): () => void {
  let served = first;
  const renew = () => {
    try {
      const pair = readPair(files);
      if (pair.cert === served.cert && pair.key === served.key) return;
      serve(server, pair);
      served = pair;
      log.info(
        { ...files, valid_to: new X509Certificate(pair.cert).validTo },
        'a new TLS certificate is in use',
      );
    } catch (error) {
      const reason = (error as Error).message;
      log.warn(
        { reason },
        'the TLS files have changed but cannot be used: the certificate before stays in use',
      );
    }
  };
  // `watchFile` begins with what it finds some time later, and never tells of a change before that.
  let judged = togetherOf(first.cert, first.key);
  let before = judged;
  let timer: NodeJS.Timeout;
  let isOver = false;
  const look = async () => {
    const now = togetherOf(await contentOf(files.cert), await contentOf(files.key));
    if (isOver) return;
    // The two are written one after the other: what is read in between does not fit together.
    if (now !== judged && now === before) {
      judged = now;
      renew();
    }
    before = now;
    lookAgain();
  };
  const lookAgain = () => {
    timer = setTimeout(look, watchMs).unref();
  };
  lookAgain();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

function togetherOf(cert: string, key: string): string {
  return `${cert}\n\n${key}`;
}

/** Of a file that cannot be read, why. */
async function contentOf(file: string): Promise<string> {
  return readFile(file, 'utf8').then(pemOf, (error: NodeJS.ErrnoException) => String(error.code));
}

/** From now on new connections get this certificate. */
export function serve(server: TlsServer, pair: Pair): void {
  server.setSecureContext({ ...pair, minVersion: MIN_TLS });
}

/** Node gives a handshake two minutes and does not count it among the connections it can close; the answer ends them all. */
export function limitHandshakes(server: TlsServer, ms: number): () => void {
  const shaking = new Map<string, Socket>();
  // Of the TLS socket that comes out of it only the peer is the same.
  const keyOf = ({ remoteAddress, remotePort }: Socket) => `${remoteAddress} ${remotePort}`;
  server.on('connection', (socket: Socket) => {
    const key = keyOf(socket);
    const timer = setTimeout(() => {
      if (shaking.get(key) === socket) socket.destroy();
    }, ms);
    shaking.set(key, socket);
    socket.once('close', () => {
      clearTimeout(timer);
      if (shaking.get(key) === socket) shaking.delete(key);
    });
  });
  server.on('secureConnection', (socket) => shaking.delete(keyOf(socket)));
  return () => {
    for (const socket of shaking.values()) socket.destroy();
  };
}
