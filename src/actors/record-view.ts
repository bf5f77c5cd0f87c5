import { timestamp } from '../clock.js';
import { lastAttempt, type RequestRecord } from '../machines/records.js';
import type { RecordView } from './wire-shapes.js';

/** A row as the dashboard lists it. */
export function recordView(record: RequestRecord): RecordView {
  const last = lastAttempt(record);
  const input = last?.inputTokens ?? null;
  const output = last?.outputTokens ?? null;
  return {
    id: record.id,
    request_id: record.requestId,
    timestamp: timestamp(record.acceptedAt),
    request_type: record.requestType,
    model: record.model,
    endpoint_id: last?.endpointId ?? null,
    endpoint_name: last?.endpointName ?? null,
    client_ip: record.clientIp,
    key_id: record.keyId,
    user_id: record.userId,
    duration_ms: record.durationMs,
    ttft_ms: record.ttftMs,
    status: record.error === null ? { type: 'success' } : { type: 'error', message: record.error },
    outcome: record.outcome,
    status_code: record.statusCode,
    completed_at: timestamp(record.completedAt),
    input_tokens: input,
    output_tokens: output,
    total_tokens: input === null && output === null ? null : (input ?? 0) + (output ?? 0),
    tokens_estimated: record.tokensEstimated,
    attempts: record.attempts.map((attempt) => ({
      endpoint_id: attempt.endpointId,
      endpoint_name: attempt.endpointName,
      outcome:
        attempt.counted === 'none' ||
        (attempt.counted === 'success' && record.outcome === 'cancelled' && attempt === last)
          ? 'cancelled'
          : attempt.counted,
      status_code: attempt.statusCode,
      error: attempt.error,
      duration_ms: attempt.durationMs,
      predicted_ms: attempt.predictedMs,
    })),
  };
}
