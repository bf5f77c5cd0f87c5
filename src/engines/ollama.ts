import type { Engine, EngineModel, Reply } from './engine.js';
import { marksOf } from './evidence.js';
import { isObject, type JsonObject, objectsIn } from './json.js';
import { capabilitiesOf, modelsIn } from './models.js';

const TAGS = '/api/tags';
const RUNNING = '/api/ps';

export const ollama: Engine = {
  type: 'ollama',
  recognise: (get) =>
    get(TAGS).then(
      (reply) => tagsIn(reply) !== undefined,
      () => false,
    ),
  async listModels(get) {
    const reply = await get(TAGS);
    return { reply, models: tagsIn(reply) };
  },
  async listLoaded(get) {
    const { status, json } = await get(RUNNING);
    if (status !== 200 || !isObject(json) || !Array.isArray(json.models)) return undefined;
    return objectsIn(json.models)
      .map((entry) => entry.name ?? entry.model)
      .filter((name) => typeof name === 'string');
  },
};

function tagsIn(reply: Reply): EngineModel[] | undefined {
  const { status, json } = reply;
  if (status !== 200 || !isObject(json) || !Array.isArray(json.models)) return undefined;
  // LM Studio answers paths it does not know with 200 and an `error`.
  if (json.error !== undefined || isImitation(reply, json)) return undefined;
  return modelsIn(json.models, (entry) => ({
    id: entry.name ?? entry.model,
    capabilities: capabilitiesOf(entry.capabilities),
    maxTokens: null,
  }));
}

/** llama.cpp answers this path with its OpenAI list (`models` and `data`), SGLang with a format of its name. */
function isImitation(reply: Reply, json: JsonObject): boolean {
  const isSglang = (entry: JsonObject) => isObject(entry.details) && entry.details.format === 'sglang';
  return Array.isArray(json.data) || marksOf(reply).size > 0 || objectsIn(json.models).some(isSglang);
}
