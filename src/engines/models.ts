import type { EngineModel } from './engine.js';
import { type JsonObject, objectsIn } from './json.js';

/** What an entry of a list says, unchecked. */
export interface Told {
  id: unknown;
  capabilities: string[] | null;
  maxTokens: number | null;
}

/** The models of a list in its order, without doubles and without entries that have no id. */
export function modelsIn(entries: unknown, read: (entry: JsonObject) => Told): EngineModel[] {
  const models = new Map<string, EngineModel>();
  for (const entry of objectsIn(entries)) {
    const { id, capabilities, maxTokens } = read(entry);
    if (typeof id !== 'string' || id.trim() === '' || models.has(id)) continue;
    models.set(id, { modelId: id, capabilities, maxTokens });
  }
  return [...models.values()];
}

/** The first candidate that can be a number of tokens. */
export function tokensOf(...candidates: unknown[]): number | null {
  const isTokens = (value: unknown) => typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
  return (candidates.find(isTokens) as number | undefined) ?? null;
}

const WORDS: [string, string[]][] = [
  ['chat', ['chat', 'completion', 'llm', 'vlm']],
  ['embeddings', ['embeddings', 'embedding']],
  ['vision', ['vision', 'multimodal', 'vlm']],
  ['tools', ['tools', 'tool_use']],
];

/** The engines' words in ours; null when they say nothing we know. */
export function capabilitiesOf(told: unknown): string[] | null {
  if (!Array.isArray(told)) return null;
  const ours = WORDS.filter(([, theirs]) => theirs.some((word) => told.includes(word))).map(([word]) => word);
  return ours.length > 0 ? ours : null;
}
