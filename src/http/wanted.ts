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
 * What the chooser knows of a request. `header`: its `x-session-id`, which says more of a session than the body's
 * `prompt_cache_key`.
 * The text is looked for in `body()` when it is first asked for, while the body is kept.
 */
export function wantedOf(
  request: RequestBody,
  promptBytes: number,
  body: () => Buffer,
  header: string | string[] | undefined,
  policy: PolicyName,
): Wanted {
  const follows = FOLLOWERS.has(policy);
  const session = follows ? sessionOf(request, header) : null;
  const { turns } = request;
  return new WantedByBody(
    request,
    promptBytes,
    body,
    session,
    // Who has many conversations and names this one does not want them all in one place.
    follows && session === null && request.user !== null ? keyOf('user', request.user) : null,
    follows && turns !== null && promptBytes <= MOST_FOLLOWED_BYTES ? prefixesOf(body(), turns) : NO_PREFIXES,
  );
}

/**
 * A class, because V8 makes a dictionary of an object literal with a getter: slow to make and to read, and what it
 * refers to outlives the young generation.
 */
class WantedByBody implements Wanted {
  readonly model: string;
  readonly promptBytes: number;
  readonly stream: boolean;
  readonly maxTokens: number | null;
  readonly session: string | null;
  readonly user: string | null;
  readonly previous: string | null;
  readonly prefixes: readonly Prefix[];
  readonly #turns: RequestBody['turns'];
  readonly #body: () => Buffer;
  #textBytes = -1;

  constructor(
    { model, stream, maxTokens, turns, previous }: RequestBody,
    promptBytes: number,
    body: () => Buffer,
    session: string | null,
    user: string | null,
    prefixes: readonly Prefix[],
  ) {
    this.model = model;
    this.promptBytes = promptBytes;
    this.stream = stream;
    this.maxTokens = maxTokens;
    this.session = session;
    this.user = user;
    this.previous = previous;
    this.prefixes = prefixes;
    this.#turns = turns;
    this.#body = body;
  }

  get textBytes(): number {
    if (this.#textBytes < 0) this.#textBytes = this.#measure();
    return this.#textBytes;
  }

  #measure(): number {
    // How long the longest of several is nobody knows.
    const isOfMany = this.#turns !== null && isBatch(this.#body(), this.#turns);
    return isOfMany ? 0 : textBytesOf(this.#body());
  }
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
