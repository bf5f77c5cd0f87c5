import type { Engine } from './engine.js';
import { answersMarked, answersObject, anyOf } from './evidence.js';
import type { JsonObject } from './json.js';
import { loadFrom } from './metrics.js';
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
  // There are none unless it was started with --enable-metrics.
  readLoad: (get) =>
    loadFrom(get, {
      running: 'sglang:num_running_reqs',
      waiting: 'sglang:num_queue_reqs',
      cacheUse: ['sglang:token_usage'],
      // Tensor-parallel ranks may each tell of the same requests, and every priority does so beside their sum.
      queueOf: (labels) => /\bdp_rank="(\d*)"/.exec(labels)?.[1] ?? '',
    }),
};

function hasModelPath(json: JsonObject): boolean {
  return typeof json.model_path === 'string';
}
