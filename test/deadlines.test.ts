import { expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import { deadlinesOf } from '../src/http/deadlines.js';
import { learn, NEW_PACE } from '../src/machines/pace.js';
import { configOf } from './support/house.js';

const SHORT = { promptBytes: 1000, stream: true, cold: false };
const LONG = { promptBytes: 400_000, stream: true, cold: false };

function globalOf(env: Record<string, string> = {}) {
  const command = readConfig([], env);
  if (command.run !== 'serve') throw new Error('not a command that serves');
  return command.config.deadlines;
}

const ALONE = { cachedBytes: 0, ahead: 0, beside: 0, outputTokens: null, mono: 0 };

const firstByte = (asked: typeof SHORT, pace = NEW_PACE, env = {}, own = {}) =>
  deadlinesOf(globalOf(env), { ...configOf('one'), deadlines: own }, 'm', pace, asked).firstByteMs;

test('the default deadline to the first byte grows with the prompt, faster boxes need less', () => {
  expect(firstByte(SHORT)).toBe(120_000);
  const unlearned = firstByte(LONG);
  expect(unlearned).toBeGreaterThan(120_000 + 400_000);
  // 400 kB in 10 s.
  const fast = learn(NEW_PACE, { ...ALONE, ...LONG, firstByteMs: 10_000, durationMs: 11_000 });
  expect(firstByte(LONG, fast)).toBeGreaterThan(120_000 + 15_000);
  expect(firstByte(LONG, fast)).toBeLessThan(120_000 + 25_000);
  expect(firstByte({ ...LONG, promptBytes: 32 << 20 })).toBeLessThanOrEqual(120_000 + 30 * 60_000);
});

test('it grows with the time a cold model took to load, and with that of answers that come as a whole', () => {
  const cold = { ...SHORT, cold: true };
  expect(firstByte(cold)).toBe(120_000);
  const loaded = learn(NEW_PACE, { ...ALONE, ...cold, firstByteMs: 40_000, durationMs: 41_000 });
  expect(firstByte(cold, loaded)).toBe(200_000);
  expect(firstByte(SHORT, loaded)).toBe(120_000);
  const whole = { ...SHORT, stream: false };
  const answered = learn(NEW_PACE, { ...ALONE, ...whole, firstByteMs: 30_000, durationMs: 30_000 });
  expect(firstByte(whole, answered)).toBe(660_000);
});

test('one that is set holds as it is, the more specific before the less', () => {
  const env = { TROUPE_FIRST_BYTE_TIMEOUT_MS: '1000' };
  expect(firstByte(LONG, NEW_PACE, env)).toBe(1000);
  expect(firstByte({ ...LONG, stream: false }, NEW_PACE, env)).toBe(1000);
  expect(firstByte(LONG, NEW_PACE, env, { first_byte_ms: 2000 })).toBe(2000);
  expect(firstByte(LONG, NEW_PACE, {}, { first_byte_ms: 2000, models: { m: { first_byte_ms: 0 } } })).toBe(0);
  expect(firstByte(LONG, NEW_PACE, {}, { models: { other: { first_byte_ms: 5 } } })).toBeGreaterThan(120_000);
});
