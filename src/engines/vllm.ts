import type { Engine, Get } from './engine.js';
import { answersMarked, answersObject, anyOf } from './evidence.js';
import { objectsIn } from './json.js';
import { listOpenAi, OPENAI_LIST } from './openai-list.js';

export const vllm: Engine = {
  type: 'vllm',
  recognise: (get) => anyOf([answersMarked(get, OPENAI_LIST, 'vllm'), hasVersionAndLengths(get)]),
  listModels: (get) => listOpenAi(get),
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
