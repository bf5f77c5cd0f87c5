import { lastMember } from './json-scan.js';
import { readFields, type SseListener } from './sse.js';
import type { TapKind } from './tap.js';

interface Usage {
  input: number | null;
  output: number | null;
}

/** Deltas that carry something. Inside JSON strings quotes are escaped, so these are keys. */
const TEXT_DELTA = /"text"\s*:\s*"(?!")/;
const DELTA: Record<TapKind, RegExp> = {
  chat_completions:
    /"delta"\s*:\s*\{\s*(?:"(?:role|content|reasoning_content|reasoning)"\s*:\s*(?:null|""|"assistant")\s*,\s*)*"(?:(?:content|reasoning_content|reasoning|refusal)"\s*:\s*"(?!")|tool_calls"\s*:\s*\[\s*\{)/,
  completions: TEXT_DELTA,
  embeddings: TEXT_DELTA,
  responses: /"delta"\s*:\s*"(?!")/,
  messages: /"(?:text|thinking|partial_json)"\s*:\s*"(?!")/,
};
const DELTA_KEYS = ['content', 'reasoning_content', 'reasoning', 'refusal', 'tool_calls'];

const DONE = /^data: *\[DONE\] *$/;
const TYPE_FIRST = /^\s*\{\s*"type"\s*:\s*"([\w.]+)"/;
const MOST_ID_CHARS = 512;
const CARRIED_ERROR = 'the stream carried an error';
/** A code or a type is a word, no sentence. */
const ERROR_NAME = /^[a-z0-9][\w.-]{0,60}$/i;

/** Judges a stream event by event. An ordinary delta is recognised by its text, everything else is parsed. */
export class StreamJudge implements SseListener {
  outcome: 'complete' | 'failed' | 'open' = 'open';
  /** Known from the first error event on; the outcome follows at the end. */
  failure: string | null = null;
  /** As the upstream reported them. */
  input: number | null = null;
  output: number | null = null;
  deltas = 0;
  responseId: string | null = null;
  readonly #kind: TapKind;
  readonly #hideUsage: boolean;
  /** Events say what they are in `type`, and one of them is the last. Otherwise they hold `choices`. */
  readonly #typed: boolean;
  #finished = false;

  constructor(kind: TapKind, hideUsage: boolean) {
    this.#kind = kind;
    this.#typed = kind === 'responses' || kind === 'messages';
    this.#hideUsage = hideUsage && (kind === 'chat_completions' || kind === 'completions');
  }

  get ended(): boolean {
    return this.outcome !== 'open';
  }

  endsStream(line: string): boolean {
    return !this.#typed && DONE.test(line);
  }

  event(text: string, oneLine: boolean): boolean {
    if (oneLine && text.startsWith('data:')) return this.#read('', text.slice(5));
    if (oneLine && text.startsWith(':')) return false;
    const { name, data } = readFields(text);
    return this.#read(name, data);
  }

  rest(text: string): boolean {
    const { name, data } = readFields(text);
    return this.#parse(name, data);
  }

  large(head: string, tail: string): void {
    if (this.#kind !== 'responses') return;
    const { name, data } = readFields(head);
    const type = name || typeAtStart(data);
    if (!COMPLETED.has(type) || !tail.trimEnd().endsWith('}')) return;
    this.#take(readUsage(lastMember(Buffer.from(tail, 'latin1'), 'usage')));
    this.#settle();
  }

  end(terminal: boolean): void {
    if (terminal || this.#finished || this.failure !== null) this.#settle();
    else this.#fail('the stream ended without its terminal event');
  }

  #read(name: string, data: string): boolean {
    if (!this.#isOrdinary(name, data)) return this.#parse(name, data);
    this.deltas++;
    return false;
  }

  #isOrdinary(name: string, data: string): boolean {
    if (!DELTA[this.#kind].test(data) || hasValue(data, 'usage')) return false;
    if (this.#typed) return (name || typeAtStart(data)).endsWith('delta');
    return (
      name !== 'error' && !hasValue(data, 'error') && (this.#finished || !hasValue(data, 'finish_reason'))
    );
  }

  #parse(name: string, data: string): boolean {
    const json = parse(data);
    if (json === undefined && name !== 'error') return false;
    if (name === 'error' || isError(field(json, 'error'))) this.failure ??= errorIn(data);
    return this.#typed ? this.#readTyped(json, name, data) : this.#readChoices(json);
  }

  #readChoices(json: unknown): boolean {
    const choices = field(json, 'choices');
    const list: unknown[] = Array.isArray(choices) ? choices : [];
    if (list.some(hasContent)) this.deltas++;
    if (list.some((choice) => Boolean(field(choice, 'finish_reason')))) this.#finished = true;
    const usage = field(json, 'usage') ?? null;
    if (usage === null) return false;
    this.#take(readUsage(usage));
    return this.#hideUsage && Array.isArray(choices) && list.length === 0;
  }

  #readTyped(json: unknown, name: string, data: string): false {
    const own = field(json, 'type');
    const type = typeof own === 'string' ? own : name;
    if (type.endsWith('delta') && DELTA[this.#kind].test(data)) this.deltas++;
    const started = field(field(json, 'message'), 'usage');
    // What a message has put out when it starts is no count of what follows.
    this.#take({ input: readUsage(started).input, output: null });
    const response = field(json, 'response');
    this.#take(readUsage(field(response, 'usage') ?? field(json, 'usage')));
    if (this.#kind === 'responses') this.responseId = readId(field(response, 'id')) ?? this.responseId;
    if (this.#kind === 'messages' ? type === 'message_stop' : COMPLETED.has(type)) this.#settle();
    else if (type === 'error' || (type === 'response.failed' && this.#kind === 'responses')) {
      this.#fail(errorIn(data));
    }
    return false;
  }

  #take({ input, output }: Usage): void {
    this.input = input ?? this.input;
    this.output = output ?? this.output;
  }

  #settle(): void {
    this.outcome = this.failure === null ? 'complete' : 'failed';
  }

  #fail(failure: string): void {
    this.failure ??= failure;
    this.outcome = 'failed';
  }
}

const COMPLETED: ReadonlySet<string> = new Set(['response.completed', 'response.incomplete']);

/** Token counts under either family of names. */
export function readUsage(usage: unknown): Usage {
  return {
    input: count(field(usage, 'prompt_tokens')) ?? count(field(usage, 'input_tokens')),
    output: count(field(usage, 'completion_tokens')) ?? count(field(usage, 'output_tokens')),
  };
}

/** The id of a response; of no use where it is longer than any that is made. */
export function readId(id: unknown): string | null {
  return typeof id === 'string' && id !== '' && id.length <= MOST_ID_CHARS ? id : null;
}

function count(value: unknown): number | null {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : null;
}

function field(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}

function parse(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

/**
 * Whether a key may stand here with a value other than null; a string that reads like it is told apart by parsing.
 * Looks for `key"`: a search that starts with a quote stops too often.
 */
function hasValue(data: string, key: 'usage' | 'error' | 'finish_reason'): boolean {
  const end = KEY_ENDS[key];
  let at = data.indexOf(end);
  while (at !== -1) {
    const after = skipBlanks(data, at + end.length);
    const isKey = data.charCodeAt(at - 1) === 0x22 && data.charCodeAt(after) === 0x3a;
    if (isKey && !data.startsWith('null', skipBlanks(data, after + 1))) return true;
    at = data.indexOf(end, after);
  }
  return false;
}

const KEY_ENDS = { usage: 'usage"', error: 'error"', finish_reason: 'finish_reason"' };

function skipBlanks(text: string, from: number): number {
  let at = from;
  while (text.charCodeAt(at) <= 0x20) at++;
  return at;
}

function typeAtStart(data: string): string {
  return TYPE_FIRST.exec(data)?.[1] ?? '';
}

function hasContent(choice: unknown): boolean {
  if (isFull(field(choice, 'text'))) return true;
  const delta = field(choice, 'delta');
  return DELTA_KEYS.some((key) => isFull(field(delta, key)));
}

function isFull(value: unknown): boolean {
  return (typeof value === 'string' || Array.isArray(value)) && value.length > 0;
}

function isError(value: unknown): boolean {
  return typeof value === 'string' ? value !== '' : typeof value === 'object' && value !== null;
}

function isErrorName(value: unknown): boolean {
  return (typeof value === 'string' || typeof value === 'number') && ERROR_NAME.test(String(value));
}

function errorIn(latin1: string): string {
  const data = Buffer.from(latin1, 'latin1').toString();
  const json = parse(data);
  const error = field(json, 'error') ?? field(field(json, 'response'), 'error') ?? json;
  // Its words may repeat the prompt, which goes into no log and no row; its code and type may not.
  const name = [field(error, 'code'), field(error, 'type')].find(isErrorName);
  return name === undefined ? CARRIED_ERROR : `${CARRIED_ERROR} (${name})`;
}
