const LF = 0x0a;
/** An unfinished event beyond this many bytes goes on at once. */
const HELD_LIMIT = 64 * 1024;
/** An event beyond this is watched by its first and last part only. */
const KEPT_LIMIT = 1024 * 1024;
const KEPT_HEAD = 4 * 1024;
const KEPT_TAIL = 16 * 1024;
/** A line that is worth telling before its event ends is no longer than this. */
const SHORT_LINE = 32;

/** Told what a stream carries; texts are latin1, so that one character is one byte. */
export interface SseListener {
  /** True once nothing more needs to be watched or held. */
  readonly ended: boolean;
  /** Whether this line, complete though its event may not be, is the last of the stream. */
  endsStream(line: string): boolean;
  /** A whole event, without its blank line. True keeps it from the client. */
  event(text: string, oneLine: boolean): boolean;
  /** What was left when the stream ended. True keeps it from the client. */
  rest(text: string): boolean;
  /** The first and the last part of an event that was too large to keep. */
  large(head: string, tail: string): void;
  /** Nothing more comes, after the last line or without one. */
  end(terminal: boolean): void;
}

/**
 * Cuts a stream into events and lets bytes go on up to the last blank line, so that an event can be appended.
 * Lines end with LF, CRLF or CR, also torn between two chunks.
 */
export class SseCutter {
  readonly #listener: SseListener;
  // The event that an earlier chunk began: its bytes, its text, the text of its torn last line.
  #held: Buffer[] = [];
  #texts: string[] = [];
  #size = 0;
  #line = '';
  #lines = 0;
  #released = false;
  #large = false;
  /** The last byte was a CR: an LF now belongs to it, and shares the fate of its event. */
  #afterCr = false;
  #hidden = false;

  constructor(listener: SseListener) {
    this.#listener = listener;
  }

  push(chunk: Buffer): Buffer[] {
    if (this.#listener.ended || chunk.length === 0) return [chunk];
    const text = chunk.toString('latin1');
    const out: Buffer[] = [];
    let unsent = 0;
    let eventFrom = 0;
    let at = 0;
    if (this.#afterCr && text.charCodeAt(0) === LF) {
      at = 1;
      if (this.#size === 0) eventFrom = 1;
      if (this.#hidden) unsent = 1;
    }
    this.#afterCr = false;
    this.#hidden = false;
    // Each is looked for again only once passed, so that a chunk is searched once whatever its line ends.
    let lf = find(text, '\n', at);
    let cr = find(text, '\r', at);

    for (;;) {
      if (lf < at) lf = find(text, '\n', at);
      if (cr < at) cr = find(text, '\r', at);
      const end = Math.min(lf, cr);
      if (end === Number.POSITIVE_INFINITY) break;
      let next = end + 1;
      if (end === cr) {
        if (next === text.length) this.#afterCr = true;
        else if (lf === next) next++;
      }
      if (end > at || this.#line !== '') {
        if (this.#endsStream(text, at, end)) {
          this.#finish(text.slice(eventFrom, at));
          this.#release(out);
          out.push(unsent === 0 ? chunk : chunk.subarray(unsent));
          return out;
        }
        this.#lines++;
        this.#line = '';
      } else {
        const hide = this.#judge(text.slice(eventFrom, at)) && !this.#released;
        if (hide) {
          if (eventFrom > unsent) out.push(chunk.subarray(unsent, eventFrom));
          unsent = next;
        } else this.#release(out);
        this.#forget();
        this.#hidden = hide && this.#afterCr;
        eventFrom = this.#listener.ended ? text.length : next;
        if (this.#listener.ended) break;
      }
      at = next;
    }

    if (eventFrom > unsent) {
      out.push(unsent === 0 && eventFrom === chunk.length ? chunk : chunk.subarray(unsent, eventFrom));
    }
    if (eventFrom < chunk.length) this.#keep(chunk, text, eventFrom, at, out);
    return out;
  }

  end(): Buffer[] {
    const out: Buffer[] = [];
    if (this.#line !== '' && this.#listener.endsStream(this.#line)) {
      this.#finish('');
      this.#release(out);
      return out;
    }
    const hide = this.#judgeRest();
    if (!this.#listener.ended) this.#listener.end(false);
    if (!hide) this.#release(out);
    return out;
  }

  #endsStream(text: string, from: number, to: number): boolean {
    if (to - from + this.#line.length > SHORT_LINE) return false;
    return this.#listener.endsStream(this.#line + text.slice(from, to));
  }

  /** The last line has come; its event may hold more before that line. */
  #finish(text: string): void {
    let before = this.#texts.join('') + text;
    if (this.#line !== '') before = before.slice(0, -this.#line.length);
    if (before !== '' && !this.#large) this.#listener.rest(before);
    this.#listener.end(true);
  }

  #judgeRest(): boolean {
    if (this.#size === 0) return false;
    if (this.#large) return this.#judge('');
    return this.#listener.rest(this.#texts.join('')) && !this.#released;
  }

  #judge(text: string): boolean {
    if (this.#size === 0) return text !== '' && this.#listener.event(text, this.#lines === 1);
    if (!this.#large) return this.#listener.event(this.#texts.join('') + text, this.#lines === 1);
    this.#listener.large(this.#texts[0] ?? '', (this.#texts[1] ?? '') + text);
    return false;
  }

  #keep(chunk: Buffer, text: string, from: number, lineFrom: number, out: Buffer[]): void {
    const bytes = from === 0 ? chunk : chunk.subarray(from);
    this.#size += bytes.length;
    if (this.#line.length <= SHORT_LINE) this.#line += text.slice(lineFrom, lineFrom + SHORT_LINE + 1);
    this.#texts.push(from === 0 ? text : text.slice(from));
    if (this.#size > KEPT_LIMIT) this.#thin();
    this.#held.push(bytes);
    if (this.#size > HELD_LIMIT) this.#released = true;
    if (this.#released) this.#release(out);
  }

  #thin(): void {
    const [head = '', ...tail] = this.#large ? this.#texts : [this.#texts.join('')];
    this.#texts = [head.slice(0, KEPT_HEAD), (this.#large ? tail.join('') : head).slice(-KEPT_TAIL)];
    this.#large = true;
  }

  #release(out: Buffer[]): void {
    for (const bytes of this.#held) out.push(bytes);
    this.#held.length = 0;
  }

  #forget(): void {
    this.#lines = 0;
    if (this.#size === 0) return;
    this.#held.length = 0;
    this.#texts.length = 0;
    this.#size = 0;
    this.#line = '';
    this.#released = false;
    this.#large = false;
  }
}

/** An event's name and its data lines, joined. */
export function readFields(text: string): { name: string; data: string } {
  let name = '';
  let data = '';
  let some = false;
  for (const line of text.split(LINE_END)) {
    if (line.startsWith('data:')) {
      data = some ? `${data}\n${fieldValue(line, 5)}` : fieldValue(line, 5);
      some = true;
    } else if (line.startsWith('event:')) name = fieldValue(line, 6);
  }
  return { name, data };
}

const LINE_END = /\r\n|\n|\r/;

function fieldValue(line: string, from: number): string {
  return line.slice(line.charCodeAt(from) === 0x20 ? from + 1 : from);
}

function find(text: string, what: string, from: number): number {
  const at = text.indexOf(what, from);
  return at === -1 ? Number.POSITIVE_INFINITY : at;
}
