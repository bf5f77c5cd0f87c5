import { z } from 'zod';
import { ApiError } from './errors.js';

/** The input in its canonical form, or a 400 that names the field. */
export function parsed<T extends z.ZodType>(schema: T, input: unknown): z.infer<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const unknown = issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
  const field = [...(issue?.path ?? []), ...unknown].join('.');
  const message = unknown.length > 0 ? 'there is no such field' : (issue?.message ?? 'is not valid');
  throw new ApiError('invalid_request', `${field === '' ? 'the body' : field}: ${message}`, {
    param: field === '' ? null : field,
  });
}

/** Fields that are told and never set: they are passed over, so that a thing can be sent back as it was read. */
export function toldWith<K extends string>(...names: K[]): Record<K, z.ZodOptional<z.ZodUnknown>> {
  const entries = names.map((name) => [name, z.unknown().optional()]);
  return Object.fromEntries(entries);
}
