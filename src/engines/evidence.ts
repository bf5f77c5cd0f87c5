import type { EngineType, Get, Reply } from './engine.js';
import { isObject, listedObjects } from './json.js';

/** True as soon as one of the probes says yes; a probe without an answer says no. */
export function anyOf(probes: Promise<boolean>[]): Promise<boolean> {
  return new Promise((resolve) => {
    const saysYes = (yes: boolean) => {
      if (yes) resolve(true);
    };
    Promise.allSettled(probes.map((probe) => probe.then(saysYes))).then(() => resolve(false));
  });
}

/** Whether the path answers 200 with a JSON object that passes the test. */
export async function answersObject(
  get: Get,
  path: string,
  test: (json: Record<string, unknown>, reply: Reply) => boolean,
): Promise<boolean> {
  const reply = await get(path);
  return reply.status === 200 && isObject(reply.json) && test(reply.json, reply);
}

/** Whether a reply of the path names the engine in its `Server` header or in an `owned_by`. */
export async function answersMarked(get: Get, path: string, type: EngineType): Promise<boolean> {
  return marksOf(await get(path)).has(type);
}

const MARKS: [EngineType, RegExp][] = [
  ['lm_studio', /lm[\s_-]*studio/i],
  ['sglang', /sglang/i],
  ['vllm', /vllm/i],
  ['llamacpp', /llama[\s._-]*cpp/i],
];

/** The engines a reply names in its `Server` header or in the `owned_by` of its models. */
export function marksOf(reply: Reply): Set<EngineType> {
  const words = [reply.headers.server, ...listedObjects(reply.json).map((entry) => entry.owned_by)]
    .flat()
    .filter((word) => typeof word === 'string');
  return new Set(MARKS.filter(([, mark]) => words.some((word) => mark.test(word))).map(([type]) => type));
}
