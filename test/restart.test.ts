import { expect, test } from 'vitest';
import { engine, spawnServer, until } from './support/server.js';

test('counters step by one per request, are in the very next read, and survive a restart', async () => {
  const box = await engine();
  const first = await spawnServer();
  await first.register('box', box.url);
  for (let i = 0; i < 8; i += 1) expect((await first.chat('sim-small')).status).toBe(200);
  for (let i = 0; i < 2; i += 1) {
    box.faults.next.push({ kind: 'status', status: 500 });
    expect((await first.chat('sim-small')).status).toBe(500);
  }
  await first.chat('sim-small');
  const counted = async (api: typeof first) => {
    const [one] = (await api.get('/api/dashboard/endpoints')).json;
    return [one.total_requests, one.successful_requests, one.failed_requests];
  };
  expect(await counted(first)).toEqual([11, 9, 2]);
  // The idle connection is reset, and then the fresh one.
  box.faults.next.push({ kind: 'reset' }, { kind: 'reset' });
  expect((await first.chat('sim-small')).status).toBe(502);
  expect(await counted(first)).toEqual([12, 9, 3]);
  expect(await first.end()).toBe(0);

  const second = await spawnServer({ dataDir: first.dataDir });
  expect(await counted(second)).toEqual([12, 9, 3]);
  const { stats, endpoints } = (await second.get('/api/dashboard/overview')).json;
  expect([stats.total_requests, stats.successful_requests, stats.failed_requests]).toEqual([12, 9, 3]);
  expect(endpoints).toHaveLength(1);
});

test('the latency of a dead endpoint stays, through a restart too, until a check measures it anew', async () => {
  const box = await engine({ healthDelayMs: 120 });
  const first = await spawnServer();
  const { id } = await first.register('box', box.url);
  const latency = async (api: typeof first) => (await api.get(`/api/endpoints/${id}`)).json;
  const measured = (await latency(first)).latency_ms;
  expect(measured).toBeGreaterThanOrEqual(120);
  await box.stop();
  await until(async () => (await latency(first)).status === 'offline');
  const dead = (await latency(first)).latency_ms;
  expect(dead).toBeGreaterThanOrEqual(120);
  await first.end();

  const second = await spawnServer({ dataDir: first.dataDir });
  expect((await latency(second)).latency_ms).toBe(dead);
  box.options.healthDelayMs = 0;
  await box.restart();
  await until(async () => (await latency(second)).status === 'online');
  await until(async () => (await latency(second)).latency_ms < 120);
});
