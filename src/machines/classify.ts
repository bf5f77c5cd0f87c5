import type { AttemptRecord, RequestRecord } from './records.js';

/** How an attempt ended, as the relay saw it. */
export type AttemptEnd =
  /** A 2xx whose body is complete. */
  | { how: 'complete'; status: number }
  /** Any other status, passed on to the client. */
  | { how: 'refused'; status: number }
  /**
   * Refused, reset, a deadline, cut; or, with `answered`, an answer that came and is none: without its terminal
   * event, with an error in it, half a JSON; or, with `unsent`, a request that could not be sent to anybody.
   */
  | { how: 'broken'; status: number; error: string; answered?: boolean; unsent?: boolean }
  /** The client left; `status` is what it had been sent, null before a head. */
  | { how: 'left'; status: number | null }
  /** Troupe ended it: the grace was over, or the endpoint was removed by force. */
  | { how: 'ended'; status: number; error: string }
  /** Taken to another endpoint before its first byte. */
  | { how: 'moved'; error: string };

export interface Judgement {
  counted: AttemptRecord['counted'];
  outcome: RequestRecord['outcome'];
  timeline: RequestRecord['timeline'];
  statusCode: number;
  error: string | null;
}

/** Client left before a head: nothing was sent, so the row says what nginx would. */
const CLIENT_LEFT_STATUS = 499;

/** The two tables of the contract in one place: what an end means to the endpoint and to the client's row. */
export function classify(end: AttemptEnd): Judgement {
  switch (end.how) {
    case 'complete':
      return judgement('success', 'success', 'success', end.status, null);
    case 'refused':
      return judgement('failure', 'failure', 'error', end.status, `the endpoint answered ${end.status}`);
    case 'broken':
      return judgement('failure', 'failure', 'error', end.status, end.error);
    case 'moved':
      return judgement('none', 'failure', 'error', 502, end.error);
    case 'ended':
      return judgement('none', 'failure', 'error', end.status, end.error);
    case 'left':
      if (end.status === null) {
        return judgement(
          'none',
          'cancelled',
          'none',
          CLIENT_LEFT_STATUS,
          'the client left before an answer began',
        );
      }
      if (end.status >= 300) return classify({ how: 'refused', status: end.status });
      return judgement('success', 'cancelled', 'success', end.status, null);
  }
}

function judgement(
  counted: Judgement['counted'],
  outcome: Judgement['outcome'],
  timeline: Judgement['timeline'],
  statusCode: number,
  error: string | null,
): Judgement {
  return { counted, outcome, timeline, statusCode, error };
}
