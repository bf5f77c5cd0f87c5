import { createI18n } from 'vue-i18n';
import { remember, remembered } from '../remembered.js';

export const LANGUAGES = { en: 'English', ja: '日本語' } as const;
export type Language = keyof typeof LANGUAGES;

/** One text in every language. `{name}` is a value; `one | many` in English goes by the count. */
export type Word = Record<Language, string>;

const KEY = 'troupe.language';

export const i18n = createI18n({
  legacy: false,
  locale: firstLanguage(),
  fallbackLocale: 'en',
  messages: { en: {}, ja: {} },
});

document.documentElement.lang = language();

/** Registers a section of the catalogue and answers the function that reads from it. */
export function section<T extends Record<string, Word>>(name: string, words: T) {
  for (const known of Object.keys(LANGUAGES) as Language[]) {
    const texts = Object.fromEntries(Object.entries(words).map(([key, word]) => [key, word[known]]));
    i18n.global.mergeLocaleMessage(known, { [name]: texts });
  }
  const { t } = i18n.global;
  /** A `count` among the values chooses between one and many. */
  return (key: keyof T & string, values: Record<string, string | number> = {}): string =>
    typeof values.count === 'number'
      ? t(`${name}.${key}`, values, values.count)
      : t(`${name}.${key}`, values);
}

export function language(): Language {
  return i18n.global.locale.value as Language;
}

export function setLanguage(chosen: Language): void {
  i18n.global.locale.value = chosen;
  document.documentElement.lang = chosen;
  remember(KEY, chosen);
}

function firstLanguage(): Language {
  const chosen = remembered(KEY);
  if (chosen !== null && chosen in LANGUAGES) return chosen as Language;
  return navigator.language.toLowerCase().startsWith('ja') ? 'ja' : 'en';
}
