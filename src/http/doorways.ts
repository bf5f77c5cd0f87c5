import { INFERENCE_ROUTES } from './inference.js';
import type { Access, Method, Route } from './routes.js';

/** One request straight to one endpoint. */
export const TRY_OUT = /^\/api\/endpoints\/([^/]+)\/chat\/completions$/;
/** What is pushed for as long as somebody looks. */
export const EVENT_PATHS = [
  '/api/dashboard/events',
  '/api/dashboard/actors/events',
  '/api/dashboard/actors/:id/events',
  '/api/dashboard/requests/live/events',
] as const;
export type EventPath = (typeof EVENT_PATHS)[number];

/** Whether something is pushed there. */
export function isEventPath(path: string): boolean {
  return EVENTS.test(path);
}

const EVENTS = new RegExp(`^(${EVENT_PATHS.join('|').replace(':id', '[^/]+')})$`);

/** A route as far as the door is concerned. */
export interface Doorway {
  method: Method;
  path: string;
  access: Access;
}

/** The routes whose answers are streams; they are served beside those of h3. */
const STREAMS: readonly Doorway[] = [
  ...INFERENCE_ROUTES.map(({ path }): Doorway => ({ method: 'POST', path, access: 'openai.inference' })),
  { method: 'POST', path: '/api/endpoints/:id/chat/completions', access: 'endpoints.manage' },
  ...EVENT_PATHS.map((path): Doorway => ({ method: 'GET', path, access: 'dashboard.read' })),
];

/** The paths that nobody needs a credential for. */
export function openPathsOf(routes: readonly Route[]): ReadonlySet<string> {
  return new Set(routes.filter(({ access }) => access === 'open').map(({ path }) => path));
}

/** Every way in that there is. */
export function doorways(routes: readonly Route[]): Doorway[] {
  return [...routes.map(({ method, path, access }) => ({ method, path, access })), ...STREAMS];
}
