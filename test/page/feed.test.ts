// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type Feed, feedOf } from '../../src/dashboard/live/feed.js';

/** An EventSource that the test speaks through. */
class FakeSource extends EventTarget {
  static made: FakeSource[] = [];
  onerror: (() => void) | null = null;
  isClosed = false;
  readonly url: string;

  constructor(url: string) {
    super();
    this.url = url;
    FakeSource.made.push(this);
  }

  close(): void {
    this.isClosed = true;
  }

  say(event: string, data: unknown): void {
    this.dispatchEvent(new MessageEvent(event, { data: JSON.stringify(data) }));
  }

  fail(): void {
    this.onerror?.();
  }
}

const newest = () => FakeSource.made.at(-1) as FakeSource;
const streams = () => FakeSource.made.length;
const open = () => FakeSource.made.filter(({ isClosed }) => !isClosed).length;

let heard: unknown[] = [];
let feed: Feed;
let isAnswering = true;
let polls = 0;
/** Answers to polls that were put on the page. */
let shown = 0;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('EventSource', FakeSource);
  FakeSource.made = [];
  heard = [];
  polls = 0;
  shown = 0;
  isAnswering = true;
  feed = feedOf({
    url: '/events',
    events: { snapshot: (data) => heard.push(data), stats: (data) => heard.push(data) },
    poll: async () => {
      polls += 1;
      if (!isAnswering) throw new Error('nobody answers');
      return () => {
        shown += 1;
      };
    },
    random: () => 0.5,
  });
});

