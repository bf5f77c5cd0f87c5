import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BodyError, rewriteBody, scanBody } from '../src/http/body.js';

type Json = Record<string, unknown>;

const model = fc.oneof(fc.string(), fc.string({ unit: 'binary' }));
const options = fc.oneof(
  fc.constant(undefined),
  fc.constant(null),
  fc.dictionary(fc.oneof(fc.constant('include_usage'), fc.string()), fc.jsonValue(), { maxKeys: 3 }),
  fc.jsonValue(),
);

const limit = fc.oneof(fc.integer(), fc.nat(9), fc.double(), fc.jsonValue());
const name = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.constant('x'.repeat(600)),
  fc.jsonValue(),
);
const turn = fc.oneof(fc.string(), fc.array(fc.jsonValue(), { maxLength: 3 }), fc.jsonValue());
const hints = fc.record(
  {
    max_tokens: limit,
    max_completion_tokens: limit,
    max_output_tokens: limit,
    messages: turn,
    input: turn,
    prompt: turn,
    prompt_cache_key: name,
    user: name,
  },
  { requiredKeys: [] },
);

/** A request in any order of keys, and its text with white space in any places JSON allows. */
const request = fc
  .tuple(
    fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 5 }),
    model,
    fc.option(fc.jsonValue(), { nil: undefined }),
    options,
    fc.constantFrom(undefined, 1, '\t', ' \r\n'),
    fc.boolean(),
  )
  .map(([others, name, stream, stream_options, indent, last]) => {
    const own = { model: name, stream, stream_options };
    const text = JSON.stringify(last ? { ...others, ...own } : { ...own, ...others, ...own }, null, indent);
    return Buffer.from(text);
  });

const parsed = (bytes: Buffer): Json => JSON.parse(bytes.toString());

function withUsage(json: Json): Json {
  const before = json.stream_options;
  if (before === undefined || before === null) return { ...json, stream_options: { include_usage: true } };
  if (typeof before !== 'object' || Array.isArray(before) || Object.hasOwn(before, 'include_usage'))
    return json;
  return { ...json, stream_options: { ...before, include_usage: true } };
}

describe('a request body', () => {
  it('is read as JSON.parse reads it', () => {
    fc.assert(
      fc.property(request, (body) => {
        const json = parsed(body);
        const scanned = scanBody(body);
        expect(scanned.model).toBe(json.model);
        expect(JSON.parse(body.subarray(...scanned.modelSpan).toString())).toBe(json.model);
        expect(scanned.stream).toBe(json.stream === true);
        expect(scanned.usage === 'asked').toBe(withUsage(json) === json);
      }),
      { numRuns: 1000 },
    );
  });

  it('gives the limit, the turns, the session and the user that JSON.parse gives', () => {
    fc.assert(
      fc.property(request, hints, fc.constantFrom(undefined, 1, '\t'), (body, some, indent) => {
        const json = { ...parsed(body), ...some };
        const text = Buffer.from(JSON.stringify(json, null, indent));
        const scanned = scanBody(text);
        expect(scanned.maxTokens).toBe(leastOf(parsed(text)));
        expect(scanned.session).toBe(nameOf(parsed(text).prompt_cache_key));
        expect(scanned.user).toBe(nameOf(parsed(text).user));
        const turns = turnsOf(parsed(text));
        if (turns === undefined) expect(scanned.turns).toBeNull();
        else expect(JSON.parse(text.subarray(...(scanned.turns ?? [])).toString())).toEqual(turns);
      }),
      { numRuns: 1000 },
    );
  });

  it('is refused wherever JSON.parse refuses its structure, and accepted wherever it accepts it', () => {
    const spot = fc.tuple(
      fc.nat(),
      fc.constantFrom(...'{}[]:,"\\0189.eE+-tfn \n!'),
      fc.constantFrom(0, 1, 2),
    );
    fc.assert(
      fc.property(request, spot, (body, [where, character, length]) => {
        const at = where % (body.length + 1);
        const mutated = Buffer.concat([
          body.subarray(0, at),
          Buffer.from(length === 2 ? '' : character),
          body.subarray(at + Math.min(length, 1)),
        ]);
        let accepted = true;
        try {
          scanBody(mutated);
        } catch (error) {
          if (!(error instanceof BodyError)) throw error;
          accepted = !/not valid JSON|missing$/.test(error.message);
        }
        let json: unknown;
        try {
          // The inside of strings is not checked: make every escape and control character harmless.
          json = JSON.parse(withPlainStrings(mutated.toString('latin1')));
        } catch {
          json = undefined;
        }
        if (json === undefined) expect(accepted).toBe(false);
        else if (canParse(mutated)) expect(accepted).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });

  it('is rewritten to what was wanted, every other byte as it was', () => {
    fc.assert(
      fc.property(request, fc.option(model, { nil: undefined }), fc.boolean(), (body, name, addUsage) => {
        const before = parsed(body);
        const scanned = scanBody(body);
        const result = Buffer.concat(rewriteBody(body, scanned, { model: name, addUsage }));
        const renamed = name === undefined ? before : { ...before, model: name };
        expect(parsed(result)).toEqual(addUsage ? withUsage(renamed) : renamed);

        const changed: [number, number][] = [];
        if (name !== undefined && name !== before.model) changed.push(scanned.modelSpan);
        if (addUsage && scanned.usage !== 'asked') changed.push([scanned.usage.at, scanned.usage.removeTo]);
        let rest = result.toString('latin1');
        let from = 0;
        for (const [start, end] of [...changed.sort((x, y) => x[0] - y[0]), [body.length, body.length]]) {
          const untouched = body.toString('latin1', from, start);
          expect(rest).toContain(untouched);
          rest = rest.slice(rest.indexOf(untouched) + untouched.length);
          from = end as number;
        }
        if (changed.length === 0) expect(result.equals(body)).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });
});

function leastOf(json: Json): number | null {
  const limits = [json.max_tokens, json.max_completion_tokens, json.max_output_tokens];
  const whole = limits.filter((each): each is number => Number.isSafeInteger(each) && Number(each) > 0);
  return whole.length === 0 ? null : Math.min(...whole);
}

function nameOf(value: unknown): string | null {
  if (typeof value !== 'string' || value === '') return null;
  return Buffer.byteLength(JSON.stringify(value)) <= 514 ? value : null;
}

function turnsOf(json: Json): unknown {
  return [json.messages, json.input, json.prompt].find(
    (each) => typeof each === 'string' || Array.isArray(each),
  );
}

function withPlainStrings(text: string): string {
  return text.replace(
    /"(?:[^"\\]|\\.)*"/gs,
    (string) => `"${string.slice(1, -1).replace(/[^ -~]|[\\"]/g, '_')}"`,
  );
}

function canParse(bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString());
    return true;
  } catch {
    return false;
  }
}
