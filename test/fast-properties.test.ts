import { setFlagsFromString } from 'node:v8';
import { expect, test } from 'vitest';
import { Chooser, type ChooserDeps } from '../src/actors/chooser.js';
import { Explorations } from '../src/actors/explorations.js';
import { Pins } from '../src/actors/pins.js';
import { Turns } from '../src/actors/turns.js';
import { scanned, wantedOf } from '../src/http/wanted.js';

setFlagsFromString('--allow-natives-syntax');
const isFast = new Function('one', 'return %HasFastProperties(one)') as (one: object) => boolean;

/** What V8 keeps as a dictionary is slow to read; in Node 20 a literal with a getter is one. */
test('what is wanted, and what is asked of the chooser for it, are no dictionaries', () => {
  const wanted = (text: string) => {
    const body = Buffer.from(JSON.stringify({ model: 'm', messages: [{ role: 'user', content: text }] }));
    return wantedOf(scanned(body), body.length, () => body, undefined, 'adaptive');
  };
  const chooser = new Chooser({
    catalogue: { candidates: () => [] } as unknown as ChooserDeps['catalogue'],
    turns: new Turns(),
    pins: new Pins(),
    responses: new Pins(),
    explorations: new Explorations(),
    policy: 'adaptive',
    overflowMs: 1000,
    random: () => 0,
    mono: () => 0,
    ahead: () => 0,
  });
  for (const one of [wanted('one'), wanted('the other one')]) {
    expect(isFast(one)).toBe(true);
    expect(isFast(chooser.look(one).outlook.demand)).toBe(true);
  }
});
