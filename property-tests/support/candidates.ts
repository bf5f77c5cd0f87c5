import type { Candidate } from '../../src/machines/candidate.js';
import { UNSEEN } from '../../src/machines/glance.js';
import { NEW_SPEED } from '../../src/machines/speed.js';

/** An endpoint that serves, has nothing to do and never failed. */
export const PLAIN: Candidate = {
  endpointId: 'e',
  modelId: 'm',
  status: 'online',
  active: 0,
  room: Number.POSITIVE_INFINITY,
  foreign: 0,
  weight: 1,
  priority: 0,
  maxContext: null,
  tps: null,
  turn: 0,
  speed: NEW_SPEED,
  glance: UNSEEN,
  cold: false,
  displaces: false,
  loadingMs: 0,
  overdueMs: 0,
  circuit: 'closed',
  onTrial: false,
  freshFailureRate: 0,
  failureRate: 0,
  proven: false,
  restMs: 0,
  restIsAsked: true,
  hung: false,
};
