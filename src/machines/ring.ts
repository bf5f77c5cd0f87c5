/** The 60-minute ring: what clients got, minute by minute (UTC), and what the average is made of. */

export const RING_MINUTES = 60;

export interface Slot {
  /** Minutes since the epoch. */
  minute: number;
  success: number;
  error: number;
  measured: number;
  measuredMs: number;
}

export type Ring = readonly (Slot | undefined)[];

export function emptyRing(): Ring {
  return new Array<Slot | undefined>(RING_MINUTES).fill(undefined);
}

/** A ring of stored slots; of two that share a place the later minute stays. */
export function ringOf(slots: Iterable<Slot>): Ring {
  const ring = [...emptyRing()];
  for (const slot of slots) {
    const place = placeOf(slot.minute);
    const there = ring[place];
    if (there === undefined || there.minute < slot.minute) ring[place] = slot;
  }
  return ring;
}

/** Adds one finished request. Writing another minute into a place resets it. */
export function addToRing(ring: Ring, step: Slot): Ring {
  const place = placeOf(step.minute);
  const there = ring[place];
  const next = [...ring];
  next[place] =
    there?.minute === step.minute
      ? {
          minute: step.minute,
          success: there.success + step.success,
          error: there.error + step.error,
          measured: there.measured + step.measured,
          measuredMs: there.measuredMs + step.measuredMs,
        }
      : step;
  return next;
}

/** Exactly 60 slots, oldest first, the last is `minute`; anything outside them does not show. */
export function readRing(ring: Ring, minute: number): Slot[] {
  return Array.from({ length: RING_MINUTES }, (_, i) => {
    const wanted = minute - RING_MINUTES + 1 + i;
    const slot = ring[placeOf(wanted)];
    return slot?.minute === wanted
      ? slot
      : { minute: wanted, success: 0, error: 0, measured: 0, measuredMs: 0 };
  });
}

function placeOf(minute: number): number {
  return ((minute % RING_MINUTES) + RING_MINUTES) % RING_MINUTES;
}
