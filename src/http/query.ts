import { ApiError } from './errors.js';

/** A whole number from the query, undefined when absent; anything else is a 400 that names it. */
export function wholeNumber(
  query: URLSearchParams,
  name: string,
  least: number,
  most: number,
): number | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new ApiError('invalid_request', `${name}: a whole number from ${least} to ${most}`, { param: name });
}

export function oneOf<T extends string>(
  query: URLSearchParams,
  name: string,
  allowed: readonly T[],
): T | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  const value = allowed.find((one) => one === text);
  if (value !== undefined) return value;
  throw noneOf(name, allowed);
}

export function requiredOneOf<T extends string>(
  query: URLSearchParams,
  name: string,
  allowed: readonly T[],
): T {
  const value = oneOf(query, name, allowed);
  if (value === undefined) throw noneOf(name, allowed);
  return value;
}

function noneOf(name: string, allowed: readonly string[]): ApiError {
  return new ApiError('invalid_request', `${name}: one of ${allowed.join(', ')}`, { param: name });
}

/** A time (RFC 3339) as wall-clock ms. */
export function time(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  // An unescaped `+` of an offset arrives as a space.
  const written = text.replace(/ (\d{2}:\d{2})$/, '+$1');
  const at = /^\d{4}-\d{2}-\d{2}/.test(written) ? Date.parse(written) : Number.NaN;
  if (!Number.isNaN(at)) return at;
  throw new ApiError('invalid_request', `${name}: an RFC 3339 time such as 2026-01-31T12:00:00Z`, {
    param: name,
  });
}
