import { ref, watchEffect } from 'vue';
import { remember, remembered } from './remembered.js';

export const THEMES = ['system', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];

const KEY = 'troupe.theme';
const system = window.matchMedia('(prefers-color-scheme: dark)');

export const theme = ref<Theme>(THEMES.find((one) => one === remembered(KEY)) ?? 'system');
/** Counts changes of colours: whatever is painted on a canvas is painted again. */
export const colours = ref(0);

watchEffect(() => {
  if (theme.value === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  remember(KEY, theme.value === 'system' ? null : theme.value);
  colours.value += 1;
});
system.addEventListener('change', () => {
  colours.value += 1;
});

/** The theme in force. */
export function isDark(): boolean {
  return theme.value === 'system' ? system.matches : theme.value === 'dark';
}

/** A colour of the theme in force, for what cannot read CSS. */
export function colour(name: `--${string}`): string {
  const probe = document.createElement('span');
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
