import type { Changes } from '../access/changes.js';
import type { Actor } from '../access/principal.js';
import type { Vault } from '../access/vault.js';
import type { Clock } from '../clock.js';
import type { CheckResult } from '../engines/check.js';
import type { EngineType } from '../engines/engine.js';
import type { EndpointChange, EndpointInput } from '../http/endpoint-input.js';
import { ApiError } from '../http/errors.js';
import type { EndpointConfig, EndpointSecrets, Store } from '../persistence/store.js';
import { type Books, newEndpointSeed } from './books.js';
import { changedEndpoint, createdAtStart, toldEndpoint } from './endpoint-audit.js';
import type { House } from './house.js';
import type { LeaseTable } from './leases.js';
import { actorNamed, names } from './names.js';

export interface RegistryDeps {
  house: House;
  books: Books;
  leases: LeaseTable;
  store: Store;
  vault: Vault;
  changes: Changes;
  clock: Clock;
  newId: () => string;
  check: (config: EndpointConfig, engineType: EngineType | null) => Promise<CheckResult>;
  /** Ends the connections to an endpoint that is gone or lives elsewhere now; running requests finish. */
  dropConnections: (id: string) => void;
  log: { info(details: object, message: string): void; warn(details: object, message: string): void };
}

/** Changes to the set of endpoints: written first, then told to the actors. */
export interface Registry {
  register(input: EndpointInput, actor: Actor): Promise<EndpointConfig>;
  /** `--endpoint NAME=URL`: no check, no error; an endpoint of that URL that is there stays as it is. */
  registerAtStart(name: string, url: string): Promise<void>;
  update(id: string, change: EndpointChange, actor: Actor): Promise<EndpointConfig>;
  remove(id: string, force: boolean, actor: Actor): Promise<void>;
  setDraining(id: string, draining: boolean, actor: Actor): Promise<EndpointConfig>;
  get(id: string): EndpointConfig;
}

export function registryOf(deps: RegistryDeps): Registry {
  const { house, books, leases, store, vault, changes, clock, log } = deps;
  /** Names and URLs of registrations that wait for their first check. */
  const reserved = new Set<EndpointConfig>();

  function get(id: string): EndpointConfig {
    const config = books.config(id);
    if (config === undefined) throw new ApiError('not_found', `no endpoint has the id ${id}`);
    return config;
  }

  function refuseTaken(wanted: { id: string; name: string; baseUrl: string }): void {
    for (const other of [...books.configs(), ...reserved]) {
      if (other.id === wanted.id) continue;
      if (other.name === wanted.name) {
        throw new ApiError('name_taken', `another endpoint is called ${wanted.name}`);
      }
      if (other.baseUrl === wanted.baseUrl) {
        throw new ApiError('url_taken', `the endpoint ${other.name} has the URL ${wanted.baseUrl}`);
      }
    }
  }

  const write = (change: () => Promise<void>) =>
    changes.write(change, 'another endpoint has that name or URL');

  function open(config: EndpointConfig): void {
    books.seedEndpoint(config, newEndpointSeed());
    actorNamed(house.system, names.endpoints)?.send({ type: 'register', config });
  }

  return {
    get,

    async register(input, actor) {
      const config = newConfig(deps.newId(), input, clock.now());
      const secrets = { apiKey: input.api_key ?? null, headers: input.headers ?? {} };
      refuseTaken(config);
      reserved.add(config);
      vault.set(config.id, secrets);
      try {
        const result = await deps.check(config, null);
        if (!result.ok && result.reason === 'not_recognised') {
          throw new ApiError('engine_not_recognised', `${config.baseUrl}: ${result.error}`);
        }
        const audit = changes.entry(actor, 'endpoint.created', config.name, {
          after: toldEndpoint(config, secrets),
        });
        await changes.inTurn(actor, () =>
          write(() => store.insertEndpoint(config, vault.seal(config.id, secrets), audit)),
        );
        open(config);
        house.report(config.id, result);
        return config;
      } catch (error) {
        vault.forget(config.id);
        throw error;
      } finally {
        reserved.delete(config);
      }
    },

    async registerAtStart(name, url) {
      const known = books.configs();
      if (known.some(({ baseUrl }) => baseUrl === url)) return;
      const namesake = known.find((config) => config.name === name);
      if (namesake !== undefined) {
        log.warn(
          { endpoint: name, stored_url: namesake.baseUrl, given_url: url },
          `the endpoint ${name} is stored with ${namesake.baseUrl}, which stays; ${url} was not registered`,
        );
        return;
      }
      const config = newConfig(deps.newId(), { name, base_url: url }, clock.now());
      await store.insertEndpoint(config, null, createdAtStart(config)).catch((error: Error) => {
        log.warn(
          { endpoint: name, reason: error.message },
          'the endpoint serves, but could not be stored yet',
        );
        books.addProvisional(config);
      });
      open(config);
    },

    update(id, change, actor) {
      return changes.inTurn(actor, async () => {
        const before = { config: get(id), secrets: vault.get(id) };
        const config = changed(before.config, change);
        const secrets = changedSecrets(before.secrets, change);
        refuseTaken(config);
        const newUrl = config.baseUrl !== before.config.baseUrl;
        const newSecrets = change.api_key !== undefined || change.headers !== undefined;
        const newTarget = newUrl || newSecrets || config.tlsCa !== before.config.tlsCa;
        const audit = changes.entry(
          actor,
          'endpoint.changed',
          before.config.name,
          changedEndpoint(before, { config, secrets }),
        );
        // Secrets that cannot be read are kept until others are given: their key may come back.
        const sealed = newSecrets || !vault.isLost(id) ? { text: vault.seal(id, secrets) } : null;
        await write(() => store.updateEndpoint(config, sealed, newUrl ? newEndpointSeed() : null, audit));
        if (sealed !== null) vault.set(id, secrets);
        const version = books.setConfig(config, newTarget);
        if (newUrl) books.resetHealth(id);
        actorNamed(house.system, names.endpoints)?.send({
          type: 'configure',
          config,
          version,
          newUrl,
          newTarget,
        });
        if (newUrl) {
          leases.moveWaiting(id, 'its URL was changed');
          // Another server has nothing of what this one read.
          house.chooser.forget(id);
          deps.dropConnections(id);
        }
        house.waiting.pump();
        return config;
      });
    },

    remove(id, force, actor) {
      return changes.inTurn(actor, async () => {
        const config = get(id);
        const detail = { before: toldEndpoint(config, vault.get(id)) };
        await write(() =>
          store.deleteEndpoint(id, changes.entry(actor, 'endpoint.removed', config.name, detail)),
        );
        books.forget(id);
        // Its supervisor may be away just now.
        house.catalogue.touch();
        actorNamed(house.system, names.endpoints)?.send({ type: 'remove', id });
        if (force) leases.abortAll(id);
        else leases.moveWaiting(id, 'it was removed');
        deps.dropConnections(id);
        vault.forget(id);
        house.chooser.forget(id);
        leases.forget(id);
      });
    },

    setDraining(id, draining, actor) {
      return changes.inTurn(actor, async () => {
        const config = get(id);
        const action = draining ? 'endpoint.drained' : 'endpoint.resumed';
        await write(() => store.setDraining(id, draining, changes.entry(actor, action, config.name, {})));
        books.setDraining(id, draining);
        actorNamed(house.system, names.endpoint(id))?.send({ type: draining ? 'drain' : 'resume' });
        if (!draining) {
          actorNamed(house.system, names.endpoints)?.send({ type: 'revive', id });
          house.waiting.pump();
        }
        return config;
      });
    },
  };
}

