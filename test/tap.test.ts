import { describe, expect, it } from 'vitest';
import { createTap, type Tap, type TapKind, type TapOptions } from '../src/http/tap.js';

const stream = (kind: TapKind, more: Partial<TapOptions> = {}): TapOptions => ({
  kind,
  stream: true,
  contentType: 'text/event-stream; charset=utf-8',
  contentEncoding: undefined,
  contentLength: null,
  hideUsage: false,
  ...more,
});
const chat = stream('chat_completions');
const hidden = stream('chat_completions', { hideUsage: true });
const json: TapOptions = { ...chat, stream: false, contentType: 'application/json' };

const data = (value: unknown) => `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`;
const named = (type: string, more: object = {}) => `event: ${type}\n${data({ type, ...more })}`;
const choice = (delta: object, finish_reason: string | null = null, more: object = {}) =>
  data({ id: 'c', object: 'chat.completion.chunk', choices: [{ index: 0, delta, finish_reason }], ...more });
const usage = { prompt_tokens: 7, completion_tokens: 11, total_tokens: 18 };
const usageEvent = data({ id: 'c', choices: [], usage });
const done = data('[DONE]');
const hello =
  choice({ role: 'assistant', content: '' }) + choice({ content: 'Héllo' }) + choice({ content: ' 世界' });
const stop = choice({}, 'stop');

interface Seen {
  bytes: string;
  outcome: string;
  failure: string | null;
  input: number | null;
  output: number | null;
  estimated: boolean;
  sawToken: boolean;
}

function verdictOf(tap: Tap): Omit<Seen, 'bytes'> {
  const { outcome, failure, inputTokens, outputTokens, estimated } = tap;
  const sawToken = tap.deltas > 0;
  return { outcome, failure, input: inputTokens, output: outputTokens, estimated, sawToken };
}

function run(options: TapOptions, ...chunks: (string | Buffer)[]): Seen {
  const tap = createTap(options);
  const out = chunks.flatMap((chunk) => tap.push(Buffer.from(chunk)));
  out.push(...tap.end());
  return { bytes: Buffer.concat(out).toString(), ...verdictOf(tap) };
}

const text = (buffers: Buffer[]) => Buffer.concat(buffers).toString();

/** Cuts the stream at every byte, and into pieces of every pair of small sizes in turn. */
function everyCut(bytes: Buffer): Buffer[][] {
  const cuts = Array.from({ length: bytes.length + 1 }, (_, at) => [
    bytes.subarray(0, at),
    bytes.subarray(at),
  ]);
  for (let first = 1; first <= 9; first++) {
    for (let second = 1; second <= 9; second++) {
      const pieces: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += first + second) {
        pieces.push(bytes.subarray(at, at + first), bytes.subarray(at + first, at + first + second));
      }
      cuts.push(pieces);
    }
  }
  return cuts;
}

