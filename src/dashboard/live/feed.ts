import { type ShallowRef, shallowRef } from 'vue';
import { isLeaving } from '../session.js';

/**
 * `live`: pushed. `polling`: no stream comes through, the fallback asks instead. `lost`: nobody answers; tried again at
 * `retryAt` (wall clock, ms). `resting`: the page is hidden.
 */
export type Connection =
  | { state: 'connecting' | 'live' | 'polling' | 'resting' }
  | { state: 'lost'; retryAt: number };

export interface Feed {
  connection: ShallowRef<Connection>;
  start(): void;
  stop(): void;
  /** Does not wait for the next try. */
  retryNow(): void;
}

export interface FeedDeps {
  url: string;
  /** The events that are listened to; every one carries JSON. */
  events: Record<string, (data: never) => void>;
  /** Asks while no stream comes through, and answers how to show it; rejects if nobody answers. */
  poll: (signal: AbortSignal) => Promise<() => void>;
  random?: () => number;
}

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 15_000;
const POLL_MS = 4000;
/** Whoever looks must not take old numbers for new ones for long. */
const POLL_PATIENCE_MS = 8000;
/** So long the first event may take: it is sent at once. */
const HEAD_PATIENCE_MS = 10_000;
/** A stream that says nothing for so long may be gone without a word, as after a sleep: a new one costs little. */
const SILENCE_MS = 60_000;
/** So long a hidden page keeps its stream: a browser has only six connections to one host. */
const HIDDEN_MS = 10_000;

/** Keeps a stream of events open: retried with back-off, caught up by the snapshot that each stream begins with. */
export function feedOf({ url, events, poll, random = Math.random }: FeedDeps): Feed {
  const connection = shallowRef<Connection>({ state: 'connecting' });
  let source: EventSource | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let hiding: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let isWanted = false;
  /** When the open stream said something last, monotonic ms; null: it has not yet. */
  let heardAt: number | null = null;
  /** Wall clock, ms. */
  let tryAgainAt = 0;
  /** Counts polls: only the last one counts. */
  let asked = 0;

  function open(): void {
    close();
    if (connection.value.state === 'resting') connection.value = { state: 'connecting' };
    const stream = new EventSource(url);
    source = stream;
    timer = setTimeout(failed, HEAD_PATIENCE_MS);
    for (const [name, take] of Object.entries(events)) {
      stream.addEventListener(name, ({ data }: MessageEvent<string>) => {
        if (source !== stream) return;
        if (heardAt === null) {
          clearTimeout(timer);
          timer = setTimeout(listen, SILENCE_MS);
        }
        heardAt = performance.now();
        failures = 0;
        if (connection.value.state !== 'live') connection.value = { state: 'live' };
        take(JSON.parse(data) as never);
      });
    }
    // The browser's own retry has no back-off, and gives up for good at any answer but 200.
    stream.onerror = () => {
      if (source === stream) failed();
    };
  }

  /** Begins anew once it has been silent for too long. */
  function listen(): void {
    const left = SILENCE_MS - (performance.now() - (heardAt ?? 0));
    if (left <= 0) open();
    else timer = setTimeout(listen, left);
  }

  function close(): void {
    clearTimeout(timer);
    heardAt = null;
    source?.close();
    source = null;
  }

  function failed(): void {
    close();
    if (isLeaving.value) {
      timer = setTimeout(open, FIRST_RETRY_MS);
      return;
    }
    failures += 1;
    tryAgainAt =
      Date.now() + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1)) * (0.75 + random() / 2);
    ask();
  }

  /** A proxy may let answers through and hold streams back. */
  function ask(): void {
    asked += 1;
    const own = asked;
    const still = () => isWanted && source === null && own === asked && connection.value.state !== 'resting';
    poll(AbortSignal.timeout(POLL_PATIENCE_MS)).then(
      (show) => {
        // A stream that has come meanwhile knows better.
        if (!still()) return;
        show();
        // What was asked about may be gone, and nobody asks any more.
        if (!isWanted) return;
        connection.value = { state: 'polling' };
        timer = setTimeout(Date.now() < tryAgainAt ? ask : open, POLL_MS);
      },
      () => {
        if (!still()) return;
        connection.value = { state: 'lost', retryAt: tryAgainAt };
        timer = setTimeout(open, Math.max(0, tryAgainAt - Date.now()));
      },
    );
  }

  function onVisibility(): void {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(() => {
        close();
        connection.value = { state: 'resting' };
      }, HIDDEN_MS);
    } else if (source === null) {
      failures = 0;
      open();
    }
  }

  return {
    connection,
    start() {
      if (isWanted) return;
      isWanted = true;
      failures = 0;
      document.addEventListener('visibilitychange', onVisibility);
      open();
      if (document.hidden) onVisibility();
    },
    stop() {
      isWanted = false;
      clearTimeout(hiding);
      document.removeEventListener('visibilitychange', onVisibility);
      close();
      connection.value = { state: 'connecting' };
    },
    retryNow() {
      if (isWanted) open();
    },
  };
}
