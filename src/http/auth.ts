import type { IncomingMessage } from 'node:http';
import type { Directory } from '../access/directory.js';
import { type Logins, type NewSession, SESSION_SECS } from '../access/logins.js';
import { csrfOf } from '../access/tokens.js';
import { loginInput, passwordInput } from './account-input.js';
import { limitKey } from './client-address.js';
import { clearedCookies, sessionCookies } from './cookies.js';
import { ApiError } from './errors.js';
import { parsed } from './input.js';
import { Answer, type Route } from './routes.js';

export interface AuthRoutesDeps {
  logins: Logins;
  directory: Directory;
  addressOf: (req: IncomingMessage) => string | null;
}

/** Logging in and out, and the own password. */
export function authRoutes({ logins, directory, addressOf }: AuthRoutesDeps): Route[] {
  /** The token for programs; the cookie, and what must be shown beside it, for the page. */
  function session({ token, user }: NewSession, secure: boolean): Answer {
    const body = {
      token,
      expires_in: SESSION_SECS,
      csrf_token: csrfOf(token),
      user: {
        id: user.id,
        username: user.username,
        role: user.role,
        must_change_password: user.mustChangePassword,
      },
    };
    return new Answer(200, body, {}, sessionCookies(token, secure));
  }

  return [
    {
      method: 'POST',
      path: '/api/auth/login',
      access: 'open',
      run: async ({ json, req, secure, actor }) => {
        const input = parsed(loginInput, await json());
        return session(
          await logins.logIn(input, limitKey(addressOf(req)), actor, () => req.socket.destroyed),
          secure,
        );
      },
    },
    {
      method: 'POST',
      path: '/api/auth/logout',
      access: 'signed-in',
      run: async ({ principal, actor, secure }) => {
        await logins.logOut(principal, actor);
        return new Answer(204, undefined, {}, clearedCookies(secure));
      },
    },
    {
      method: 'GET',
      path: '/api/auth/me',
      access: 'signed-in',
      run: ({ principal }) => {
        const user = directory.user(principal.userId);
        return {
          user_id: principal.userId,
          username: user?.username ?? principal.name,
          role: principal.role,
          must_change_password: user?.mustChangePassword ?? false,
        };
      },
    },
    {
      method: 'PUT',
      path: '/api/auth/change-password',
      access: 'signed-in',
      run: async ({ json, principal, actor, secure }) => {
        if (principal.kind !== 'session') {
          throw new ApiError('forbidden', 'only who has logged in can change a password');
        }
        const input = parsed(passwordInput, await json());
        return session(
          await logins.changePassword(principal, input.current_password, input.new_password, actor),
          secure,
        );
      },
    },
  ];
}