const recorded: Record<string, [TapOptions, string, Partial<Seen>]> = {
  'a chat with usage': [
    chat,
    hello + stop + usageEvent + done,
    { outcome: 'complete', input: 7, output: 11, estimated: false, sawToken: true },
  ],
  'a chat whose usage is hidden': [
    hidden,
    hello + stop + usageEvent + done,
    { bytes: hello + stop + done, outcome: 'complete', input: 7, output: 11, estimated: false },
  ],
  'a chat with CRLF, comments and a hidden usage event': [
    hidden,
    `: hi\n\n${hello}${stop}${usageEvent}${usageEvent}: bye\n\n${done}`.replaceAll('\n', '\r\n'),
    {
      bytes: `: hi\n\n${hello}${stop}: bye\n\n${done}`.replaceAll('\n', '\r\n'),
      outcome: 'complete',
      output: 11,
    },
  ],
  'a chat with lone CRs': [
    hidden,
    (hello + usageEvent + stop + done).replaceAll('\n', '\r'),
    { bytes: (hello + stop + done).replaceAll('\n', '\r'), outcome: 'complete', output: 11 },
  ],
  'a chat with mixed line ends': [
    hidden,
    'data: {"choices":[{"delta":{"content":"a"}}]}\r\n\ndata: {"choices":[],"usage":{"completion_tokens":3}}\n\r\n\n: x\r\r\ndata: [DONE]\r\n\r',
    {
      bytes: 'data: {"choices":[{"delta":{"content":"a"}}]}\r\n\n\n: x\r\r\ndata: [DONE]\r\n\r',
      outcome: 'complete',
      output: 3,
    },
  ],
  'a chat cut before its end': [
    chat,
    `${hello}data: {"choices":[{"delta":{"content":"lo`,
    { outcome: 'failed', failure: 'the stream ended without its terminal event', output: 2, estimated: true },
  ],
  'an event in several data lines': [
    hidden,
    `data: {"choices":[],\ndata:"usage":{"completion_tokens":5}}\n\n${done}`,
    { bytes: done, outcome: 'complete', output: 5 },
  ],
  'a hidden usage event at the very end': [
    hidden,
    `${hello}${stop}${usageEvent.trimEnd()}`,
    { bytes: hello + stop, outcome: 'complete', output: 11 },
  ],
  'a response': [
    stream('responses'),
    named('response.created', { response: { usage: null, error: null } }) +
      named('response.output_text.delta', { delta: 'Hi' }) +
      named('response.completed', { response: { usage: { input_tokens: 3, output_tokens: 4 } } }),
    { outcome: 'complete', input: 3, output: 4, estimated: false, sawToken: true },
  ],
  'a message': [
    stream('messages'),
    named('message_start', { message: { usage: { input_tokens: 9, output_tokens: 1 } } }) +
      named('content_block_delta', { delta: { type: 'text_delta', text: 'Hi' } }) +
      named('ping') +
      named('message_delta', { delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 12 } }) +
      named('message_stop'),
    { outcome: 'complete', input: 9, output: 12, estimated: false, sawToken: true },
  ],
};

describe.each(Object.entries(recorded))('%s', (_, [options, original, expected]) => {
  it('is relayed and judged the same wherever it is torn', () => {
    const whole = run(options, original);
    expect(whole).toMatchObject({ bytes: original, ...expected });
    for (const pieces of everyCut(Buffer.from(original))) expect(run(options, ...pieces)).toEqual(whole);
  });
});

describe('bytes of a stream', () => {
  it('go on in the same buffer when a chunk ends with an event', () => {
    const tap = createTap(chat);
    for (const part of [hello, stop, usageEvent, done]) {
      const chunk = Buffer.from(part);
      const out = tap.push(chunk);
      expect(out).toHaveLength(1);
      expect(out[0]).toBe(chunk);
    }
  });

  it('are held from the last blank line on', () => {
    const tap = createTap(chat);
    expect(text(tap.push(Buffer.from(`${hello}data: {"cho`)))).toBe(hello);
    expect(text(tap.push(Buffer.from('ices":[]}\n')))).toBe('');
    expect(text(tap.push(Buffer.from('\nda')))).toBe('data: {"choices":[]}\n\n');
    expect(text(tap.end())).toBe('da');
  });

  it('go on without their end once more than 64 KiB would be held', () => {
    const tap = createTap(chat);
    const head = `data: {"choices":[{"delta":{"content":"${'x'.repeat(40_000)}`;
    expect(text(tap.push(Buffer.from(head)))).toBe('');
    expect(text(tap.push(Buffer.from('y'.repeat(40_000))))).toBe(head + 'y'.repeat(40_000));
    expect(text(tap.push(Buffer.from('z')))).toBe('z');
    expect(text(tap.push(Buffer.from(`"}}]}\n\n${stop}da`)))).toBe(`"}}]}\n\n${stop}`);
    expect(tap.deltas).toBe(1);
  });

  it('are not hidden in part: a usage event that was let go is let go wholly', () => {
    const large = data({ choices: [], usage, padding: 'x'.repeat(70_000) });
    expect(run(hidden, large.slice(0, 69_000), large.slice(69_000), done).bytes).toBe(large + done);
    expect(run(hidden, large + done).bytes).toBe(done);
  });

  it('pass a white space that keeps the connection alive, in either mode', () => {
    for (const [options, rest] of [
      [chat, done],
      [json, '{}'],
    ] as const) {
      const tap = createTap(options);
      expect(text(tap.push(Buffer.from('\n')))).toBe('\n');
      expect(text(tap.push(Buffer.from(` \r\n${rest}`)))).toBe(` \r\n${rest}`);
      tap.end();
      expect(tap.outcome).toBe('complete');
    }
  });

  it('are never kept from a client that asked for usage itself, nor in other protocols', () => {
    expect(run(chat, hello + usageEvent + done).bytes).toBe(hello + usageEvent + done);
    const response = data({ type: 'x', choices: [], usage });
    expect(run(stream('responses', { hideUsage: true }), response).bytes).toBe(response);
  });

  it('are hidden only where usage comes with an empty list of choices', () => {
    const events = [
      choice({ content: 'a' }, null, { usage }),
      data({ choices: [], usage: null }),
      data({ choices: [] }),
      data({ usage }),
      data({ choices: [{ delta: { content: '"usage":{}' } }] }),
    ];
    const all = events.join('') + done;
    expect(run(hidden, all).bytes).toBe(all);
  });
});

