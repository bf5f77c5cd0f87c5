import type { IncomingMessage, ServerResponse } from 'node:http';

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** Who may use a route, once there is somebody to ask. */
export type Permission =
  | 'none'
  | 'openai.inference'
  | 'openai.models.read'
  | 'endpoints.read'
  | 'endpoints.manage'
  | 'dashboard.read';

/** What a handler gets: the parsed request. */
export interface Call {
  params: Record<string, string>;
  query: URLSearchParams;
  req: IncomingMessage;
  res: ServerResponse;
  /** The parsed JSON body; a missing or malformed one is an error. */
  json(): Promise<unknown>;
}

/** An answer that is not simply 200 with JSON. */
export class Answer {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Record<string, string>;

  constructor(status: number, body: unknown, headers: Record<string, string> = {}) {
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

export interface Route {
  method: Method;
  /** `:name` is one segment, `**:name` the rest of the path. */
  path: string;
  permission: Permission;
  /** Parses, asks or tells an actor, answers: an object is 200 JSON, `Answer` anything else. */
  run: (call: Call) => unknown;
}