function newConfig(id: string, input: EndpointInput, now: number): EndpointConfig {
  return {
    id,
    name: input.name,
    baseUrl: input.base_url,
    healthIntervalMs: intervalMs(input.health_check_interval_secs),
    inferenceTimeoutSecs: input.inference_timeout_secs ?? 0,
    notes: input.notes ?? null,
    maxConcurrency: input.max_concurrency ?? null,
    weight: input.weight ?? 1,
    priority: input.priority ?? 0,
    maxContext: input.max_context ?? null,
    deadlines: input.deadlines ?? {},
    modelsAllow: input.models_allow ?? null,
    modelsDeny: input.models_deny ?? null,
    modelSettings: input.model_settings ?? {},
    tlsCa: input.tls_ca ?? null,
    registeredAt: now,
  };
}

/** What the change does not name stays; `null` clears. */
function changed(before: EndpointConfig, change: EndpointChange): EndpointConfig {
  const has = (key: keyof EndpointChange) => change[key] !== undefined;
  return {
    ...before,
    name: change.name ?? before.name,
    baseUrl: change.base_url ?? before.baseUrl,
    healthIntervalMs: has('health_check_interval_secs')
      ? intervalMs(change.health_check_interval_secs)
      : before.healthIntervalMs,
    inferenceTimeoutSecs: has('inference_timeout_secs')
      ? (change.inference_timeout_secs ?? 0)
      : before.inferenceTimeoutSecs,
    notes: has('notes') ? (change.notes ?? null) : before.notes,
    maxConcurrency: has('max_concurrency') ? (change.max_concurrency ?? null) : before.maxConcurrency,
    weight: has('weight') ? (change.weight ?? 1) : before.weight,
    priority: has('priority') ? (change.priority ?? 0) : before.priority,
    maxContext: has('max_context') ? (change.max_context ?? null) : before.maxContext,
    deadlines: has('deadlines') ? (change.deadlines ?? {}) : before.deadlines,
    modelsAllow: has('models_allow') ? (change.models_allow ?? null) : before.modelsAllow,
    modelsDeny: has('models_deny') ? (change.models_deny ?? null) : before.modelsDeny,
    modelSettings: has('model_settings') ? (change.model_settings ?? {}) : before.modelSettings,
    tlsCa: has('tls_ca') ? (change.tls_ca ?? null) : before.tlsCa,
  };
}

function changedSecrets(before: EndpointSecrets, change: EndpointChange): EndpointSecrets {
  return {
    apiKey: change.api_key === undefined ? before.apiKey : change.api_key,
    headers: change.headers === undefined ? before.headers : (change.headers ?? {}),
  };
}

function intervalMs(secs: number | null | undefined): number | null {
  return secs === null || secs === undefined ? null : Math.round(secs * 1000);
}
