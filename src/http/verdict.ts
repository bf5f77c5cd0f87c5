import type { AttemptEnd } from '../machines/classify.js';
import type { EvidenceEvent } from '../machines/endpoint.js';
import type { Seen } from './attempt.js';

/** Longest rest that an endpoint gets for asking, and the one of a 429 that does not say; ms. */
const MOST_REST_MS = 30_000;
const REST_MS = 1000;

/** What the end of an attempt says of its endpoint; `hung`: the endpoint counted as hung by then. */
export function verdictOf(
  end: AttemptEnd,
  seen: Seen,
  hung: boolean,
): { what: EvidenceEvent['what'] | null; restMs: number } {
  const restMs = restOf(seen);
  return restMs > 0 ? { what: 'rest', restMs } : { what: evidenceOf(end, hung), restMs: 0 };
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

/** How long the endpoint asked to be left alone, ms; 0 if it did not. */
function restOf({ statusCode, retryAfter }: Seen): number {
  if (statusCode !== 429 && statusCode !== 503) return 0;
  if (retryAfter === null) return statusCode === 429 ? REST_MS : 0;
  const secs = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(secs) ? Math.min(MOST_REST_MS, Math.max(0, secs * 1000)) : REST_MS;
}
