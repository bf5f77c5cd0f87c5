import type { Engine, EngineType, Get } from './engine.js';
import { llamacpp } from './llamacpp.js';
import { lmStudio } from './lm-studio.js';
import { ollama } from './ollama.js';
import { openAiCompatible } from './openai-compatible.js';
import { OPENAI_LIST } from './openai-list.js';
import { sglang } from './sglang.js';
import { vllm } from './vllm.js';
import { xllm } from './xllm.js';

/** By precedence: engines imitate each other, the earlier one is meant. */
const ENGINES: readonly Engine[] = [xllm, lmStudio, ollama, sglang, vllm, llamacpp, openAiCompatible];

export function engineOf(type: EngineType): Engine {
  return ENGINES.find((engine) => engine.type === type) ?? openAiCompatible;
}

/**
 * The first engine in precedence that recognises the endpoint, as soon as no earlier one can; undefined when all have
 * said no. Once one has said yes, those still silent get half of the time that is left (`timeLeft` in ms).
 */
export function recognise(get: Get, timeLeft: () => number): Promise<Engine | undefined> {
  // Asked first, so that a pool of few connections is not taken up by side probes that hang.
  void get(OPENAI_LIST).catch(() => undefined);
  return new Promise((resolve) => {
    const answers = new Map<Engine, boolean>();
    let patience: NodeJS.Timeout | undefined;

    const decide = (outOfPatience: boolean) => {
      const open = ENGINES.filter((engine) => answers.get(engine) !== false);
      const winner = outOfPatience ? open.find((engine) => answers.has(engine)) : open[0];
      if (winner && !answers.has(winner)) return;
      clearTimeout(patience);
      resolve(winner);
    };

    for (const engine of ENGINES) {
      const answer = (yes: boolean) => {
        answers.set(engine, yes);
        if (yes) patience ??= setTimeout(decide, Math.max(0, timeLeft() / 2), true);
        decide(false);
      };
      engine.recognise(get).then(answer, () => answer(false));
    }
  });
}