describe('the end of a chat stream', () => {
  it('is known with the line of [DONE], and that line goes on with the same push', () => {
    for (const end of ['\n', '\r', '\r\n']) {
      const tap = createTap(chat);
      tap.push(Buffer.from(hello));
      expect(tap.push(Buffer.from('data: [DO'))).toEqual([]);
      expect(tap.ended).toBe(false);
      expect(text(tap.push(Buffer.from(`NE]${end}`)))).toBe(`data: [DONE]${end}`);
      expect([tap.ended, tap.outcome]).toEqual([true, 'complete']);
      expect(text(tap.push(Buffer.from('\n')))).toBe('\n');
      expect(tap.end()).toEqual([]);
    }
  });

  it('may be [DONE] without any line end', () => {
    expect(run(chat, `${hello}data:[DONE]`)).toMatchObject({ outcome: 'complete' });
    expect(run(chat, `${hello}data: [DON`)).toMatchObject({ outcome: 'failed' });
  });

  it('is known at [DONE] although the line before it belongs to the same event', () => {
    const lines = `${hello}${usageEvent.trimEnd()}\n${done}`;
    const expected = { bytes: lines, outcome: 'complete', output: 11 };
    for (const pieces of everyCut(Buffer.from(lines))) expect(run(chat, ...pieces)).toMatchObject(expected);
  });

  it('is not [DONE] in the content, in a comment or in an unknown field', () => {
    const words = `${choice({ content: 'data: [DONE]\n\ndata: [DONE]' })}: data: [DONE]\n\nfoo: [DONE]\n\n data: [DONE]\n\n`;
    expect(run(chat, words)).toMatchObject({ outcome: 'failed', bytes: words });
  });

  it('may be a finish reason and an orderly end', () => {
    expect(run(chat, hello + stop)).toMatchObject({ outcome: 'complete', failure: null });
    expect(run(chat, `${hello}${stop}data: {"us`)).toMatchObject({ outcome: 'complete' });
    expect(run(chat, choice({ content: 'a' }, 'length'))).toMatchObject({ outcome: 'complete', output: 1 });
    expect(run(chat, choice({ content: '"finish_reason":"stop"' }))).toMatchObject({ outcome: 'failed' });
  });

  it('is in sight when the announced length is reached', () => {
    const body = Buffer.from(`${hello}${stop}data: x`);
    const tap = createTap({ ...chat, contentLength: body.length });
    expect(text(tap.push(body.subarray(0, -1)))).toBe(hello + stop);
    expect(tap.ended).toBe(false);
    expect(text(tap.push(body.subarray(-1)))).toBe('data: x');
    expect([tap.ended, tap.outcome]).toEqual([true, 'complete']);
  });

  it.each(['', '<html>oops</html>', '\n\n', 'data: {}\n\n', ': only\n\n', 'Internal Server Error'])(
    'is a failure after %j alone',
    (garbage) => {
      expect(run(chat, garbage)).toMatchObject({
        bytes: garbage,
        outcome: 'failed',
        failure: 'the stream ended without its terminal event',
        output: 0,
        sawToken: false,
      });
    },
  );

  it('does not come from another protocol', () => {
    expect(run(chat, named('response.completed', { response: {} }))).toMatchObject({ outcome: 'failed' });
    expect(run(stream('responses'), hello + stop + done)).toMatchObject({ outcome: 'failed' });
    expect(run(stream('messages'), named('response.completed'))).toMatchObject({ outcome: 'failed' });
  });
});

