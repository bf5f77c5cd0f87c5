import type { Wanted } from '../actors/chooser.js';
import type { PolicyName } from '../machines/policies.js';
import { BodyError, type RequestBody, scanBody } from './body.js';
import { isBatch, type Prefix, prefixesOf } from './conversation.js';
import { ApiError } from './errors.js';
import { keyOf } from './prefix-hash.js';
import { textBytesOf } from './text-bytes.js';

/** Policies that ask where a conversation was before. */
const FOLLOWERS: ReadonlySet<PolicyName> = new Set(['adaptive', 'affinity']);
/** Of a longer name only this much is looked at. */
const MOST_SESSION_CHARS = 512;
/** Larger bodies are pictures and sound: to look through them would hold up everybody else. */
const MOST_FOLLOWED_BYTES = 2 << 20;
const NO_PREFIXES: readonly Prefix[] = [];

/**
 * What the chooser knows of a request. `header`: its `x-session-id`, which says more of a session than the body does.
 * The text is looked for in `body()` when it is first asked for, while the body is kept.
 */
export function wantedOf(
  request: RequestBody,
  promptBytes: number,
  body: () => Buffer,
  header: string | string[] | undefined,
  policy: PolicyName,
): Wanted {
  const { model, stream, maxTokens, turns } = request;
  const follows = FOLLOWERS.has(policy);
  let textBytes: number | undefined;
  return {
    model,
    promptBytes,
    get textBytes() {
      // How long the longest of several is nobody knows.
      textBytes ??= turns !== null && isBatch(body(), turns) ? 0 : textBytesOf(body());
      return textBytes;
    },
    stream,
    maxTokens,
    session: follows ? sessionOf(request, header) : null,
    prefixes:
      follows && turns !== null && promptBytes <= MOST_FOLLOWED_BYTES
        ? prefixesOf(body(), turns)
        : NO_PREFIXES,
  };
}

/** Reads a request body as far as it has to be read. Throws a 400 in words for the client. */
export function scanned(body: Buffer): RequestBody {
  try {
    return scanBody(body);
  } catch (error) {
    if (!(error instanceof BodyError)) throw error;
    const code = error.param === null ? 'invalid_json' : 'invalid_request';
    throw new ApiError(code, error.message, { param: error.param, cause: error });
  }
}

function sessionOf({ session }: RequestBody, header: string | string[] | undefined): string | null {
  if (typeof header === 'string' && header !== '')
    return keyOf('header', header.slice(0, MOST_SESSION_CHARS));
  return session === null ? null : keyOf('body', session);
}
