import { isatty } from 'node:tty';
import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export interface Log {
  logger: Logger;
  /** Writes out what is buffered, at once. */
  flush(): void;
}

const FLUSH_EVERY_MS = 1000;
/** Just below pino's limit of 16384, above which it writes in one piece. */
const BUFFER_BYTES = 16_000;

/** JSON lines on stdout, buffered up to a second; pretty on a terminal. */
export function openLog(level: string): Log {
  if (isatty(1)) {
    const stream = pretty({ sync: true, translateTime: 'SYS:HH:MM:ss', ignore: 'pid,hostname' });
    return { logger: create(level, stream), flush: () => {} };
  }
  const destination = pino.destination({ dest: 1, sync: false, minLength: BUFFER_BYTES });
  const flush = () => {
    try {
      destination.flushSync();
    } catch {
      // Not open yet, or the reader of stdout is gone: there is nobody left to tell.
    }
  };
  setInterval(() => destination.flush(() => {}), FLUSH_EVERY_MS).unref();
  return { logger: create(level, destination), flush };
}

function create(level: string, stream: DestinationStream): Logger {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream);
}
