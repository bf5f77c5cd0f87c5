import { StoreError } from '../persistence/store.js';

/** Every error of ours, by its stable code. `type` follows the OpenAI vocabulary. */
const ERRORS = {
  invalid_json: [400, 'invalid_request_error'],
  invalid_request: [400, 'invalid_request_error'],
  context_too_long: [400, 'invalid_request_error'],
  last_admin: [400, 'invalid_request_error'],
  unauthenticated: [401, 'authentication_error'],
  invalid_api_key: [401, 'authentication_error'],
  expired_credential: [401, 'authentication_error'],
  invalid_credentials: [401, 'authentication_error'],
  forbidden: [403, 'permission_error'],
  csrf_token_missing: [403, 'permission_error'],
  model_not_allowed: [403, 'permission_error'],
  host_not_allowed: [403, 'permission_error'],
  origin_not_allowed: [403, 'permission_error'],
  not_found: [404, 'not_found_error'],
  model_not_found: [404, 'invalid_request_error'],
  method_not_allowed: [405, 'invalid_request_error'],
  name_taken: [409, 'conflict_error'],
  url_taken: [409, 'conflict_error'],
  not_restartable: [409, 'conflict_error'],
  quarantined: [409, 'conflict_error'],
  request_timeout: [408, 'timeout_error'],
  body_too_large: [413, 'invalid_request_error'],
  unsupported_media_type: [415, 'invalid_request_error'],
  engine_not_recognised: [422, 'invalid_request_error'],
  headers_too_large: [431, 'invalid_request_error'],
  queue_full: [429, 'rate_limit_error'],
  too_many_attempts: [429, 'rate_limit_error'],
  rate_limit_exceeded: [429, 'rate_limit_error'],
  insufficient_quota: [429, 'insufficient_quota'],
  internal_error: [500, 'server_error'],
  upstream_unreachable: [502, 'upstream_error'],
  upstream_broken: [502, 'upstream_error'],
  no_endpoint_available: [503, 'server_error'],
  queue_timeout: [503, 'server_error'],
  store_unavailable: [503, 'server_error'],
  shutting_down: [503, 'server_error'],
  starting: [503, 'server_error'],
  timeout_connect: [504, 'timeout_error'],
  timeout_first_byte: [504, 'timeout_error'],
  timeout_idle: [504, 'timeout_error'],
  timeout_total: [504, 'timeout_error'],
} as const satisfies Record<string, readonly [number, string]>;

export type ErrorCode = keyof typeof ERRORS;

/** An error that becomes an answer. The message is for people and names the field or the endpoint. */
export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly type: string;
  readonly param: string | null;
  readonly headers: Record<string, string>;

  constructor(
    code: ErrorCode,
    message: string,
    details: { param?: string | null; headers?: Record<string, string>; cause?: unknown } = {},
  ) {
    super(message, { cause: details.cause });
    this.name = 'ApiError';
    this.code = code;
    [this.status, this.type] = ERRORS[code];
    this.param = details.param ?? null;
    this.headers = this.status === 503 ? { 'retry-after': '1', ...details.headers } : (details.headers ?? {});
  }
}

/** What is an answer already; a store that is away is a 503 wherever it is met. */
export function apiErrorOf(error: unknown): ApiError | null {
  if (error instanceof ApiError) return error;
  if (!(error instanceof StoreError)) return null;
  return new ApiError('store_unavailable', `it cannot be read now: ${error.message}`, { cause: error });
}

/** The error's body in the shape of the protocol that the path speaks. */
export function errorBody(path: string, error: ApiError, requestId: string): object {
  const { message, type, param, code } = error;
  if (path === '/v1/messages' || path.startsWith('/v1/messages/')) {
    return { type: 'error', error: { type: anthropicType(error.status), message }, request_id: requestId };
  }
  if (path === '/v1' || path.startsWith('/v1/')) return { error: { message, type, param, code } };
  return { error: { message, type, code } };
}

/** The words of Anthropic's API for a status. */
function anthropicType(status: number): string {
  switch (status) {
    case 401:
      return 'authentication_error';
    case 403:
      return 'permission_error';
    case 404:
      return 'not_found_error';
    case 413:
      return 'request_too_large';
    case 429:
      return 'rate_limit_error';
    case 503:
      return 'overloaded_error';
    default:
      return status < 500 ? 'invalid_request_error' : 'api_error';
  }
}
