import { onScopeDispose, shallowRef, triggerRef } from 'vue';
import { get } from '../api/http.js';
import type { Actor } from '../api/shapes.js';
import { feedOf } from './feed.js';

type Brief = Pick<Actor, 'id' | 'state' | 'status' | 'restarts' | 'last_error'>;

/** The supervision tree as it lives, for as long as somebody looks. */
export function useTree() {
  const root = shallowRef<Actor | null>(null);
  let byId = new Map<string, Actor>();

  function take({ root: whole }: { root: Actor }): void {
    byId = new Map();
    note(whole);
    root.value = whole;
  }

  function note(actor: Actor): void {
    byId.set(actor.id, actor);
    for (const child of actor.children) note(child);
  }

  const feed = feedOf({
    url: '/api/dashboard/actors/events',
    events: {
      tree: take,
      actors: (changed: Brief[]) => {
        for (const brief of changed) Object.assign(byId.get(brief.id) ?? {}, brief);
        triggerRef(root);
      },
    },
    poll: async (signal) => {
      const tree = await get<{ root: Actor }>('/api/dashboard/actors', signal);
      return () => take(tree);
    },
  });
  feed.start();
  onScopeDispose(feed.stop);
  return root;
}