afterEach(() => {
  feed.stop();
  hide(false);
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function hide(isHidden: boolean): void {
  Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

test('it is live with the first event, and hands on what each one carries', () => {
  feed.start();
  expect(newest().url).toBe('/events');
  expect(feed.connection.value.state).toBe('connecting');
  newest().say('snapshot', { one: 1 });
  newest().say('stats', { two: 2 });
  expect(feed.connection.value.state).toBe('live');
  expect(heard).toEqual([{ one: 1 }, { two: 2 }]);
});

test('starting twice opens one stream', () => {
  feed.start();
  feed.start();
  expect(streams()).toBe(1);
});

test('a server that is gone is tried again after 0.5, 1, 2, 4, 8 and then every 15 s, and says when', async () => {
  isAnswering = false;
  feed.start();
  for (const wait of [500, 1000, 2000, 4000, 8000, 15_000, 15_000]) {
    newest().fail();
    await pass(0);
    expect(feed.connection.value).toEqual({ state: 'lost', retryAt: Date.now() + wait });
    const before = streams();
    await pass(wait - 1);
    expect(streams()).toBe(before);
    await pass(1);
    expect(streams()).toBe(before + 1);
    expect(open()).toBe(1);
  }
  expect(feed.connection.value.state).toBe('lost');
});

test('chance spreads the tries by a quarter to each side', async () => {
  const waits: number[] = [];
  for (const chance of [0, 1]) {
    const one = feedOf({ url: '/', events: {}, poll: () => Promise.reject(), random: () => chance });
    one.start();
    newest().fail();
    await pass(0);
    if (one.connection.value.state === 'lost') waits.push(one.connection.value.retryAt - Date.now());
    one.stop();
  }
  expect(waits).toEqual([375, 625]);
});

test('once an event has come the next failure waits only half a second again', async () => {
  isAnswering = false;
  feed.start();
  for (const wait of [500, 1000, 2000]) {
    newest().fail();
    await pass(wait);
  }
  newest().say('snapshot', {});
  newest().fail();
  await pass(0);
  expect(feed.connection.value).toEqual({ state: 'lost', retryAt: Date.now() + 500 });
});

test('where answers come but no stream, it asks instead, every few seconds for as long as that lasts', async () => {
  feed.start();
  newest().fail();
  await pass(0);
  expect([feed.connection.value.state, polls, shown]).toEqual(['polling', 1, 1]);
  for (let round = 0; round < 12; round += 1) {
    const before = polls;
    await pass(5000);
    if (open() > 0) newest().fail();
    await pass(0);
    expect(polls, `round ${round}`).toBe(before + 1);
  }
  expect(feed.connection.value.state).toBe('polling');
  const before = streams();
  await pass(20_000);
  expect(streams()).toBe(before + 1);
  newest().say('snapshot', {});
  expect(feed.connection.value.state).toBe('live');
});

test('a stream that is held back is given up after ten seconds without a first event', async () => {
  feed.start();
  await pass(9999);
  expect(polls).toBe(0);
  await pass(1);
  expect(polls).toBe(1);
  expect(open()).toBe(0);
  expect(feed.connection.value.state).toBe('polling');
});

test('while streams are held back it goes on asking at least every fifteen seconds', async () => {
  feed.start();
  await pass(10_000);
  for (let round = 0; round < 8; round += 1) {
    const before = polls;
    await pass(15_000);
    expect(polls, `round ${round}`).toBeGreaterThan(before);
  }
});

test('a stream that has said nothing for a minute is opened anew, and what the old one says no longer counts', async () => {
  feed.start();
  const first = newest();
  first.say('snapshot', 1);
  await pass(59_999);
  expect(streams()).toBe(1);
  await pass(1);
  expect([streams(), first.isClosed]).toEqual([2, true]);
  expect(feed.connection.value.state).toBe('live');
  first.say('stats', 'late');
  first.fail();
  newest().say('snapshot', 2);
  expect(heard).toEqual([1, 2]);
  expect(polls).toBe(0);
});

test('a person who is impatient need not wait for the next try', async () => {
  isAnswering = false;
  feed.start();
  for (const wait of [500, 1000, 2000, 4000]) {
    newest().fail();
    await pass(wait);
  }
  newest().fail();
  await pass(0);
  const before = streams();
  feed.retryNow();
  expect(streams()).toBe(before + 1);
  newest().say('snapshot', {});
  await pass(20_000);
  expect(open()).toBe(1);
  expect(feed.connection.value.state).toBe('live');
});

test('a page that is hidden for ten seconds lets its stream go, and opens one at once when it is seen again', async () => {
  feed.start();
  newest().say('snapshot', 1);
  hide(true);
  await pass(5000);
  newest().say('stats', 2);
  await pass(5000);
  expect([feed.connection.value.state, open()]).toEqual(['resting', 0]);
  await pass(600_000);
  expect(streams()).toBe(1);
  hide(false);
  expect([streams(), feed.connection.value.state]).toEqual([2, 'connecting']);
  newest().say('snapshot', 3);
  expect(heard).toEqual([1, 2, 3]);
});

test('a page that is hidden only for a moment keeps its stream', async () => {
  feed.start();
  newest().say('snapshot', 1);
  hide(true);
  await pass(5000);
  newest().say('stats', 1);
  hide(false);
  await pass(50_000);
  newest().say('stats', 1);
  expect(streams()).toBe(1);
});

test('a hidden page stays at rest, whatever an unanswered question brings', async () => {
  let answer = () => {};
  const one = feedOf({
    url: '/',
    events: {},
    poll: () =>
      new Promise((resolve) => {
        answer = () => resolve(() => {});
      }),
    random: () => 0.5,
  });
  one.start();
  newest().fail();
  hide(true);
  await pass(60_000);
  expect(one.connection.value.state).toBe('resting');
  const before = streams();
  answer();
  await pass(60_000);
  expect(one.connection.value.state).toBe('resting');
  expect(streams()).toBe(before);
  one.stop();
});

test('an answer that comes after the stream has come back is thrown away', async () => {
  let answer = () => {};
  let isShown = false;
  const one = feedOf({
    url: '/',
    events: { snapshot: () => {} },
    poll: () =>
      new Promise((resolve) => {
        answer = () =>
          resolve(() => {
            isShown = true;
          });
      }),
    random: () => 0.5,
  });
  one.start();
  newest().fail();
  one.retryNow();
  newest().say('snapshot', 1);
  answer();
  await pass(0);
  expect([one.connection.value.state, isShown]).toEqual(['live', false]);
  one.stop();
});

test('a lost server is tried at once when the page is seen again', async () => {
  isAnswering = false;
  feed.start();
  for (const wait of [500, 1000, 2000, 4000, 8000]) {
    newest().fail();
    await pass(wait);
  }
  newest().fail();
  await pass(0);
  const before = streams();
  hide(true);
  hide(false);
  expect(streams()).toBe(before + 1);
});

test('stopping closes the stream, and nothing comes after it', async () => {
  feed.start();
  newest().say('snapshot', 1);
  feed.stop();
  expect([open(), feed.connection.value.state]).toEqual([0, 'connecting']);
  newest().say('stats', 2);
  newest().fail();
  hide(true);
  hide(false);
  feed.retryNow();
  await pass(120_000);
  expect([heard, streams(), polls]).toEqual([[1], 1, 0]);
});

test('a question that is answered after the stop opens nothing', async () => {
  feed.start();
  newest().fail();
  feed.stop();
  await pass(60_000);
  expect(streams()).toBe(1);
  expect(feed.connection.value.state).toBe('connecting');
});

test('it can be started again after a stop', () => {
  feed.start();
  feed.stop();
  feed.start();
  newest().say('snapshot', 7);
  expect(heard).toEqual([7]);
  expect(open()).toBe(1);
});
