import type { Engine } from './engine.js';
import { answersMarked, answersObject, anyOf } from './evidence.js';
import type { JsonObject } from './json.js';
import { listOpenAi, OPENAI_LIST } from './openai-list.js';

export const sglang: Engine = {
  type: 'sglang',
  recognise: (get) =>
    anyOf([
      answersMarked(get, OPENAI_LIST, 'sglang'),
      answersObject(get, '/get_model_info', hasModelPath),
      answersObject(get, '/server_info', hasModelPath),
    ]),
  listModels: (get) => listOpenAi(get),
};

function hasModelPath(json: JsonObject): boolean {
  return typeof json.model_path === 'string';
}
