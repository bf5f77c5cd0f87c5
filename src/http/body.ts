import { isUtf8 } from 'node:buffer';
import { eachMember, isText, JsonScanError, skipSpace, skipValue } from './json-scan.js';

/** What the proxy needs to know of a request body; positions are bytes. */
export interface RequestBody {
  model: string;
  /** The model's JSON string, quotes included. */
  modelSpan: Span;
  /** True only for a literal `true`. */
  stream: boolean;
  /** `asked`: the client set `include_usage` itself. Otherwise the splice that adds `include_usage: true`. */
  usage: 'asked' | UsageSplice;
  /** The most tokens the answer may have: the least of the three limits the APIs know, if any is a whole number. */
  maxTokens: number | null;
  /** Where the conversation stands: the array or string of `messages`, else of `input`, else of `prompt`. */
  turns: Span | null;
  /** What the client calls the conversation, and its user: `prompt_cache_key` and `user`, of at most 512 bytes. */
  session: string | null;
  user: string | null;
  /** The stored response that this one goes on from: `previous_response_id`, of at most 512 bytes. */
  previous: string | null;
  /** Its answer may be gone on from; false only for a literal `false` in `store`. */
  stores: boolean;
}

interface UsageSplice {
  at: number;
  removeTo: number;
  insert: string;
}

/** What stands in the place of a body that is not needed any more. */
export const NOTHING: Buffer = Buffer.alloc(0);

/** A body that cannot be served, in words for the client; `param` names the parameter at fault. */
export class BodyError extends Error {
  readonly param: string | null;
  constructor(message: string, param: string | null = null, cause?: unknown) {
    super(message, { cause });
    this.name = 'BodyError';
    this.param = param;
  }
}

/**
 * Reads model, stream and stream_options in one pass, without parsing the rest.
 * Structure is checked everywhere, the inside of strings only in top-level keys and the model.
 * @throws BodyError
 */
export function scanBody(body: Buffer): RequestBody {
  if (body.length === 0) throw new BodyError('the body is missing');
  if (body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf) {
    throw new BodyError('the body is not valid JSON: it starts with a byte order mark');
  }
  try {
    return readObject(body);
  } catch (error) {
    if (!(error instanceof JsonScanError)) throw error;
    const what = error.tooDeep ? 'the body is nested too deeply' : 'the body is not valid JSON';
    throw new BodyError(`${what} (at byte ${error.at})`, null, error);
  }
}

/** The body with another model name or a wish for usage, as slices of the old one and small new buffers. */
export function rewriteBody(
  body: Buffer,
  scanned: RequestBody,
  change: { model?: string; addUsage?: boolean },
): Buffer[] {
  const edits: UsageSplice[] = [];
  if (change.model !== undefined && change.model !== scanned.model) {
    const [at, removeTo] = scanned.modelSpan;
    edits.push({ at, removeTo, insert: JSON.stringify(change.model) });
  }
  if (change.addUsage && scanned.usage !== 'asked') edits.push(scanned.usage);
  if (edits.length === 0) return [body];
  return splice(
    body,
    edits.sort((a, b) => a.at - b.at),
  );
}

type Span = [from: number, to: number];

const LIMITS = ['max_tokens', 'max_completion_tokens', 'max_output_tokens'] as const;
const TURNS = ['messages', 'input', 'prompt'] as const;
const CALLED = ['prompt_cache_key', 'user', 'previous_response_id'] as const;
const NAMES = ['model', 'stream', 'store', 'stream_options', ...LIMITS, ...TURNS, ...CALLED] as const;
const OPTIONS = ['include_usage'];
/** JSON would silently take the last one; the upstream might take the first. */
const ONCE: ReadonlySet<Name> = new Set(['model', 'stream', 'stream_options']);
/** In bytes. A longer limit or name is ignored. */
const MAX_NUMBER = 32;
const MAX_NAME = 512;

type Name = (typeof NAMES)[number];
type Members = { [name in Name]?: Span };

