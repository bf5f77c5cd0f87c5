import { isatty } from 'node:tty';
import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export interface Log {
  logger: Logger;
  /** Writes out what is buffered, at once. */
  flush(): void;
}

const FLUSH_EVERY_MS = 1000;
/** Lines are handed on in pieces of this size: each is a trip through the thread pool that SQLite uses as well. */
const PIECE_CHARS = 32 * 1024;

/** JSON lines on stdout, buffered up to a second; pretty on a terminal. */
export function openLog(level: string): Log {
  if (isatty(1)) {
    const stream = pretty({ sync: true, translateTime: 'SYS:HH:MM:ss', ignore: 'pid,hostname' });
    return { logger: create(level, stream), flush: () => {} };
  }
  const destination = pino.destination({ dest: 1, sync: false });
  const lines = gathered(destination);
  const flush = () => {
    lines.flush();
    try {
      destination.flushSync();
    } catch {
      // Not open yet, or the reader of stdout is gone: there is nobody left to tell.
    }
  };
  setInterval(lines.flush, FLUSH_EVERY_MS).unref();
  return { logger: create(level, lines), flush };
}

/** Lines in front of a destination, joined once: pino's own buffer measures all it holds again with every line. */
function gathered(destination: DestinationStream): DestinationStream & { flush(): void } {
  let waiting: string[] = [];
  let chars = 0;
  const flush = () => {
    if (waiting.length === 0) return;
    destination.write(waiting.join(''));
    waiting = [];
    chars = 0;
  };
  return {
    write(line) {
      waiting.push(line);
      chars += line.length;
      if (chars >= PIECE_CHARS) flush();
    },
    flush,
  };
}

function create(level: string, stream: DestinationStream): Logger {
  return pino({ level, base: null, timestamp: isoTime }, stream);
}

let second = Number.NaN;
let upToSecond = '';

/** As pino's own, but for one date a second. */
function isoTime(): string {
  const now = Date.now();
  const whole = Math.floor(now / 1000);
  if (whole !== second) {
    second = whole;
    upToSecond = `,"time":"${new Date(now).toISOString().slice(0, 20)}`;
  }
  return `${upToSecond}${String(now % 1000).padStart(3, '0')}Z"`;
}
