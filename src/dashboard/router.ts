import {
  createRouter,
  createWebHistory,
  type LocationQueryRaw,
  type RouteLocation,
  type RouteLocationRaw,
  type RouteRecordRaw,
} from 'vue-router';
import Overview from './pages/Overview.vue';
import { isAdmin, me, whoAmI } from './session.js';

/** The pages in the order of the menu; `key` is the letter after `g`. */
export const PAGES = [
  { name: 'overview', path: '/', key: 'o', admin: false },
  { name: 'endpoints', path: '/endpoints', key: 'e', admin: false },
  { name: 'models', path: '/models', key: 'm', admin: false },
  { name: 'requests', path: '/requests', key: 'r', admin: false },
  { name: 'actors', path: '/actors', key: 'a', admin: false },
  { name: 'playground', path: '/playground', key: 'p', admin: true },
  { name: 'keys', path: '/keys', key: 'k', admin: false },
  { name: 'users', path: '/users', key: 'u', admin: true },
  { name: 'audit', path: '/audit', key: 'l', admin: true },
  { name: 'settings', path: '/settings', key: 's', admin: false },
] as const;
export type PageName = (typeof PAGES)[number]['name'];

const routes: RouteRecordRaw[] = [
  { name: 'overview', path: '/', component: Overview },
  { name: 'endpoints', path: '/endpoints/:id?', component: () => import('./pages/Endpoints.vue') },
  { name: 'models', path: '/models', component: () => import('./pages/Models.vue') },
  { name: 'requests', path: '/requests/:id?', component: () => import('./pages/Requests.vue') },
  { name: 'actors', path: '/actors/:id?', component: () => import('./pages/Actors.vue') },
  {
    name: 'playground',
    path: '/playground',
    component: () => import('./pages/Playground.vue'),
    meta: { admin: true },
  },
  { name: 'keys', path: '/keys', component: () => import('./pages/Keys.vue') },
  { name: 'users', path: '/users', component: () => import('./pages/Users.vue'), meta: { admin: true } },
  { name: 'audit', path: '/audit', component: () => import('./pages/Audit.vue'), meta: { admin: true } },
  { name: 'settings', path: '/settings', component: () => import('./pages/Settings.vue') },
  { name: 'account', path: '/account', component: () => import('./pages/Account.vue') },
  { name: 'login', path: '/login', component: () => import('./pages/Login.vue'), meta: { open: true } },
  { name: 'missing', path: '/:rest(.*)*', component: () => import('./pages/Missing.vue') },
];

const LOOK_AGAIN_MS = 2000;
const LOOK_PATIENCE_MS = 8000;

export const router = createRouter({ history: createWebHistory('/dashboard/'), routes });

/** Where somebody wants to go: the last word counts. */
let wanted: unknown = null;
router.beforeEach((to) => {
  wanted = to;
});

/**
 * The file of a page cannot be had: the server is away, or has a new version with other files. What is shown stays until
 * somebody answers; only then is the page loaded as a whole.
 */
router.onError(async (_error, to) => {
  const key = 'troupe.reloaded';
  if (sessionStorage.getItem(key) === to.fullPath) return;
  const { href } = router.resolve(to);
  while (wanted === to && !(await isThere(href))) {
    await new Promise((done) => setTimeout(done, LOOK_AGAIN_MS));
  }
  if (wanted !== to) return;
  sessionStorage.setItem(key, to.fullPath);
  location.assign(href);
});
router.afterEach(() => sessionStorage.removeItem('troupe.reloaded'));

async function isThere(href: string): Promise<boolean> {
  try {
    return (await fetch(href, { cache: 'no-cache', signal: AbortSignal.timeout(LOOK_PATIENCE_MS) })).ok;
  } catch {
    return false;
  }
}

/** Goes there; what goes wrong on the way is the router's to deal with. */
export function go(to: RouteLocationRaw): void {
  router.push(to).catch(() => {});
}

/** Where somebody who was held up wanted to go. Only a path of this page: anything else could lead away. */
export function nextOf({ query: { next } }: RouteLocation): RouteLocationRaw {
  return typeof next === 'string' && /^\/(?!\/)/.test(next) ? next : { name: 'overview' };
}

/** Fetches the files of all pages, so that they open although the server is away. */
export function fetchPages(): void {
  for (const { component } of routes) {
    if (typeof component === 'function') (component as () => Promise<unknown>)().catch(() => {});
  }
}

router.beforeEach(async (to) => {
  if (me.value === undefined) await whoAmI().catch(() => {});
  if (to.meta.open) return me.value == null ? true : { name: 'overview' };
  if (me.value === null) return { name: 'login', query: { next: to.fullPath } };
  if (me.value?.must_change_password && to.name !== 'account')
    return { name: 'account', query: { next: to.fullPath } };
  if (to.meta.admin && me.value !== undefined && !isAdmin.value)
    return { name: 'missing', params: { rest: ['admins'] } };
  return true;
});

/** Changes part of the query in place; what is empty is left out. */
export function setQuery(change: LocationQueryRaw): void {
  const { query, hash, params, name } = router.currentRoute.value;
  const merged = Object.fromEntries(
    Object.entries({ ...query, ...change }).filter(([, value]) => value != null && value !== ''),
  );
  if (name != null) router.replace({ name, params, query: merged, hash });
}
