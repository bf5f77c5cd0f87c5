import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { pause } from './server.js';

/** What is in use when all that nobody holds is collected; between the rounds, `ms` apart, promises let go of theirs. */
export async function memoryInUse(rounds: number, ms: number): Promise<NodeJS.MemoryUsage> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < rounds; i += 1) {
    await pause(ms);
    collect();
  }
  return process.memoryUsage();
}
