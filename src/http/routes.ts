import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Permission } from '../access/permissions.js';
import type { Actor, Principal } from '../access/principal.js';
import { ApiError } from './errors.js';

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/**
 * Who may use a route: whoever has the permission; `open`: everybody; `signed-in`: whoever was let in; `own-keys`:
 * whoever has logged in, and keys that may manage users.
 */
export type Access = Permission | 'open' | 'signed-in' | 'own-keys';

/** Throws a 403 that names what is missing. */
export function refuseUnpermitted(access: Access, principal: Principal): void {
  if (access === 'open' || access === 'signed-in' || principal.permissions.has(access as Permission)) return;
  if (access === 'own-keys') {
    if (principal.kind !== 'api_key' || principal.permissions.has('users.manage')) return;
    throw new ApiError('forbidden', 'a key needs the permission users.manage for this');
  }
  throw new ApiError('forbidden', `the permission ${access} is needed for this`);
}

/** What a handler gets: the parsed request. */
export interface Call {
  params: Record<string, string>;
  query: URLSearchParams;
  /** Who asks; of an open route everybody is anonymous. */
  principal: Principal;
  /** The same as the audit log has it. */
  actor: Actor;
  /** It came over TLS. */
  secure: boolean;
  req: IncomingMessage;
  res: ServerResponse;
  /** The parsed JSON body; a missing or malformed one is an error. */
  json(): Promise<unknown>;
  /** The body as it came, of the size of an inference request. */
  bytes(): Promise<Buffer>;
}

/** An answer that is not simply 200 with JSON; a body that is a text or a stream of bytes goes out as it is. */
export class Answer {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Record<string, string>;
  readonly cookies: readonly string[];

  constructor(
    status: number,
    body: unknown,
    headers: Record<string, string> = {},
    cookies: readonly string[] = [],
  ) {
    this.status = status;
    this.body = body;
    this.headers = headers;
    this.cookies = cookies;
  }
}

export interface Route {
  method: Method;
  /** `:name` is one segment, `**:name` the rest of the path. */
  path: string;
  access: Access;
  /** Parses, asks or tells an actor, answers: an object is 200 JSON, `Answer` anything else. */
  run: (call: Call) => unknown;
}
