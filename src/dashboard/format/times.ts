import { computed, shallowRef } from 'vue';
import { language } from '../words/index.js';

/** Wall clock, ms; moves once a second while somebody looks. */
export const now = shallowRef(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

/** When the day began; whoever asks need not look again at every second. */
const today = computed(() => new Date(now.value).setHours(0, 0, 0, 0));

/** The zone that every time on the page is in. */
export const TIME_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
  ['second', 1],
];

/** `12 seconds ago`; what lies less than a second away is now. */
export function ago(at: number, from: number): string {
  const seconds = Math.round((at - from) / 1000);
  const [unit, size] = STEPS.find(([, each]) => Math.abs(seconds) >= each) ?? ['second', 1];
  return relative().format(Math.trunc(seconds / size), unit);
}

/** With date, seconds and zone. */
export function exactTime(at: number): string {
  return dated('exact', { dateStyle: 'medium', timeStyle: 'long' }).format(at);
}

/** Without the date where it is today. */
export function shortTime(at: number): string {
  const isToday = new Date(at).setHours(0, 0, 0, 0) === today.value;
  return isToday
    ? dated('time', { hour: '2-digit', minute: '2-digit', second: '2-digit' }).format(at)
    : dated('date', { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' }).format(at);
}

export function clockTime(at: number): string {
  return dated('clock', { hour: '2-digit', minute: '2-digit' }).format(at);
}

/** A date such as 2026-11-26, which belongs to no zone. */
export function calendarDay(date: string): string {
  return dated('day', { month: 'short', day: 'numeric', timeZone: 'UTC' }).format(
    Date.parse(`${date}T00:00:00Z`),
  );
}

/** Dates are written as in the reader's own English, if it is English. */
const ENGLISH = navigator.languages.find((one) => /^en\b/i.test(one)) ?? 'en';

/** A format in the language of the page, with hours from 0 to 23. */
export function timeFormat(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const locale = language() === 'en' ? ENGLISH : language();
  return new Intl.DateTimeFormat(locale, { ...options, hourCycle: 'h23' });
}

const formats = new Map<string, Intl.DateTimeFormat>();

function dated(name: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${language()} ${name}`;
  const known = formats.get(key);
  if (known !== undefined) return known;
  const made = timeFormat(options);
  formats.set(key, made);
  return made;
}

function relative(): Intl.RelativeTimeFormat {
  return new Intl.RelativeTimeFormat(language(), { numeric: 'auto', style: 'short' });
}
