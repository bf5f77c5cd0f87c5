import { describe, expect, it } from 'vitest';
import { BodyError, rewriteBody, scanBody } from '../src/http/body.js';

const scan = (text: string | Buffer) => scanBody(Buffer.from(text));

function errorOf(text: string | Buffer): { message: string; param: string | null } {
  try {
    scan(text);
  } catch (error) {
    if (error instanceof BodyError) return { message: error.message, param: error.param };
    throw error;
  }
  throw new Error(`accepted: ${text}`);
}

function rewritten(text: string, change: Parameters<typeof rewriteBody>[2]): string {
  const body = Buffer.from(text);
  return Buffer.concat(rewriteBody(body, scanBody(body), change)).toString();
}

describe('scanning a request body', () => {
  it('finds the model, its span and the stream flag wherever they stand', () => {
    const text = '{"messages":[{"model":"x","stream":true}], "stream" : true , "model" : "a/b" }';
    const { model, modelSpan, stream } = scan(text);
    expect({ model, stream }).toEqual({ model: 'a/b', stream: true });
    expect(text.slice(...modelSpan)).toBe('"a/b"');
  });

  it.each(['false', 'null', '1', '"true"', '[true]', '{"true":true}'])('takes stream %s as no', (value) => {
    expect(scan(`{"model":"a","stream":${value}}`).stream).toBe(false);
  });

  it('decodes escapes in keys and in the model, and UTF-8', () => {
    expect(scan('{"mod\\u0065l":"\\u0061\\"\\\\"}').model).toBe('a"\\');
    expect(scan('{"model":"モデル"}').model).toBe('モデル');
    expect(scan('{"model":"a","str\\u0065am":true}').stream).toBe(true);
  });

  it('is not led astray by quotes and backslashes in strings', () => {
    const tricky = JSON.stringify('"model":"b" \\ \\" \\\\'.repeat(20));
    expect(scan(`{"a":${tricky},"b":"\\\\","model":"a"}`).model).toBe('a');
  });

  it.each(['model', 'stream', 'stream_options'])(
    'refuses a second %s, also one written with escapes',
    (key) => {
      const value = key === 'model' ? '"b"' : 'null';
      const escaped = `\\u00${key.charCodeAt(0).toString(16)}${key.slice(1)}`;
      const first = key === 'model' ? '' : `"${key}":null,`;
      const expected = { message: `duplicate "${key}"`, param: key };
      expect(errorOf(`{"model":"a",${first}"${escaped}":${value}}`)).toEqual(expected);
      expect(errorOf(`{"model":"a",${first}"${key}":${value}}`)).toEqual(expected);
    },
  );

  it('names the model as the parameter that is missing or wrong', () => {
    const missing = { message: 'you must provide a model parameter', param: 'model' };
    expect(errorOf('{}')).toEqual(missing);
    expect(errorOf('{"messages":[{"model":"a"}]}')).toEqual(missing);
    for (const value of ['1', 'null', '["a"]', '{"a":"b"}', 'true']) {
      expect(errorOf(`{"model":${value}}`)).toEqual({ message: 'model must be a string', param: 'model' });
    }
    const broken = Buffer.concat([Buffer.from('{"model":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]);
    expect(errorOf(broken)).toEqual({ message: 'model is not valid UTF-8', param: 'model' });
  });

  it('says of an empty body that it is missing', () => {
    expect(errorOf('')).toEqual({ message: 'the body is missing', param: null });
  });

  it.each(['[{"model":"a"}]', '"model"', '1', 'null', ' true '])('wants an object, not %s', (text) => {
    expect(errorOf(text)).toEqual({ message: 'the body must be a JSON object', param: null });
  });

  it.each([
    ' ',
    '{',
    '{"model":"a"',
    '{"model":"a}',
    '{"model":"a"}}',
    '{"model":"a"} x',
    '{"model":"a",}',
    '{,"model":"a"}',
    '{"model" "a"}',
    '{"model":"a" "b":1}',
    '{model:"a"}',
    "{'model':'a'}",
    '{"model":"a","b":01}',
    '{"model":"a","b":1.}',
    '{"model":"a","b":.5}',
    '{"model":"a","b":-}',
    '{"model":"a","b":1e}',
    '{"model":"a","b":+1}',
    '{"model":"a","b":NaN}',
    '{"model":"a","b":tru}',
    '{"model":"a","b":truer}',
    '{"model":"a","b":[1,]}',
    '{"model":"a","b":[1 2]}',
    '{"model":"a","b":[1}',
    '{"model":"a","b":{"c":1]}',
    '{"model":"a","b":{"c"}}',
    '{"model":"a\nb"}',
    '{"model":"a\\x"}',
    '{"mod\\xel":"a"}',
    '{"model":"a"}\0',
    '\ufeff{"model":"a"}',
    'model=a',
  ])('refuses %j as JSON', (text) => {
    expect(errorOf(text).message).toMatch(/^the body is not valid JSON/);
    expect(errorOf(text).param).toBeNull();
  });

  it.each(['[', '{"a":'])('follows %s a thousand levels deep and no further', (opening) => {
    const nested = (levels: number) =>
      `{"model":"a","b":${opening.repeat(levels)}1${(opening === '[' ? ']' : '}').repeat(levels)}}`;
    expect(scan(nested(999)).model).toBe('a');
    expect(errorOf(nested(1000)).message).toMatch(/^the body is nested too deeply/);
    expect(errorOf(`{"model":"a","b":${opening.repeat(1e6)}`).message).toMatch(
      /^the body is nested too deeply/,
    );
  });

  it.each([
    ['{"max_tokens":5}', 5],
    ['{"max_completion_tokens":7,"max_tokens":9}', 7],
    ['{"max_output_tokens":3,"max_completion_tokens":4}', 3],
    ['{"max_tokens":1e2}', 100],
    ['{"max_tokens":"5","max_output_tokens":6}', 6],
    ['{"max_tokens":0,"max_completion_tokens":-1,"max_output_tokens":1.5}', null],
    ['{"max_tokens":null,"max_completion_tokens":true,"max_output_tokens":[5]}', null],
    [`{"max_tokens":1${'0'.repeat(40)}}`, null],
    ['{"max_tokens":5,"max_tokens":8}', 8],
    ['{"max_tokens":5,"max_tokens":null}', null],
    ['{"max\\u005ftokens":5}', 5],
    ['{"x":{"max_tokens":5}}', null],
    ['{}', null],
  ])('takes the least whole limit of %s', (text, limit) => {
    expect(scan(text.replace('{', '{"model":"a",').replace(',}', '}')).maxTokens).toBe(limit);
  });

  it.each([
    ['"messages":[1],"input":"b","prompt":"c"', '[1]'],
    ['"prompt":"c","input":"b"', '"b"'],
    ['"prompt":["c"]', '["c"]'],
    ['"messages":null,"input":{},"prompt" : "c" ', '"c"'],
    ['"messages":[1],"messages":[2]', '[2]'],
    ['"messages":[1],"messages":7', undefined],
    ['"x":[1]', undefined],
  ])('finds the turns in %s', (members, turns) => {
    const text = `{"model":"a",${members}}`;
    const span = scan(text).turns;
    expect(span === null ? undefined : text.slice(...span)).toBe(turns);
  });

  it.each([
    ['"prompt_cache_key":"k","user":"u"', 'k', 'u'],
    ['"user":"u"', null, 'u'],
    ['"user":"u","prompt_cache_key":""', null, 'u'],
    ['"user":"u","prompt_cache_key":7', null, 'u'],
    ['"user":"\\u0061\\"ü"', null, 'a"ü'],
    ['"user":"u","user":"v"', null, 'v'],
    [`"prompt_cache_key":"${'k'.repeat(512)}","user":"u"`, 'k'.repeat(512), 'u'],
    [`"prompt_cache_key":"${'k'.repeat(513)}","user":"u"`, null, 'u'],
    ['"prompt_cache_key":"\\x","user":"u"', null, 'u'],
    ['"user":""', null, null],
    ['"user":{"user":"u"}', null, null],
    ['"x":"u"', null, null],
  ])('finds the session and the user in %s', (members, session, user) => {
    expect(scan(`{"model":"a",${members}}`)).toMatchObject({ session, user });
  });

  it('takes time in proportion to the length, whatever the strings hold', () => {
    const started = performance.now();
    for (const filling of ['x', '\\"', '\\\\', 'x \\" ']) {
      scan(`{"a":"${filling.repeat(1e6 / filling.length)}","model":"a"}`);
    }
    expect(performance.now() - started).toBeLessThan(1000);
  });
});

describe('rewriting a request body', () => {
  const added = { addUsage: true };

  it('gives the very same buffer when nothing changes', () => {
    const body = Buffer.from('{"model":"\\u0061","stream_options":{"include_usage":false}}');
    const scanned = scanBody(body);
    for (const change of [{}, { model: 'a' }, { model: 'a', addUsage: true }, { addUsage: false }]) {
      const parts = rewriteBody(body, scanned, change);
      expect(parts).toHaveLength(1);
      expect(parts[0]).toBe(body);
    }
  });

  it('replaces the name of the model and nothing else', () => {
    expect(rewritten('{ "a":1.0, "model" : "x", "b":"\\u00e9" }', { model: 'y"ü' })).toBe(
      '{ "a":1.0, "model" : "y\\"ü", "b":"\\u00e9" }',
    );
  });

  it.each([
    ['{ "model":"a"}', '{"stream_options":{"include_usage":true}, "model":"a"}'],
    ['{"model":"a","stream_options":{}}', '{"model":"a","stream_options":{"include_usage":true}}'],
    [
      '{"stream_options":{ "x":1 },"model":"a"}',
      '{"stream_options":{"include_usage":true, "x":1 },"model":"a"}',
    ],
    ['{"stream_options" : null ,"model":"a"}', '{"stream_options" : {"include_usage":true} ,"model":"a"}'],
  ])('adds the wish for usage to %s', (before, after) => {
    expect(rewritten(before, added)).toBe(after);
  });

  it.each([
    '{"include_usage":true}',
    '{"include_usage":null}',
    '{"x":{},"include\\u005fusage":false}',
    '"yes"',
    '[]',
    '1',
    'true',
  ])('leaves stream_options %s alone', (value) => {
    const text = `{"model":"a","stream_options":${value}}`;
    expect(scan(text).usage).toBe('asked');
    expect(rewritten(text, added)).toBe(text);
  });

  it('does not take a nested include_usage for the wish itself', () => {
    expect(scan('{"model":"a","stream_options":{"x":{"include_usage":true}}}').usage).not.toBe('asked');
  });

  it('makes both changes in either order', () => {
    const change = { model: 'b', addUsage: true };
    const options = '"stream_options":{"include_usage":true}';
    expect(rewritten('{"model":"a","stream_options":null}', change)).toBe(`{"model":"b",${options}}`);
    expect(rewritten('{"stream_options":{},"model":"a"}', change)).toBe(`{${options},"model":"b"}`);
    expect(rewritten('{"model":"a"}', change)).toBe(`{${options},"model":"b"}`);
  });
});
