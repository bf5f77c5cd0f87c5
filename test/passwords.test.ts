import { scrypt } from 'node:crypto';
import { expect, test } from 'vitest';
import { generatePassword, passwordsOf, TooBusy } from '../src/access/passwords.js';

type Derive = NonNullable<NonNullable<Parameters<typeof passwordsOf>[0]>['derive']>;

/** Passwords that are hashed quickly, and the parameters of every hash. */
function watched(cost = 4) {
  const work: unknown[] = [];
  const derive: Derive = (password, salt, bytes, options, done) => {
    work.push({ bytes, salt: salt.length, ...options });
    scrypt(password, salt, bytes, options, done);
  };
  return { work, ...passwordsOf({ cost, derive }) };
}

/** A hash ends when it is told to. */
function held() {
  const open: { end(): void; fail(): void }[] = [];
  const started: string[] = [];
  const derive: Derive = (password, _salt, bytes, _options, done) => {
    started.push(password);
    open.push({
      end: () => done(null, Buffer.alloc(bytes)),
      fail: () => done(new Error('no memory'), Buffer.alloc(0)),
    });
  };
  return { open, started, ...passwordsOf({ derive }) };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test('the right password is verified and no other', async () => {
  const { hash, verify } = watched();
  const stored = await hash('correct horse');
  expect(await verify('correct horse', stored)).toBe(true);
  expect(await verify('correct horse ', stored)).toBe(false);
  expect(await verify('Correct horse', stored)).toBe(false);
  expect(await verify('', stored)).toBe(false);
});

test('what is stored names its parameters, holds a new salt each time, and verifies under another cost', async () => {
  const { hash } = watched(5);
  const stored = await Promise.all([hash('a'), hash('a')]);
  for (const one of stored) expect(one).toMatch(/^\$scrypt\$ln=5,r=8,p=1\$[\w+/]{22}\$[\w+/]{43}$/);
  expect(stored[0]).not.toBe(stored[1]);
  const raised = watched(6);
  expect(await raised.verify('a', stored[0] as string)).toBe(true);
  expect(await raised.hash('a')).toContain('$ln=6,');
});

test('without a cost N is 2^17 with 256 MiB allowed', async () => {
  let used: unknown;
  const derive: Derive = (_password, _salt, bytes, options, done) => {
    used = { bytes, ...options };
    done(null, Buffer.alloc(bytes));
  };
  const stored = await passwordsOf({ derive }).hash('a');
  expect(used).toEqual({ bytes: 32, N: 131_072, r: 8, p: 1, maxmem: 268_435_456 });
  expect(stored.startsWith('$scrypt$ln=17,r=8,p=1$')).toBe(true);
});

test('a text that another implementation of scrypt made is verified', async () => {
  // hashlib of Python 3, salt 00 to 0f.
  const stored = '$scrypt$ln=4,r=8,p=1$AAECAwQFBgcICQoLDA0ODw$nx7tI5/kAl0Tw4KtNqh7rxpdq9gupWVX8SjBzfbO8CA';
  expect(await watched().verify('pässword', stored)).toBe(true);
  expect(await watched().verify('password', stored)).toBe(false);
});

test('a password is the same however its characters are composed', async () => {
  const { hash, verify } = watched();
  const stored = await hash('caf\u00e9 \ufb01');
  expect(await verify('cafe\u0301 fi', stored)).toBe(true);
  expect(await verify('cafe fi', stored)).toBe(false);
});

test('an unknown user and a wrong password take the same work', async () => {
  const { work, hash, verify } = watched();
  const stored = await hash('right');
  work.length = 0;
  expect(await verify('wrong', stored)).toBe(false);
  expect(await verify('wrong', null)).toBe(false);
  expect(work).toHaveLength(2);
  expect(work[1]).toEqual(work[0]);
});

test('no password at all is that of an unknown user, not even one whose hash is the dummy', async () => {
  const derive: Derive = (_password, _salt, bytes, _options, done) => done(null, Buffer.alloc(bytes));
  const { verify } = passwordsOf({ derive });
  expect(await verify('any', null)).toBe(false);
  expect(await verify('any', 'malformed')).toBe(false);
});

test('a malformed stored text is no password and takes the same work', async () => {
  const { work, hash, verify } = watched();
  const stored = await hash('right');
  const [, , , salt, key] = stored.split('$');
  const malformed = [
    '',
    'right',
    stored.slice(1),
    stored.slice(0, -1),
    `${stored}A`,
    `${stored}\n`,
    `x${stored}`,
    stored.replace('scrypt', 'argon2id'),
    stored.replace('ln=4', 'ln=0'),
    stored.replace('ln=4', 'ln=18'),
    stored.replace('ln=4', 'ln=99'),
    stored.replace('r=8', 'r=1'),
    stored.replace('p=1', 'p=2'),
    `$scrypt$ln=4,r=8,p=1$$${key}`,
    `$scrypt$ln=4,r=8,p=1$${salt}$`,
  ];
  work.length = 0;
  for (const text of malformed) expect(await verify('right', text), text).toBe(false);
  expect(work).toHaveLength(malformed.length);
  expect(new Set(work.map((one) => JSON.stringify(one))).size).toBe(1);
  expect(work[0]).toMatchObject({ N: 16, bytes: 32, salt: 16 });
});

test('one hash runs at a time, in the order they were asked for, and a failed one holds up nobody', async () => {
  const { open, started, hash, verify } = held();
  const all = [hash('a'), verify('b', null), hash('c'), verify('d', 'malformed')];
  const results = Promise.allSettled(all);
  for (let i = 0; i < 4; i += 1) {
    await settled();
    expect(started).toEqual(['a', 'b', 'c', 'd'].slice(0, i + 1));
    if (i === 2) open[i]?.fail();
    else open[i]?.end();
  }
  expect((await results).map(({ status }) => status)).toEqual([
    'fulfilled',
    'fulfilled',
    'rejected',
    'fulfilled',
  ]);
  const later = hash('e');
  await settled();
  expect(started.at(-1)).toBe('e');
  open[4]?.end();
  await later;
});

test('whoever comes just as a hash ends does not run beside the next', async () => {
  for (let depth = 0; depth < 10; depth += 1) {
    const { open, started, hash } = held();
    const all = [hash('a'), hash('b')];
    open[0]?.end();
    // So many turns of the microtask queue later: one of them is the one in which the place is handed on.
    for (let turn = 0; turn < depth; turn += 1) await undefined;
    all.push(hash('late'));
    await settled();
    expect(started).toEqual(['a', 'b']);
    open[1]?.end();
    await settled();
    open[2]?.end();
    await Promise.all(all);
    expect(started).toEqual(['a', 'b', 'late']);
  }
});

test('64 wait behind the one that runs; one more is told that it is too busy, and has room later', async () => {
  const { open, started, hash, verify } = held();
  const accepted = Array.from({ length: 65 }, (_, i) => hash(`p${i}`));
  await expect(hash('one more')).rejects.toBeInstanceOf(TooBusy);
  await expect(verify('one more', null)).rejects.toMatchObject({ code: 'too_busy' });
  expect(started).toEqual(['p0']);
  open[0]?.end();
  await settled();
  accepted.push(hash('one more'));
  for (let i = 1; i <= 65; i += 1) {
    open[i]?.end();
    await settled();
  }
  expect(await Promise.all(accepted)).toHaveLength(66);
  expect(started).toHaveLength(66);
  expect(started.at(-1)).toBe('one more');
});

test('a generated password has 20 characters, none of which looks like another', () => {
  const made = Array.from({ length: 300 }, generatePassword);
  expect(new Set(made).size).toBe(300);
  for (const one of made) expect(one).toMatch(/^[a-km-np-zA-HJ-NP-Z2-9]{20}$/);
  // 6000 draws: each of the 56 comes up.
  expect(new Set(made.join('')).size).toBe(56);
});