describe('an error event in a chat stream', () => {
  it.each([
    [data({ error: { message: 'out of  memory\n', code: 500 } }), ' (500)'],
    [data({ error: 'boom' }), ''],
    [data({ error: { code: 1 } }), ' (1)'],
    [data({ error: { message: 'zu groß', type: 'zu groß' } }), ''],
    [`event: error\n${data({ message: 'no slot', code: null, type: 'busy' })}`, ' (busy)'],
    [choice({}, null, { error: { message: 'beside choices' } }), ''],
    [`event: error\n${data('plain words')}`, ''],
    [`data: {"error"\r\ndata: : {"message": "torn"}}\r\n\r\n`, ''],
  ])('fails it, [DONE] or not, and its words are not repeated: %j', (event, name) => {
    const failure = `the stream carried an error${name}`;
    for (const rest of ['', done, stop]) {
      expect(run(chat, hello + event + rest)).toMatchObject({ outcome: 'failed', failure, output: 2 });
    }
    const tap = createTap(chat);
    tap.push(Buffer.from(hello + event));
    expect([tap.ended, tap.outcome, tap.failure]).toEqual([false, 'open', failure]);
  });

  it('fails it also where content comes along', () => {
    const beside = choice({ content: 'a' }, null, { error: { message: 'x' } });
    for (const event of [beside, `event: error\n${choice({ content: 'a' })}`]) {
      expect(run(chat, event + done)).toMatchObject({ outcome: 'failed', output: 1 });
    }
  });

  it('is told in at most 200 characters, none of them cut in half', () => {
    for (const length of [160, 169, 170, 171, 172, 400]) {
      const { failure } = run(chat, data({ error: `${'x'.repeat(length)}😀😀` }));
      expect(failure?.length).toBeLessThanOrEqual(200);
      expect(Buffer.from(failure ?? '').toString()).toBe(failure);
    }
  });

  it('is not a null or empty one, nor one in the content', () => {
    const events =
      choice({ content: 'a' }, null, { error: null }) +
      choice({ content: 'b' }, null, { error: '' }) +
      choice({ content: '"error": {"message":"x"}' }) +
      choice({ content: 'error' }, null, { kind: 'error' }) +
      choice({ content: 'c', error: { nested: true } });
    expect(run(chat, events + done)).toMatchObject({ outcome: 'complete', failure: null, output: 5 });
  });
});

describe('tokens of a chat stream', () => {
  const output = (...events: string[]) => run(chat, ...events, done);

  it('are counted by deltas with content while nothing better is known', () => {
    const events = [
      choice({ role: 'assistant', content: '' }),
      choice({ content: 'a' }),
      choice({ role: 'assistant', content: null, reasoning_content: 'b' }),
      choice({ reasoning: 'c' }),
      choice({ refusal: 'd' }),
      choice({ tool_calls: [{ index: 0, function: { arguments: 'e' } }] }),
      choice({ role: 'assistant', content: 'f' }),
      choice({ content: 'g', role: 'assistant' }),
      choice({ content: 'assistant', role: 'assistant' }),
      choice({ tool_calls: [] }),
      choice({ content: null, reasoning_content: '', tool_calls: null }),
      choice({}),
      data({ choices: [{ finish_reason: null, index: 0, delta: { other: 1, content: 'h' } }] }),
      data('{ "choices" : [ { "delta" : { "content" : "i" } } ] }'),
      data('{"choices":[{"delta":{"content":""}},{"delta":{"content":"j"}}]}'),
    ];
    expect(output(...events)).toMatchObject({ input: null, output: 11, estimated: true, sawToken: true });
  });

  it('come from the last usage that is not null', () => {
    const running = (n: number) =>
      choice({ content: 'a' }, null, { usage: { prompt_tokens: 5, completion_tokens: n } });
    expect(
      output(running(1), running(2), running(3), choice({ content: 'a' }, null, { usage: null })),
    ).toMatchObject({
      input: 5,
      output: 3,
      estimated: false,
      sawToken: true,
    });
    expect(output(data({ choices: [], usage: { input_tokens: 1, output_tokens: 2 } }))).toMatchObject({
      input: 1,
      output: 2,
    });
  });

  it('do not come from words in the content or from odd values', () => {
    const odd = [null, {}, 3, 'x', [], { completion_tokens: -1 }, { completion_tokens: '9' }];
    const events = [
      choice({ content: '"usage":{"completion_tokens":99}' }),
      choice({ content: 'usage' }, null, { kind: 'usage' }),
      choice({ content: 'a', usage: { completion_tokens: 98 } }),
      ...odd.map((value) => choice({ content: 'a' }, null, { usage: value })),
    ];
    expect(output(...events)).toMatchObject({ input: null, output: 10, estimated: true });
  });

  it('run along before the end', () => {
    const tap = createTap(chat);
    tap.push(Buffer.from(choice({ role: 'assistant', content: '' })));
    expect([tap.deltas, tap.outputTokens]).toEqual([0, 0]);
    tap.push(Buffer.from(choice({ content: 'a' })));
    expect([tap.deltas, tap.outputTokens, tap.estimated]).toEqual([1, 1, true]);
    tap.push(Buffer.from(usageEvent));
    expect([tap.inputTokens, tap.outputTokens, tap.estimated]).toEqual([7, 11, false]);
  });

  it('of a completion are its texts', () => {
    const piece = (words: string) => data({ object: 'text_completion', choices: [{ text: words }] });
    expect(run(stream('completions'), piece('a'), piece(''), piece('"text":"'), done)).toMatchObject({
      outcome: 'complete',
      output: 2,
    });
  });
});

