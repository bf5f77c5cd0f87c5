import { onScopeDispose } from 'vue';
import type { RequestRow } from '../api/shapes.js';

type Listener = (records: readonly RequestRow[], omitted: number) => void;

const listeners = new Set<Listener>();

/** Hears of finished requests as they come, oldest first; `omitted` are those that were too many to be sent. */
export function useRecords(listener: Listener): void {
  listeners.add(listener);
  onScopeDispose(() => listeners.delete(listener));
}

export function tellRecords(records: readonly RequestRow[], omitted: number): void {
  for (const listener of listeners) listener(records, omitted);
}
