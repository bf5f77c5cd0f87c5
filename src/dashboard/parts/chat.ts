import { createParser } from 'eventsource-parser';
import { changingHeaders, refusalOf, Unreachable } from '../api/http.js';

export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

export interface ChatRequest {
  model: string;
  messages: Message[];
  stream: boolean;
  temperature?: number;
  top_p?: number;
  max_tokens?: number;
}

/** What is known of an answer so far. Times in ms since it was sent. */
export interface Answer {
  text: string;
  reasoning: string;
  firstTokenMs: number | null;
  tookMs: number | null;
  /** As the engine counts them; the pieces of the stream until it tells. */
  tokens: number;
  requestId: string | null;
  endpoint: string | null;
  attempts: number | null;
  overheadMs: number | null;
}

interface Piece {
  choices?: {
    delta?: { content?: string | null; reasoning_content?: string | null };
    message?: { content?: string | null; reasoning_content?: string | null };
  }[];
  usage?: { completion_tokens?: number } | null;
  error?: { message?: string };
}

/** Straight to one endpoint, or wherever the balancer sends it. */
export function chatPath(endpointId: string | null): string {
  return endpointId === null ? '/v1/chat/completions' : `/api/endpoints/${endpointId}/chat/completions`;
}

/** Tells the answer as it grows. Rejects with a `Refusal`, or with the words of an error that came in the stream. */
export async function chat(
  path: string,
  request: ChatRequest,
  signal: AbortSignal,
  tell: (answer: Answer) => void,
): Promise<Answer> {
  const startedAt = performance.now();
  const response = await sent(path, request, signal);
  if (!response.ok) throw await refusalOf(response);
  const answer: Answer = {
    text: '',
    reasoning: '',
    firstTokenMs: null,
    tookMs: null,
    tokens: 0,
    requestId: response.headers.get('x-request-id'),
    endpoint: named(response.headers.get('x-troupe-endpoint')),
    attempts: numberIn(response.headers.get('x-troupe-attempts')),
    overheadMs: numberIn(response.headers.get('x-troupe-overhead-ms')),
  };
  const take = (piece: Piece) => {
    if (piece.error !== undefined) throw new Error(piece.error.message ?? 'upstream error');
    grow(answer, piece, performance.now() - startedAt);
    tell({ ...answer });
  };
  if (response.headers.get('content-type')?.includes('text/event-stream')) await readStream(response, take);
  else take((await response.json()) as Piece);
  answer.tookMs = performance.now() - startedAt;
  tell({ ...answer });
  return answer;
}

async function sent(path: string, request: ChatRequest, signal: AbortSignal): Promise<Response> {
  try {
    return await fetch(path, {
      method: 'POST',
      headers: changingHeaders(),
      body: JSON.stringify(request),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Unreachable(error);
  }
}

async function readStream(response: Response, take: (piece: Piece) => void): Promise<void> {
  const parser = createParser({
    onEvent: ({ data }) => {
      if (data !== '[DONE]') take(JSON.parse(data) as Piece);
    },
  });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const chunk = await reader?.read();
    if (chunk === undefined || chunk.done) return;
    parser.feed(chunk.value);
  }
}

function grow(answer: Answer, { choices, usage }: Piece, ms: number): void {
  const { delta, message } = choices?.[0] ?? {};
  const content = delta?.content ?? message?.content ?? '';
  const reasoning = delta?.reasoning_content ?? message?.reasoning_content ?? '';
  if (content !== '' || reasoning !== '') {
    if (delta !== undefined) answer.firstTokenMs ??= ms;
    answer.tokens += 1;
  }
  answer.text += content;
  answer.reasoning += reasoning;
  if (usage?.completion_tokens !== undefined) answer.tokens = usage.completion_tokens;
}

/** Names that are no plain ASCII come percent-encoded. */
function named(value: string | null): string | null {
  if (value === null) return null;
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

function numberIn(value: string | null): number | null {
  return value === null ? null : Number(value);
}
