import { expect, test } from 'vitest';
import { engine, type LocalServer, startLocal, until } from './support/server.js';

const CHAT = '/v1/chat/completions';
const MODELS = ['sim-small', 'sim-large'];
const [MODEL] = MODELS as [string];

const system = { role: 'system', content: 'You are one of many who all get this same long instruction.' };
const user = (content: string) => ({ role: 'user', content });
const assistant = (content: string) => ({ role: 'assistant', content });

/** Three equal endpoints; somebody who is known nowhere goes to any of them. */
async function three() {
  const server = await startLocal({
    args: ['--policy', 'affinity'],
    env: { TROUPE_HEALTH_INTERVAL_MS: '60000' },
  });
  const ids: string[] = [];
  for (const i of [0, 1, 2]) {
    const { url } = await engine({ models: MODELS });
    ids.push((await server.register(`box ${i}`, url)).id);
  }
  return { server, ids };
}

/** Where a request went, by the name of the endpoint. */
async function sent(
  server: LocalServer,
  body: object,
  headers: Record<string, string> = {},
  path = CHAT,
): Promise<string> {
  const reply = await server.send('POST', path, { model: MODEL, ...body }, headers);
  expect(reply.status).toBe(200);
  return reply.headers.get('x-troupe-endpoint') as string;
}

const inTurn = async <T, R>(list: T[], run: (one: T, index: number) => Promise<R>): Promise<R[]> => {
  const results: R[] = [];
  for (const [index, one] of list.entries()) results.push(await run(one, index));
  return results;
};
const NAMES = Array.from({ length: 12 }, (_, i) => `${i}`);

test('a conversation goes on where it began, turn by turn, with nothing but its messages to tell', async () => {
  const { server } = await three();
  for (const name of NAMES.slice(0, 6)) {
    const messages = [system, user(`Question ${name}`)];
    const home = await sent(server, { messages });
    for (let turn = 0; turn < 3; turn += 1) {
      messages.push(assistant(`Answer ${turn}`), user(`And ${turn}?`));
      expect(await sent(server, { messages })).toBe(home);
    }
  }
});

test('of other routes the beginning of the text is what a conversation is known by', async () => {
  const { server } = await three();
  for (const [path, name] of [
    ['/v1/completions', 'prompt'],
    ['/v1/responses', 'input'],
  ] as const) {
    for (const letter of ['a', 'b', 'c', 'd']) {
      const text = letter.repeat(4096);
      const home = await sent(server, { [name]: text }, {}, path);
      expect(await sent(server, { [name]: `${text} and more` }, {}, path)).toBe(home);
    }
  }
});

test.each<[string, (name: string) => { body: object; headers?: Record<string, string> }]>([
  ['x-session-id', (name) => ({ body: {}, headers: { 'x-session-id': name } })],
  ['prompt_cache_key', (name) => ({ body: { prompt_cache_key: name } })],
  ['user', (name) => ({ body: { user: name } })],
])('who names a session by %s stays at one endpoint, whatever is said', async (_, naming) => {
  const { server } = await three();
  const homes = await inTurn(NAMES, async (name) => {
    const { body, headers } = naming(name);
    const go = (text: string) => sent(server, { ...body, messages: [user(text)] }, headers);
    const home = await go(`First of ${name}`);
    for (const turn of [1, 2]) expect(await go(`Number ${turn} of ${name}`)).toBe(home);
    return home;
  });
  // Other names are other sessions.
  expect(new Set(homes).size).toBeGreaterThan(1);
});

test('the header says more of a session than the body does, and a session in one is none in the other', async () => {
  const { server } = await three();
  const homes = await inTurn(NAMES, async (name) => {
    const headers = { 'x-session-id': name };
    const home = await sent(server, { messages: [user(`a ${name}`)], user: 'all' }, headers);
    expect(await sent(server, { messages: [user(`b ${name}`)], user: 'all' }, headers)).toBe(home);
    return home;
  });
  expect(new Set(homes).size).toBeGreaterThan(1);
});

test('who names a session keeps to it, whoever else says the same short words', async () => {
  const { server } = await three();
  for (const naming of [
    (name: string) => ({ body: {}, headers: { 'x-session-id': name } }),
    (name: string) => ({ body: { prompt_cache_key: name }, headers: {} }),
  ]) {
    const homes = await inTurn(NAMES, (name) => {
      const { body, headers } = naming(name);
      return sent(server, { ...body, messages: [user(`All about ${name}`)] }, headers);
    });
    const later = await inTurn(NAMES, (name) => {
      const { body, headers } = naming(name);
      return sent(server, { ...body, messages: [user('continue')] }, headers);
    });
    expect(later).toEqual(homes);
    expect(new Set(homes).size).toBeGreaterThan(1);
  }
});

test('a system prompt that all share pins nobody, even where it was sent alone', async () => {
  const { server } = await three();
  await sent(server, { messages: [system] });
  const homes = await inTurn(NAMES, (name) => sent(server, { messages: [system, user(`Question ${name}`)] }));
  expect(new Set(homes).size).toBeGreaterThan(1);
});

test('a conversation moves away from an endpoint that drains, and stays where it went', async () => {
  const { server, ids } = await three();
  const ask = () => sent(server, { messages: [user('Hello')], user: 'me' });
  const home = await ask();
  const id = ids[Number(home.slice(-1))];
  await server.send('POST', `/api/endpoints/${id}/drain`);
  const next = await ask();
  expect(next).not.toBe(home);
  await server.send('POST', `/api/endpoints/${id}/resume`);
  await until(async () => (await server.get(`/api/endpoints/${id}`)).json.status === 'online');
  for (let i = 0; i < 4; i += 1) expect(await ask()).toBe(next);
});

test('the same conversation with another model is another one', async () => {
  const { server } = await three();
  const pairs = await inTurn(NAMES, async (name) => {
    const homes = await inTurn(MODELS, (model) =>
      sent(server, { model, user: name, messages: [user(name)] }),
    );
    const again = await inTurn(MODELS, (model) =>
      sent(server, { model, user: name, messages: [user(name)] }),
    );
    expect(again).toEqual(homes);
    return homes;
  });
  expect(pairs.some(([one, other]) => one !== other)).toBe(true);
});
