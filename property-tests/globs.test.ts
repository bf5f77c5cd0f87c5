import fc from 'fast-check';
import { expect, test } from 'vitest';
import { globsAllow } from '../src/access/globs.js';

/** The definition, character by character. */
function naive(glob: string[], text: string[]): boolean {
  const [first, ...rest] = glob;
  if (first === undefined) return text.length === 0;
  if (first === '*') return naive(rest, text) || (text.length > 0 && naive(glob, text.slice(1)));
  return text.length > 0 && (first === '?' || first === text[0]) && naive(rest, text.slice(1));
}

const matches = (glob: string, text: string) => naive([...glob], [...text]);

/** Few letters, so that they meet; a dot, which is no wildcard; a character of two code units and halves of one. */
const letters = ['a', 'A', 'b', '.', '/', ':', '😀', '\ud83d', '\ude00'];
const glob = fc.string({ unit: fc.constantFrom('*', '*', '?', 'a', 'b', ...letters), maxLength: 8 });
const model = fc.string({ unit: fc.constantFrom('a', 'b', ...letters), maxLength: 9 });

/** A model and a glob that is made of it, so that they match often. */
const related = model.chain((text) =>
  fc
    .array(fc.constantFrom('keep', 'keep', 'one', 'run', 'drop'), {
      minLength: text.length,
      maxLength: text.length,
    })
    .map((ways) => {
      const chars = [...text].map((char, i) => {
        const way = ways[i];
        if (way === 'one') return '?';
        if (way === 'run') return '*';
        return way === 'drop' ? '' : char;
      });
      return { text, glob: chars.join('') };
    }),
);

const tail = fc.constantFrom(':a', ':a*', ':?**', '*', ':', ':?a');

test('a model with a tag is allowed exactly where a naive matcher finds one of the globs to match', () => {
  const seen = { allowed: 0, refused: 0 };
  fc.assert(
    fc.property(related, fc.array(glob, { maxLength: 2 }), tail, (pair, others, end) => {
      const text = `${pair.text}:a`;
      const globs = [...others, pair.glob + end];
      const allowed = globs.some((one) => matches(one, text));
      expect(globsAllow(globs, text)).toBe(allowed);
      // Compiled by now.
      expect(globsAllow(globs, text)).toBe(allowed);
      seen[allowed ? 'allowed' : 'refused'] += 1;
    }),
    { numRuns: 3000 },
  );
  expect(seen.allowed).toBeGreaterThan(300);
  expect(seen.refused).toBeGreaterThan(300);
});

test('a model without a tag is allowed where its name or its name with `:latest` is', () => {
  const untagged = model.map((text) => text.replaceAll(':', 'b'));
  let byTag = 0;
  fc.assert(
    fc.property(untagged, glob, fc.constantFrom('', ':latest', ':*', ':l*t'), (text, start, end) => {
      const one = start + end;
      expect(globsAllow([one], text)).toBe(matches(one, text) || matches(one, `${text}:latest`));
      if (!matches(one, text) && matches(one, `${text}:latest`)) byTag += 1;
    }),
    { numRuns: 3000 },
  );
  expect(byTag).toBeGreaterThan(50);
});

test('a tag is what follows a colon in the last part of the name', () => {
  expect(globsAllow(['llama3:latest'], 'llama3')).toBe(true);
  expect(globsAllow(['llama3'], 'llama3:latest')).toBe(false);
  expect(globsAllow(['*:latest'], 'llama3:8b')).toBe(false);
  expect(globsAllow(['*:latest'], 'box:5000/llama3')).toBe(true);
  expect(globsAllow(['*:latest'], 'box:5000/llama3:8b')).toBe(false);
});

test('no glob allows nothing, and a star allows all', () => {
  fc.assert(
    fc.property(model, (text) => {
      expect(globsAllow([], text)).toBe(false);
      expect(globsAllow(['*'], text)).toBe(true);
    }),
  );
});

test('a list is compiled once', () => {
  const globs = ['a*'];
  let read = 0;
  const watched = new Proxy(globs, {
    get(target, name, receiver) {
      if (name === '0') read += 1;
      return Reflect.get(target, name, receiver);
    },
  });
  for (let i = 0; i < 5; i += 1) expect(globsAllow(watched, 'abc:x')).toBe(true);
  expect(read).toBe(1);
});

test('a glob of many stars is answered for a long name that almost matches', () => {
  // With a matcher that goes back to every star this would not end within the age of the sun.
  const glob = `${'*a'.repeat(30)}b`;
  expect(globsAllow([glob], `${'a'.repeat(300)}:x`)).toBe(false);
  expect(globsAllow([glob], `${'a'.repeat(300)}b`)).toBe(true);
});
