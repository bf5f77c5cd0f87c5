import { createServer, get, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import type { InspectionEvent } from 'xstate';
import { Directory } from '../src/access/directory.js';
import { settle } from '../src/actors/settle.js';
import { watchingOf } from '../src/actors/watching.js';
import { EventStream, type Message, type Source } from '../src/http/event-stream.js';
import { dial, framesOf, openStream, type RawReply, rawRequest } from './support/clients.js';
import { throwing } from './support/faults.js';
import { finished, startHouse } from './support/house.js';
import { engine, type LocalServer, pause, startLocal, until } from './support/server.js';
import * as shapes from './support/shapes.js';

const QUIET = { TROUPE_HEALTH_INTERVAL_MS: '3600000' };

const path = (id: string) => `/api/dashboard/actors/${encodeURIComponent(id)}`;

async function read(
  server: LocalServer,
  what: string,
  headers: Record<string, string> = {},
): Promise<RawReply> {
  const reply = await rawRequest(server.url, what, { headers });
  expect([what, reply.status]).toEqual([what, 200]);
  await until(() => framesOf(reply).length > 0, 5000, `the first frame of ${what}`);
  return reply;
}

const ofKind = (reply: RawReply, event: string) =>
  framesOf(reply)
    .filter((frame) => frame.event === event)
    .map(({ data }) => data);

async function withBox(env: Record<string, string> = QUIET) {
  const box = await engine({ models: ['org/alpha'], outputTokens: 5 });
  const server = await startLocal({ env });
  const { id } = await server.register('box', box.url);
  await server.chat('org/alpha', { stream: true });
  return { box, server, id };
}

test('the stream of an actor begins with its detail and tells each step it takes', async () => {
  const { server, id } = await withBox();
  const stream = await read(server, `${path(`endpoint:${id}`)}/events`);
  const [first] = framesOf(stream);
  expect(first?.event).toBe('actor');
  expect(first?.data).toEqual(expect.schemaMatching(shapes.actorDetail));
  expect(first?.data).toEqual((await server.get(path(`endpoint:${id}`))).json);

  await server.send('POST', `/api/endpoints/${id}/drain`);
  await until(() => ofKind(stream, 'actor').at(-1)?.state === 'online, draining, closed');
  const [drained] = ofKind(stream, 'transition');
  expect(drained).toEqual({
    at: expect.stringMatching(/^\d{4}-.*Z$/),
    event: 'drain',
    from: 'online, open, closed',
    to: 'online, draining, closed',
    omitted: 0,
  });

  // A check that finds nothing new is no change of state, and seen all the same.
  await server.send('POST', `/api/endpoints/${id}/test`);
  await until(() => ofKind(stream, 'transition').some(({ event }) => event === 'checked'));
  await server.send('POST', `${path(`endpoint:${id}`)}/restart`);
  await until(() => ofKind(stream, 'actor').at(-1)?.restarts === 1);
  await until(() => ofKind(stream, 'transition').some(({ event }) => event === 'restarted'));
  const events = ofKind(stream, 'transition').map(({ event }) => event);
  expect(events.filter((event) => event === 'restart asked for')).toHaveLength(1);
  expect(events.some((event) => event.startsWith('xstate.init'))).toBe(false);
  await server.send('POST', `/api/endpoints/${id}/resume`);
  await until(
    () => ofKind(stream, 'transition').some(({ event }) => event === 'resume'),
    5000,
    'the new actor',
  );
  const ids = framesOf(stream).map((frame) => frame.id);
  expect(new Set(ids).size).toBe(ids.length);
});

test('an actor without states tells its events, and a burst of them as fifty and a number', async () => {
  const { server, id } = await withBox();
  const stream = await read(server, `${path(`tps:${id}:org/alpha:chat_completions`)}/events`);
  await Promise.all(Array.from({ length: 120 }, () => server.chat('org/alpha')));
  const told = () => ofKind(stream, 'transition');
  const sum = () => told().reduce((all, { omitted }) => all + 1 + omitted, 0);
  await until(() => sum() >= 120);
  expect(sum()).toBe(120);
  expect(told()[0]).toMatchObject({ event: 'sample', from: null, to: null });
  await until(() => ofKind(stream, 'actor').at(-1)?.context.samples === 121);
});

test('an actor that crashes and comes back stays in view, one that is removed is gone', async () => {
  let boom = false;
  const box = await engine();
  const server = await startLocal({
    env: QUIET,
    seams: { tamper: { endpoint: (logic) => throwing(logic, 'attempt.settled', () => boom, 'before') } },
  });
  const { id } = await server.register('box', box.url);
  const stream = await read(server, `${path(`endpoint:${id}`)}/events`);
  boom = true;
  await server.chat('sim-small');
  boom = false;
  await until(() => ofKind(stream, 'actor').at(-1)?.restarts === 1);
  await until(() => ofKind(stream, 'transition').some(({ event }) => event === 'restarted'));
  expect(ofKind(stream, 'transition').map(({ event }) => event)).toContain('crashed');
  await server.chat('sim-small');
  await until(() => ofKind(stream, 'actor').at(-1)?.context.successful_requests === 2);
  await server.send('DELETE', `/api/endpoints/${id}`);
  expect(await stream.whole).toBe(true);
  expect(framesOf(stream).at(-1)).toMatchObject({ event: 'gone', data: { id: `endpoint:${id}` } });
  const again = await server.get(`${path(`endpoint:${id}`)}/events`);
  expect([again.status, again.json.error.code]).toEqual([404, 'not_found']);
});

test('every actor of the tree has a stream of its own', async () => {
  const { server } = await withBox();
  const all = (actor: shapes.Actor): string[] => [actor.id, ...actor.children.flatMap(all)];
  for (const id of all((await server.get('/api/dashboard/actors')).json.root)) {
    const stream = await read(server, `${path(id)}/events`);
    expect(framesOf(stream)[0]?.data.id).toBe(id);
    stream.leave();
  }
});

test('the inspector is there only while somebody looks, and sees only the actor that is looked at', async () => {
  const { house, books, clock, actor } = await startHouse({ endpoints: ['one', 'two'] });
  const { system } = house;
  let inspectors = 0;
  const inspect = system.inspect.bind(system);
  system.inspect = ((observer: (event: InspectionEvent) => void) => {
    inspectors += 1;
    const subscription = inspect(observer);
    return {
      unsubscribe() {
        inspectors -= 1;
        subscription.unsubscribe();
      },
    };
  }) as typeof system.inspect;
  const watching = watchingOf(
    () => system,
    () => clock.now(),
  );
  expect(inspectors).toBe(0);
  const watches = [watching.watch('endpoint:one', 50), watching.watch('endpoint:one', 50)];
  const root = watching.watch('root', 50);
  expect(inspectors).toBe(1);
  settle(system, books, finished('one', clock.now()));
  settle(system, books, finished('two', clock.now()));
  actor('endpoint:one')?.send({ type: 'nothing that it knows' });
  for (const watch of watches) {
    expect(watch.take()).toEqual({
      transitions: [
        {
          at: clock.now(),
          event: 'attempt.settled',
          from: 'online, open, closed',
          to: 'online, open, closed',
        },
      ],
      omitted: 0,
    });
  }
  house.root.send({ type: 'drain' });
  expect(root.take().transitions).toContainEqual({
    at: clock.now(),
    event: 'drain',
    from: 'whole',
    to: 'draining',
  });
  for (const watch of [...watches, root]) watch.end();
  expect(inspectors).toBe(0);
  settle(system, books, finished('one', clock.now()));
  expect(watches[0]?.take().transitions).toEqual([]);
});

test('the stream of the tree begins with all of it, then tells who changed, and all again when one comes', async () => {
  const { box, server, id } = await withBox();
  const stream = await read(server, '/api/dashboard/actors/events');
  const [first] = framesOf(stream);
  expect(first?.event).toBe('tree');
  expect(first?.data.root).toEqual(expect.schemaMatching(shapes.actor));

  await server.send('POST', `/api/endpoints/${id}/drain`);
  const changed = (actorId: string) =>
    ofKind(stream, 'actors')
      .flat()
      .filter((one) => one.id === actorId);
  await until(() => changed(`endpoint:${id}`).length > 0);
  expect(changed(`endpoint:${id}`)).toEqual([
    {
      id: `endpoint:${id}`,
      state: 'online, draining, closed',
      status: 'active',
      restarts: 0,
      last_error: null,
    },
  ]);
  await server.send('POST', `${path('history')}/restart`);
  await until(() => changed('history').some(({ restarts }) => restarts === 1));
  expect(ofKind(stream, 'tree')).toHaveLength(1);

  await server.register('another', (await engine()).url);
  await until(() => ofKind(stream, 'tree').length === 2);
  const flat = (actor: shapes.Actor): string[] => [actor.id, ...actor.children.flatMap(flat)];
  const { root } = (await server.get('/api/dashboard/actors')).json;
  expect(flat(ofKind(stream, 'tree').at(-1).root)).toEqual(flat(root));
  // Probes come and go with each check: they are no reason to tell the tree again.
  box.faults.models = { kind: 'hang' };
  await server.send('POST', `/api/endpoints/${id}/resume`);
  await until(() => changed(`endpoint:${id}`).length === 2);
  expect(ofKind(stream, 'tree')).toHaveLength(2);
});

test('the stream of requests under way tells them when one comes, moves and goes', async () => {
  const { box, server, id } = await withBox();
  const stream = await read(server, '/api/dashboard/requests/live/events');
  expect(framesOf(stream)[0]).toMatchObject({ event: 'live', data: { requests: [], omitted: 0 } });
  box.faults.always = { kind: 'stall', afterTokens: 2 };
  const running = await openStream(server.url, 'org/alpha');
  await until(() => ofKind(stream, 'live').at(-1)?.requests[0]?.phase === 'streaming');
  const { requests } = ofKind(stream, 'live').at(-1);
  expect(requests).toEqual(expect.schemaMatching(shapes.liveRequests));
  expect(requests).toMatchObject([{ endpoint_id: id, model: 'org/alpha' }]);
  const told = framesOf(stream).length;
  await pause(600);
  // That it gets older is no news.
  expect(framesOf(stream)).toHaveLength(told);
  box.release();
  await running.whole;
  await until(() => ofKind(stream, 'live').at(-1)?.requests.length === 0);
});

const STREAMS = [
  '/api/dashboard/events',
  '/api/dashboard/actors/events',
  '/api/dashboard/actors/history/events',
  '/api/dashboard/requests/live/events',
];

test('each stream ends with the session it was opened with, and with the server', async () => {
  const { server } = await withBox();
  const { generated_password } = (
    await server.send('POST', '/api/users', { username: 'looker', role: 'viewer' })
  ).json;
  const login = { username: 'looker', password: generated_password };
  const { token } = (await server.send('POST', '/api/auth/login', login, { cookie: '' })).json;
  const bearer = { authorization: `Bearer ${token}` };
  const theirs = await Promise.all(STREAMS.map((what) => read(server, what, bearer)));
  const others = await Promise.all(STREAMS.map((what) => read(server, what)));
  await server.send('POST', '/api/auth/logout', undefined, bearer);
  for (const stream of theirs) expect(await stream.whole).toBe(true);
  await server.server.stop();
  for (const stream of others) expect(await stream.whole).toBe(true);
});

test('a stream is no page of a cache, and a HEAD of it ends', async () => {
  const { server } = await withBox();
  for (const what of STREAMS) {
    const stream = await read(server, what);
    expect(stream.headers['content-type']).toBe('text/event-stream');
    expect(stream.headers['cache-control']).toContain('no-store');
    const head = await rawRequest(server.url, what, { method: 'HEAD' });
    expect([await head.whole, head.status, head.headers['content-type']]).toEqual([
      true,
      200,
      'text/event-stream',
    ]);
  }
});

// One stream with a source of the test's own.

/** A source that says what it is given, and a server that anybody may read it from. */
async function streamOf(next: () => Message[] | null, first = '{}') {
  const errors: string[] = [];
  const calls: string[] = [];
  const source: Source = {
    start: () => calls.push('start'),
    stop: () => calls.push('stop'),
    first: () => [{ event: 'first', data: first }],
    next,
    last: { event: 'gone', data: '{}' },
  };
  const directory = new Directory('key');
  const principal = directory.byKey('key', Date.now());
  if (typeof principal === 'string') throw new Error(principal);
  const stream = new EventStream(source, {
    directory,
    clock: { now: () => Date.now(), mono: () => performance.now() },
    log: { error: (_details, message) => errors.push(message) },
  });
  const server = createServer((_req, res) => void stream.open(res, principal));
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const reader = () =>
    new Promise<IncomingMessage>((resolve) => {
      get({ port: (server.address() as AddressInfo).port, agent: false }, resolve).on('error', () => {});
    });
  return { port: (server.address() as AddressInfo).port, reader, errors, calls };
}

test('a reader who does not read is let go, the others read on', async () => {
  const { reader } = await streamOf(() => [{ event: 'big', data: JSON.stringify('x'.repeat(2_000_000)) }]);
  const slow = await reader();
  const quick = await reader();
  let bytes = 0;
  quick.on('data', (chunk) => {
    bytes += chunk.length;
  });
  await pause(200);
  slow.pause();
  let wasLetGo = false;
  slow.on('error', () => {});
  slow.socket.on('close', () => {
    wasLetGo = true;
  });
  // It sees that nobody is there any more only when it reads.
  await until(() => bytes > 40_000_000, 20_000, 'what the quick one reads');
  slow.resume();
  await until(() => wasLetGo, 5000, 'the end of the slow one');
  expect(slow.complete).toBe(false);
  const read = bytes;
  await until(() => bytes > read + 4_000_000, 5000, 'more for the quick one');
});

test('a source runs only while somebody reads', async () => {
  let frames = 0;
  const { reader, calls } = await streamOf(() => {
    frames += 1;
    return [];
  });
  expect(calls).toEqual([]);
  const readers = [await reader(), await reader()];
  await until(() => frames > 1);
  expect(calls).toEqual(['start']);
  for (const one of readers) one.destroy();
  await until(() => calls.length === 2);
  expect(calls).toEqual(['start', 'stop']);
  const then = frames;
  await pause(600);
  expect(frames).toBe(then);
  await reader();
  expect(calls).toEqual(['start', 'stop', 'start']);
});

test('readers who share a connection go with it', async () => {
  const { port, calls } = await streamOf(() => []);
  const wire = await dial(`http://127.0.0.1:${port}`);
  wire.socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(3));
  await until(() => wire.received().includes('event: first'));
  expect(calls).toEqual(['start']);
  wire.socket.destroy();
  await until(() => calls.length === 2);
  expect(calls).toEqual(['start', 'stop']);
});

test('a source that fails costs its readers their stream and is logged', async () => {
  const { reader, errors, calls } = await streamOf(() => {
    throw new Error('no');
  });
  const one = await reader();
  one.resume();
  await new Promise((resolve) => one.once('end', resolve));
  expect(errors).toHaveLength(1);
  expect(calls).toEqual(['start', 'stop']);
});

test('a source that has nothing more to say says its last word', async () => {
  const { reader } = await streamOf(() => null);
  const one = await reader();
  let text = '';
  one.on('data', (chunk) => {
    text += chunk;
  });
  await new Promise((resolve) => one.once('end', resolve));
  expect(text).toBe('id: 1\nevent: first\ndata: {}\n\nid: 2\nevent: gone\ndata: {}\n\n');
});
