import { isDeepStrictEqual } from 'node:util';
import { auditEntry } from '../access/changes.js';
import { SYSTEM } from '../access/principal.js';
import type { AuditEntry } from '../persistence/access-store.js';
import type { EndpointConfig, EndpointSecrets } from '../persistence/store.js';

/** The line of an endpoint that an option registered; it has no secrets. */
export function createdAtStart(config: EndpointConfig): AuditEntry {
  const detail = { after: toldEndpoint(config, { apiKey: null, headers: {} }) };
  return auditEntry(config.registeredAt, SYSTEM, 'endpoint.created', config.name, detail);
}

/** An endpoint as the audit log may show it: that there is a key, and which headers, but nothing of them. */
export function toldEndpoint(config: EndpointConfig, secrets: EndpointSecrets): Record<string, unknown> {
  return {
    name: config.name,
    base_url: config.baseUrl,
    api_key: secrets.apiKey === null ? null : '(secret)',
    headers: Object.fromEntries(Object.keys(secrets.headers).map((name) => [name, '(secret)'])),
    health_check_interval_secs: config.healthIntervalMs === null ? null : config.healthIntervalMs / 1000,
    inference_timeout_secs: config.inferenceTimeoutSecs,
    notes: config.notes,
    max_concurrency: config.maxConcurrency,
    weight: config.weight,
    priority: config.priority,
    max_context: config.maxContext,
    deadlines: config.deadlines,
    models_allow: config.modelsAllow,
    models_deny: config.modelsDeny,
    model_settings: config.modelSettings,
    tls_ca: config.tlsCa === null ? null : '(certificate)',
  };
}

/** What differs, as it was and as it is; a secret that is another one now is called changed. */
export function changedEndpoint(
  before: { config: EndpointConfig; secrets: EndpointSecrets },
  after: { config: EndpointConfig; secrets: EndpointSecrets },
): { before: object; after: object } {
  const was = toldEndpoint(before.config, before.secrets);
  const is = toldEndpoint(after.config, after.secrets);
  const isNew: Record<string, boolean> = {
    api_key: before.secrets.apiKey !== after.secrets.apiKey,
    headers: !isDeepStrictEqual(before.secrets.headers, after.secrets.headers),
    tls_ca: before.config.tlsCa !== after.config.tlsCa,
  };
  const fields = Object.keys(is).filter((field) => isNew[field] ?? !isDeepStrictEqual(was[field], is[field]));
  const told = (all: Record<string, unknown>) =>
    Object.fromEntries(fields.map((field) => [field, all[field]]));
  const changed = fields.filter((field) => isNew[field] && isDeepStrictEqual(was[field], is[field]));
  return {
    before: told(was),
    after: { ...told(is), ...Object.fromEntries(changed.map((field) => [field, '(changed)'])) },
  };
}
