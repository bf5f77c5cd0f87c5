import { type Candidate, loadOf } from './candidate.js';
import { type Choice, type Rejection, reasonOf } from './choose.js';
import { costOf, forecastOf } from './outlook.js';
import { type Forecast, totalMs } from './speed.js';

/** Why a request went where it went, as it is stored and shown. */
export interface DecisionRecord extends Decision {
  phases: Phases;
}

export interface Decision {
  policy: string;
  /** The best five: those that could have been chosen first. */
  candidates: CandidateRecord[];
  /** How many were not taken into account, by reason. */
  rejected: Record<string, number>;
}

export interface CandidateRecord {
  endpoint_id: string;
  endpoint_name: string;
  eligible: boolean;
  reason: string | null;
  /** Until the answer is complete, whole ms; null: nothing is known of the endpoint. */
  predicted_ms: number | null;
  /** What the policy compared, and what the prediction adds up. */
  parts: Record<string, number>;
}

/** Where the time went, whole ms; null for what was not reached. */
export interface Phases {
  queued_ms: number;
  connect_ms: number | null;
  first_byte_ms: number | null;
  stream_ms: number | null;
}

const SHOWN = 5;

/** A choice in numbers, for the record: to be taken down before anything else happens to the candidates. */
export function decisionOf(choice: Choice, nameOf: (endpointId: string) => string): Decision {
  const rejected: Record<string, number> = {};
  const best: { candidate: Candidate; reason: Rejection | null; rank: number }[] = [];
  for (const candidate of choice.candidates) {
    const reason = reasonOf(candidate, choice);
    if (reason !== null) rejected[reason] = (rejected[reason] ?? 0) + 1;
    const rank = rankOf(candidate, reason, choice);
    const last = best[SHOWN - 1];
    if (last !== undefined && last.rank <= rank) continue;
    const at = best.findIndex((one) => one.rank > rank);
    best.splice(at === -1 ? best.length : at, 0, { candidate, reason, rank });
    if (best.length > SHOWN) best.pop();
  }
  return {
    policy: choice.policy,
    candidates: best.map(({ candidate, reason }) => candidateRecord(candidate, reason, choice, nameOf)),
    rejected,
  };
}

/** A candidate in numbers. */
export function candidateRecord(
  candidate: Candidate,
  reason: Rejection | null,
  choice: Choice,
  nameOf: (endpointId: string) => string,
): CandidateRecord {
  const told = forecastOf(candidate, choice.outlook);
  return {
    endpoint_id: candidate.endpointId,
    endpoint_name: nameOf(candidate.endpointId),
    eligible: reason === null,
    reason,
    predicted_ms: told === null ? null : Math.round(totalMs(told)),
    parts: partsOf(candidate, told, choice),
  };
}

/** The chosen one first, then who could have been. */
function rankOf(candidate: Candidate, reason: Rejection | null, { chosen, policy, outlook }: Choice): number {
  if (candidate === chosen) return Number.NEGATIVE_INFINITY;
  const worse = reason === null ? 0 : 1e12;
  return worse + (policy === 'adaptive' ? costOf(candidate, outlook) : loadOf(candidate));
}

function partsOf(candidate: Candidate, told: Forecast | null, { outlook }: Choice): Record<string, number> {
  const { active, freshFailureRate, weight, priority, tps } = candidate;
  const parts: Record<string, number> = { active, failure_rate: freshFailureRate, weight, priority };
  if (tps !== null) parts.tps = tps;
  if (told !== null) {
    parts.wait_ms = Math.round(told.waitMs);
    parts.load_ms = Math.round(told.loadMs);
    parts.prefill_ms = Math.round(told.prefillMs);
    parts.decode_ms = Math.round(told.decodeMs);
    parts.output_tokens = Math.round(outlook.tokens);
  }
  if (outlook.demand.pin?.endpointId === candidate.endpointId) parts.cached_bytes = outlook.demand.pin.bytes;
  return parts;
}
