// The overview with 500 endpoints and 2,000 token-rate trackers: time inside the server, and that nothing is queried.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { freePort, median, pause, root, scratch, table, WITH_KEY, waitForPort } from './processes.mjs';

const ENDPOINTS = 500;
const MODELS = 4;
const READS = 50;

export async function overview() {
  const dataDir = join(scratch(), 'data');
  const port = await freePort();
  await stopAgain(await begin(port, dataDir));
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  await db.exec(`
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ENDPOINTS})
    INSERT INTO endpoints (id, name, base_url, registered_at, health, latency_ms)
    SELECT 'e' || i, 'box ' || i, 'http://127.0.0.1:9/' || i, i, 'online', 10 FROM n;
    INSERT INTO endpoint_daily_stats SELECT endpoints.id, date('now', 'localtime'), 'model-' || m.value, 'chat_completions', 10,
      1, 10, 10, 10, 100, 1000 FROM endpoints, json_each('[${Array.from({ length: MODELS }, (_, i) => i)}]') AS m;`);
  await db.close();
  const child = await begin(port, dataDir);
  await pause(3000);
  const { root: tree } = await (
    await fetch(`http://127.0.0.1:${port}/api/dashboard/actors`, { headers: WITH_KEY })
  ).json();
  const trackers = count(tree, (actor) => actor.kind === 'tps' && actor.status === 'active');
  const inside = [];
  const outside = [];
  for (let i = 0; i < READS; i += 1) {
    const started = performance.now();
    const view = await (
      await fetch(`http://127.0.0.1:${port}/api/dashboard/overview`, { headers: WITH_KEY })
    ).json();
    outside.push(performance.now() - started);
    inside.push(view.generation_time_ms);
  }
  await stopAgain(child);
  table(`Overview with ${ENDPOINTS} endpoints and ${trackers} trackers (median of ${READS})`, [
    { 'made in ms': median(inside).toFixed(1), 'seen by a client in ms': median(outside).toFixed(1) },
  ]);
}

async function begin(port, dataDir) {
  const child = spawn(
    process.execPath,
    [join(root, 'dist', 'server.js'), '--port', String(port), '--data-dir', dataDir, '--log-level', 'error'],
    { stdio: 'ignore' },
  );
  await waitForPort(port, '/ready');
  for (;;) {
    if ((await fetch(`http://127.0.0.1:${port}/ready`)).ok) return child;
    await pause(20);
  }
}

function stopAgain(child) {
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  return gone;
}

function count(actor, test) {
  return actor.children.reduce((sum, child) => sum + count(child, test), test(actor) ? 1 : 0);
}
