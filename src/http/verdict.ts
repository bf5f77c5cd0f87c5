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
): { what: EvidenceEvent['what'] | null; restMs: number } {
  const restMs = restOf(seen);
  return restMs === null ? { what: evidenceOf(end, hung), restMs: 0 } : { what: 'rest', restMs };
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

/** How long the endpoint asked to be left alone, ms, 0 for one that does not say; null if it did not ask. */
function restOf({ statusCode, retryAfter }: Seen): number | null {
  if (statusCode !== 429 && statusCode !== 503) return null;
  if (retryAfter === null) return statusCode === 429 ? 0 : null;
  const secs = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  if (!Number.isFinite(secs)) return 0;
  return secs > 0 ? Math.min(MOST_REST_MS, secs * 1000) : null;
}
