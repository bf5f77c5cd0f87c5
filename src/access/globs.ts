import { hasTag } from '../machines/tags.js';

/** Code points, or one of the two below. */
type Glob = readonly number[];

const ANY_RUN = -1;
const ANY_ONE = -2;

const compiled = new WeakMap<readonly string[], readonly Glob[]>();

/**
 * Whether one of the globs matches the model: `*` is any run of characters, `/` and `:` too, `?` is one character,
 * case matters. A model without a tag is also `NAME:latest`. The list must not change once it was asked.
 */
export function globsAllow(globs: readonly string[], model: string): boolean {
  let list = compiled.get(globs);
  if (list === undefined) {
    list = globs.map(compile);
    compiled.set(globs, list);
  }
  if (list.some((glob) => matches(glob, model))) return true;
  if (hasTag(model)) return false;
  const latest = `${model}:latest`;
  return list.some((glob) => matches(glob, latest));
}

function compile(glob: string): Glob {
  return Array.from(glob, (char) => {
    if (char === '*') return ANY_RUN;
    return char === '?' ? ANY_ONE : (char.codePointAt(0) as number);
  });
}

/**
 * Each `*` first takes nothing. On a mismatch only the last one takes one more, as giving more to an earlier one
 * cannot help: hence at most the product of both lengths, whatever the glob.
 */
function matches(glob: Glob, text: string): boolean {
  let at = 0;
  let g = 0;
  let afterRun = -1;
  let runEnd = 0;
  while (at < text.length) {
    const char = text.codePointAt(at) as number;
    const wanted = glob[g];
    if (wanted === ANY_RUN) {
      g += 1;
      afterRun = g;
      runEnd = at;
    } else if (wanted === ANY_ONE || wanted === char) {
      g += 1;
      at += width(char);
    } else if (afterRun === -1) {
      return false;
    } else {
      runEnd += width(text.codePointAt(runEnd) as number);
      at = runEnd;
      g = afterRun;
    }
  }
  while (glob[g] === ANY_RUN) g += 1;
  return g === glob.length;
}

function width(char: number): number {
  return char > 0xffff ? 2 : 1;
}
