import { describe, expect, it } from 'vitest';
import { scanBody } from '../src/http/body.js';
import { type Prefix, prefixesOf } from '../src/http/conversation.js';
import { keyOf } from '../src/http/prefix-hash.js';
import { textBytesOf } from '../src/http/text-bytes.js';

const system = { role: 'system', content: 'Be brief.' };
const developer = { role: 'developer', content: 'Be brief.' };
const user = (content: unknown) => ({ role: 'user', content });
const assistant = (content: string) => ({ role: 'assistant', content });

function prefixesIn(text: string): Prefix[] {
  const body = Buffer.from(text);
  const { turns } = scanBody(body);
  if (turns === null) throw new Error(`no turns: ${text}`);
  return prefixesOf(body, turns);
}

const of = (request: object) => prefixesIn(JSON.stringify({ model: 'a', ...request }));
const keysOf = (request: object) => of(request).map(({ key }) => key);

describe('the prefixes of messages', () => {
  it('end with each message past the leading instructions, shortest first', () => {
    const messages = [system, developer, user('a'), assistant('b'), user('c')];
    const end = (count: number) => JSON.stringify(messages.slice(0, count)).length - 1;
    expect(of({ messages }).map(({ bytes }) => bytes)).toEqual([end(3), end(4), end(5)]);
  });

  it('have keys of 16 hex digits, all different', () => {
    const keys = keysOf({ messages: Array.from({ length: 40 }, () => user('again')) });
    for (const key of keys) expect(key).toMatch(/^[0-9a-f]{16}$/);
    expect(new Set(keys).size).toBe(40);
  });

  it('are those of the request before, when a request goes on from it', () => {
    const first = [system, user('a')];
    const second = [...first, assistant('b'), user('c')];
    expect(of({ messages: second })[0]).toEqual(of({ messages: first })[0]);
    expect(of({ messages: second })).toHaveLength(3);
  });

  it('do not exist for instructions alone', () => {
    expect(of({ messages: [system] })).toEqual([]);
    expect(of({ messages: [system, developer] })).toEqual([]);
    expect(of({ messages: [] })).toEqual([]);
    expect(prefixesIn('{"model":"a","messages":[ ]}')).toEqual([]);
  });

  it('depend on the leading instructions', () => {
    const other = { role: 'system', content: 'Be long.' };
    expect(keysOf({ messages: [system, user('a')] })).not.toEqual(keysOf({ messages: [other, user('a')] }));
    expect(keysOf({ messages: [system, user('a')] })).not.toEqual(keysOf({ messages: [user('a')] }));
  });

  it('count later instructions as messages', () => {
    expect(of({ messages: [user('a'), system, user('b')] })).toHaveLength(3);
  });

  it('take a message without a role, or with one in its content only, for no instruction', () => {
    expect(of({ input: [{ type: 'function_call_output', output: '1' }] })).toHaveLength(1);
    expect(of({ messages: [user([{ role: 'system' }])] })).toHaveLength(1);
    expect(of({ messages: [{ content: '"role":"system"' }, {}, { role: null }] })).toHaveLength(3);
  });

  it('find the role wherever it stands in the message', () => {
    expect(prefixesIn('{"model":"a","messages":[{ "content":"x" , "role" : "system" }]}')).toEqual([]);
  });

  it('are only the last 64', () => {
    const messages = Array.from({ length: 100 }, (_, i) => user(`${i}`));
    const long = of({ messages });
    expect(long).toHaveLength(64);
    expect(long[63]?.bytes).toBe(JSON.stringify(messages).length - 1);
    expect(long[36]).toEqual(of({ messages: messages.slice(0, 73) }).at(-1));
  });

  it('do not see how messages are cut differently', () => {
    expect(keysOf({ messages: [user('ab'), user('c')] }).at(-1)).not.toBe(
      keysOf({ messages: [user('a'), user('bc')] }).at(-1),
    );
  });

  it('stop in a list that is no conversation, before it holds up everything', () => {
    const body = Buffer.from(`{"model":"a","messages":[${'{},'.repeat(3e6)}{}]}`);
    const { turns } = scanBody(body);
    const started = performance.now();
    expect(prefixesOf(body, turns as [number, number])).toHaveLength(64);
    expect(performance.now() - started).toBeLessThan(200);
  });
});