describe('the id of a response', () => {
  const usage = { input_tokens: 1, output_tokens: 2 };
  const id = 'resp_1';
  const whole = Buffer.from(JSON.stringify({ output: [{ id: 'msg_1' }], usage, id, object: 'response' }));
  const streamed = Buffer.from(
    named('response.created', { response: { id } }) +
      named('response.output_text.delta', { item_id: 'msg_1', delta: 'x' }) +
      named('response.completed', { response: { id, output: [{ id: 'msg_1' }], usage } }),
  );
  const idOf = (options: TapOptions, chunks: Buffer[]) => {
    const tap = createTap(options);
    for (const chunk of chunks) {
      tap.push(chunk);
      if (!tap.ended) expect(tap.responseId).toBeNull();
    }
    tap.end();
    return tap.responseId;
  };

  it('is found wherever the bytes are cut, in a stream and in JSON', () => {
    for (const cut of everyCut(streamed)) expect(idOf(stream('responses'), cut)).toBe(id);
    for (const cut of everyCut(whole)) expect(idOf({ ...json, kind: 'responses' }, cut)).toBe(id);
  });

  it('is none of another API, of what has failed, of what is no text, or of one that is too long', () => {
    expect(idOf(json, [whole])).toBeNull();
    expect(idOf(stream('messages'), [streamed])).toBeNull();
    expect(idOf({ ...json, kind: 'responses' }, [whole.subarray(0, -1)])).toBeNull();
    expect(idOf(stream('responses'), [streamed.subarray(0, -20)])).toBeNull();
    for (const wrong of [7, null, '', 'x'.repeat(513), { id }]) {
      expect(
        idOf({ ...json, kind: 'responses' }, [Buffer.from(JSON.stringify({ id: wrong, usage }))]),
      ).toBeNull();
    }
  });
});

