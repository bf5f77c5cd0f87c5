import type { LookupAddress } from 'node:dns';
import { expect, test } from 'vitest';
import { cachedLookup } from '../src/http/lookup.js';

type Done = (error: NodeJS.ErrnoException | null, found: LookupAddress[]) => void;

/** A resolver that answers when it is told to, and a clock that stands still. */
function resolver() {
  const asked: string[] = [];
  const open = new Map<string, Done>();
  const clock = { now: 0 };
  const lookup = cachedLookup(
    () => clock.now,
    (host, done) => {
      asked.push(host);
      open.set(host, done);
    },
  );
  const find = (host: string, family = 0) =>
    new Promise((resolve, reject) => {
      lookup(host, { all: true, family }, (error, found) =>
        error === null ? resolve(found) : reject(error),
      );
    });
  const answer = (host: string, found: LookupAddress[]) => open.get(host)?.(null, found);
  const fail = (host: string) => open.get(host)?.(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), []);
  return { asked, clock, find, answer, fail };
}

const HERE: LookupAddress[] = [{ address: '127.0.0.1', family: 4 }];

test('a name is asked for once however many want it, and again after 30 seconds', async () => {
  const { asked, clock, find, answer } = resolver();
  const both = Promise.all([find('box'), find('box')]);
  answer('box', HERE);
  expect(await both).toEqual([HERE, HERE]);
  clock.now = 29_999;
  expect(await find('box')).toEqual(HERE);
  expect(asked).toEqual(['box']);
  clock.now = 30_001;
  const again = find('box');
  expect(asked).toEqual(['box', 'box']);
  answer('box', HERE);
  await again;
});

test('at most two names are looked up at a time; the others wait their turn', async () => {
  const { asked, find, answer, fail } = resolver();
  const all = ['a', 'b', 'c', 'd'].map((host) => find(host).catch((error) => error.code));
  expect(asked).toEqual(['a', 'b']);
  fail('a');
  expect(asked).toEqual(['a', 'b', 'c']);
  answer('b', HERE);
  expect(asked).toEqual(['a', 'b', 'c', 'd']);
  answer('c', HERE);
  answer('d', HERE);
  expect(await Promise.all(all)).toEqual(['ENOTFOUND', HERE, HERE, HERE]);
});

test('a failure is kept like an answer, and a missing family is an error', async () => {
  const { asked, find, answer, fail } = resolver();
  const first = find('gone').catch((error) => error.code);
  fail('gone');
  expect(await first).toBe('ENOTFOUND');
  expect(await find('gone').catch((error) => error.code)).toBe('ENOTFOUND');
  expect(asked).toEqual(['gone']);
  const six = find('box', 6).catch((error) => error.code);
  answer('box', HERE);
  expect(await six).toBe('ENOTFOUND');
});
