/**
 * One tooltip for the whole page: whatever has `data-tip` shows it under the pointer or the focus. It can be hovered
 * itself, and Esc puts it away.
 */
export function installTips(root: HTMLElement): () => void {
  const tip = document.createElement('div');
  tip.id = 'tip';
  tip.role = 'tooltip';
  tip.hidden = true;
  tip.popover = 'manual';
  root.append(tip);
  let shownFor: Element | null = null;

  function show(target: Element, text: string): void {
    shownFor = target;
    tip.textContent = text;
    tip.hidden = false;
    // The top layer, so that it lies over open dialogs.
    tip.showPopover();
    const of = target.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const isRoomAbove = of.top > own.height + 12;
    tip.style.left = `${Math.max(8, Math.min(of.left + of.width / 2 - own.width / 2, innerWidth - own.width - 8))}px`;
    tip.style.top = `${isRoomAbove ? of.top - own.height - 6 : of.bottom + 6}px`;
  }

  function hide(): void {
    if (shownFor === null) return;
    shownFor = null;
    tip.hidePopover();
    tip.hidden = true;
  }

  function over({ target }: Event): void {
    if (!(target instanceof Element) || tip.contains(target)) return;
    const found = target.closest('[data-tip]');
    if (found === shownFor) return;
    hide();
    const text = found?.getAttribute('data-tip');
    if (found !== null && text != null && text !== '') show(found, text);
  }

  function key({ key: pressed }: KeyboardEvent): void {
    if (pressed === 'Escape') hide();
  }

  root.addEventListener('pointerover', over);
  root.addEventListener('focusin', over);
  document.addEventListener('keydown', key);
  document.addEventListener('scroll', hide, { capture: true, passive: true });
  return () => {
    root.removeEventListener('pointerover', over);
    root.removeEventListener('focusin', over);
    document.removeEventListener('keydown', key);
    document.removeEventListener('scroll', hide, { capture: true });
    tip.remove();
  };
}
