import { eachElement, eachMember, isText, skipSpace } from './json-scan.js';
import { absorb, keyAt, MAX_PREFIXES, PREFIX } from './prefix-hash.js';

/** The beginning of a conversation, `bytes` long from where its messages or its text start. */
export interface Prefix {
  /** 16 hex digits, good only within this process. */
  key: string;
  bytes: number;
}

/** More messages than any conversation has: 32 MiB of empty ones would take seconds. */
const MAX_MESSAGES = 16_384;
const BLOCK_BYTES = 2048;

const QUOTE = 0x22;
const BRACE = 0x7b;

/**
 * The beginnings that a later request of the same conversation repeats byte for byte, shortest first, at most 64: up
 * to the end of each of the last messages, or of the first blocks of a text and of all of it. System and developer
 * messages at the start count, but are no beginning alone. `turns` is what scanBody found in this body.
 */
export function prefixesOf(body: Buffer, [from, to]: [number, number]): Prefix[] {
  if (body[from] === QUOTE) return blocksOf(body, from + 1, to - 1);
  const first = skipSpace(body, from + 1);
  // An array of texts or of tokens is as good as one text.
  return body[first] === BRACE ? messagesOf(body, from) : blocksOf(body, first, to - 1);
}

/** Whether they are prompts of their own and no conversation: several texts, or tokens. */
export function isBatch(body: Buffer, [from]: [number, number]): boolean {
  return body[from] !== QUOTE && body[skipSpace(body, from + 1)] !== BRACE;
}

function messagesOf(body: Buffer, from: number): Prefix[] {
  const ends: number[] = [];
  let count = 0;
  let messages = 0;
  let before = PREFIX;
  let leading = true;
  eachElement(body, from, 2, (start, end) => {
    const slot = count % MAX_PREFIXES;
    absorb(body, start, end, before, slot);
    before = slot;
    leading = leading && isLeading(body, start);
    if (!leading) {
      ends[slot] = end - from;
      count++;
    }
    return ++messages === MAX_MESSAGES;
  });
  const prefixes: Prefix[] = [];
  for (let i = Math.max(0, count - MAX_PREFIXES); i < count; i++) {
    const slot = i % MAX_PREFIXES;
    prefixes.push({ key: keyAt(slot), bytes: ends[slot] as number });
  }
  return prefixes;
}

function isLeading(body: Buffer, from: number): boolean {
  if (body[from] !== BRACE) return false;
  let leading = false;
  eachMember(body, from, 3, (keyFrom, keyTo, valueFrom, valueTo) => {
    if (!isText(body, keyFrom, keyTo, 'role')) return false;
    leading = isText(body, valueFrom, valueTo, 'system') || isText(body, valueFrom, valueTo, 'developer');
    return true;
  });
  return leading;
}

function blocksOf(body: Buffer, from: number, to: number): Prefix[] {
  const prefixes: Prefix[] = [];
  let before = PREFIX;
  let at = from;
  while (at < to) {
    // The first blocks, not the last ones: they are where a longer text of the same beginning has its own.
    const end = prefixes.length < MAX_PREFIXES - 1 ? Math.min(at + BLOCK_BYTES, to) : to;
    absorb(body, at, end, before, 0);
    before = 0;
    at = end;
    prefixes.push({ key: keyAt(0), bytes: at - from });
  }
  return prefixes;
}
