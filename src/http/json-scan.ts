const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const BRACKET = 0x5b;
const BRACE = 0x7b;
/** `}` and `]` stand two places after their partners in ASCII. */
const TO_CLOSING = 2;

const MAX_DEPTH = 1000;
const NEAR = 48;

/** The bytes are not JSON at `at`, or nest deeper than 1000 levels there. */
export class JsonScanError extends Error {
  readonly at: number;
  readonly tooDeep: boolean;
  constructor(at: number, tooDeep = false) {
    super(tooDeep ? `nested too deeply at byte ${at}` : `not valid JSON at byte ${at}`);
    this.name = 'JsonScanError';
    this.at = at;
    this.tooDeep = tooDeep;
  }
}

/**
 * Walks the members of the object that opens at `from` and returns the index after its `}`.
 * Spans include the quotes; what stands inside strings is not checked. A visit that returns true is the last.
 */
export function eachMember(
  bytes: Buffer,
  from: number,
  depth: number,
  visit: (keyFrom: number, keyTo: number, valueFrom: number, valueTo: number) => unknown,
): number {
  let i = skipSpace(bytes, from + 1);
  if (bytes[i] === BRACE + TO_CLOSING) return i + 1;
  for (;;) {
    const keyTo = skipString(bytes, i);
    const valueFrom = skipColon(bytes, keyTo);
    const valueTo = skipValue(bytes, valueFrom, depth);
    if (visit(i, keyTo, valueFrom, valueTo) === true) return valueTo;
    i = skipSpace(bytes, valueTo);
    if (bytes[i] === BRACE + TO_CLOSING) return i + 1;
    if (bytes[i] !== COMMA) throw new JsonScanError(i);
    i = skipSpace(bytes, i + 1);
  }
}

/** Walks the elements of the array that opens at `from`, as eachMember does. */
export function eachElement(
  bytes: Buffer,
  from: number,
  depth: number,
  visit: (from: number, to: number) => unknown,
): number {
  let i = skipSpace(bytes, from + 1);
  if (bytes[i] === BRACKET + TO_CLOSING) return i + 1;
  for (;;) {
    const to = skipValue(bytes, i, depth);
    if (visit(i, to) === true) return to;
    i = skipSpace(bytes, to);
    if (bytes[i] === BRACKET + TO_CLOSING) return i + 1;
    if (bytes[i] !== COMMA) throw new JsonScanError(i);
    i = skipSpace(bytes, i + 1);
  }
}

// One for all: a scan never yields.
const opened = new Uint8Array(MAX_DEPTH);

/** The index after the value that starts at `from`, which stands inside `outer` objects or arrays. */
export function skipValue(bytes: Buffer, from: number, outer: number): number {
  let i = from;
  let depth = 0;
  for (;;) {
    const c = bytes[i];
    if (c === QUOTE) i = skipString(bytes, i);
    else if (c === BRACE || c === BRACKET) {
      if (outer + depth >= MAX_DEPTH) throw new JsonScanError(i, true);
      opened[depth++] = c;
      i = skipSpace(bytes, i + 1);
      if (bytes[i] !== c + TO_CLOSING) {
        if (c === BRACE) i = skipColon(bytes, skipString(bytes, i));
        continue;
      }
      depth--;
      i++;
    } else if (c === 0x74) i = skipWord(bytes, i, 'true');
    else if (c === 0x66) i = skipWord(bytes, i, 'false');
    else if (c === 0x6e) i = skipWord(bytes, i, 'null');
    else i = skipNumber(bytes, i);

    for (;;) {
      if (depth === 0) return i;
      i = skipSpace(bytes, i);
      const inside = opened[depth - 1] as number;
      if (bytes[i] === COMMA) {
        i = skipSpace(bytes, i + 1);
        if (inside === BRACE) i = skipColon(bytes, skipString(bytes, i));
        break;
      }
      if (bytes[i] !== inside + TO_CLOSING) throw new JsonScanError(i);
      depth--;
      i++;
    }
  }
}

/** Whether a JSON text nests deeper than `most` levels; false for what is no JSON. */
export function isDeeper(bytes: Buffer, most: number): boolean {
  try {
    skipValue(bytes, skipSpace(bytes, 0), MAX_DEPTH - most);
    return false;
  } catch (error) {
    if (!(error instanceof JsonScanError)) throw error;
    return error.tooDeep;
  }
}

/** The index of the first byte that is not JSON white space. */
export function skipSpace(bytes: Buffer, from: number): number {
  let i = from;
  while (isSpace(bytes[i])) i++;
  return i;
}

/**
 * The value of a key of a JSON text that is one whole object, in `value`, undefined there if it has no such key.
 * Null for any other text. `key` is plain ASCII.
 */
export function topMember(bytes: Buffer, key: string): { value: unknown } | null {
  let value: unknown;
  try {
    const open = skipSpace(bytes, 0);
    if (bytes[open] !== BRACE) return null;
    const close = eachMember(bytes, open, 1, (keyFrom, keyTo, from, to) => {
      if (isText(bytes, keyFrom, keyTo, key)) value = JSON.parse(bytes.toString('utf8', from, to));
    });
    return skipSpace(bytes, close) < bytes.length ? null : { value };
  } catch {
    return null;
  }
}

