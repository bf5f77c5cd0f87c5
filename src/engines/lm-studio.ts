import type { Engine, EngineModel, Reply } from './engine.js';
import { answersMarked, anyOf, marksOf } from './evidence.js';
import { isObject, type JsonObject, listedObjects, objectsIn } from './json.js';
import { capabilitiesOf, modelsIn, type Told, tokensOf } from './models.js';
import { listOpenAi, OPENAI_LIST } from './openai-list.js';

/** Its own lists, the one with the ids of OpenAI requests first. */
const NATIVE_LISTS = ['/api/v0/models', '/api/v1/models'];

export const lmStudio: Engine = {
  type: 'lm_studio',
  recognise: (get) =>
    anyOf([
      ...NATIVE_LISTS.map((path) => get(path).then((reply) => isNative(reply))),
      answersMarked(get, OPENAI_LIST, 'lm_studio'),
    ]),
  async listModels(get) {
    for (const path of NATIVE_LISTS) {
      const reply = await get(path);
      const models = nativeModels(reply);
      if (models || isRefusal(reply)) return { reply, models };
    }
    // Before 0.3.6 there was no list of its own.
    const { reply, models } = await listOpenAi(get);
    return { reply, models: marksOf(reply).has('lm_studio') ? models : undefined };
  },
  async listLoaded(get) {
    const entries = listedObjects((await get(NATIVE_LISTS[0] as string)).json).filter(
      ({ id, state }) => typeof id === 'string' && typeof state === 'string',
    );
    // Whoever tells of none has no such field.
    if (entries.length === 0) return undefined;
    return entries.filter(({ state }) => state === 'loaded').map(({ id }) => String(id));
  },
};

function nativeModels(reply: Reply): EngineModel[] | undefined {
  return isNative(reply) || isEmptyList(reply) ? modelsIn(listedObjects(reply.json), readEntry) : undefined;
}

function isNative(reply: Reply): boolean {
  return reply.status === 200 && listedObjects(reply.json).some(isNativeEntry);
}

function isNativeEntry(entry: JsonObject): boolean {
  const isString = (value: unknown) => typeof value === 'string';
  return (
    isString(entry.publisher) &&
    (isString(entry.arch) || isString(entry.architecture)) &&
    ['state', 'loaded_instances', 'key', 'display_name', 'format', 'compatibility_type'].some(
      (field) => entry[field] !== undefined,
    )
  );
}

function isEmptyList({ status, json }: Reply): boolean {
  if (status !== 200 || !isObject(json)) return false;
  const list = json.data ?? json.models;
  return Array.isArray(list) && list.length === 0;
}

function isRefusal({ status }: Reply): boolean {
  return status === 401 || status === 403 || status >= 500;
}

function readEntry(entry: JsonObject): Told {
  const instances = objectsIn(entry.loaded_instances).map(({ config }) => (isObject(config) ? config : {}));
  return {
    id: entry.id ?? entry.key,
    capabilities: capabilitiesOf([entry.type, ...nativeCapabilities(entry.capabilities)]),
    // The context it is loaded with comes before the longest one possible.
    maxTokens: tokensOf(
      entry.loaded_context_length,
      ...instances.map((config) => config.context_length),
      entry.max_context_length,
    ),
  };
}

/** A list of words in v0, flags in v1. */
function nativeCapabilities(told: unknown): unknown[] {
  if (Array.isArray(told)) return told;
  if (!isObject(told)) return [];
  return [told.vision === true && 'vision', told.trained_for_tool_use === true && 'tool_use'];
}
