import type { House } from '../actors/house.js';
import { ApiError } from './errors.js';
import type { Route } from './routes.js';

/** The models of all endpoints as one OpenAI list. */
export function modelRoutes(house: House): Route[] {
  function model(id: string, listedId = id) {
    const places = house.catalogue.places(listedId);
    const since = places.map(({ endpointId }) => house.roster.config(endpointId)?.registeredAt ?? 0);
    return {
      id,
      object: 'model',
      created: Math.floor(Math.min(...since) / 1000),
      owned_by: 'troupe',
    };
  }

  return [
    {
      method: 'GET',
      path: '/v1/models',
      permission: 'openai.models.read',
      run: () => ({ object: 'list', data: house.catalogue.models().map((id) => model(id)) }),
    },
    {
      method: 'GET',
      path: '/v1/models/**:id',
      permission: 'openai.models.read',
      run: ({ params }) => {
        const id = params.id ?? '';
        const place = house.catalogue.places(id)[0];
        if (place === undefined) {
          throw new ApiError(
            'model_not_found',
            `the model ${JSON.stringify(id)} does not exist on any endpoint`,
            {
              param: 'model',
            },
          );
        }
        return model(place.modelId, id);
      },
    },
  ];
}
