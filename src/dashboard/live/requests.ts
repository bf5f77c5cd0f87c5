import { onScopeDispose, shallowRef } from 'vue';
import { get } from '../api/http.js';
import type { LiveRequest } from '../api/shapes.js';
import { feedOf } from './feed.js';
import { paced } from './paced.js';

interface Live {
  requests: LiveRequest[];
  omitted: number;
  /** Wall clock, ms: ages go on from here. */
  toldAt: number;
}

/** Nobody reads so many that change several times a second. */
const MANY = 20;
const MANY_REST_MS = 1000;

/** The requests under way, for as long as somebody looks. */
export function useLiveRequests() {
  const shown = shallowRef<Live | null>(null);
  let told: Live | null = null;
  const show = paced(() => {
    shown.value = told;
  });
  function take(requests: LiveRequest[], omitted: number): void {
    told = { requests, omitted, toldAt: Date.now() };
    show(requests.length > MANY ? MANY_REST_MS : 0);
  }
  const feed = feedOf({
    url: '/api/dashboard/requests/live/events',
    events: {
      live: (live: { requests: LiveRequest[]; omitted: number }) => take(live.requests, live.omitted),
    },
    poll: async (signal) => {
      const live = await get<LiveRequest[]>('/api/dashboard/requests/live', signal);
      return () => take(live, 0);
    },
  });
  feed.start();
  onScopeDispose(feed.stop);
  return shown;
}