describe('a responses stream', () => {
  const responses = stream('responses');
  const delta = named('response.output_text.delta', { delta: 'x' });

  it.each(['response.completed', 'response.incomplete'])(
    'is complete with %s, before the upstream ends',
    (type) => {
      const last = data({ response: { usage: { input_tokens: 1, output_tokens: 2 } }, type });
      for (const event of [last, `event: ${type}\n${last}`]) {
        const tap = createTap(responses);
        expect(text(tap.push(Buffer.from(delta + event)))).toBe(delta + event);
        expect([tap.ended, tap.outcome, tap.inputTokens, tap.outputTokens]).toEqual([true, 'complete', 1, 2]);
      }
    },
  );

  it.each([
    [named('response.failed', { response: { error: { code: 'x', message: 'too hot' } } }), ' (x)'],
    [named('error', { message: 'too cold' }), ' (error)'],
    [data({ type: 'error', error: { message: 'too wet' } }), ''],
  ])('fails with %j, and repeats none of its words', (event, name) => {
    const tap = createTap(responses);
    tap.push(Buffer.from(delta + event));
    expect([tap.ended, tap.outcome, tap.failure]).toEqual([
      true,
      'failed',
      `the stream carried an error${name}`,
    ]);
  });

  it('fails when it stops before its last event, or within it', () => {
    expect(run(responses, delta + delta)).toMatchObject({ outcome: 'failed', output: 2, estimated: true });
    expect(run(responses, 'event: response.completed\ndata: {"type":"response.comp')).toMatchObject({
      outcome: 'failed',
    });
    expect(run(responses, delta + data({ error: { message: 'x' } }))).toMatchObject({
      outcome: 'failed',
      failure: 'the stream carried an error',
    });
  });

  it('counts deltas only, and not by their words', () => {
    const events = [
      named('response.output_text.delta', { delta: '' }),
      named('response.reasoning_text.delta', { delta: 'a' }),
      named('response.function_call_arguments.delta', { delta: '{' }),
      named('response.output_text.done', { text: 'x', delta: 'x' }),
      named('response.output_text.delta', {
        delta: '"type":"response.completed","usage":{"output_tokens":5}',
      }),
    ];
    expect(run(responses, ...events)).toMatchObject({ output: 3, estimated: true, outcome: 'failed' });
  });

  it('is complete with a last event of several megabytes', () => {
    const response = { output: ['x'.repeat(3e6)], usage: { input_tokens: 5, output_tokens: 6 } };
    const last = Buffer.from(named('response.completed', { response }));
    const chunks = Array.from({ length: Math.ceil(last.length / 50_000) }, (_, i) =>
      last.subarray(i * 50_000, (i + 1) * 50_000),
    );
    const { bytes, ...verdict } = run(responses, delta, ...chunks);
    expect(bytes.length).toBe(delta.length + last.length);
    expect(verdict).toMatchObject({ outcome: 'complete', input: 5, output: 6 });
    expect(run(stream('messages'), ...chunks)).toMatchObject({ outcome: 'failed' });
    expect(run(responses, delta, ...chunks.slice(0, -1))).toMatchObject({ outcome: 'failed' });
  });
});

describe('a messages stream', () => {
  const messages = stream('messages');

  it('counts blocks until message_delta reports', () => {
    const tap = createTap(messages);
    tap.push(
      Buffer.from(named('message_start', { message: { usage: { input_tokens: 9, output_tokens: 1 } } })),
    );
    tap.push(Buffer.from(named('content_block_delta', { delta: { type: 'thinking_delta', thinking: 'a' } })));
    tap.push(Buffer.from(named('content_block_delta', { delta: { type: 'text_delta', text: '' } })));
    tap.push(
      Buffer.from(named('content_block_delta', { delta: { type: 'input_json_delta', partial_json: '{' } })),
    );
    expect([tap.inputTokens, tap.outputTokens, tap.estimated]).toEqual([9, 2, true]);
  });

  it('fails with an error event, and without message_stop', () => {
    expect(run(messages, named('error', { error: { type: 'x', message: 'Overloaded' } }))).toMatchObject({
      outcome: 'failed',
      failure: 'the stream carried an error (x)',
    });
    expect(run(messages, named('message_delta', { usage: { output_tokens: 1 } }))).toMatchObject({
      outcome: 'failed',
      output: 1,
    });
  });
});

