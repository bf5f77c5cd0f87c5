import type { Engine } from './engine.js';
import { answersMarked, answersObject, anyOf } from './evidence.js';
import { isObject, type JsonObject, objectsIn } from './json.js';
import { capabilitiesOf, tokensOf } from './models.js';
import { listOpenAi, OPENAI_LIST, readEntry } from './openai-list.js';

export const llamacpp: Engine = {
  type: 'llamacpp',
  recognise: (get) =>
    anyOf([
      answersMarked(get, OPENAI_LIST, 'llamacpp'),
      answersObject(
        get,
        '/props',
        (json) => isObject(json.default_generation_settings) || typeof json.build_info === 'string',
      ),
    ]),
  async listModels(get) {
    // Lengths are in `data`, capabilities in the `models` beside it.
    const { json } = await get(OPENAI_LIST);
    const described = isObject(json) ? objectsIn(json.models) : [];
    return listOpenAi(get, (entry) => {
      const told = readEntry(entry);
      const meta = isObject(entry.meta) ? entry.meta : {};
      const description = described.find(({ model, name }) => entry.id === model || entry.id === name);
      return {
        id: told.id,
        capabilities: told.capabilities ?? capabilitiesOf(description?.capabilities),
        // What it was started with comes before what the model was trained for.
        maxTokens: tokensOf(meta.n_ctx, meta.n_ctx_train) ?? told.maxTokens,
      };
    });
  },
  async readLoad(get) {
    const slots = objectsIn((await get('/slots')).json);
    const busy = slots.map(isBusy);
    if (slots.length === 0 || busy.includes(undefined)) return undefined;
    // Who waits for a slot is not among them.
    return { running: busy.filter(Boolean).length, waiting: 0, slots: slots.length, cacheUse: null };
  },
};

/** Before November 2024 a slot had a number for its state, 0 when idle. */
function isBusy({ is_processing, state }: JsonObject): boolean | undefined {
  if (typeof is_processing === 'boolean') return is_processing;
  return typeof state === 'number' ? state !== 0 : undefined;
}
