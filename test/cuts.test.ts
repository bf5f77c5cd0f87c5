import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { type RawReply, rawRequest } from './support/clients.js';
import { type LocalServer, startLocal } from './support/server.js';

const CHAT = '/v1/chat/completions';

/** A recorded stream: its events as they were sent, blank lines included. */
interface Recording {
  path: string;
  events: string[];
  /** From so many bytes on the stream has told its client that it is whole. */
  wholeFrom: number;
}

/** Characters of two to four bytes, so that cuts fall between the bytes of one. */
const WORDS = ['The', ' 推論', ' company', ' plays', ' “Émile”', ' every', ' night', ' 🎭', '.'];

function chatRecording(): Recording {
  const base = {
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1_700_000_000,
    model: 'recorded',
  };
  const event = (delta: object, finish_reason: string | null = null) =>
    `data: ${JSON.stringify({ ...base, choices: [{ index: 0, delta, logprobs: null, finish_reason }], usage: null })}\n\n`;
  const usage = { prompt_tokens: 7, completion_tokens: 9, total_tokens: 16 };
  const events = [
    event({ role: 'assistant', content: '' }),
    ...WORDS.map((content) => event({ content })),
    event({}, 'stop'),
    `data: ${JSON.stringify({ ...base, choices: [], usage })}\n\n`,
    'data: [DONE]\n\n',
  ];
  // A reader of lines, as every client of this protocol is, knows at the end of the line.
  return { path: CHAT, events, wholeFrom: bytesOf(events) - 1 };
}

function responsesRecording(): Recording {
  const response = { id: 'resp_1', object: 'response', created_at: 1_700_000_000, model: 'recorded' };
  const event = (sequence_number: number, type: string, fields: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number, ...fields })}\n\n`;
  const usage = { input_tokens: 7, output_tokens: 9, total_tokens: 16 };
  const events = [
    event(0, 'response.created', { response: { ...response, status: 'in_progress', output: [] } }),
    ...WORDS.map((delta, index) =>
      event(index + 1, 'response.output_text.delta', { item_id: 'msg_1', output_index: 0, delta }),
    ),
    event(WORDS.length + 1, 'response.completed', { response: { ...response, status: 'completed', usage } }),
  ];
  return { path: '/v1/responses', events, wholeFrom: bytesOf(events) };
}

function bytesOf(events: string[]): number {
  return Buffer.byteLength(events.join(''));
}

const HEAD = [
  'HTTP/1.1 200 OK',
  'Content-Type: text/event-stream; charset=utf-8',
  'Cache-Control: no-cache',
  'Transfer-Encoding: chunked',
  '\r\n',
].join('\r\n');
const LAST_CHUNK = '0\r\n\r\n';

/** The bytes of an answer on the wire, and how many bytes of the body lie before each of them. */
interface Wire {
  bytes: Buffer;
  bodyBefore: number[];
}

/** Each event is a chunk of its own. */
function wireOf(events: string[]): Wire {
  const pieces: [text: string, isBody: boolean][] = [[HEAD, false]];
  for (const event of events) {
    pieces.push([`${Buffer.byteLength(event).toString(16)}\r\n`, false], [event, true], ['\r\n', false]);
  }
  pieces.push([LAST_CHUNK, false]);
  const bodyBefore = [0];
  for (const [text, isBody] of pieces) {
    for (let i = 0; i < Buffer.byteLength(text); i += 1) {
      bodyBefore.push((bodyBefore.at(-1) ?? 0) + (isBody ? 1 : 0));
    }
  }
  return { bytes: Buffer.from(pieces.map(([text]) => text).join('')), bodyBefore };
}

/** An upstream that puts on the wire what `answer` says for the number in the request, and closes. */
async function rawUpstream(answer: (cut: number) => Buffer): Promise<string> {
  const upstream = createServer(async (req, res) => {
    if (req.method === 'GET') {
      res.end('{"object":"list","data":[{"id":"recorded","object":"model"}]}');
      return;
    }
    let body = '';
    for await (const chunk of req) body += chunk;
    req.socket.end(answer(JSON.parse(body).cut));
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    upstream.closeAllConnections();
    upstream.close();
  });
  return `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
}

const AT_ONCE = 8;

/** Asks for the answer cut at 0 to `last` and has each reply judged. A lone endpoint is asked whatever its circuit says. */
async function cutEverywhere(
  { path }: Recording,
  fields: object,
  last: number,
  answer: (cut: number) => Buffer,
  judge: (cut: number, reply: RawReply) => void,
): Promise<LocalServer> {
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '600000' } });
  await server.register('recorded', await rawUpstream(answer));
  let next = 0;
  const client = async () => {
    while (next <= last) {
      const cut = next;
      next += 1;
      const body = JSON.stringify({ model: 'recorded', stream: true, ...fields, cut });
      const reply = await rawRequest(server.url, path, { body });
      // An error event, too, is the orderly end of a body.
      expect(await reply.whole, `cut ${cut}`).toBe(true);
      judge(cut, reply);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));
  return server;
}

