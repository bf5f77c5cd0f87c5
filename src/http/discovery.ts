import type { House } from '../actors/house.js';
import type { Clock } from '../clock.js';

export interface Discovery {
  /** Asks every endpoint for its models once: one at a time, at most every 5 s, waits at most 2 s. Never rejects. */
  look(): Promise<void>;
}

const EVERY_MS = 5000;
const WAIT_MS = 2000;

export function discoveryOf(house: House, clock: Clock): Discovery {
  let running: Promise<void> | null = null;
  let nextAt = Number.NEGATIVE_INFINITY;

  async function lookEverywhere(): Promise<void> {
    const asked = house.roster
      .configs()
      .filter(({ id }) => house.roster.status(id) !== 'quarantined')
      .map((config) => house.checkNow(config));
    await Promise.all(asked);
  }

  return {
    async look() {
      if (running === null) {
        if (clock.mono() < nextAt) return;
        nextAt = clock.mono() + EVERY_MS;
        running = lookEverywhere().finally(() => {
          running = null;
        });
      }
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, WAIT_MS);
      });
      await Promise.race([running, patience]);
      clearTimeout(timer);
    },
  };
}
