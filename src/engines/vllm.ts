import type { Engine, Get } from './engine.js';
import { answersMarked, answersObject, anyOf } from './evidence.js';
import { objectsIn } from './json.js';
import { loadFrom } from './metrics.js';
import { listOpenAi, OPENAI_LIST } from './openai-list.js';

export const vllm: Engine = {
  type: 'vllm',
  recognise: (get) => anyOf([answersMarked(get, OPENAI_LIST, 'vllm'), hasVersionAndLengths(get)]),
  listModels: (get) => listOpenAi(get),
  readLoad: (get) =>
    loadFrom(get, {
      running: 'vllm:num_requests_running',
      waiting: 'vllm:num_requests_waiting',
      // Despite their names from 0 to 1; the second is older than 0.9.
      cacheUse: ['vllm:kv_cache_usage_perc', 'vllm:gpu_cache_usage_perc'],
      queueOf: (labels) => labels,
    }),
};

/** For a vLLM behind a proxy that renames what it owns. */
async function hasVersionAndLengths(get: Get): Promise<boolean> {
  const answers = await Promise.all([
    answersObject(get, '/version', (json) => typeof json.version === 'string'),
    answersObject(get, OPENAI_LIST, (json) =>
      objectsIn(json.data).some((entry) => typeof entry.max_model_len === 'number'),
    ),
  ]);
  return answers.every(Boolean);
}