/** Nothing of an answer had come: an error, and no stream at all. */
function expectError(cut: number, reply: RawReply): void {
  expect([cut, reply.status, reply.headers['content-type']]).toEqual([cut, 502, 'application/json']);
  expect(reply.json().error).toMatchObject({ type: 'upstream_error', code: 'upstream_broken' });
}

/** Every event that had come whole, nothing of a torn one, and an error event that ends it all. */
function expectBroken(cut: number, reply: RawReply, { path }: Recording, cameWhole: string[]): void {
  const about = `cut ${cut}`;
  const before = `${cameWhole.join('')}\n\n`;
  const text = reply.text();
  expect([cut, reply.status, reply.headers['content-type']]).toEqual([
    cut,
    200,
    'text/event-stream; charset=utf-8',
  ]);
  expect(text.slice(0, before.length), about).toBe(before);
  const end = /^(event: error\n)?data: (.*)\n\n$/.exec(text.slice(before.length));
  expect(end?.[1], about).toBe(path === CHAT ? undefined : 'event: error\n');
  const { error } = JSON.parse(end?.[2] ?? '');
  expect(error, about).toEqual({
    message: expect.any(String),
    type: 'upstream_error',
    param: null,
    code: 'upstream_broken',
  });
}

/** The events that lie wholly within the first bytes of the body. */
function wholeWithin(events: string[], bytes: number): string[] {
  let end = 0;
  const count = events.findIndex((event) => {
    end += Buffer.byteLength(event);
    return end > bytes;
  });
  return count === -1 ? events : events.slice(0, count);
}

async function expectCounted(server: LocalServer, requests: number, successes: number): Promise<void> {
  expect((await server.get('/api/dashboard/stats')).json).toMatchObject({
    total_requests: requests,
    successful_requests: successes,
    failed_requests: requests - successes,
    total_active_requests: 0,
    queued_requests: 0,
    requests_60m: { success: successes, error: requests - successes },
  });
}

const OWN_USAGE = { stream_options: { include_usage: true } };
const isHidden = (event: string) => event.includes('"choices":[]');

test.each([
  ['chat', chatRecording(), OWN_USAGE],
  ['chat whose usage is kept from the client', chatRecording(), {}],
  ['responses', responsesRecording(), {}],
])(
  'a stream of %s whose connection is cut after any byte looks whole only if its last event was there',
  async (_, recording, fields) => {
    const { events, path, wholeFrom } = recording;
    const shown = path === CHAT && fields !== OWN_USAGE ? events.filter((event) => !isHidden(event)) : events;
    const { bytes, bodyBefore } = wireOf(events);
    expect(bytesOf(events)).toBeGreaterThan(1500);
    let whole = 0;
    const server = await cutEverywhere(
      recording,
      fields,
      bytes.length,
      (cut) => bytes.subarray(0, cut),
      (cut, reply) => {
        const came = bodyBefore[cut] ?? 0;
        if (came === 0) return expectError(cut, reply);
        if (came < wholeFrom) {
          const cameWhole = wholeWithin(events, came).filter((event) => shown.includes(event));
          return expectBroken(cut, reply, recording, cameWhole);
        }
        whole += 1;
        const missing = bytesOf(events) - came;
        expect([cut, reply.status, reply.text()]).toEqual([
          cut,
          200,
          shown.join('').slice(0, shown.join('').length - missing),
        ]);
      },
    );
    expect(whole).toBeGreaterThan(0);
    await expectCounted(server, bytes.length + 1, whole);
  },
);

test('a stream of chat that ends in order after any byte looks whole only if its finish_reason was there', async () => {
  const recording = chatRecording();
  const all = Buffer.from(recording.events.join(''));
  const end = Buffer.from(recording.events.slice(0, -2).join('')).length;
  // Of the event with the finish_reason the blank line may be missing.
  const finishedFrom = end - 2;
  const answer = (cut: number) => {
    const chunk =
      cut === 0 ? [] : [Buffer.from(`${cut.toString(16)}\r\n`), all.subarray(0, cut), Buffer.from('\r\n')];
    return Buffer.concat([Buffer.from(HEAD), ...chunk, Buffer.from(LAST_CHUNK)]);
  };
  const server = await cutEverywhere(recording, OWN_USAGE, all.length, answer, (cut, reply) => {
    if (cut === 0) return expectError(cut, reply);
    if (cut < finishedFrom) {
      return expectBroken(cut, reply, recording, wholeWithin(recording.events, cut));
    }
    expect([cut, reply.status, reply.bytes().equals(all.subarray(0, cut))]).toEqual([cut, 200, true]);
  });
  await expectCounted(server, all.length + 1, all.length - finishedFrom + 1);
});