/** Whether the string at a span is written as `text`, which is plain ASCII. */
export function isText(bytes: Buffer, from: number, to: number, text: string): boolean {
  if (to - from !== text.length + 2) return false;
  for (let i = 0; i < text.length; i++) if (bytes[from + 1 + i] !== text.charCodeAt(i)) return false;
  return true;
}

/** The last object that stands under a key in the end of a JSON text, at whatever level. */
export function lastMember(bytes: Buffer, key: string): unknown {
  const wanted = JSON.stringify(key);
  let at = bytes.lastIndexOf(wanted);
  while (at !== -1) {
    try {
      const from = skipColon(bytes, at + wanted.length);
      if (bytes[from] === BRACE) return JSON.parse(bytes.toString('utf8', from, skipValue(bytes, from, 0)));
    } catch {
      // These words stood in a string; an earlier place may be the key.
    }
    at = at === 0 ? -1 : bytes.lastIndexOf(wanted, at - 1);
  }
  return undefined;
}

/** How far one JSON object or array has come that arrives in chunks; brackets are counted, not matched. */
export class JsonProgress {
  #depth = 0;
  #state: 'before' | 'inside' | 'string' | 'escape' | 'after' | 'wrong' = 'before';

  get complete(): boolean {
    return this.#state === 'after';
  }

  /** Something else came before or after the value. */
  get wrong(): boolean {
    return this.#state === 'wrong';
  }

  push(bytes: Buffer): void {
    const end = bytes.length;
    let i = 0;
    while (i < end) {
      switch (this.#state) {
        case 'inside':
          i = this.#inside(bytes, i);
          break;
        case 'string':
          i = this.#string(bytes, i);
          break;
        case 'escape':
          this.#state = 'string';
          i++;
          break;
        case 'wrong':
          return;
        default:
          if (isSpace(bytes[i])) i++;
          else if (this.#state === 'before' && (bytes[i] === BRACE || bytes[i] === BRACKET))
            this.#state = 'inside';
          else this.#state = 'wrong';
      }
    }
  }

  #inside(bytes: Buffer, from: number): number {
    const end = bytes.length;
    for (let i = from; i < end; i++) {
      const c = bytes[i] as number;
      if (c === QUOTE) {
        this.#state = 'string';
        return i + 1;
      }
      if (c < BRACKET) continue;
      if (c === BRACE || c === BRACKET) this.#depth++;
      else if ((c === BRACE + TO_CLOSING || c === BRACKET + TO_CLOSING) && --this.#depth === 0) {
        this.#state = 'after';
        return i + 1;
      }
    }
    return end;
  }

  #string(bytes: Buffer, from: number): number {
    const quote = closingQuote(bytes, from);
    if (quote !== -1) {
      this.#state = 'inside';
      return quote + 1;
    }
    if (backslashesBefore(bytes, bytes.length, from) % 2 === 1) this.#state = 'escape';
    return bytes.length;
  }
}

function isSpace(c: number | undefined): boolean {
  return c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;
}

function skipString(bytes: Buffer, from: number): number {
  if (bytes[from] !== QUOTE) throw new JsonScanError(from);
  const quote = closingQuote(bytes, from + 1);
  if (quote === -1) throw new JsonScanError(bytes.length);
  return quote + 1;
}

function skipColon(bytes: Buffer, from: number): number {
  const i = skipSpace(bytes, from);
  if (bytes[i] !== COLON) throw new JsonScanError(i);
  return skipSpace(bytes, i + 1);
}

function skipWord(bytes: Buffer, from: number, word: string): number {
  for (let k = 1; k < word.length; k++) {
    if (bytes[from + k] !== word.charCodeAt(k)) throw new JsonScanError(from + k);
  }
  return from + word.length;
}

function skipNumber(bytes: Buffer, from: number): number {
  let i = bytes[from] === 0x2d ? from + 1 : from;
  i = bytes[i] === 0x30 ? i + 1 : skipDigits(bytes, i);
  if (bytes[i] === 0x2e) i = skipDigits(bytes, i + 1);
  if (bytes[i] === 0x65 || bytes[i] === 0x45) {
    i++;
    if (bytes[i] === 0x2b || bytes[i] === 0x2d) i++;
    i = skipDigits(bytes, i);
  }
  return i;
}

function skipDigits(bytes: Buffer, from: number): number {
  let i = from;
  while (i < bytes.length && (bytes[i] as number) >= 0x30 && (bytes[i] as number) <= 0x39) i++;
  if (i === from) throw new JsonScanError(from);
  return i;
}

/** The index of the first quote at or after `from` that no backslash escapes, or -1. */
function closingQuote(bytes: Buffer, from: number): number {
  // Most strings are shorter than what the call of a native search costs.
  const near = Math.min(bytes.length, from + NEAR);
  let i = from;
  while (i < near) {
    const c = bytes[i];
    if (c === QUOTE) return i;
    i += c === BACKSLASH ? 2 : 1;
  }
  for (;;) {
    const quote = bytes.indexOf(QUOTE, i);
    if (quote === -1 || backslashesBefore(bytes, quote, i) % 2 === 0) return quote;
    i = quote + 1;
  }
}

function backslashesBefore(bytes: Buffer, at: number, from: number): number {
  let i = at;
  while (i > from && bytes[i - 1] === BACKSLASH) i--;
  return at - i;
}
