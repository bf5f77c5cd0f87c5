const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const MARK = Buffer.from(';base64,');
/** More than any client sends; each takes some 200 ns. */
const MAX_MARKS = 4096;
const MAX_MEDIA_TYPE = 128;
const LONG_BYTES = 4096;
const SAMPLES = 256;

/** What base64 may look like within a JSON string, where a slash or a line end can be an escape. */
const isBase64 = new Uint8Array(256);
for (const byte of Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\\')) {
  isBase64[byte] = 1;
}

/**
 * The bytes of a body without what stands for pictures and sound: the data of strings that are data URLs, and strings
 * of more than 4096 bytes that look like base64 all through. A character that is written as `\uXXXX` has two. Takes any
 * bytes.
 */
export function textBytesOf(body: Buffer): number {
  let bytes = Math.max(0, body.length - ESCAPE_SPARES * escapesIn(body));
  let from = 0;
  for (let marks = 0; marks < MAX_MARKS; marks++) {
    const mark = body.indexOf(MARK, from);
    bytes -= base64Within(body, from, mark === -1 ? body.length : mark);
    if (mark === -1) break;
    const data = mark + MARK.length;
    const end = quoteFrom(body, data);
    if (isDataUrl(body, mark)) bytes -= end - data;
    // Also past the rest of a text that only mentions a mark, or many marks in one string would take quadratic time.
    from = end;
  }
  return bytes;
}

const BACKSLASH_U = Buffer.from('\\u');
const ESCAPE_SPARES = 4;

function escapesIn(body: Buffer): number {
  let count = 0;
  for (let at = body.indexOf(BACKSLASH_U); at !== -1; at = body.indexOf(BACKSLASH_U, at + 2)) {
    let before = at;
    while (body[before - 1] === BACKSLASH) before -= 1;
    // The second of two is a backslash in the text.
    if ((at - before) % 2 === 0) count += 1;
  }
  return count;
}

/** Whether the string around `mark` begins as a data URL does. */
function isDataUrl(body: Buffer, mark: number): boolean {
  const least = Math.max(1, mark - MAX_MEDIA_TYPE);
  let i = mark - 1;
  while (i >= least && body[i] !== QUOTE) i--;
  // An escaped quote is within a text that quotes one.
  return i >= least && body[i - 1] !== BACKSLASH && body.toString('latin1', i + 1, i + 6) === 'data:';
}

/** How many bytes are long strings of base64. Looks only where no such string can step over. */
function base64Within(body: Buffer, from: number, to: number): number {
  let bytes = 0;
  for (let at = from + LONG_BYTES; at < to; at += LONG_BYTES) {
    const left = body.lastIndexOf(QUOTE, at) + 1;
    const right = quoteFrom(body, at);
    if (right >= to) break;
    if (right - left > LONG_BYTES && looksBase64(body, left, right)) bytes += right - left;
    at = right;
  }
  return bytes;
}

/** Judges what stands between two quotes by samples; between two strings it is something else at the edges. */
function looksBase64(body: Buffer, from: number, to: number): boolean {
  if (body[from - 2] === BACKSLASH || body[to - 1] === BACKSLASH) return false;
  const step = (to - 1 - from) / SAMPLES;
  for (let k = 0; k <= SAMPLES; k++) {
    // The start as it is, since even steps could miss every space of a text that repeats itself.
    if (isBase64[body[from + k] as number] !== 1) return false;
    if (isBase64[body[Math.floor(from + k * step)] as number] !== 1) return false;
  }
  return true;
}

function quoteFrom(body: Buffer, from: number): number {
  const quote = body.indexOf(QUOTE, from);
  return quote === -1 ? body.length : quote;
}
