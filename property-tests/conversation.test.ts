import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { scanBody } from '../src/http/body.js';
import { type Prefix, prefixesOf } from '../src/http/conversation.js';
import { keyOf } from '../src/http/prefix-hash.js';
import { textBytesOf } from '../src/http/text-bytes.js';

type Span = [number, number];
type Message = Record<string, unknown>;

const content = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.string({ minLength: 200, maxLength: 3000 }),
  fc.array(fc.record({ type: fc.constant('text'), text: fc.string() }), { maxLength: 3 }),
);
const roles = fc.constantFrom('system', 'developer', 'user', 'assistant', 'tool');
const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ role: roles, content }),
  fc.record({ content, role: roles }),
  fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 }),
);
const said: fc.Arbitrary<Message> = fc.record({ role: fc.constantFrom('user', 'assistant'), content });
const gap = fc.constantFrom('', ' ', '\n  ', '\t\r\n');

const isLeading = ({ role }: Message) => role === 'system' || role === 'developer';

function read(messages: readonly Message[]): Prefix[] {
  const body = Buffer.from(JSON.stringify({ model: 'a', messages }));
  return prefixesOf(body, scanBody(body).turns as Span);
}

const keysOf = (prefixes: readonly Prefix[]) => prefixes.map(({ key }) => key);

describe('the prefixes of a conversation', () => {
  it('contain the last prefix of the request before', () => {
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 8 }),
        said,
        fc.array(message, { maxLength: 63, size: 'max' }),
        (some, last, more) => {
          const before = [...some, last];
          expect(read([...before, ...more])).toContainEqual(read(before).at(-1));
        },
      ),
    );
  });

  it('are one for each message past the leading ones, at most 64, and end where it ends', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 90, size: 'max' }), (messages) => {
        const first = messages.findIndex((each) => !isLeading(each));
        const from = Math.max(first === -1 ? messages.length : first, messages.length - 64);
        const ends = messages.map((_, i) => Buffer.byteLength(JSON.stringify(messages.slice(0, i + 1))) - 1);
        expect(read(messages).map(({ bytes }) => bytes)).toEqual(ends.slice(from));
      }),
      { numRuns: 50 },
    );
  });

  it('have other keys for other messages', () => {
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 4 }),
        fc.tuple(message, message).filter(([a, b]) => JSON.stringify(a) !== JSON.stringify(b)),
        fc.array(said, { minLength: 1, maxLength: 4 }),
        (before, [one, other], after) => {
          const mine = keysOf(read([...before, one, ...after])).slice(-after.length);
          const theirs = keysOf(read([...before, other, ...after]));
          for (const key of mine) expect(theirs).not.toContain(key);
        },
      ),
    );
  });

  it('have other keys wherever a single bit differs', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 5000, size: 'max' }),
        fc.nat(),
        fc.nat(7),
        (bytes, where, bit) => {
          const one = Buffer.concat([Buffer.from('"'), bytes, Buffer.from('"')]);
          const other = Buffer.from(one);
          const at = 1 + (where % bytes.length);
          other[at] = (other[at] as number) ^ (1 << bit);
          const mine = keysOf(prefixesOf(one, [0, one.length]));
          const theirs = keysOf(prefixesOf(other, [0, other.length]));
          const same = Math.floor((at - 1) / 2048);
          expect(mine.slice(0, same)).toEqual(theirs.slice(0, same));
          for (const key of mine.slice(same)) expect(theirs).not.toContain(key);
        },
      ),
    );
  });

  it('have the same keys whatever the white space between them and wherever they stand', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(gap, message, gap), { maxLength: 8 }),
        fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 }),
        (list, others) => {
          const front = JSON.stringify({ ...others, model: 'a' }).slice(0, -1);
          const array = list.map(([a, each, b]) => a + JSON.stringify(each) + b).join(',');
          const body = Buffer.from(`${front}, "messages":\n[${array}] , "x":[]}`);
          const prefixes = prefixesOf(body, scanBody(body).turns as Span);
          expect(keysOf(prefixes)).toEqual(keysOf(read(list.map(([, each]) => each))));
        },
      ),
    );
  });

  it('are found in any turns that scanBody finds, in order, within them and with keys of 16 digits', () => {
    let found = 0;
    fc.assert(
      fc.property(fc.constantFrom('messages', 'input', 'prompt'), fc.jsonValue(), (name, turns) => {
        const body = Buffer.from(JSON.stringify({ model: 'a', [name]: turns }));
        const span = scanBody(body).turns;
        if (span === null) return;
        const prefixes = prefixesOf(body, span);
        let before = 0;
        for (const { key, bytes } of prefixes) {
          expect(key).toMatch(/^[0-9a-f]{16}$/);
          expect(bytes).toBeGreaterThan(before);
          before = bytes;
          found += 1;
        }
        expect(before).toBeLessThan(span[1] - span[0]);
      }),
      { numRuns: 1000 },
    );
    expect(found).toBeGreaterThan(100);
  });

  it('of a text contain all of those of any beginning that ends with a block', () => {
    fc.assert(
      fc.property(fc.nat(5), fc.string({ unit: 'binary-ascii', maxLength: 3000 }), (blocks, rest) => {
        const quoted = (text: string) => Buffer.from(`"${text}"`);
        const short = quoted('All the same. '.repeat(1000).slice(0, blocks * 2048));
        const long = quoted(short.toString().slice(1, -1) + rest);
        const mine = prefixesOf(long, [0, long.length]);
        expect(mine.slice(0, blocks)).toEqual(prefixesOf(short, [0, short.length]));
        expect(mine.length).toBe(blocks + Math.ceil(rest.length / 2048));
      }),
    );
  });
});

