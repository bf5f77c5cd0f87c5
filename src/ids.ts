import { randomUUID } from 'node:crypto';

/** A UUID of version 7: 48 bits of wall-clock ms, then chance. Rows with such ids are stored side by side. */
export function timeOrderedId(now: number): string {
  const time = now.toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}
