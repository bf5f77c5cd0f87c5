import type { House } from '../actors/house.js';
import { VERSION } from '../config.js';
import type { Store } from '../persistence/store.js';
import { Answer, type Route } from './routes.js';

export interface LivenessDeps {
  phase: () => 'starting' | 'serving' | 'draining';
  house: House;
  store: Store;
}

const SOON = { 'retry-after': '1' };

/** Is it there, can it serve, which version is it: for whatever watches the server. */
export function livenessRoutes({ phase, house, store }: LivenessDeps): Route[] {
  /** Something of the house is parked, or the store is not taking records. */
  function isDegraded(): boolean {
    const { children } = house.root.getSnapshot().context;
    return store.trouble !== null || Object.values(children).some(({ status }) => status === 'parked');
  }

  return [
    { method: 'GET', path: '/health', access: 'open', run: () => ({ status: 'ok' }) },
    {
      method: 'GET',
      path: '/ready',
      access: 'open',
      run: () => {
        const now = phase();
        if (now === 'starting') return new Answer(503, { status: 'seeding' }, SOON);
        if (now === 'draining') return new Answer(503, { status: 'draining' }, SOON);
        const seeded = house.root.getSnapshot().context.unseeded.length === 0;
        return { status: 'ready', seeded, degraded: isDegraded() };
      },
    },
    { method: 'GET', path: '/api/version', access: 'open', run: () => ({ version: VERSION }) },
  ];
}
