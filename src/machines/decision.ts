import { type Candidate, loadOf } from './candidate.js';
import type { Choice, Judged } from './choose.js';

/** Why a request went where it went, as it is stored and shown. */
export interface DecisionRecord {
  policy: string;
  /** The best five: those that could have been chosen first. */
  candidates: CandidateRecord[];
  /** How many were not taken into account, by reason. */
  rejected: Record<string, number>;
  phases: Phases;
}

export interface CandidateRecord {
  endpoint_id: string;
  endpoint_name: string;
  eligible: boolean;
  reason: string | null;
  predicted_ms: number | null;
  /** What the policy compared. */
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

/** A choice in numbers, for the record. */
export function decisionOf(
  { policy, judged }: Choice,
  nameOf: (endpointId: string) => string,
  phases: Phases,
): DecisionRecord {
  const rejected: Record<string, number> = {};
  for (const { reason } of judged) if (reason !== null) rejected[reason] = (rejected[reason] ?? 0) + 1;
  return {
    policy,
    candidates: best(judged).map((one) => candidateRecord(one, nameOf)),
    rejected,
    phases,
  };
}

/** A candidate in numbers. */
export function candidateRecord(
  { candidate, reason }: Judged,
  nameOf: (endpointId: string) => string,
): CandidateRecord {
  return {
    endpoint_id: candidate.endpointId,
    endpoint_name: nameOf(candidate.endpointId),
    eligible: reason === null,
    reason,
    predicted_ms: null,
    parts: partsOf(candidate),
  };
}

function partsOf({ active, freshFailureRate, weight, priority, tps }: Candidate): Record<string, number> {
  const parts = { active, failure_rate: freshFailureRate, weight, priority };
  return tps === null ? parts : { ...parts, tps };
}

function best(judged: readonly Judged[]): readonly Judged[] {
  if (judged.length < 2) return judged;
  const rank = ({ reason, candidate }: Judged) => (reason === null ? 0 : 1e6) + loadOf(candidate);
  return [...judged].sort((a, b) => rank(a) - rank(b)).slice(0, SHOWN);
}
