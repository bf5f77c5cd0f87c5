import { INFERENCE_ROUTES } from './inference.js';
import type { Access, Method, Route } from './routes.js';

/** One request straight to one endpoint. */
export const TRY_OUT = /^\/api\/endpoints\/([^/]+)\/chat\/completions$/;
export const EVENTS_PATH = '/api/dashboard/events';

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
  { method: 'GET', path: EVENTS_PATH, access: 'dashboard.read' },
];

/** The paths that nobody needs a credential for. */
export function openPathsOf(routes: readonly Route[]): ReadonlySet<string> {
  return new Set(routes.filter(({ access }) => access === 'open').map(({ path }) => path));
}

/** Every way in that there is. */
export function doorways(routes: readonly Route[]): Doorway[] {
  return [...routes.map(({ method, path, access }) => ({ method, path, access })), ...STREAMS];
}
