import type { Changes } from '../access/changes.js';
import type { Actor } from '../access/principal.js';
import { ApiError } from '../http/errors.js';
import type { House } from './house.js';
import { actorNamed, endpointOf, kindOf, names } from './names.js';
import type { Tree } from './tree.js';

export interface RestartsDeps {
  house: House;
  tree: Tree;
  changes: Changes;
}

export interface Restarts {
  /** Begins an actor anew from its seed; throws if that one cannot be. */
  restart(id: string, actor: Actor): Promise<void>;
}

/** The supervisor who owns an actor, as far as it may be asked to begin it anew. */
type Owner = { name: string; event: { type: 'renew'; id: string } | { type: 'renew'; actorId: string } };

/** A restart that somebody asks for: like that after a crash, but it does not count as one. */
export function restartsOf({ house, tree, changes }: RestartsDeps): Restarts {
  function ownerOf(id: string): Owner {
    const found = tree.alone(id);
    if (found === undefined) throw new ApiError('not_found', `no actor has the id ${id}`);
    if (found.status === 'quarantined') {
      throw new ApiError('quarantined', `${id} is quarantined: resume its endpoint instead`);
    }
    if (found.status === 'stopped') throw new ApiError('not_restartable', `${id} is not running`);
    const endpointId = endpointOf(id) ?? '';
    switch (kindOf(id)) {
      case 'history':
      case 'queue':
        return { name: 'root', event: { type: 'renew', actorId: id } };
      case 'box':
        return { name: names.endpoints, event: { type: 'renew', id: endpointId } };
      case 'endpoint':
      case 'tps':
        return { name: names.box(endpointId), event: { type: 'renew', actorId: id } };
      default:
        throw new ApiError('not_restartable', `${id} cannot be restarted while the server runs`);
    }
  }

  return {
    async restart(id, actor) {
      const { name, event } = ownerOf(id);
      const owner = actorNamed(house.system, name);
      if (owner === undefined) {
        throw new ApiError(
          'not_restartable',
          `${name}, which would restart ${id}, is itself being restarted`,
        );
      }
      owner.send(event);
      await changes.tell(actor, 'actor.restarted', id, {});
    },
  };
}