describe('the key of a text', () => {
  it('differs wherever the kind or the text differs', () => {
    const kind = fc.string({ unit: fc.constantFrom('a', 'b') });
    const pair = fc.tuple(kind, fc.string());
    fc.assert(
      fc.property(pair, pair, (one, other) => {
        expect(keyOf(...one) === keyOf(...other)).toBe(one.join('\0') === other.join('\0'));
      }),
    );
  });
});

describe('the bytes of text', () => {
  const base64 = fc
    .tuple(fc.uint8Array({ minLength: 3100, maxLength: 9000, size: 'max' }))
    .map(([bytes]) => Buffer.from(bytes).toString('base64'));
  const part = fc.oneof(
    fc.record({ text: fc.lorem({ maxCount: 900 }) }),
    fc.record({ picture: fc.base64String() }),
    fc.record({ sound: base64 }),
    fc.record({ text: fc.string() }),
  );

  function body(parts: readonly Record<string, string>[], bare: boolean): Buffer {
    const list = parts.map(({ text, picture, sound }) => {
      if (picture !== undefined)
        return { image_url: { url: `data:image/png;base64,${bare ? '' : picture}` } };
      if (sound !== undefined) return { input_audio: { data: bare ? '' : sound } };
      return { text };
    });
    return Buffer.from(JSON.stringify({ messages: [{ content: list }] }));
  }

  it('are those of the same request with all pictures and sounds taken out', () => {
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
        expect(textBytesOf(body(parts, false))).toBe(body(parts, true).length);
      }),
      { numRuns: 200 },
    );
  });

  it('are never more than all bytes nor less than none, whatever the bytes', () => {
    const piece = fc.oneof(
      fc.constantFrom('"', ';base64,', '"data:', '\\', ',', '\\"', ' '),
      fc.nat(9000).map((length) => 'A'.repeat(length)),
      fc.string({ unit: 'binary' }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        const bytes = Buffer.from(pieces.join(''));
        const text = textBytesOf(bytes);
        expect(text).toBeLessThanOrEqual(bytes.length);
        expect(text).toBeGreaterThanOrEqual(0);
      }),
      { numRuns: 500 },
    );
  });

  it('are all bytes of any JSON without base64', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.lorem({ maxCount: 2000 }), (value, text) => {
        const bytes = Buffer.from(JSON.stringify([value, text]));
        // What is written as six bytes is a character of two.
        const escapes = bytes.toString('latin1').match(/\\\\|\\u[0-9a-f]{4}/g) ?? [];
        expect(textBytesOf(bytes)).toBe(bytes.length - 4 * escapes.filter((one) => one !== '\\\\').length);
      }),
    );
  });
});
