/** Doubles from `first` with each try (1, 2, …) up to `most`; all in ms. */
export function backoffMs(attempt: number, first: number, most: number): number {
  return Math.min(most, first * 2 ** Math.max(0, Math.min(attempt, 30) - 1));
}
