import { computed, type WritableComputedRef } from 'vue';
import { useRoute } from 'vue-router';
import { type Sorting, sortingOf, sortingText } from './parts/columns.js';
import { setQuery } from './router.js';

/** A word of the page's URL, empty where none is given. `resets`: the words that mean nothing once it changes. */
export function inUrl<T extends string = string>(name: string, ...resets: string[]): WritableComputedRef<T> {
  const route = useRoute();
  return computed<T>({
    get: () => (typeof route.query[name] === 'string' ? route.query[name] : '') as T,
    set: (value) => setQuery({ ...Object.fromEntries(resets.map((one) => [one, undefined])), [name]: value }),
  });
}

/** How a table is sorted, in the URL unless it is as `first` says. */
export function sortingInUrl(first: string): WritableComputedRef<Sorting | null> {
  const route = useRoute();
  return computed<Sorting | null>({
    get: () => sortingOf(route.query.sort ?? first),
    set: (value) => setQuery({ sort: sortingText(value) === first ? undefined : sortingText(value) }),
  });
}

/** What the page's path opens; null: nothing. */
export function idInUrl() {
  const route = useRoute();
  return computed(() =>
    typeof route.params.id === 'string' && route.params.id !== '' ? route.params.id : null,
  );
}
