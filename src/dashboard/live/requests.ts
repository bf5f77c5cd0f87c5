import { onScopeDispose, shallowRef } from 'vue';
import { get } from '../api/http.js';
import type { LiveRequest } from '../api/shapes.js';
import { feedOf } from './feed.js';

/** The requests under way, for as long as somebody looks. */
export function useLiveRequests() {
  const requests = shallowRef<LiveRequest[] | null>(null);
  const omitted = shallowRef(0);
  /** Wall clock, ms: ages go on from here. */
  const toldAt = shallowRef(Date.now());
  const feed = feedOf({
    url: '/api/dashboard/requests/live/events',
    events: {
      live: (live: { requests: LiveRequest[]; omitted: number }) => {
        requests.value = live.requests;
        omitted.value = live.omitted;
        toldAt.value = Date.now();
      },
    },
    poll: async (signal) => {
      const live = await get<LiveRequest[]>('/api/dashboard/requests/live', signal);
      return () => {
        requests.value = live;
        omitted.value = 0;
        toldAt.value = Date.now();
      };
    },
  });
  feed.start();
  onScopeDispose(feed.stop);
  return { requests, omitted, toldAt };
}
