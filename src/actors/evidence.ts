import { afterSuccess } from '../machines/circuit.js';
import { type EvidenceEvent, ofModel } from '../machines/endpoint.js';
import type { LeaseTable } from './leases.js';
import { actorNamed, names, type System } from './names.js';
import type { EndpointFacts, Roster } from './roster.js';

export interface EvidenceDeps {
  system: () => System;
  roster: Roster;
  leases: LeaseTable;
}

/**
 * Tells an endpoint's actor what an attempt says of it. If that opens a circuit, the requests that wait behind it for
 * their first byte go elsewhere at once.
 */
export function tellEvidence(
  { system, roster, leases }: EvidenceDeps,
  endpointId: string,
  evidence: EvidenceEvent,
): void {
  const { modelId, what } = evidence;
  const endpoint = actorNamed(system(), names.endpoint(endpointId));
  // One more success after many says nothing.
  if (what === 'success' && evidence.sample === null && isSettled(roster.facts(endpointId), modelId)) return;
  if (what === 'success' || what === 'rest') {
    endpoint?.send(evidence);
    return;
  }
  const before = roster.facts(endpointId);
  const wasOpen = before.circuit.state === 'open';
  const wasModelOpen = ofModel(before.modelCircuits, modelId)?.state === 'open';
  endpoint?.send(evidence);
  const after = roster.facts(endpointId);
  if (!wasOpen && after.circuit.state === 'open') leases.moveWaiting(endpointId, 'its circuit opened');
  else if (!wasModelOpen && ofModel(after.modelCircuits, modelId)?.state === 'open') {
    leases.moveWaiting(endpointId, 'the circuit of its model opened', modelId);
  }
}

/** Nothing but successes is known, as far back as anything is. */
function isSettled({ circuit, modelCircuits }: EndpointFacts, modelId: string): boolean {
  return afterSuccess(circuit) === circuit && ofModel(modelCircuits, modelId) === undefined;
}
