import { common } from '../words/common.js';
import { Refusal, Unreachable } from './http.js';

/** An error in words for people: the server's own where it has some. */
export function saidOf(error: unknown): string {
  if (error instanceof Unreachable) return common('unreachable');
  if (error instanceof Refusal) return withoutField(error.message);
  return error instanceof Error ? error.message : String(error);
}

/** Programs are told the field's name first; a person sees which one it is. */
function withoutField(message: string): string {
  const rest = message.replace(/^[a-z]+(?:_[a-z]+)*(?:\.[a-z_]+)*: /, '');
  return rest === message ? message : rest.charAt(0).toUpperCase() + rest.slice(1);
}
