import { EventEmitter } from 'node:events';
import { afterEach, expect, test, vi } from 'vitest';
import { EventStream, type Source } from '../src/http/event-stream.js';

afterEach(() => {
  vi.useRealTimers();
});

/** A stream with one reader whose source takes so long for each frame, ms. */
function streamWith(frameMs: number) {
  vi.useFakeTimers();
  let elapsed = 0;
  const clock = { now: () => Date.now(), mono: () => Date.now() + elapsed };
  const source: Source & { asked: number } = {
    asked: 0,
    start() {},
    stop() {},
    first: () => [],
    next() {
      source.asked += 1;
      elapsed += frameMs;
      return [{ event: 'tick', data: String(source.asked) }];
    },
  };
  const written: string[] = [];
  const res = Object.assign(new EventEmitter(), {
    req: { socket: new EventEmitter() },
    writableLength: 0,
    writeHead: () => res,
    write: (bytes: Buffer) => written.push(String(bytes)),
  });
  const directory = { current: () => ({ permissions: new Set(['dashboard.read']) }) };
  const stream = new EventStream(source, { directory, clock, log: { error() {} } } as never);
  stream.open(res as never, {} as never);
  return { source, written };
}

test('a source that is quick is asked four times a second', () => {
  const { source } = streamWith(1);
  vi.advanceTimersByTime(10_000);
  expect(source.asked).toBe(40);
});

test('a source that takes long is asked less often, so that all readers cost a twentieth of a core at most', () => {
  const { source } = streamWith(40);
  vi.advanceTimersByTime(10_000);
  expect(source.asked).toBeGreaterThanOrEqual(8);
  expect(source.asked * 40).toBeLessThanOrEqual(10_000 / 20);
});

test('however long it takes, it is asked once a second, and the reader hears that the stream lives', () => {
  const { source, written } = streamWith(500);
  vi.advanceTimersByTime(30_000);
  expect(source.asked).toBeGreaterThanOrEqual(24);
  expect(written.filter((text) => text.startsWith(':'))).toHaveLength(2);
});
