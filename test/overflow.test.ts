import { expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import type { SimulatedEngine } from '../src/demo/simulated-engine.js';
import {
  engine,
  type LocalServer,
  newDataDir,
  pause,
  type Reply,
  runServer,
  startLocal,
  until,
} from './support/server.js';

const MODEL = 'sim-small';

interface Tiers extends LocalServer {
  first: SimulatedEngine;
  later: SimulatedEngine;
}

/** One endpoint that has room for one request, and another for when that is not enough. */
async function tiers(args: string[] = [], env: Record<string, string> = {}): Promise<Tiers> {
  const [first, later] = [await engine({ firstTokenMs: 30 }), await engine()];
  const server = await startLocal({ args, env: { TROUPE_HEALTH_INTERVAL_MS: '60000', ...env } });
  await server.register('first', first.url, { max_concurrency: 1 });
  await server.register('later', later.url, { priority: 1 });
  return { ...server, first, later };
}

/** The first endpoint answers some, so that it is known how long it takes. */
async function known(server: Tiers): Promise<void> {
  for (let i = 0; i < 3; i += 1) expect(endpointOf(await server.chat(MODEL))).toBe('first');
}

/** A request that has the only place until `first.release()`: it is being answered all the time. */
async function hold({ chat, get, first }: Tiers): Promise<{ reply: Promise<Reply> }> {
  first.faults.next.push({ kind: 'stall', afterTokens: 2 });
  const reply = chat(MODEL);
  const phase = async () => (await get('/api/dashboard/requests/live')).json[0]?.phase;
  await until(async () => (await phase()) === 'streaming', 5000, 'the request that is held');
  return { reply };
}

const endpointOf = (reply: Reply) => reply.headers.get('x-troupe-endpoint');
const queued = async (server: Tiers) => (await server.get('/api/dashboard/stats')).json.queued_requests;

/** How long the newest finished request waited for its turn. */
async function queuedMs(server: Tiers): Promise<number> {
  const { records } = (await server.get('/api/dashboard/request-responses?limit=1')).json;
  const { decision } = (await server.get(`/api/dashboard/request-responses/${records[0].id}`)).json;
  return decision.phases.queued_ms;
}

const ALLOWED = 'a whole number from 0 to 2147483647';

test.each(['-1', '1.5', 'soon', '', ' ', '1e3', '2147483648'])('an overflow of %j is none', (value) => {
  const told = (source: string) => `${source} ${JSON.stringify(value)}: ${ALLOWED}`;
  expect(() => readConfig([`--overflow-ms=${value}`], {})).toThrow(told('--overflow-ms'));
  expect(() => readConfig([], { TROUPE_OVERFLOW_MS: value })).toThrow(told('TROUPE_OVERFLOW_MS'));
});

test.each([
  [['--overflow-ms', 'soon'], {}, '--overflow-ms'],
  [[], { TROUPE_OVERFLOW_MS: 'soon' }, 'TROUPE_OVERFLOW_MS'],
])('a start with %j and %j is refused in one line', async (args, env, named) => {
  const run = runServer(['--data-dir', newDataDir(), '--check', ...args], env);
  expect([await run.exited, run.stdout()]).toEqual([2, '']);
  expect(run.stderr()).toBe(`troupe: ${named} "soon": ${ALLOWED}\n`);
});

test('what the option says of the overflow wins over the environment', async () => {
  const server = await tiers(['--overflow-ms', '600000'], { TROUPE_OVERFLOW_MS: '0' });
  await known(server);
  const held = await hold(server);
  const second = server.chat(MODEL);
  await until(async () => (await queued(server)) === 1, 5000, 'the request that waits');
  server.first.release();
  expect((await Promise.all([held.reply, second])).map(endpointOf)).toEqual(['first', 'first']);
});

test('with an overflow of 0 the next priority serves as soon as the first is full', async () => {
  const server = await tiers([], { TROUPE_OVERFLOW_MS: '0' });
  await known(server);
  const held = await hold(server);
  expect(endpointOf(await server.chat(MODEL))).toBe('later');
  expect(await queuedMs(server)).toBe(0);
  server.first.release();
  expect(endpointOf(await held.reply)).toBe('first');
  // It has room again.
  expect(endpointOf(await server.chat(MODEL))).toBe('first');
});

test('where the first priority will have room soon a request waits for it', async () => {
  const server = await tiers(['--overflow-ms', '600000']);
  await known(server);
  const held = await hold(server);
  const second = server.chat(MODEL);
  await until(async () => (await queued(server)) === 1, 5000, 'the request that waits');
  // Longer than by default.
  await pause(1500);
  expect(await queued(server)).toBe(1);
  server.first.release();
  expect((await Promise.all([held.reply, second])).map(endpointOf)).toEqual(['first', 'first']);
  expect(await queuedMs(server)).toBeGreaterThan(1000);
});

test('while nothing is known of how long it takes nobody waits for it', async () => {
  const server = await tiers(['--overflow-ms', '600000']);
  const held = await hold(server);
  expect(endpointOf(await server.chat(MODEL))).toBe('later');
  server.first.release();
  expect(endpointOf(await held.reply)).toBe('first');
});

test('who has waited for longer than the overflow goes on to the next priority', async () => {
  const server = await tiers(['--overflow-ms', '1500']);
  await known(server);
  const held = await hold(server);
  const second = server.chat(MODEL);
  await until(async () => (await queued(server)) === 1, 5000, 'the request that waits');
  expect(endpointOf(await second)).toBe('later');
  // With what the first one would take that makes 1500 ms.
  expect(await queuedMs(server)).toBeGreaterThan(500);
  server.first.release();
  expect(endpointOf(await held.reply)).toBe('first');
});
