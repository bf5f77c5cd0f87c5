import { common } from '../words/common.js';
import { Refusal, Unreachable } from './http.js';

/** An error in words for people: the server's own where it has some. */
export function saidOf(error: unknown): string {
  if (error instanceof Unreachable) return common('unreachable');
  return error instanceof Refusal || error instanceof Error ? error.message : String(error);
}
