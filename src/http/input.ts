import type { z } from 'zod';
import { ApiError } from './errors.js';

/** The input in its canonical form, or a 400 that names the field. */
export function parsed<T extends z.ZodType>(schema: T, input: unknown): z.infer<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue?.path.join('.') ?? '';
  throw new ApiError(
    'invalid_request',
    `${field === '' ? 'the body' : field}: ${issue?.message ?? 'is not valid'}`,
    {
      param: field === '' ? null : field,
    },
  );
}
