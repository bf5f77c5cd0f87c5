import type { Config } from '../config.js';
import { settingsOf } from '../settings.js';
import type { Route } from './routes.js';

/** What the server runs with. `port` is the one that is bound, where 0 had picked it. */
export function settingsRoutes(config: Config, port: () => number): Route[] {
  return [
    {
      method: 'GET',
      path: '/api/dashboard/settings',
      access: 'dashboard.read',
      run: () => settingsOf({ ...config, port: port() }),
    },
  ];
}
