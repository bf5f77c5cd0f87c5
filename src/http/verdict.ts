import type { AttemptEnd } from '../machines/classify.js';
import type { EvidenceEvent } from '../machines/endpoint.js';
import type { Seen } from './attempt.js';

/** Longest rest that an endpoint gets for asking, ms. */
const MOST_REST_MS = 30_000;

/** What the end of an attempt says of its endpoint; `hung`: the endpoint counted as hung by then. */
export function verdictOf(
  end: AttemptEnd,
  seen: Seen,
  hung: boolean,
): { what: EvidenceEvent['what'] | null; restMs: number | null } {
  const rest = restOf(seen);
  return rest === null ? { what: evidenceOf(end, hung), restMs: null } : { what: 'rest', ...rest };
}

/** Null: it says nothing. A client that left says nothing either, but when it had waited too long for a first byte. */
function evidenceOf(end: AttemptEnd, hung: boolean): 'success' | 'transport' | 'answer' | null {
  switch (end.how) {
    case 'complete':
      return 'success';
    case 'refused':
      return end.status >= 500 ? 'answer' : null;
    case 'broken':
      if (end.unsent === true) return null;
      return end.answered === true ? 'answer' : 'transport';
    case 'left':
      return end.status === null && hung ? 'transport' : null;
    case 'ended':
    case 'moved':
      return null;
  }
}

/** How long the endpoint asked to be left alone, ms, null for one that does not say; or it did not ask at all. */
function restOf({ statusCode, retryAfter }: Seen): { restMs: number | null } | null {
  if (statusCode !== 429 && statusCode !== 503) return null;
  if (retryAfter === null) return statusCode === 429 ? { restMs: null } : null;
  const secs = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  if (!Number.isFinite(secs)) return { restMs: null };
  return secs > 0 ? { restMs: Math.min(MOST_REST_MS, secs * 1000) } : null;
}
