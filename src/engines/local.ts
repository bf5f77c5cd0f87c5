import type { CheckResult } from './check.js';
import type { EngineType } from './engine.js';

/** Where engines listen unless told otherwise: Ollama, LM Studio, vLLM, llama.cpp, SGLang. */
export const USUAL_PORTS: readonly number[] = [11434, 1234, 8000, 8080, 30000];

/** An engine on this machine. */
export interface LocalEngine {
  baseUrl: string;
  engineType: EngineType;
  models: string[];
}

/** What listens on this machine and is an engine, in the order of the ports; a second one who asks gets the same look. */
export function localEnginesOf(
  ports: () => readonly number[],
  check: (baseUrl: string) => Promise<CheckResult>,
): () => Promise<LocalEngine[]> {
  let looking: Promise<LocalEngine[]> | null = null;

  async function look(port: number): Promise<LocalEngine[]> {
    const baseUrl = `http://127.0.0.1:${port}`;
    const result = await check(baseUrl);
    if (!result.ok) return [];
    return [{ baseUrl, engineType: result.engineType, models: result.models.map(({ modelId }) => modelId) }];
  }

  return () => {
    looking ??= Promise.all(ports().map(look))
      .then((found) => found.flat())
      .finally(() => {
        looking = null;
      });
    return looking;
  };
}
