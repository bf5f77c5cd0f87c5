import type { EngineModel, Get, Listing, Reply } from './engine.js';
import { isObject, type JsonObject, objectsIn } from './json.js';
import { capabilitiesOf, modelsIn, type Told, tokensOf } from './models.js';

/** Where every OpenAI-compatible server lists its models. */
export const OPENAI_LIST = '/v1/models';

export async function listOpenAi(get: Get, read: (entry: JsonObject) => Told = readEntry): Promise<Listing> {
  const reply = await get(OPENAI_LIST);
  return { reply, models: openAiModels(reply, read) };
}

/** The models of an OpenAI list: `data`, or where a server has none `models` or a bare array; undefined for anything else. */
export function openAiModels(reply: Reply, read = readEntry): EngineModel[] | undefined {
  if (reply.status !== 200) return undefined;
  const { json } = reply;
  if (isObject(json) && Array.isArray(json.data)) return modelsIn(json.data, read);
  const entries = objectsIn(isObject(json) ? json.models : json);
  const models = modelsIn(entries, (entry) => ({ ...read(entry), id: entry.id ?? entry.name }));
  return models.length > 0 ? models : undefined;
}

export function readEntry(entry: JsonObject): Told {
  return {
    id: entry.id,
    capabilities: capabilitiesOf(entry.capabilities),
    maxTokens: tokensOf(
      entry.max_model_len,
      entry.max_context_length,
      entry.context_length,
      entry.context_window,
    ),
  };
}
