import type { Principal } from '../access/principal.js';
import type { Wanted } from '../actors/chooser.js';
import { wholeMs } from '../clock.js';
import { type AttemptEnd, classify } from '../machines/classify.js';
import type { Decision, DecisionRecord, Phases } from '../machines/decision.js';
import type { ApiKind, AttemptRecord, AttemptSamples, RequestRecord } from '../machines/records.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { RunningAttempt, Seen } from './attempt.js';
import { NOTHING, type RequestBody } from './body.js';
import type { Received } from './read-body.js';
import type { Reply } from './reply.js';

export interface InferenceRoute {
  path: string;
  kind: ApiKind;
  requestType: string;
}

export type Phase = 'queued' | 'connecting' | 'waiting' | 'streaming';

/** What is known of a request when its body is there; times are wall clock and monotonic, ms. */
export interface Accepted {
  id: string;
  requestId: string;
  acceptedAt: number;
  startedAt: number;
  route: InferenceRoute;
  received: Received;
  scanned: RequestBody;
  clientIp: string | null;
  rawHeaders: readonly string[];
  principal: Principal;
  /** Gives back the place that its key has for it. */
  release: () => void;
  /** Whose turn it is in the queue goes round by it. */
  key: () => string;
}

/** An attempt as it stands: where, and since when (monotonic, ms). */
export interface Tried {
  config: EndpointConfig;
  modelId: string;
  startedAt: number;
  /** What it was expected to take when its endpoint was chosen, ms. */
  predictedMs: number | null;
}

/** One request of a client, from accepted to settled: what it has been through, and what its row will say. */
export class ClientRequest {
  readonly accepted: Accepted;
  readonly promptBytes: number;
  phase: Phase = 'queued';
  /** Kept until the client gets the first byte: another endpoint may be asked with it. */
  body: Buffer;
  reply!: Reply;
  wanted!: Wanted;
  running: RunningAttempt | null = null;
  /** Where it is now. */
  endpointId: string | null = null;
  /** Its body is kept, and nothing of an answer is with the client. */
  repeatable = true;
  onFree: () => void = () => {};
  readonly tried = new Set<string>();
  readonly attempts: AttemptRecord[] = [];
  /** The newest choice, in numbers. */
  decision: Decision | null = null;
  /** The client went away. */
  left = false;
  /** It did, or everything ends: nothing new is begun. */
  gone = false;
  settled = false;
  /** How long it waited in the queue, and at endpoints, ms. */
  queuedMs = 0;
  upstreamMs = 0;
  /** When the attempt that runs was sent, monotonic ms. */
  sentAt: number | null = null;
  #last: { seen: Seen; tried: Tried } | null = null;

  constructor(accepted: Accepted) {
    this.accepted = accepted;
    this.body = accepted.received.body;
    this.promptBytes = this.body.length;
    accepted.received.body = NOTHING;
  }

  /** Nobody else will be asked. */
  freeBody(): void {
    this.repeatable = false;
    this.body = NOTHING;
    this.onFree();
    this.onFree = () => {};
  }

  /** How long endpoints have had it so far, ms. */
  atEndpointsMs(mono: number): number {
    return this.upstreamMs + (this.sentAt === null ? 0 : mono - this.sentAt);
  }

  /** An attempt has ended, whatever comes next. */
  noteAttempt(end: AttemptEnd, seen: Seen, tried: Tried, mono: number): void {
    const { counted, error } = classify(end);
    const { kind } = this.accepted.route;
    const { predictedMs } = tried;
    const durationMs = mono - tried.startedAt;
    this.#last = { seen, tried };
    this.upstreamMs += durationMs;
    this.sentAt = null;
    this.attempts.push({
      endpointId: tried.config.id,
      endpointName: tried.config.name,
      modelId: tried.modelId,
      counted,
      statusCode: seen.statusCode,
      error,
      durationMs: wholeMs(durationMs),
      predictedMs: predictedMs === null ? null : wholeMs(predictedMs),
      inputTokens: seen.inputTokens,
      outputTokens: seen.outputTokens,
      // An embedding has no rate of output.
      sampled: counted === 'success' && kind !== 'embeddings' && (seen.outputTokens ?? 0) > 0,
      samples: end.how === 'complete' ? samplesOf(kind, seen) : undefined,
    });
  }

  /** The row of a request that has ended so. */
  record(end: AttemptEnd, now: number, mono: number): RequestRecord {
    const { id, requestId, route, scanned, clientIp, principal, acceptedAt, startedAt } = this.accepted;
    const { outcome, timeline, statusCode, error } = classify(end);
    const last = this.#last;
    const firstTokenMs = last?.seen.firstTokenMs ?? null;
    return {
      id,
      requestId,
      kind: route.kind,
      requestType: route.requestType,
      model: scanned.model,
      clientIp,
      keyId: principal.keyId,
      userId: principal.kind === 'session' ? principal.userId : null,
      acceptedAt,
      completedAt: now,
      durationMs: wholeMs(mono - startedAt),
      ttftMs:
        last === null || firstTokenMs === null
          ? null
          : wholeMs(last.tried.startedAt - startedAt + firstTokenMs),
      outcome,
      timeline,
      error,
      statusCode,
      tokensEstimated: last?.seen.estimated ?? false,
      attempts: this.attempts,
      decision: this.#decided(),
      responseId: last?.seen.responseId ?? null,
    };
  }

  #decided(): DecisionRecord | null {
    if (this.decision === null) return null;
    const { policy, candidates, rejected } = this.decision;
    return { policy, candidates, rejected, phases: this.#phases() };
  }

  #phases(): Phases {
    const seen = this.#last?.seen;
    const sent = seen?.sentMs ?? null;
    const firstByte = seen?.firstByteMs ?? null;
    const duration = this.attempts[this.attempts.length - 1]?.durationMs ?? 0;
    return {
      queued_ms: Math.round(this.queuedMs),
      connect_ms: sent === null ? null : Math.round(sent),
      first_byte_ms: firstByte === null ? null : Math.round(firstByte - (sent ?? 0)),
      stream_ms: firstByte === null ? null : Math.max(0, Math.round(duration - firstByte)),
    };
  }
}

/** Embeddings have no tokens to come. */
function samplesOf(kind: ApiKind, { firstTokenMs, gaps }: Seen): AttemptSamples {
  return kind === 'embeddings' ? { firstTokenMs: null, gaps: null } : { firstTokenMs, gaps };
}

/** One line a finished request: who was tried, what came of it, and how long it took. */
export function logLine(record: RequestRecord): object {
  const { attempts } = record;
  const last = attempts[attempts.length - 1];
  return {
    request_id: record.requestId,
    type: record.requestType,
    model: record.model,
    key_id: record.keyId,
    endpoint: last?.endpointName ?? null,
    outcome: record.outcome,
    status: record.statusCode,
    duration_ms: record.durationMs,
    ttft_ms: record.ttftMs,
    input_tokens: last?.inputTokens ?? null,
    output_tokens: last?.outputTokens ?? null,
    ...(record.error === null ? {} : { error: record.error }),
    ...(attempts.length < 2
      ? {}
      : {
          attempts: attempts.map(({ endpointName, statusCode, error }) => ({
            endpoint: endpointName,
            status: statusCode,
            error,
          })),
        }),
  };
}
