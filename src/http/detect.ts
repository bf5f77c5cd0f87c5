import type { House } from '../actors/house.js';
import type { CheckResult } from '../engines/check.js';
import type { EngineType } from '../engines/engine.js';
import type { LocalEngine } from '../engines/local.js';
import { endpointInput } from './endpoint-input.js';
import { parsed } from './input.js';
import type { Route } from './routes.js';

/** Somewhere that is no endpoint yet. */
export interface Candidate {
  baseUrl: string;
  apiKey: string | null;
  headers: Record<string, string>;
  tlsCa: string | null;
}

export interface DetectRoutesDeps {
  house: House;
  check: (candidate: Candidate) => Promise<CheckResult>;
  local: () => Promise<LocalEngine[]>;
}

const input = endpointInput.pick({ base_url: true, api_key: true, headers: true, tls_ca: true });
const SILENT = new Set(['unreachable', 'timeout']);

/** Names that are offered for an engine found on this machine. */
const NAMES: Record<EngineType, string> = {
  xllm: 'xllm',
  ollama: 'ollama',
  vllm: 'vllm',
  lm_studio: 'lm-studio',
  llamacpp: 'llama-cpp',
  sglang: 'sglang',
  openai_compatible: 'local',
};

/** What is there, before it is an endpoint: nothing is stored. */
export function detectRoutes({ house, check, local }: DetectRoutesDeps): Route[] {
  return [
    {
      method: 'POST',
      path: '/api/endpoints/detect',
      access: 'endpoints.manage',
      run: async ({ json }) => {
        const { base_url, api_key, headers, tls_ca } = parsed(input, await json());
        const result = await check({
          baseUrl: base_url,
          apiKey: api_key ?? null,
          headers: headers ?? {},
          tlsCa: tls_ca ?? null,
        });
        return found(result);
      },
    },
    {
      method: 'GET',
      path: '/api/endpoints/local',
      access: 'endpoints.manage',
      run: async () => {
        const engines = await local();
        const configs = house.roster.configs();
        const urls = new Set(configs.map(({ baseUrl }) => onThisMachine(baseUrl)));
        const taken = new Set(configs.map(({ name }) => name));
        return {
          engines: engines.map(({ baseUrl, engineType, models }) => ({
            base_url: baseUrl,
            endpoint_type: engineType,
            models,
            name: freeName(NAMES[engineType], taken),
            registered: urls.has(baseUrl),
          })),
        };
      },
    },
  ];
}

function found(result: CheckResult) {
  if (result.ok) {
    return {
      reachable: true,
      endpoint_type: result.engineType,
      models: result.models.map(({ modelId }) => modelId),
      latency_ms: result.latencyMs,
      error: null,
    };
  }
  const { reason, error } = result;
  return { reachable: !SILENT.has(reason), endpoint_type: null, models: [], latency_ms: null, error };
}

/** Its names for itself are one place. */
function onThisMachine(baseUrl: string): string {
  return baseUrl.replace(/^http:\/\/(localhost|\[::1\])(?=[:/]|$)/, 'http://127.0.0.1');
}

/** The first of `ollama`, `ollama-2`, … that nobody has; it is taken from then on. */
function freeName(base: string, taken: Set<string>): string {
  let name = base;
  for (let i = 2; taken.has(name); i += 1) name = `${base}-${i}`;
  taken.add(name);
  return name;
}
