// @vitest-environment happy-dom
import { beforeEach, expect, test } from 'vitest';
import { amount } from '../../src/dashboard/format/amounts.js';
import { ago, calendarDay, clockTime, exactTime, shortTime } from '../../src/dashboard/format/times.js';
import { setLanguage } from '../../src/dashboard/words/index.js';

beforeEach(() => setLanguage('en'));

test.each([
  [0, '0 ms'],
  [0.04, '0.04 ms'],
  [4.26, '4.3 ms'],
  [123.4, '123 ms'],
  [999.6, '1.00 s'],
  [1234, '1.23 s'],
  [9_996, '10.0 s'],
  [59_960, '1 min'],
  [61_000, '1 min 1 s'],
  [3_599_700, '1 h'],
  [5_400_000, '1 h 30 min'],
  [86_399_999, '1 d'],
  [200_000_000, '2 d 8 h'],
])('%d ms stands as %s', (ms, words) => {
  expect(amount(ms, 'ms').short).toBe(words);
});

test('a duration says its exact milliseconds on hover', () => {
  expect(amount(1234.5678, 'ms').exact).toBe('1,234.568 ms');
});

test.each([
  [0, '0'],
  [9_999, '9,999'],
  [12_345, '12.3K'],
  [1_234_567, '1.23M'],
])('%d requests stand as %s', (count, words) => {
  expect(amount(count, 'count').short).toBe(words);
});

test.each([
  [1, '100 %'],
  [0.9999, '> 99.9 %'],
  [0.9984, '99.8 %'],
  [0.00001, '< 0.1 %'],
  [0, '0 %'],
  [0.5, '50 %'],
])('nearly all is not all, and nearly none not none: %d is %s', (ratio, words) => {
  expect(amount(ratio, 'percent').short).toBe(words);
});

test.each([
  [500, '500 B'],
  [1536, '1.5 KiB'],
  [50 * 1024 * 1024, '50 MiB'],
])('%d bytes stand as %s', (bytes, words) => {
  expect(amount(bytes, 'bytes').short).toBe(words);
});

test('numbers follow the language', () => {
  setLanguage('ja');
  expect(amount(123_456, 'count').short).toBe('12.3万');
  expect(ago(Date.now() - 120_000, Date.now())).toBe('2 分前');
});

test('times ago are whole units, rounded towards now', () => {
  const now = Date.UTC(2026, 0, 1);
  expect(ago(now, now)).toBe('now');
  expect(ago(now - 59_000, now)).toBe('59 sec. ago');
  expect(ago(now - 119_000, now)).toBe('1 min. ago');
  expect(ago(now - 2 * 86_400_000, now)).toBe('2 days ago');
});

test('an exact time names its zone', () => {
  expect(exactTime(Date.UTC(2026, 0, 1, 12, 0, 5))).toMatch(/2026.*:05.*(UTC|GMT|[A-Z]{3,4})/);
});

test.each(['en', 'ja'] as const)('hours go from 0 to 23 (%s)', (language) => {
  setLanguage(language);
  const yesterday = new Date(Date.now() - 86_400_000);
  for (const [hour, words] of [
    [0, '00:05'],
    [8, '08:05'],
    [17, '17:05'],
  ] as const) {
    const at = yesterday.setHours(hour, 5, 0, 0);
    expect(clockTime(at)).toBe(words);
    expect(shortTime(at)).toMatch(new RegExp(` ${words}$`));
    expect(exactTime(at)).toContain(`${words.replace(/^0(?=\d)/, '')}:00`);
    expect(exactTime(at)).not.toMatch(/AM|PM|午/);
  }
});

test('a calendar day is the same day in every zone', () => {
  expect(calendarDay('2026-03-01')).toBe('Mar 1');
});
