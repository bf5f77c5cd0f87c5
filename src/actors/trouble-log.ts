import type { EndpointStatus } from '../machines/candidate.js';
import type { Problem } from './problems.js';

export interface TroubleLogDeps {
  /** What is wrong now. */
  problems: () => readonly Problem[];
  /** Null: there is no such endpoint any more. */
  statusOf: (endpointId: string) => EndpointStatus | null;
  log: Record<'info' | 'warn' | 'error', (details: object, message: string) => void>;
}

/** What is told elsewhere, or is no trouble to whoever reads a log. */
const UNTOLD = new Set(['no_endpoints', 'shutting_down', 'unseeded']);

const WORDS: Record<string, string> = {
  endpoint_offline: 'an endpoint is offline',
  endpoint_error: 'an endpoint failed its last check',
  endpoint_quarantined: 'an endpoint is quarantined: its actors crashed too often',
  endpoint_key_lost: 'the stored key of an endpoint cannot be read',
  circuit_open: 'requests to an endpoint fail: its circuit is open',
  store_trouble: 'the store takes no records now: they wait in memory',
  ledger_behind: 'records wait long for the store',
  rows_folded: 'so much waited for the store that requests were only counted',
  disk_low: 'little space is left for the data',
};
const PARKED = 'an actor is parked: it crashed five times in a minute';

const UNREACHED: ReadonlySet<EndpointStatus | null> = new Set(['pending', 'offline', 'quarantined']);

/** Of these an endpoint has one at a time. */
const STATES = new Set(['endpoint_offline', 'endpoint_error', 'endpoint_quarantined']);

/** One line for each problem that begins and one when it is over; to be called every second or so. */
export function troubleLogOf({ problems, statusOf, log }: TroubleLogDeps): () => void {
  let known = new Map<string, Problem>();

  return () => {
    const now = new Map(
      problems()
        .filter(({ code }) => !UNTOLD.has(code))
        .map((problem) => [placeOf(problem), problem]),
    );
    for (const [place, problem] of now) {
      if (known.get(place)?.code === problem.code) continue;
      log[problem.severity === 'error' ? 'error' : 'warn'](told(problem), wordsFor(problem));
    }
    for (const [place, problem] of known) {
      if (now.has(place)) continue;
      const status = problem.endpoint_id === null ? 'online' : statusOf(problem.endpoint_id);
      // Where no request goes nobody knows how its circuit will be.
      if (problem.code === 'circuit_open' && UNREACHED.has(status)) now.set(place, problem);
      else log.info(told(problem), `${endOf(status)}: ${wordsFor(problem)}`);
    }
    known = now;
  };
}

function endOf(status: EndpointStatus | null): string {
  if (status === null) return 'the endpoint was removed';
  return status === 'draining' ? 'the endpoint is drained' : 'over';
}

/** What one problem takes the place of another in. */
function placeOf({ code, endpoint_id, detail }: Problem): string {
  const what = STATES.has(code) ? 'state' : code;
  return `${endpoint_id ?? ''} ${what} ${code === 'circuit_open' ? (detail ?? '') : ''}`;
}

function wordsFor({ code }: Problem): string {
  return WORDS[code] ?? (code.endsWith('_parked') ? PARKED : code);
}

function told({ code, endpoint_name, detail }: Problem): object {
  return {
    problem: code,
    ...(endpoint_name === null ? {} : { endpoint: endpoint_name }),
    ...(detail === null ? {} : { detail }),
  };
}