function readObject(body: Buffer): RequestBody {
  const members: Members = {};
  const open = skipSpace(body, 0);
  const isObject = body[open] === 0x7b;
  const close = isObject
    ? eachMember(body, open, 1, (keyFrom, keyTo, from, to) => {
        const name = readName(body, keyFrom, keyTo, NAMES);
        if (name === undefined) return;
        if (name in members && ONCE.has(name)) throw new BodyError(`duplicate "${name}"`, name);
        members[name] = [from, to];
      })
    : skipValue(body, open, 0);
  const rest = skipSpace(body, close);
  if (rest < body.length) throw new JsonScanError(rest);
  if (!isObject) throw new BodyError('the body must be a JSON object');
  const { model, stream, stream_options: options } = members;
  if (!model) throw new BodyError('you must provide a model parameter', 'model');
  return {
    model: readModel(body, model),
    modelSpan: model,
    // A value that starts with t is `true`: its structure is checked already.
    stream: stream !== undefined && body[stream[0]] === 0x74,
    usage: options ? usageInside(body, options) : usageAtStart(open + 1),
    maxTokens: leastLimit(body, members),
    turns: findTurns(body, members),
    session: nameIn(body, members.prompt_cache_key),
    user: nameIn(body, members.user),
    previous: nameIn(body, members.previous_response_id),
    // As for `stream`.
    stores: members.store === undefined || body[members.store[0]] !== 0x66,
  };
}

function readModel(body: Buffer, [from, to]: Span): string {
  if (body[from] !== 0x22) throw new BodyError('model must be a string', 'model');
  if (!isUtf8(body.subarray(from, to))) throw new BodyError('model is not valid UTF-8', 'model');
  return readString(body, from, to);
}

function leastLimit(body: Buffer, members: Members): number | null {
  let least: number | null = null;
  for (const name of LIMITS) {
    const span = members[name];
    if (span === undefined || span[1] - span[0] > MAX_NUMBER) continue;
    // NaN for anything but a number: its structure is checked already.
    const limit = Number(body.toString('latin1', ...span));
    if (Number.isSafeInteger(limit) && limit > 0 && (least === null || limit < least)) least = limit;
  }
  return least;
}

function findTurns(body: Buffer, members: Members): Span | null {
  for (const name of TURNS) {
    const span = members[name];
    if (span !== undefined && (body[span[0]] === 0x5b || body[span[0]] === 0x22)) return span;
  }
  return null;
}

/** Null for one that is none, or empty, or too long. */
function nameIn(body: Buffer, span: Span | undefined): string | null {
  if (span === undefined || body[span[0]] !== 0x22 || span[1] - span[0] - 2 > MAX_NAME) return null;
  const name = readLoosely(body, span);
  return name === '' ? null : name;
}

/** The empty string for one with a wrong escape, which is for the upstream to refuse. */
function readLoosely(body: Buffer, [from, to]: Span): string {
  const text = body.toString('utf8', from, to);
  if (!text.includes('\\')) return text.slice(1, -1);
  try {
    return JSON.parse(text);
  } catch {
    return '';
  }
}

/** Which of these names a key is. */
function readName<N extends string>(
  body: Buffer,
  from: number,
  to: number,
  names: readonly N[],
): N | undefined {
  if (hasEscape(body, from, to)) {
    const key = readString(body, from, to);
    return names.find((name) => name === key);
  }
  for (const name of names) if (isText(body, from, to, name)) return name;
  return undefined;
}

function readString(body: Buffer, from: number, to: number): string {
  if (!hasEscape(body, from, to)) return body.toString('utf8', from + 1, to - 1);
  try {
    return JSON.parse(body.toString('utf8', from, to));
  } catch {
    throw new JsonScanError(from);
  }
}

function hasEscape(body: Buffer, from: number, to: number): boolean {
  let found = false;
  for (let i = from; i < to; i++) {
    const c = body[i] as number;
    if (c < 0x20) throw new JsonScanError(i);
    if (c === 0x5c) found = true;
  }
  return found;
}

function usageAtStart(at: number): UsageSplice {
  // The comma is safe: an object without any member was refused for want of a model.
  return { at, removeTo: at, insert: '"stream_options":{"include_usage":true},' };
}

function usageInside(body: Buffer, [from, to]: Span): 'asked' | UsageSplice {
  if (body[from] === 0x6e) return { at: from, removeTo: to, insert: '{"include_usage":true}' };
  // Of a wrong type: for the upstream to refuse.
  if (body[from] !== 0x7b) return 'asked';
  let asked = false;
  let empty = true;
  eachMember(body, from, 2, (keyFrom, keyTo) => {
    empty = false;
    if (readName(body, keyFrom, keyTo, OPTIONS) !== undefined) asked = true;
  });
  if (asked) return 'asked';
  return {
    at: from + 1,
    removeTo: from + 1,
    insert: empty ? '"include_usage":true' : '"include_usage":true,',
  };
}

function splice(body: Buffer, edits: UsageSplice[]): Buffer[] {
  const parts: Buffer[] = [];
  let from = 0;
  for (const { at, removeTo, insert } of edits) {
    if (at > from) parts.push(body.subarray(from, at));
    parts.push(Buffer.from(insert));
    from = removeTo;
  }
  if (from < body.length) parts.push(body.subarray(from));
  return parts;
}
