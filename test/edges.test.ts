import { type OutgoingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { open } from 'sqlite';
import sqlite3 from 'sqlite3';
import { expect, test } from 'vitest';
import { engine, pause, spawnServer, startLocal, TEST_KEY, until, withKey } from './support/server.js';

test('a table that vanishes while the server runs is a 503 to those who read it, and nothing else', async () => {
  const box = await engine();
  const server = await startLocal();
  await server.register('box', box.url);
  await server.chat('sim-small');
  await pause(300);
  const db = await open({ filename: join(server.dataDir, 'troupe.db'), driver: sqlite3.Database });
  await db.exec('DROP TABLE requests');
  await db.close();
  const reply = await server.get('/api/dashboard/request-responses');
  expect([reply.status, reply.json.error.code]).toEqual([503, 'store_unavailable']);
  expect(reply.headers.get('retry-after')).not.toBeNull();
  expect((await server.chat('sim-small')).status).toBe(200);
});

test('a request that is still being sent when the shutdown begins is answered', async () => {
  const server = await spawnServer();
  const { port } = new URL(server.url);
  const body = JSON.stringify({ model: 'nobody', messages: [] });
  const socket = connect(Number(port), '127.0.0.1');
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer ${TEST_KEY}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body.slice(0, 5)}`,
  );
  await pause(200);
  server.child.kill('SIGTERM');
  await until(async () => (await server.get('/ready')).status === 503);
  await pause(1500);
  socket.write(body.slice(5));
  await until(() => answer !== '');
  expect(answer).toMatch(/^HTTP\/1.1 (404|503) /);
  socket.destroy();
});

test('HEAD of the event stream ends at once', async () => {
  const server = await startLocal();
  const status = await new Promise((resolve, reject) => {
    request(
      `${server.url}/api/dashboard/events`,
      { method: 'HEAD', headers: withKey() as OutgoingHttpHeaders },
      (res) => {
        res.resume();
        res.on('end', () => resolve(res.statusCode));
      },
    )
      .on('error', reject)
      .end();
  });
  expect(status).toBe(200);
});

test('a last slash makes no other path of an inference route', async () => {
  const box = await engine();
  const server = await startLocal();
  await server.register('box', box.url);
  const body = { model: 'sim-small', messages: [] };
  expect((await server.send('POST', '/v1/chat/completions/', body)).status).toBe(200);
});

test('what goes wrong when an endpoint is tried out is told in the words of /api', async () => {
  const box = await engine();
  const server = await startLocal();
  const { id } = await server.register('box', box.url);
  box.faults.always = { kind: 'reset' };
  const reply = await server.send('POST', `/api/endpoints/${id}/chat/completions`, {
    model: 'sim-small',
    messages: [],
  });
  expect(reply.status).toBe(502);
  expect(Object.keys(reply.json.error).sort()).toEqual(['code', 'message', 'type']);
});

test('a request that reached no endpoint says that none was tried', async () => {
  const server = await startLocal();
  const reply = await server.chat('nobody');
  expect([reply.status, reply.headers.get('x-troupe-attempts')]).toEqual([404, '0']);
});
