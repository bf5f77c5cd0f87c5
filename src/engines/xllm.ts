import type { Engine } from './engine.js';
import { answersObject, anyOf } from './evidence.js';
import { listOpenAi } from './openai-list.js';

export const xllm: Engine = {
  type: 'xllm',
  recognise: (get) =>
    anyOf([answersObject(get, '/api/system', (json) => typeof json.xllm_version === 'string')]),
  listModels: (get) => listOpenAi(get),
};
