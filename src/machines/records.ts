/** What is remembered of a finished request: the one shape that actors, ledger and store share. */

import type { DecisionRecord } from './decision.js';
import type { Histogram } from './histogram.js';

export type Outcome = 'success' | 'failure' | 'cancelled';
export type ApiKind = 'chat_completions' | 'completions' | 'responses' | 'messages' | 'embeddings';

/** One try at one endpoint. */
export interface AttemptRecord {
  endpointId: string;
  endpointName: string;
  /** The name under which the endpoint lists the model. */
  modelId: string;
  /** What the endpoint's counter makes of it; `none` is no step at all. */
  counted: 'success' | 'failure' | 'none';
  statusCode: number | null;
  error: string | null;
  durationMs: number;
  /** What it was expected to take when its endpoint was chosen, whole ms. */
  predictedMs: number | null;
  inputTokens: number | null;
  outputTokens: number | null;
  /** True if tokens and duration count as a TPS sample. */
  sampled: boolean;
  /** Of a whole answer, until it is folded into the histograms; stored nowhere else. */
  samples?: AttemptSamples | undefined;
}

/** What a stream is measured by; both null for any other answer. */
export interface AttemptSamples {
  /** From the attempt's start. */
  firstTokenMs: number | null;
  /** The times between output tokens, ms. */
  gaps: Histogram | null;
}

/** One request of a client, from accepted to settled. */
export interface RequestRecord {
  id: string;
  requestId: string;
  kind: ApiKind;
  requestType: string;
  /** As the client asked. */
  model: string;
  clientIp: string | null;
  /** Whose request it was: an API key, or the user of a session; both null where nobody is asked. */
  keyId: string | null;
  userId: string | null;
  /** Wall clock, ms. */
  acceptedAt: number;
  completedAt: number;
  durationMs: number;
  ttftMs: number | null;
  outcome: Outcome;
  /** What the timeline makes of it. */
  timeline: 'success' | 'error' | 'none';
  /** Null for success; the words of the record's `status` otherwise. */
  error: string | null;
  statusCode: number;
  tokensEstimated: boolean;
  attempts: AttemptRecord[];
  /** Why it went where it went; null once that is forgotten. */
  decision: DecisionRecord | null;
  /** Of a whole answer of the responses API, to be found by; stored in no row. */
  responseId?: string | null;
}

/** Where a response is stored that a request may go on from. */
export interface StoredResponse {
  id: string;
  endpointId: string;
}

/** The attempt whose endpoint the row names: the last one tried. */
export function lastAttempt(record: RequestRecord): AttemptRecord | undefined {
  return record.attempts[record.attempts.length - 1];
}
