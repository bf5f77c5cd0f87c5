import { type Candidate, worthOf } from './candidate.js';
import { type Demand, unreadBytes } from './demand.js';
import { Glance, glanceAt } from './glance.js';
import { type Forecast, forecast, isMeasured, loadMs, type Speed } from './speed.js';

/** What the forecasts for one request rest on. */
export interface Outlook {
  demand: Demand;
  /** Length of the answer, in tokens: the mean of the model's answers anywhere, and no longer than is asked for. */
  tokens: number;
  /** What is assumed of whoever is unmeasured: the speed of the fastest that is measured; null: nobody is. */
  peer: Speed | null;
}

/** A model that is pushed out of memory is loaded again soon, and pushes out another one: so many loads more. */
const DISPLACING = 3;

export function outlookOf(candidates: readonly Candidate[], demand: Demand): Outlook {
  let answers = 0;
  let written = 0;
  let unmeasured = 0;
  for (const candidate of candidates) {
    const glance = glanceAt(candidate);
    answers += glance.answers;
    written += glance.written;
    if (!glance.isMeasured) unmeasured += 1;
  }
  const mean = answers === 0 ? 0 : written / answers;
  const tokens = demand.maxTokens === null ? mean : Math.min(mean, demand.maxTokens);
  const peer = unmeasured === 0 ? null : fastest(candidates, demand, tokens);
  return { demand, tokens, peer };
}

/** Where the time of the request will go there; null if nothing is known of the endpoint. */
export function forecastOf(candidate: Candidate, { demand, tokens }: Outlook): Forecast | null {
  const { speed } = candidate;
  return isMeasured(speed) ? forecastAs(speed, candidate, demand, tokens) : null;
}

/**
 * When the request will be answered there, ms, more where it is worth less or others pay for it; unmeasured ones with
 * much hope.
 */
export function costOf(candidate: Candidate, { demand, tokens, peer }: Outlook): number {
  const worth = worthOf(candidate);
  const glance = glanceAt(candidate);
  if (glance.isMeasured) return costAs(glance, candidate, demand, tokens) / worth;
  // Hope is for the first: until it has answered nobody knows how many it can take.
  const hoped = peer === null ? 1 : costAs(new Glance(peer, glance.others), candidate, demand, tokens);
  return ((candidate.active + 1) * hoped) / worth;
}

/** The total of the forecast, summed without making one: with hundreds of endpoints that is most of choosing. */
function costAs(glance: Glance, candidate: Candidate, demand: Demand, tokens: number): number {
  const unread = demand.pin === null ? demand.promptBytes : unreadBytes(demand, candidate.endpointId);
  const running = glance.waitMs + unread * glance.byteMs + tokens * glance.tokenMs;
  return running + candidate.overdueMs + (candidate.cold ? loadCost(glance.speed, candidate) : 0);
}

/** How much longer the first byte takes there than if nobody were there, ms. */
export function crowdMs(candidate: Candidate): number {
  const { waitMs, aloneWaitMs } = glanceAt(candidate);
  return Math.max(0, waitMs - aloneWaitMs);
}

/** How long writing the answer takes there, ms. */
export function writingMs(candidate: Candidate, { tokens }: Outlook): number {
  return tokens * glanceAt(candidate).tokenMs;
}

function loadCost(speed: Speed, { loadingMs, displaces }: Candidate): number {
  return Math.max(0, loadMs(speed) - loadingMs) * (displaces ? 1 + DISPLACING : 1);
}

function forecastAs(speed: Speed, candidate: Candidate, demand: Demand, tokens: number): Forecast {
  const { endpointId, active, foreign, cold, loadingMs, overdueMs } = candidate;
  const told = forecast(speed, active + foreign, unreadBytes(demand, endpointId), tokens, cold);
  told.waitMs += overdueMs;
  told.loadMs = Math.max(0, told.loadMs - loadingMs);
  return told;
}

function fastest(candidates: readonly Candidate[], demand: Demand, tokens: number): Speed | null {
  let best: Speed | null = null;
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const glance = glanceAt(candidate);
    if (!glance.isMeasured) continue;
    const total = glance.aloneWaitMs + demand.promptBytes * glance.byteMs + tokens * glance.aloneTokenMs;
    if (total >= least) continue;
    best = glance.speed;
    least = total;
  }
  return best;
}
