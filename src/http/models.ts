import { globsAllow } from '../access/globs.js';
import type { Principal } from '../access/principal.js';
import type { House } from '../actors/house.js';
import type { Discovery } from './discovery.js';
import { ApiError } from './errors.js';
import type { Route } from './routes.js';

function mayUse({ models }: Principal, id: string): boolean {
  return models === null || globsAllow(models, id);
}

/** The models of all endpoints as one OpenAI list; one that is not in it is looked for once. */
export function modelRoutes(house: House, discovery: Discovery): Route[] {
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
      access: 'openai.models.read',
      run: ({ principal }) => ({
        object: 'list',
        data: house.catalogue
          .models()
          .filter((id) => mayUse(principal, id))
          .map((id) => model(id)),
      }),
    },
    {
      method: 'GET',
      path: '/v1/models/**:id',
      access: 'openai.models.read',
      run: async ({ params, principal }) => {
        const id = params.id ?? '';
        const may = mayUse(principal, id);
        if (may && house.catalogue.places(id).length === 0) await discovery.look();
        const place = house.catalogue.places(id)[0];
        if (place === undefined || !may) {
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
