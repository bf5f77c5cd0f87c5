import { localDate } from '../clock.js';
import { lastAttempt, type RequestRecord } from './records.js';

/** What the requests of one owner (an API key, or the sessions of a user) add up to. */
export interface Usage {
  requests: number;
  errors: number;
  inputTokens: number;
  outputTokens: number;
}

export interface DailyUsage extends Usage {
  ownerId: string;
  /** Server-local. */
  date: string;
  /** Wall clock, ms; 0 = never. */
  lastUsedAt: number;
}

/** An owner's sums of all time, of one day and of the month that day lies in. */
export interface OwnerUsage {
  ownerId: string;
  date: string;
  total: Usage;
  today: Usage;
  month: Usage;
  lastUsedAt: number;
}

export function noUsage(): Usage {
  return { requests: 0, errors: 0, inputTokens: 0, outputTokens: 0 };
}

export function emptyOwnerUsage(ownerId: string, date: string): OwnerUsage {
  return { ownerId, date, total: noUsage(), today: noUsage(), month: noUsage(), lastUsedAt: 0 };
}

/** Adds `from` to `to`, in place. */
function addUsage(to: Usage, from: Usage): void {
  to.requests += from.requests;
  to.errors += from.errors;
  to.inputTokens += from.inputTokens;
  to.outputTokens += from.outputTokens;
}

/** Adds a day to the same day, in place. */
export function addDailyUsage(to: DailyUsage, from: DailyUsage): void {
  addUsage(to, from);
  to.lastUsedAt = Math.max(to.lastUsedAt, from.lastUsedAt);
}

/** Folds one finished request into the days of its owner, in place. Nobody's request counts for nobody. */
export function foldUsage(days: Map<string, DailyUsage>, record: RequestRecord): void {
  const ownerId = record.keyId ?? record.userId;
  if (ownerId === null) return;
  const date = localDate(record.completedAt);
  const key = `${date}\n${ownerId}`;
  let day = days.get(key);
  if (day === undefined) {
    day = { ownerId, date, lastUsedAt: 0, ...noUsage() };
    days.set(key, day);
  }
  const last = lastAttempt(record);
  day.requests += 1;
  if (record.outcome === 'failure') day.errors += 1;
  day.inputTokens += last?.inputTokens ?? 0;
  day.outputTokens += last?.outputTokens ?? 0;
  day.lastUsedAt = Math.max(day.lastUsedAt, record.completedAt);
}

/** Adds a day to an owner's sums, in place; a later day than theirs opens that day, and its month, anew. */
export function addDay(to: OwnerUsage, day: DailyUsage): void {
  addUsage(to.total, day);
  to.lastUsedAt = Math.max(to.lastUsedAt, day.lastUsedAt);
  if (day.date > to.date) moveTo(to, day.date);
  if (day.date === to.date) addUsage(to.today, day);
  if (monthOf(day.date) === monthOf(to.date)) addUsage(to.month, day);
}

/** The same sums seen from a later day. */
export function onDate(usage: OwnerUsage, date: string): OwnerUsage {
  const seen = {
    ...usage,
    total: { ...usage.total },
    today: { ...usage.today },
    month: { ...usage.month },
  };
  if (date > seen.date) moveTo(seen, date);
  return seen;
}

export function monthOf(date: string): string {
  return date.slice(0, 7);
}

function moveTo(usage: OwnerUsage, date: string): void {
  if (monthOf(date) !== monthOf(usage.date)) usage.month = noUsage();
  usage.today = noUsage();
  usage.date = date;
}
