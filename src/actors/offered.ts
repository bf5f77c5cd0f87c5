import { globsAllow } from '../access/globs.js';
import type { EndpointConfig } from '../persistence/store.js';

/** Whether a model that an endpoint lists is to be had there. */
export function isOffered({ modelsAllow, modelsDeny }: EndpointConfig, modelId: string): boolean {
  if (modelsDeny && globsAllow(modelsDeny, modelId)) return false;
  return !modelsAllow || globsAllow(modelsAllow, modelId);
}
