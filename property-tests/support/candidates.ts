import type { Candidate } from '../../src/machines/candidate.js';

/** An endpoint that serves, has nothing to do and never failed. */
export const PLAIN: Candidate = {
  endpointId: 'e',
  modelId: 'm',
  status: 'online',
  active: 0,
  maxConcurrency: null,
  weight: 1,
  priority: 0,
  tps: null,
  turn: 0,
  circuit: 'closed',
  onTrial: false,
  freshFailureRate: 0,
  failureRate: 0,
  proven: false,
  restMs: 0,
  hung: false,
};
