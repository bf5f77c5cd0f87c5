// @vitest-environment happy-dom
import { expect, test } from 'vitest';
import { i18n, type Language, setLanguage } from '../../src/dashboard/words/index.js';

// All sections of the catalogue.
import.meta.glob('../../src/dashboard/words/*.ts', { eager: true });

function texts(language: Language): Map<string, string> {
  const all = i18n.global.getLocaleMessage(language) as Record<string, Record<string, string>>;
  return new Map(
    Object.entries(all).flatMap(([section, words]) =>
      Object.entries(words).map(([key, text]): [string, string] => [`${section}.${key}`, text]),
    ),
  );
}

const placeholders = (text: string) => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort();

test('every text is there in every language', () => {
  const english = texts('en');
  expect(english.size).toBeGreaterThan(300);
  for (const language of ['en', 'ja'] as const) {
    const found = texts(language);
    expect([...found.keys()]).toEqual([...english.keys()]);
    expect([...found].filter(([, text]) => text.trim() === '')).toEqual([]);
  }
});

test('a translation names the same values', () => {
  const japanese = texts('ja');
  const differing = [...texts('en')].filter(
    ([key, text]) => String(placeholders(text)) !== String(placeholders(japanese.get(key) ?? '')),
  );
  expect(differing).toEqual([]);
});

test('every text can be said: none is a syntax error of the message format', () => {
  for (const language of ['en', 'ja'] as const) {
    setLanguage(language);
    for (const [key, text] of texts(language)) {
      const values = Object.fromEntries(placeholders(text).map((name) => [name.slice(1, -1), 2]));
      const said = i18n.global.t(key, values, 2);
      expect(said, key).not.toBe(key);
      expect(said, key).not.toMatch(/[{}|]/);
    }
  }
});
