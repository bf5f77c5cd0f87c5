import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { ANONYMOUS, type Directory } from '../access/directory.js';
import { FailureWindow } from '../access/failure-window.js';
import type { Principal } from '../access/principal.js';
import { csrfOf, sameText } from '../access/tokens.js';
import type { Clock } from '../clock.js';
import { limitKey } from './client-address.js';
import { sessionCookieOf } from './cookies.js';
import { ApiError } from './errors.js';
import { type Access, refuseUnpermitted } from './routes.js';

/** From the hundredth unknown key in a minute an address is told to wait. */
const UNKNOWN_KEYS = 99;

export interface GateDeps {
  directory: Directory;
  clock: Clock;
  /** Everybody is let in. */
  isOpen: boolean;
  addressOf: (req: IncomingMessage) => string | null;
  isSecure: (req: IncomingMessage) => boolean;
}

/** Lets a request in or says why not. */
export interface Gate {
  /** Whose request it is, by what it brought: a key, the token of a session, or the page's cookie. */
  enter(req: IncomingMessage): Principal;
  /** Throws unless somebody who was let in before may still use a route. */
  recheck(principal: Principal, access: Access): void;
}

export function gateOf({ directory, clock, isOpen, addressOf, isSecure }: GateDeps): Gate {
  const unknown = new FailureWindow(UNKNOWN_KEYS);

  /** Whoever guesses is slowed down; a valid credential never comes here. */
  function refuse(req: IncomingMessage, verdict: 'unknown' | 'expired'): ApiError {
    if (verdict === 'expired') {
      return refused('expired_credential', 'the key or the session has expired');
    }
    const place = limitKey(addressOf(req));
    const mono = clock.mono();
    const isOver = unknown.isOver(place, mono);
    unknown.note(place, mono);
    if (!isOver) return refused('invalid_api_key', 'the key or the session is not known here');
    const secs = unknown.retryAfterSecs(place, mono);
    return new ApiError('too_many_attempts', 'too many unknown keys from this address', {
      headers: { 'retry-after': String(secs) },
    });
  }

  function byText(req: IncomingMessage, sent: string, mayBeSession: boolean): Principal {
    const now = clock.now();
    // Node reads headers as Latin-1; a key of other letters was sent as UTF-8.
    const text = BEYOND_ASCII.test(sent) ? Buffer.from(sent, 'latin1').toString('utf8') : sent;
    let found = directory.byKey(text, now);
    if (found === 'unknown' && mayBeSession) found = directory.bySession(text, now);
    if (typeof found === 'string') throw refuse(req, found);
    return found;
  }

  function byCookie(req: IncomingMessage, token: string): Principal {
    const found = directory.bySession(token, clock.now());
    // Nobody guesses by cookie; a page that was left open is told to log in again, however often it asks.
    if (typeof found === 'string') throw refused('expired_credential', 'the session is over: log in again');
    if (req.method !== 'GET' && req.method !== 'HEAD') refuseForged(req, token, isSecure(req));
    return found;
  }

  return {
    enter(req) {
      if (isOpen) return ANONYMOUS;
      const { headers } = req;
      const bearer = bearerOf(headers);
      if (bearer !== undefined) return byText(req, bearer, true);
      const key = headers['x-api-key'];
      if (typeof key === 'string' && key !== '') return byText(req, key, false);
      const cookie = sessionCookieOf(headers.cookie);
      if (cookie !== undefined) return byCookie(req, cookie);
      throw refused('unauthenticated', 'a key is needed: send it as Authorization: Bearer <key>');
    },

    recheck(principal, access) {
      const still = directory.current(principal, clock.now());
      if (still === null) throw refused('expired_credential', 'the key or the session has ended meanwhile');
      refuseUnpermitted(access, still);
    },
  };
}

/** A cookie comes along by itself: what changes something must show that its page is ours. */
function refuseForged(req: IncomingMessage, token: string, secure: boolean): void {
  const { origin, host } = req.headers;
  const ours = `${secure ? 'https' : 'http'}://${host ?? ''}`.toLowerCase();
  if (origin?.toLowerCase() !== ours) {
    throw new ApiError(
      'origin_not_allowed',
      'a request with a cookie must come from the page of this server',
    );
  }
  const shown = req.headers['x-csrf-token'];
  if (typeof shown !== 'string' || !sameText(shown, csrfOf(token))) {
    throw new ApiError('csrf_token_missing', 'send the value of the cookie troupe_csrf as x-csrf-token');
  }
}

const BEYOND_ASCII = /[\x80-\xff]/;
const BEARER = /^bearer +(\S+) *$/i;

/** Other schemes are those of proxies in front, and none of ours. */
function bearerOf({ authorization }: IncomingHttpHeaders): string | undefined {
  if (authorization === undefined) return undefined;
  if (authorization.startsWith('Bearer ')) return authorization.slice(7).trim() || undefined;
  return BEARER.exec(authorization)?.[1];
}

function refused(
  code: 'unauthenticated' | 'invalid_api_key' | 'expired_credential',
  message: string,
): ApiError {
  return new ApiError(code, message, { headers: { 'www-authenticate': 'Bearer realm="troupe"' } });
}
