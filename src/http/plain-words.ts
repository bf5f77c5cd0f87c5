import { errors } from 'undici';

/** An error of a socket in words without addresses. */
export function plainWords(error: Error): string {
  if (error instanceof errors.HTTPParserError) return 'it does not speak HTTP';
  const code = (error as { code?: string }).code ?? '';
  return SOCKET_WORDS[code] ?? (code === '' ? 'an unknown error' : code);
}

const SOCKET_WORDS: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EPIPE: 'connection closed',
  UND_ERR_SOCKET: 'connection closed',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'the host name could not be looked up',
  ETIMEDOUT: 'no answer',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to the network',
  ERR_ADDRESS_NOT_ALLOWED: 'its address is not allowed (link-local or cloud metadata)',
};
