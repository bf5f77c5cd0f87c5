import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createTap, type TapKind, type TapOptions } from '../src/http/tap.js';

const kinds: TapKind[] = ['chat_completions', 'completions', 'responses', 'messages', 'embeddings'];

const words = fc.oneof(
  fc.string(),
  fc.string({ unit: 'grapheme' }),
  fc.constantFrom('', '"usage":{"completion_tokens":1}', 'data: [DONE]\n\n', '"error":{}', '\\"', 'delta'),
);
const tokens = fc.oneof(
  fc.constant(null),
  fc.record({ prompt_tokens: fc.nat(99), completion_tokens: fc.nat(99) }),
  fc.record({ input_tokens: fc.nat(99), output_tokens: fc.nat(99) }),
);
const choices = fc.array(
  fc.record(
    {
      text: words,
      delta: fc.record({ role: fc.constant('assistant'), content: words }, { requiredKeys: [] }),
      finish_reason: fc.constantFrom(null, 'stop'),
    },
    { requiredKeys: [] },
  ),
  { maxLength: 2 },
);
const types = fc.constantFrom(
  'response.output_text.delta',
  'response.completed',
  'response.failed',
  'message_start',
  'content_block_delta',
  'message_stop',
  'error',
);
const payload = fc.oneof(
  { weight: 5, arbitrary: fc.record({ choices, usage: tokens }, { requiredKeys: ['choices'] }) },
  {
    weight: 1,
    arbitrary: fc.record({ error: fc.oneof(words, fc.record({ message: words }), fc.constant(null)) }),
  },
  {
    weight: 3,
    arbitrary: fc.record(
      { type: types, delta: words, response: fc.record({ usage: tokens }), usage: tokens },
      { requiredKeys: ['type'] },
    ),
  },
);
const line = fc.oneof(
  { weight: 6, arbitrary: payload.map((json) => `data: ${JSON.stringify(json)}`) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('data: [DONE]', 'data:[DONE]', ': [DONE]', ':', 'id: 1', 'data', 'data: {'),
  },
  { weight: 1, arbitrary: types.map((type) => `event: ${type}`) },
);
const newline = fc.constantFrom('\n', '\r\n', '\r');
const event = fc
  .tuple(fc.array(line, { minLength: 1, maxLength: 2 }), newline, newline)
  .map(([lines, between, blank]) => `${lines.join(between)}${between}${blank}`);
const sse = fc
  .tuple(fc.array(event, { maxLength: 8 }), fc.constantFrom('', 'data: [DONE]\n\n', 'data: {"cho'))
  .map(([events, rest]) => Buffer.from(events.join('') + rest));
const answer = fc.oneof(
  { weight: 4, arbitrary: sse },
  { weight: 1, arbitrary: fc.jsonValue().map((json) => Buffer.from(JSON.stringify({ json, usage: json }))) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) },
);
const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 300 })), {
  minLength: 1,
});
const options = fc.record({
  kind: fc.constantFrom(...kinds),
  stream: fc.boolean(),
  hideUsage: fc.boolean(),
  contentType: fc.constantFrom('text/event-stream', 'application/json', ''),
  contentEncoding: fc.constant(undefined),
});

function cut(bytes: Buffer, lengths: number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = lengths[i % lengths.length] as number;
    chunks.push(bytes.subarray(at, at + length));
    at += length;
  }
  return chunks;
}

function run(settings: TapOptions, chunks: Buffer[]) {
  const tap = createTap(settings);
  const out: Buffer[] = [];
  let settled: string | undefined;
  for (const chunk of chunks) {
    out.push(...tap.push(chunk));
    if (settled !== undefined) expect(tap.outcome).toBe(settled);
    if (tap.ended) settled = tap.outcome;
  }
  out.push(...tap.end());
  if (settled !== undefined) expect(tap.outcome).toBe(settled);
  const { outcome, failure, mode, inputTokens, outputTokens, estimated, deltas } = tap;
  const verdict = { outcome, failure, mode, inputTokens, outputTokens, estimated, deltas };
  return { bytes: Buffer.concat(out).toString('latin1'), verdict };
}

/** The plain reading of a chat stream whose lines end with LF: split, parse everything, keep the rest. */
function plainly(text: string): { bytes: string; output: number; counted: boolean } {
  let bytes = '';
  let deltas = 0;
  let reported: number | undefined;
  for (const part of text.split(/(?<=\n\n)/)) {
    const json = JSON.parse(part.slice('data: '.length));
    if (json.choices.some((choice: { delta?: { content?: string } }) => choice.delta?.content)) deltas++;
    reported = json.usage?.completion_tokens ?? json.usage?.output_tokens ?? reported;
    if (!(json.usage && json.choices.length === 0)) bytes += part;
  }
  return { bytes, output: reported ?? deltas, counted: reported === undefined };
}

describe('a tap', () => {
  it('lets the same bytes pass and comes to the same verdict however the answer is cut', () => {
    fc.assert(
      fc.property(answer, sizes, options, fc.boolean(), (bytes, lengths, others, known) => {
        const settings = { ...others, contentLength: known ? bytes.length : null };
        expect(run(settings, cut(bytes, lengths))).toEqual(run(settings, [bytes]));
      }),
      { numRuns: 3000 },
    );
  });

  it('changes no byte unless it hides usage', () => {
    fc.assert(
      fc.property(answer, sizes, options, (bytes, lengths, others) => {
        const settings = { ...others, contentLength: null, hideUsage: false };
        expect(run(settings, cut(bytes, lengths)).bytes).toBe(bytes.toString('latin1'));
      }),
      { numRuns: 1000 },
    );
  });

  it('sends on only whole events before the end', () => {
    fc.assert(
      fc.property(fc.array(payload, { minLength: 1 }), sizes, (payloads, lengths) => {
        const stream = Buffer.from(payloads.map((json) => `data: ${JSON.stringify(json)}\n\n`).join(''));
        const tap = createTap({
          kind: 'chat_completions',
          stream: true,
          hideUsage: true,
          contentType: '',
          contentEncoding: undefined,
          contentLength: null,
        });
        for (const chunk of cut(stream, lengths)) {
          const out = Buffer.concat(tap.push(chunk)).toString();
          expect(out === '' || out.endsWith('\n\n')).toBe(true);
        }
      }),
    );
  });

  it('reads a chat stream as a plain reader does', () => {
    const chat = fc.record({ choices, usage: tokens }, { requiredKeys: ['choices'] }).map((json) => ({
      ...json,
      choices: json.choices.map(({ text: _, ...choice }) => choice),
    }));
    fc.assert(
      fc.property(fc.array(chat, { minLength: 1 }), sizes, (events, lengths) => {
        const stream = events.map((json) => `data: ${JSON.stringify(json)}\n\n`).join('');
        const settings: TapOptions = {
          kind: 'chat_completions',
          stream: true,
          hideUsage: true,
          contentType: 'text/event-stream',
          contentEncoding: undefined,
          contentLength: null,
        };
        const { bytes, verdict } = run(settings, cut(Buffer.from(stream), lengths));
        const expected = plainly(stream);
        expect(Buffer.from(bytes, 'latin1').toString()).toBe(expected.bytes);
        expect([verdict.outputTokens, verdict.estimated]).toEqual([expected.output, expected.counted]);
        const finished = events.some((json) => json.choices.some((choice) => choice.finish_reason));
        expect(verdict.outcome).toBe(finished ? 'complete' : 'failed');
      }),
      { numRuns: 1000 },
    );
  });
});
