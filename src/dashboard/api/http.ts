/** The server understood the request and will not do it. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.name = 'Refusal';
    this.status = status;
    this.code = code;
  }
}

/** Nobody answered, or not in time. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super('the server cannot be reached', { cause });
    this.name = 'Unreachable';
  }
}

const PATIENCE_MS = 30_000;
const CSRF_COOKIE = /(?:^|; )troupe_csrf=([^;]*)/;

let onSignedOut = () => {};

/** Called when the server no longer knows who asks. */
export function whenSignedOut(tell: () => void): void {
  onSignedOut = tell;
}

export const get = <T>(path: string, signal?: AbortSignal) => call<T>('GET', path, undefined, signal);
export const post = <T>(path: string, body: unknown = {}) => call<T>('POST', path, body);
export const put = <T>(path: string, body: unknown) => call<T>('PUT', path, body);
export const remove = <T>(path: string) => call<T>('DELETE', path);

/** Whether this browser has logged in; the session may have ended since. */
export function hasSession(): boolean {
  return CSRF_COOKIE.test(document.cookie);
}

/** The headers of a request that changes something: the cookie alone must not be enough. */
export function changingHeaders(): Record<string, string> {
  const token = CSRF_COOKIE.exec(document.cookie)?.[1];
  return {
    'content-type': 'application/json',
    ...(token === undefined ? {} : { 'x-csrf-token': decodeURIComponent(token) }),
  };
}

async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const init: RequestInit = {
    method,
    signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
  };
  if (method !== 'GET') init.headers = changingHeaders();
  if (body !== undefined) init.body = JSON.stringify(body);
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable(error);
  }
  if (!response.ok) {
    const refusal = await refusalOf(response);
    if (refusal.status === 401 && !path.startsWith('/api/auth/login')) onSignedOut();
    throw refusal;
  }
  if (response.status === 204 || response.status === 202) return undefined as T;
  return (await response.json()) as T;
}

/** The server's error, in its own words. */
export async function refusalOf(response: Response): Promise<Refusal> {
  const body: unknown = await response.json().catch(() => null);
  const { code = 'unknown', message = `${response.status} ${response.statusText}` } =
    (body as { error?: { code?: string; message?: string } } | null)?.error ?? {};
  return new Refusal(response.status, code, message);
}
