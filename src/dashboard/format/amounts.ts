import { language } from '../words/index.js';

/** Numbers for people: `short` is what stands on the page, `exact` what it says on hover. */
export interface Amount {
  short: string;
  exact: string;
}

const UNITS = ['count', 'ms', 'tps', 'percent', 'bytes', 'tokens', 'number'] as const;
export type Unit = (typeof UNITS)[number];

const FORMATS: Record<Unit, (value: number) => Amount> = {
  count,
  ms: duration,
  tps,
  percent,
  bytes,
  tokens: count,
  number: (value) => ({ short: decimal(value, 2), exact: decimal(value, 6) }),
};

export function amount(value: number, unit: Unit): Amount {
  return FORMATS[unit](value);
}

function decimal(value: number, digits: number, least = 0): string {
  return cached(`d${digits}.${least}`, {
    maximumFractionDigits: digits,
    minimumFractionDigits: least,
  }).format(value);
}

/** 9,999 as it is, 12.3K beyond. */
function count(value: number): Amount {
  const exact = decimal(value, 0);
  if (Math.abs(value) < 10_000) return { short: exact, exact };
  const short = cached('c', { notation: 'compact', maximumSignificantDigits: 3 }).format(value);
  return { short, exact };
}

/** From microseconds to days, never more than two units. */
function duration(ms: number): Amount {
  return { short: shortDuration(ms), exact: `${decimal(ms, 3)} ms` };
}

function shortDuration(ms: number): string {
  if (ms < 0) return `−${shortDuration(-ms)}`;
  if (ms < 1 && ms > 0) return `${decimal(ms, 2)} ms`;
  if (ms < 999.5) return `${decimal(ms, ms < 10 ? 1 : 0)} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.995) return `${decimal(seconds, 2, 2)} s`;
  if (seconds < 59.95) return `${decimal(seconds, 1, 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return pair(whole, 60, 'min', 's');
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return pair(minutes, 60, 'h', 'min');
  return pair(Math.round(seconds / 3600), 24, 'd', 'h');
}

function pair(value: number, per: number, large: string, small: string): string {
  const rest = value % per;
  return rest === 0
    ? `${Math.floor(value / per)} ${large}`
    : `${Math.floor(value / per)} ${large} ${rest} ${small}`;
}

function tps(value: number): Amount {
  return { short: `${decimal(value, value < 100 ? 1 : 0)} tok/s`, exact: `${decimal(value, 3)} tok/s` };
}

/** Of a ratio: 99.95 % is not yet 100 %, and 0.01 % no longer 0. */
function percent(ratio: number): Amount {
  const value = ratio * 100;
  const exact = `${decimal(value, 4)} %`;
  if (value > 99.9 && value < 100) return { short: `> ${decimal(99.9, 1)} %`, exact };
  if (value > 0 && value < 0.1) return { short: `< ${decimal(0.1, 1)} %`, exact };
  return { short: `${decimal(value, value >= 99.95 || value < 0.05 ? 0 : 1)} %`, exact };
}

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

function bytes(value: number): Amount {
  let step = 0;
  let rest = value;
  while (rest >= 1024 && step < BYTES.length - 1) {
    rest /= 1024;
    step += 1;
  }
  return {
    short: `${decimal(rest, rest < 10 && step > 0 ? 1 : 0)} ${BYTES[step]}`,
    exact: `${decimal(value, 0)} B`,
  };
}

const formats = new Map<string, Intl.NumberFormat>();

function cached(name: string, options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = `${language()} ${name}`;
  const known = formats.get(key);
  if (known !== undefined) return known;
  const made = new Intl.NumberFormat(language(), options);
  formats.set(key, made);
  return made;
}