describe('the prefixes of a text', () => {
  const text = (length: number) => 'The same old story. '.repeat(length / 20 + 1).slice(0, length);

  it('are the blocks of 2 KiB and the whole', () => {
    expect(of({ prompt: text(5000) }).map(({ bytes }) => bytes)).toEqual([2048, 4096, 5000]);
    expect(of({ input: text(4096) }).map(({ bytes }) => bytes)).toEqual([2048, 4096]);
    expect(of({ prompt: 'x' }).map(({ bytes }) => bytes)).toEqual([1]);
    expect(of({ prompt: '' })).toEqual([]);
  });

  it('recognise a longer text of the same beginning', () => {
    const short = of({ prompt: text(4096) });
    expect(of({ prompt: `${text(4096)} And then?` }).slice(0, 2)).toEqual(short);
    expect(keysOf({ prompt: `!${text(4096)}` })).not.toContain(short[0]?.key);
  });

  it('are the first 63 blocks and the whole of a very long one', () => {
    const prefixes = of({ prompt: text(1e6) });
    expect(prefixes).toHaveLength(64);
    expect(prefixes[62]?.bytes).toBe(63 * 2048);
    expect(prefixes[63]?.bytes).toBe(1e6);
  });

  it('are also those of tokens and of several texts', () => {
    const tokens = Array.from({ length: 2000 }, (_, i) => i);
    const short = keysOf({ prompt: tokens.slice(0, 1000) });
    expect(keysOf({ prompt: tokens })).toContain(short[0]);
    expect(of({ prompt: ['a', 'b'] }).map(({ bytes }) => bytes)).toEqual(['"a","b"'.length]);
  });

  it('are not those of a message that reads the same', () => {
    expect(keysOf({ prompt: JSON.stringify(user('a')) })).not.toEqual(keysOf({ messages: [user('a')] }));
  });
});

describe('the key of a text', () => {
  it('is the same for the same text and kind only', () => {
    const key = keyOf('session', 'a');
    expect(key).toMatch(/^[0-9a-f]{16}$/);
    expect(keyOf('session', 'a')).toBe(key);
    for (const other of [
      keyOf('session', 'b'),
      keyOf('session', 'a\0'),
      keyOf('model', 'a'),
      keyOf('sessiona', ''),
      keyOf('', 'a'),
    ]) {
      expect(other).not.toBe(key);
    }
  });

  it('is no key of a prefix', () => {
    expect(prefixesOf(Buffer.from('"session\0a"'), [0, 11])[0]?.key).not.toBe(keyOf('session', 'a'));
  });
});

describe('the bytes of text', () => {
  const picture = 'iVBORw0KGgo/AAAA+'.repeat(400);
  const textOf = (value: unknown) => textBytesOf(Buffer.from(JSON.stringify(value)));

  it('are all bytes where there is no base64', () => {
    const request = {
      messages: [system, user('Write ;base64, after data:image/png and so on. '.repeat(300))],
    };
    expect(textOf(request)).toBe(JSON.stringify(request).length);
    expect(textBytesOf(Buffer.alloc(0))).toBe(0);
  });

  it.each(['data:image/png;base64,', 'data:application/pdf;name=a.pdf;base64,', 'data:;base64,'])(
    'leave out what follows %s',
    (mark) => {
      const with_ = (data: string) =>
        user([
          { type: 'text', text: 'What is it?' },
          { type: 'image_url', image_url: { url: mark + data } },
          { type: 'text', text: 'And this?' },
          { type: 'image_url', image_url: { url: mark + data.slice(0, 40) } },
        ]);
      expect(textOf(with_(picture))).toBe(JSON.stringify(with_('')).length);
    },
  );

  it('leave out sound without a mark, also with escaped slashes and in url-safe letters', () => {
    const empty = '{"input_audio":{"data":"","format":"wav"},"text":"x"}';
    for (const data of [picture, picture.replaceAll('/', '\\/'), picture.replaceAll(/[/+]/g, '_')]) {
      expect(textBytesOf(Buffer.from(empty.replace('""', `"${data}"`)))).toBe(empty.length);
    }
  });

  it('leave out every one of many, wherever they stand', () => {
    for (let shift = 0; shift < 40; shift++) {
      const parts = (data: string) => ['x'.repeat(shift * 107), data, ' ', data, data];
      expect(textOf(parts('A'.repeat(4097)))).toBe(textOf(parts('')));
    }
  });

  it('keep strings of letters that are not long, and long ones that are not only letters', () => {
    for (const text of [
      'A'.repeat(4096),
      `${'A'.repeat(9000)} `,
      `"${'A'.repeat(9000)}`,
      'あ'.repeat(9000),
    ]) {
      expect(textOf([text, text])).toBe(Buffer.byteLength(JSON.stringify([text, text])));
    }
  });

  it('keep a text that repeats itself, however long it is', () => {
    for (let length = 5000; length < 9000; length++) {
      const text = 'abc '.repeat(3000).slice(0, length);
      expect(textOf([text])).toBe(length + 4);
    }
  });

  it('keep base64 that a text quotes: the model reads it letter by letter', () => {
    const quoted = JSON.stringify({ url: `data:image/png;base64,${picture}`, data: picture });
    for (const text of [quoted, `See data:image/png;base64,${picture}`]) {
      expect(textOf([text])).toBe(JSON.stringify([text]).length);
    }
  });

  it('cost time in proportion to the length, whatever stands in it', () => {
    const started = performance.now();
    for (const filling of [
      ';base64,',
      '";base64,",',
      '"data:;base64,A",',
      'A',
      '\\"',
      '"A",',
      `"${picture}",`,
    ]) {
      textBytesOf(Buffer.from(filling.repeat(4e6 / filling.length)));
    }
    expect(performance.now() - started).toBeLessThan(1000);
  });
});
