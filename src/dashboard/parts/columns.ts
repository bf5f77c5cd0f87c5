import { byName } from '../format/order.js';

export interface Column {
  key: string;
  title: string;
  align?: 'end';
  sortable?: boolean;
  /** The order of the first click; descending, if nothing is said. */
  first?: 'ascending' | 'descending';
  /** Shown only from this width on: 560, 900, 1280 pixels. */
  from?: 'narrow' | 'medium' | 'wide';
}

export interface Sorting {
  key: string;
  order: 'ascending' | 'descending';
}

/** A sorting as a word of the URL: `-latency` is descending. */
export function sortingOf(text: unknown): Sorting | null {
  if (typeof text !== 'string' || text === '') return null;
  return text.startsWith('-')
    ? { key: text.slice(1), order: 'descending' }
    : { key: text, order: 'ascending' };
}

export function sortingText(sorting: Sorting | null): string | undefined {
  return sorting === null ? undefined : `${sorting.order === 'descending' ? '-' : ''}${sorting.key}`;
}

/** Nothing comes last, whatever the order. */
export function sorted<Row>(
  rows: readonly Row[],
  sorting: Sorting | null,
  valueIn: (row: Row, key: string) => string | number | null | undefined,
): Row[] {
  if (sorting === null) return [...rows];
  const sign = sorting.order === 'ascending' ? 1 : -1;
  return [...rows].sort((a, b) => {
    const one = valueIn(a, sorting.key);
    const other = valueIn(b, sorting.key);
    if (one == null || other == null) return Number(one == null) - Number(other == null);
    if (typeof one === 'number' && typeof other === 'number') return sign * (one - other);
    return sign * byName(String(one), String(other));
  });
}
