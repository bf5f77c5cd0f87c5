import type { ServerResponse } from 'node:http';
import type { Directory } from '../access/directory.js';
import type { Principal } from '../access/principal.js';
import type { Clock } from '../clock.js';

/** At most four frames a second. */
const FRAME_MS = 250;
/** A frame that took long is followed by a pause so many times as long: making frames costs 2.5 % of a core at most. */
const REST = 40;
const MOST_REST_MS = 1000;
const COMMENT_MS = 15_000;
const COMMENT = Buffer.from(': still here\n\n');
/** A reader who leaves so many bytes unread is let go: it comes back and begins anew. */
const MOST_UNREAD = 4 * 1024 * 1024;

const HEAD = {
  'content-type': 'text/event-stream',
  'cache-control': 'private, no-store, no-transform',
  'x-accel-buffering': 'no',
};

export interface Message {
  event: string;
  /** JSON. */
  data: string;
}

/** What a stream tells its readers. */
export interface Source {
  /** There is a reader now, after there was none. */
  start(): void;
  /** There is none any more. */
  stop(): void;
  /** What each new reader is told. */
  first(): Message[];
  /** What has changed since the last call, for all of them; null: nothing will any more. */
  next(): Message[] | null;
  /** The last word, where there may be one. */
  last?: Message;
}

export interface EventStreamDeps {
  directory: Directory;
  clock: Clock;
  log: { error(details: object, message: string): void };
}

interface Reader {
  principal: Principal;
  res: ServerResponse;
  mostUnread: number;
}

/** One source and all who read it: each frame is made and encoded once, and only while there are readers. */
export class EventStream {
  readonly #source: Source;
  readonly #deps: EventStreamDeps;
  readonly #readers = new Set<Reader>();
  #timer: NodeJS.Timeout | null = null;
  #nextId = 1;
  #quietMs = 0;
  /** Monotonic, ms. */
  #restsUntil = 0;

  constructor(source: Source, deps: EventStreamDeps) {
    this.#source = source;
    this.#deps = deps;
  }

  /** Resolves when the response is closed: whoever handles the request must not be done with it before. */
  open(res: ServerResponse, principal: Principal): Promise<void> {
    if (this.#timer === null) {
      this.#source.start();
      this.#timer = setInterval(() => this.#frame(), FRAME_MS);
    }
    const reader = { principal, res, mostUnread: 0 };
    this.#readers.add(reader);
    const closed = new Promise<void>((resolve) => {
      // The response of a pipelined request has no `close` before its turn.
      const { socket } = res.req;
      const gone = () => {
        socket.off('close', gone);
        this.#leave(reader);
        resolve();
      };
      res.once('close', gone);
      socket.once('close', gone);
    });
    res.on('error', () => {});
    try {
      const first = this.#encoded(this.#source.first());
      // What it begins with may be long.
      reader.mostUnread = MOST_UNREAD + first.length;
      res.writeHead(200, HEAD).write(first);
    } catch (error) {
      this.#leave(reader);
      throw error;
    }
    return closed;
  }

  closeAll(): void {
    for (const reader of this.#readers) this.#end(reader);
  }

  #frame(): void {
    this.#dismiss();
    const startedAt = this.#deps.clock.mono();
    if (startedAt >= this.#restsUntil) {
      this.#tellChanges();
      const took = this.#deps.clock.mono() - startedAt;
      this.#restsUntil = startedAt + Math.min(MOST_REST_MS, took * REST);
    }
    this.#quietMs += FRAME_MS;
    if (this.#quietMs < COMMENT_MS) return;
    this.#quietMs = 0;
    this.#tell(COMMENT);
  }

  #tellChanges(): void {
    try {
      const messages = this.#source.next();
      if (messages === null) {
        const { last } = this.#source;
        if (last !== undefined) this.#tell(this.#encoded([last]));
        this.closeAll();
      } else if (messages.length > 0) this.#tell(this.#encoded(messages));
    } catch (error) {
      // They come back, and are told then what cannot be shown.
      this.#deps.log.error({ err: error }, 'a stream of events failed: its readers are let go');
      this.closeAll();
    }
  }

  /** A session that has ended, or a key that was revoked or may no longer, sees nothing more. */
  #dismiss(): void {
    const { directory, clock } = this.#deps;
    const now = clock.now();
    for (const reader of this.#readers) {
      if (directory.current(reader.principal, now)?.permissions.has('dashboard.read')) continue;
      this.#end(reader);
    }
  }

  #tell(bytes: Buffer): void {
    for (const reader of this.#readers) {
      const { res, mostUnread } = reader;
      if (res.writableLength <= mostUnread) res.write(bytes);
      else {
        this.#leave(reader);
        res.destroy();
      }
    }
  }

  #end(reader: Reader): void {
    this.#leave(reader);
    reader.res.end();
  }

  #leave(reader: Reader): void {
    if (!this.#readers.delete(reader) || this.#readers.size > 0) return;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#quietMs = 0;
    this.#source.stop();
  }

  #encoded(messages: readonly Message[]): Buffer {
    let text = '';
    for (const { event, data } of messages)
      text += `id: ${this.#nextId++}\nevent: ${event}\ndata: ${data}\n\n`;
    return Buffer.from(text);
  }
}
