import { expect, test } from 'vitest';
import { engine, startLocal } from './support/server.js';

const CHAT = '/v1/chat/completions';
const MODEL = 'sim-small';

/** Endpoints that are told how many tokens they can hold; null: nobody knows. */
async function holding(...contexts: (number | null)[]) {
  const boxes = await Promise.all(contexts.map(() => engine()));
  const server = await startLocal({ env: { TROUPE_HEALTH_INTERVAL_MS: '60000' } });
  const ids: string[] = [];
  for (const [i, max_context] of contexts.entries()) {
    ids.push((await server.register(`box ${i}`, boxes[i]?.url as string, { max_context })).id);
  }
  const asked = () => boxes.map(({ requests }) => requests.filter(({ method }) => method === 'POST').length);
  const rows = async () => (await server.get('/api/dashboard/request-responses')).json.total_count;
  return { ...server, ids, asked, rows };
}

/** A request whose body is so many bytes long. */
function ofBytes(bytes: number): object {
  const body = { model: MODEL, messages: [{ role: 'user', content: '' }] };
  const more = bytes - JSON.stringify(body).length;
  return { ...body, messages: [{ role: 'user', content: 'words '.repeat(bytes).slice(0, more) }] };
}

/** The same with a picture in it. */
function withPicture(bytes: number, picture: number): object {
  const url = `data:image/png;base64,${'iVBORw0KGgo'.repeat(picture).slice(0, picture)}`;
  const { messages } = ofBytes(bytes) as { messages: { content: string }[] };
  const content = [
    { type: 'text', text: messages[0]?.content },
    { type: 'image_url', image_url: { url } },
  ];
  return { model: MODEL, messages: [{ role: 'user', content }] };
}

test('a prompt that no endpoint can hold is refused by the largest context, sent nowhere and in no row', async () => {
  const server = await holding(100, 200, 150);
  const reply = await server.send('POST', CHAT, ofBytes(1601));
  expect([reply.status, reply.json.error.code, reply.json.error.type]).toEqual([
    400,
    'context_too_long',
    'invalid_request_error',
  ]);
  expect(reply.json.error.message).toContain('200 tokens');
  expect(reply.headers.get('x-troupe-attempts')).toBe('0');
  expect(server.asked()).toEqual([0, 0, 0]);
  expect(await server.rows()).toBe(0);
});

test('at eight bytes a token it may still fit, and is tried where there is most room for it', async () => {
  const server = await holding(100, 200);
  for (let i = 0; i < 4; i += 1) expect((await server.send('POST', CHAT, ofBytes(1600))).status).toBe(200);
  expect(server.asked()).toEqual([0, 4]);
});

test('pictures are no text', async () => {
  const server = await holding(200);
  expect((await server.send('POST', CHAT, withPicture(500, 20_000))).status).toBe(200);
  const reply = await server.send('POST', CHAT, withPicture(5000, 20_000));
  expect([reply.status, reply.json.error.code]).toEqual([400, 'context_too_long']);
  expect(server.asked()).toEqual([1]);
});

test('where one endpoint might hold it, because nobody knows its context, nothing is refused', async () => {
  const server = await holding(100, null);
  for (let i = 0; i < 4; i += 1) expect((await server.send('POST', CHAT, ofBytes(50_000))).status).toBe(200);
  expect(server.asked()).toEqual([0, 4]);
});

test('what an engine says of its context counts where the operator has said nothing', async () => {
  const box = await engine({ engine: 'vllm' });
  const server = await startLocal();
  await server.register('box', box.url);
  const reply = await server.send('POST', CHAT, ofBytes(8 * 8192 + 1));
  expect([reply.status, reply.json.error.code]).toEqual([400, 'context_too_long']);
  expect(reply.json.error.message).toContain('8192 tokens');
  expect((await server.send('POST', CHAT, ofBytes(8 * 8192))).status).toBe(200);
});

test('a prompt that is probably too long for one endpoint goes to another that can hold it', async () => {
  const server = await holding(100, 8192);
  const long = ofBytes(600);
  for (let i = 0; i < 6; i += 1) expect((await server.send('POST', CHAT, long)).status).toBe(200);
  expect(server.asked()).toEqual([0, 6]);
  const { choice, candidates } = (await server.send('POST', '/api/dashboard/explain', long)).json;
  expect(choice).toBe(server.ids[1]);
  expect(candidates).toMatchObject([{ eligible: false, reason: 'context_too_small' }, { eligible: true }]);
  // Where the other is away it is better than nothing.
  await server.send('POST', `/api/endpoints/${server.ids[1]}/drain`);
  expect((await server.send('POST', CHAT, long)).status).toBe(200);
  expect(server.asked()).toEqual([1, 6]);
});

test('a short prompt may go to any of them', async () => {
  const server = await holding(100, 8192);
  for (const [bytes, reason] of [
    [400, null],
    [401, 'context_too_small'],
  ] as const) {
    const { candidates } = (await server.send('POST', '/api/dashboard/explain', ofBytes(bytes))).json;
    expect(candidates).toMatchObject([{ reason }, { reason: null }]);
  }
});
