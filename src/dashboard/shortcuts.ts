import { go, PAGES } from './router.js';

/** So long the second key of `g e` may take. */
const SECOND_KEY_MS = 1200;

export interface ShortcutDeps {
  help: () => void;
  theme: () => void;
  mayGo: (page: (typeof PAGES)[number]) => boolean;
}

/** Keys that work wherever nobody is writing. Answers what takes them away again. */
export function installShortcuts({ help, theme, mayGo }: ShortcutDeps): () => void {
  let isAfterG = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target)) return;
    const { key } = event;
    clearTimeout(timer);
    if (isAfterG) {
      isAfterG = false;
      const page = PAGES.find((one) => one.key === key);
      if (page === undefined || !mayGo(page)) return;
      event.preventDefault();
      go({ name: page.name });
      return;
    }
    if (key === 'g') {
      isAfterG = true;
      timer = setTimeout(() => {
        isAfterG = false;
      }, SECOND_KEY_MS);
    } else if (key === '?') {
      event.preventDefault();
      help();
    } else if (key === 't') {
      theme();
    } else if (key === '/') {
      const field = document.querySelector<HTMLInputElement>('[data-search]');
      if (field === null) return;
      event.preventDefault();
      field.focus();
      field.select();
    }
  }

  document.addEventListener('keydown', onKey);
  return () => {
    clearTimeout(timer);
    document.removeEventListener('keydown', onKey);
  };
}

function isWriting(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && target.closest('input, textarea, select, [contenteditable]') !== null
  );
}
