/** Where time comes from: handed in everywhere, so that tests own it. */
export interface Clock {
  /** Wall clock, ms since the epoch: timestamps, minutes, days. */
  now(): number;
  /** Monotonic, ms with fractions: durations, deadlines, intervals. */
  mono(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  mono: () => performance.now(),
};

export const MINUTE_MS = 60_000;

/** Minutes since the epoch of a wall-clock time. */
export function minuteOf(at: number): number {
  return Math.floor(at / MINUTE_MS);
}

/** Hours since the epoch of a wall-clock time. */
export function hourOf(at: number): number {
  return Math.floor(minuteOf(at) / 60);
}

let lastMinute = Number.NaN;
let lastDate = '';

/** The server-local date (`TZ` is honoured) of a wall-clock time, as `YYYY-MM-DD`. */
export function localDate(at: number): string {
  // Asked several times a request, and no date begins within a minute.
  const minute = minuteOf(at);
  if (minute !== lastMinute) {
    lastMinute = minute;
    lastDate = dateOf(at);
  }
  return lastDate;
}

function dateOf(at: number): string {
  const date = new Date(at);
  const month = String(date.getMonth() + 1).padStart(2, '0');
  const day = String(date.getDate()).padStart(2, '0');
  return `${String(date.getFullYear()).padStart(4, '0')}-${month}-${day}`;
}

/** RFC 3339 UTC with `Z`. */
export function timestamp(at: number): string {
  return new Date(at).toISOString();
}

/** A measured duration as whole milliseconds; something that took time never reads as 0. */
export function wholeMs(ms: number): number {
  return Math.max(1, Math.round(ms));
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
