import { type MaybeRefOrGetter, onScopeDispose, shallowRef, toValue, watch } from 'vue';
import { get, Refusal } from '../api/http.js';
import type { ActorDetail, Transition } from '../api/shapes.js';
import { type Feed, feedOf } from './feed.js';

const MOST = 100;

/** One actor as it lives, for as long as somebody looks: its view, and its transitions newest first. */
export function useActor(id: MaybeRefOrGetter<string | null>) {
  const actor = shallowRef<ActorDetail | null>(null);
  /** Null until they are known. */
  const transitions = shallowRef<Transition[] | null>(null);
  const isGone = shallowRef(false);
  let feed: Feed | null = null;

  function take(view: ActorDetail): void {
    actor.value = view;
    transitions.value = caughtUp(transitions.value, view.transitions.toReversed());
  }

  function open(wanted: string | null): void {
    feed?.stop();
    feed = null;
    actor.value = null;
    transitions.value = null;
    isGone.value = false;
    if (wanted === null) return;
    const path = `/api/dashboard/actors/${encodeURIComponent(wanted)}`;
    const opened = feedOf({
      url: `${path}/events`,
      events: {
        actor: take,
        transition: (transition: Transition) => {
          transitions.value = [transition, ...(transitions.value ?? [])].slice(0, MOST);
        },
        gone: () => {
          isGone.value = true;
          opened.stop();
        },
      },
      poll: async (signal) => {
        try {
          const view = await get<ActorDetail>(path, signal);
          return () => take(view);
        } catch (error) {
          if (!(error instanceof Refusal && error.status === 404)) throw error;
          return () => {
            isGone.value = true;
            opened.stop();
          };
        }
      },
    });
    feed = opened;
    opened.start();
  }

  watch(() => toValue(id), open, { immediate: true });
  onScopeDispose(() => feed?.stop());
  return { actor, transitions, isGone };
}

/** What is known, with what happened in between in front. The same list if that is nothing. */
function caughtUp(known: Transition[] | null, now: Transition[]): Transition[] {
  const [newest] = known ?? [];
  if (known === null || newest === undefined) return known !== null && now.length === 0 ? known : now;
  const missed = now.filter(({ at }) => at > newest.at);
  return missed.length === 0 ? known : [...missed, ...known].slice(0, MOST);
}
