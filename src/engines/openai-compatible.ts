import type { Engine } from './engine.js';
import { listOpenAi, OPENAI_LIST, openAiModels } from './openai-list.js';

/** Anything that lists models the OpenAI way and is none of the others. */
export const openAiCompatible: Engine = {
  type: 'openai_compatible',
  recognise: (get) =>
    get(OPENAI_LIST).then(
      (reply) => openAiModels(reply) !== undefined,
      () => false,
    ),
  listModels: (get) => listOpenAi(get),
};
