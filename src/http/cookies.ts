import { SESSION_SECS } from '../access/logins.js';
import { csrfOf } from '../access/tokens.js';

const SESSION = 'troupe_session';
const CSRF = 'troupe_csrf';

/** The session that the page's cookie holds. */
export function sessionCookieOf(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  for (const part of header.split(';')) {
    const equals = part.indexOf('=');
    if (equals !== -1 && part.slice(0, equals).trim() === SESSION)
      return part.slice(equals + 1).trim() || undefined;
  }
  return undefined;
}

/** The session, which no script sees, and beside it the token that the page's script must show. */
export function sessionCookies(token: string, secure: boolean): string[] {
  return [
    `${SESSION}=${token}; HttpOnly; ${attributes(SESSION_SECS, secure)}`,
    `${CSRF}=${csrfOf(token)}; ${attributes(SESSION_SECS, secure)}`,
  ];
}

export function clearedCookies(secure: boolean): string[] {
  return [`${SESSION}=; HttpOnly; ${attributes(0, secure)}`, `${CSRF}=; ${attributes(0, secure)}`];
}

function attributes(maxAge: number, secure: boolean): string {
  return `Path=/; SameSite=Lax; Max-Age=${maxAge}${secure ? '; Secure' : ''}`;
}
