// How long until ready: an empty data dir beside one with a million stored requests.
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { freePort, median, pause, root, scratch, table } from './processes.mjs';

const ROUNDS = 5;
const ROWS = 1_000_000;
const SPREAD_MS = 30 * 86_400_000;

export async function start() {
  const full = await filledDataDir();
  // The very first start hashes a password; it is no measure of those after it.
  const blank = join(scratch(), 'data');
  await untilReady(blank);
  const times = { empty: [], full: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    times.empty.push(await untilReady(blank));
    times.full.push(await untilReady(full));
  }
  const [empty, filled] = [median(times.empty), median(times.full)];
  table(`From the command to ready (median of ${ROUNDS})`, [
    { 'data dir': 'empty', ms: Math.round(empty) },
    { 'data dir': `${ROWS} requests`, ms: Math.round(filled), 'later by ms': Math.round(filled - empty) },
  ]);
}

/** A data dir made by the server itself, then filled behind its back. */
async function filledDataDir() {
  const dataDir = join(scratch(), 'data');
  mkdirSync(dataDir, { recursive: true });
  await untilReady(dataDir);
  const db = await open({ filename: join(dataDir, 'troupe.db'), driver: sqlite3.Database });
  const now = Date.now();
  await db.exec(`
    PRAGMA synchronous = OFF;
    INSERT INTO endpoints (id, name, base_url, registered_at) VALUES ('e', 'box', 'http://127.0.0.1:9', 1);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
    INSERT INTO requests (id, request_id, api_kind, request_type, model, endpoint_id, client_ip, accepted_at,
      completed_at, duration_ms, ttft_ms, outcome, timeline, error, status_code, tokens_estimated, attempts)
    SELECT 'id-' || i, 'req-' || i, 'chat_completions', 'chat', 'model-' || (i % 20), 'e', '127.0.0.1',
      ${now} - ${SPREAD_MS} + i * ${SPREAD_MS} / ${ROWS}, ${now} - ${SPREAD_MS} + i * ${SPREAD_MS} / ${ROWS}, 900,
      NULL, 'success', 'success', NULL, 200, 0, '[{"endpointId":"e","endpointName":"box","modelId":"m"}]' FROM n;
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2880)
    INSERT INTO request_minutes SELECT ${Math.floor(now / 60_000)} - i, 'e', 'm', 'chat_completions', 20, 1, 9, 9, 20,
      18000 FROM n;
    WITH RECURSIVE d (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM d WHERE i < 365)
    INSERT INTO endpoint_daily_stats SELECT 'e', date('now', '-' || i || ' days'), 'model-' || m.value,
      'chat_completions', 100, 5, 10, 10, 100, 1000, 10000 FROM d, json_each('[0,1,2,3,4,5,6,7,8,9]') AS m;
    PRAGMA wal_checkpoint(TRUNCATE);`);
  await db.close();
  return dataDir;
}

async function untilReady(dataDir) {
  const port = await freePort();
  const started = performance.now();
  const child = spawn(
    process.execPath,
    [join(root, 'dist', 'server.js'), '--port', String(port), '--data-dir', dataDir, '--log-level', 'error'],
    { stdio: 'ignore' },
  );
  const gone = new Promise((resolve) => child.once('exit', resolve));
  for (;;) {
    const reply = await fetch(`http://127.0.0.1:${port}/ready`).catch(() => null);
    if (reply?.status === 200) break;
    if (child.exitCode !== null) throw new Error('the server did not start');
    await pause(5);
  }
  const ms = performance.now() - started;
  child.kill('SIGTERM');
  await gone;
  return ms;
}