describe('a JSON answer', () => {
  const answer = JSON.stringify({ choices: [{ message: { content: '}]"\\' } }], usage });

  it('is the same wherever it is torn, and passes at once', () => {
    for (const original of [answer, ` ${answer}\r\n`, '[1,"\\"",{"a":[]}]', `\ufeff${answer}`]) {
      const whole = run(json, original);
      expect(whole).toMatchObject({ bytes: original, outcome: 'complete', failure: null, sawToken: false });
      for (const pieces of everyCut(Buffer.from(original))) expect(run(json, ...pieces)).toEqual(whole);
    }
    const chunk = Buffer.from(answer.slice(0, 9));
    expect(createTap(json).push(chunk)[0]).toBe(chunk);
  });

  it('fails wherever it stops early', () => {
    for (let at = 0; at < answer.length; at++) {
      expect(run(json, answer.slice(0, at))).toMatchObject({
        outcome: 'failed',
        failure: 'the JSON is not complete',
        output: null,
      });
    }
  });

  it.each(['{} {}', '{}x', '{}}', 'oops', '<html>', '"words"', '12', 'nul', 'dat', 'event'])(
    'fails when it is %j',
    (words) => {
      expect(run(json, words)).toMatchObject({
        bytes: words,
        outcome: 'failed',
        failure: 'the answer is not one JSON value',
      });
    },
  );

  it('ends with its last byte when the length is known, else with its end', () => {
    const body = Buffer.from(answer);
    const known = createTap({ ...json, contentLength: body.length });
    known.push(body.subarray(0, 5));
    expect(known.ended).toBe(false);
    expect(text(known.push(body.subarray(5)))).toBe(answer.slice(5));
    expect([known.outcome, known.outputTokens]).toEqual(['complete', 11]);
    const unknown = createTap(json);
    unknown.push(body);
    expect([unknown.ended, unknown.outputTokens]).toEqual([false, null]);
    unknown.end();
    expect(unknown.outcome).toBe('complete');
  });

  it('tells its usage under either name, and nothing where there is none', () => {
    expect(run(json, answer)).toMatchObject({ input: 7, output: 11, estimated: false });
    expect(run(json, '{"usage":{"input_tokens":1,"output_tokens":2}}')).toMatchObject({
      input: 1,
      output: 2,
    });
    expect(run(json, '{"usage":{"prompt_tokens":4,"total_tokens":4}}')).toMatchObject({
      input: 4,
      output: null,
    });
    for (const other of [
      '{"usage":null}',
      '{"a":{"usage":{"completion_tokens":3}}}',
      '{"usage":',
      '[]',
      '{}',
    ]) {
      expect(run(json, other)).toMatchObject({ input: null, output: null, estimated: false });
    }
  });

  it('tells its usage from the last 16 KiB when it is larger than 1 MiB', () => {
    const content = '"usage":{"prompt_tokens":1} '.repeat(50_000);
    const large = Buffer.from(
      JSON.stringify({ content, usage, after: { usage: 'x', words: content.slice(0, 900) } }),
    );
    const chunks = Array.from({ length: Math.ceil(large.length / 9000) }, (_, i) =>
      large.subarray(i * 9000, (i + 1) * 9000),
    );
    expect(run(json, ...chunks)).toMatchObject({ outcome: 'complete', input: 7, output: 11 });
    expect(run(json, large)).toMatchObject({ outcome: 'complete', input: 7, output: 11 });
  });
});

describe('what an answer is', () => {
  const modeAfter = (options: TapOptions, ...chunks: string[]) => {
    const tap = createTap(options);
    for (const chunk of chunks) tap.push(Buffer.from(chunk));
    return tap.mode;
  };

  it('shows in its first bytes, whatever its type says', () => {
    for (const bytes of ['{', '[', ' \n{']) expect(modeAfter(chat, bytes)).toBe('json');
    for (const bytes of ['data:', ':', 'event: x', 'id:1', 'retry: 1', '\n\ndata:', '\ufeffdata: x']) {
      expect(modeAfter(json, bytes)).toBe('sse');
      expect(modeAfter(json, ...bytes)).toBe('sse');
    }
  });

  it('is by its type, else by the request, when the bytes do not tell', () => {
    const garbage = 'oops';
    expect(modeAfter({ ...chat, contentType: 'application/json' }, garbage)).toBe('json');
    expect(modeAfter({ ...json, contentType: 'text/event-stream' }, garbage)).toBe('sse');
    expect(modeAfter({ ...chat, contentType: 'text/html' }, garbage)).toBe('sse');
    expect(modeAfter({ ...json, contentType: '' }, garbage)).toBe('json');
  });

  it('is a stream also where none was asked for, and JSON where a stream was', () => {
    expect(run(json, hello + usageEvent + done)).toMatchObject({ outcome: 'complete', output: 11 });
    expect(run(chat, JSON.stringify({ choices: [], usage }))).toMatchObject({
      outcome: 'complete',
      output: 11,
    });
    expect(run({ ...json, kind: 'embeddings' }, done)).toMatchObject({ outcome: 'complete' });
  });

  it('stays unknown under a content coding: bytes pass, an orderly end is complete', () => {
    const gzip = { ...chat, contentEncoding: 'gzip' };
    expect(modeAfter(gzip, '{')).toBe('opaque');
    expect(run(gzip, '\x1f\x8b half')).toMatchObject({
      bytes: '\x1f\x8b half',
      outcome: 'complete',
      output: null,
      estimated: false,
    });
    const known = createTap({ ...gzip, contentLength: 2 });
    known.push(Buffer.from('ab'));
    expect(known.ended).toBe(true);
    for (const contentEncoding of ['identity', 'none', '', ' Identity ']) {
      expect(modeAfter({ ...chat, contentEncoding }, '{')).toBe('json');
    }
  });
});
