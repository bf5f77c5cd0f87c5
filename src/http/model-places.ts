import type { House } from '../actors/house.js';
import { modelPlaces } from '../actors/model-places.js';
import type { Views } from '../actors/view.js';
import type { Route } from './routes.js';

/** Every model, where it lives and how fast it is there. */
export function modelPlaceRoutes({ house, views }: { house: House; views: Views }): Route[] {
  return [
    {
      method: 'GET',
      path: '/api/dashboard/models',
      access: 'dashboard.read',
      run: () => modelPlaces(house, views),
    },
  ];
}
