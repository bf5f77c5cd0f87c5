/** The inference routes an OpenAI-compatible engine has. */
export type ApiKind = 'chat' | 'completions' | 'responses' | 'embeddings';

export type RequestBody = Record<string, unknown>;

/**
 * One correct answer, not yet on the wire. `json` is the whole body when `stream` is false; otherwise the
 * body is `opening`, `outputTokens` times `token(i)`, `finish`, `usage`, `done`, each being complete events.
 */
export interface Answer {
  request: RequestBody;
  status: number;
  headers: Record<string, string>;
  stream: boolean;
  json: string;
  opening: string;
  token: (index: number) => string;
  finish: string;
  usage: string;
  done: string;
  failure: string;
  outputTokens: number;
  firstTokenMs: number;
  /** 0 is as fast as the peer reads. */
  tokensPerSecond: number;
  /** Above 0 it replaces `tokensPerSecond`: tokens go out one by one with this pause before each. */
  gapMs: number;
}

/** What an engine is asked to say: everything a wire shape depends on. */
interface Draft {
  request: RequestBody;
  id: string;
  created: number;
  model: string;
  outputTokens: number;
  reportUsage: boolean;
}

type StreamParts = Pick<Answer, 'opening' | 'token' | 'finish' | 'usage' | 'done' | 'failure'>;
interface Protocol {
  json: (draft: Draft) => object;
  stream: (draft: Draft) => StreamParts;
}

const JSON_HEADERS = { 'content-type': 'application/json' };
const TEXT_HEADERS = { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' };
const SSE_HEADERS = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' };
const NO_PARTS: StreamParts = { opening: '', token: () => '', finish: '', usage: '', done: '', failure: '' };
const FAILURE = { message: 'the engine ran out of memory', type: 'server_error', param: null, code: null };
const WORDS = 'The| company| plays| every| night|,| and| the| show| goes| on|.'.split('|');

export const DONE = 'data: [DONE]\n\n';

/** A body that is JSON and known beforehand: lists, errors, embeddings. */
export function jsonAnswer(status: number, value: object, request: RequestBody = {}): Answer {
  const pace = { outputTokens: 0, firstTokenMs: 0, tokensPerSecond: 0, gapMs: 0 };
  const json = JSON.stringify(value);
  return { request, status, headers: JSON_HEADERS, stream: false, json, ...NO_PARTS, ...pace };
}

/** A body that is no JSON: what Prometheus reads. */
export function textAnswer(text: string): Answer {
  return { ...jsonAnswer(200, {}), headers: TEXT_HEADERS, json: text };
}

export function errorAnswer(status: number, message: string, param: string | null = null): Answer {
  const type = status >= 500 ? 'server_error' : 'invalid_request_error';
  const code = status === 404 && param === 'model' ? 'model_not_found' : null;
  return jsonAnswer(status, { error: { message, type, param, code } });
}

export function inferenceAnswer(kind: ApiKind, draft: Draft): Answer {
  if (kind === 'embeddings') return jsonAnswer(200, embeddings(draft), draft.request);
  const { json, stream } = PROTOCOLS[kind];
  const answer = { ...jsonAnswer(200, json(draft), draft.request), outputTokens: draft.outputTokens };
  if (draft.request.stream !== true) return answer;
  return { ...answer, ...stream(draft), stream: true, headers: SSE_HEADERS };
}

/** The request's own limit, whatever its protocol calls it. */
export function tokenLimit(request: RequestBody): number {
  const limits = [request.max_completion_tokens, request.max_tokens, request.max_output_tokens];
  return limits.find((limit): limit is number => typeof limit === 'number' && limit >= 0) ?? Infinity;
}

const PROTOCOLS: Record<Exclude<ApiKind, 'embeddings'>, Protocol> = {
  chat: { json: chatCompletion, stream: chatStream },
  completions: { json: completion, stream: completionStream },
  responses: { json: finalResponse, stream: responseStream },
};

function chatCompletion(draft: Draft): object {
  const message = { role: 'assistant', content: textOf(draft), refusal: null };
  const choice = { index: 0, message, logprobs: null, finish_reason: finishReason(draft) };
  return { ...envelope(draft, 'chatcmpl', 'chat.completion'), choices: [choice], ...usageField(draft) };
}

function chatStream(draft: Draft): StreamParts {
  return choiceStream(draft, envelope(draft, 'chatcmpl', 'chat.completion.chunk'), {
    opening: { delta: { role: 'assistant', content: '' } },
    token: (index) => ({ delta: { content: word(index) } }),
    finish: { delta: {} },
  });
}

function completion(draft: Draft): object {
  const choice = { text: textOf(draft), index: 0, logprobs: null, finish_reason: finishReason(draft) };
  return { ...envelope(draft, 'cmpl', 'text_completion'), choices: [choice], ...usageField(draft) };
}

function completionStream(draft: Draft): StreamParts {
  return choiceStream(draft, envelope(draft, 'cmpl', 'text_completion'), {
    token: (index) => ({ text: word(index) }),
    finish: { text: '' },
  });
}

interface Choices {
  opening?: object;
  token: (index: number) => object;
  finish: object;
}

function choiceStream(draft: Draft, base: object, choices: Choices): StreamParts {
  const usageAsked = draft.reportUsage && wantsUsage(draft.request);
  // Once usage is asked for, every chunk has the field: null until the last.
  const noUsageYet = usageAsked ? { usage: null } : {};
  const event = (choice: object, finish_reason: string | null = null): string =>
    sse({ ...base, choices: [{ index: 0, ...choice, logprobs: null, finish_reason }], ...noUsageYet });
  return {
    opening: choices.opening === undefined ? '' : event(choices.opening),
    token: (index) => event(choices.token(index)),
    finish: event(choices.finish, finishReason(draft)),
    usage: usageAsked ? sse({ ...base, choices: [], ...usageField(draft) }) : '',
    done: DONE,
    failure: sse({ error: FAILURE }),
  };
}

function responseStream(draft: Draft): StreamParts {
  const at = { item_id: `msg_${draft.id}`, output_index: 0, content_index: 0 };
  const event = (sequence_number: number, type: string, fields: object): string =>
    `event: ${type}\n${sse({ type, sequence_number, ...fields })}`;
  const started = responseObject(draft, 'in_progress', []);
  const item = outputItem(draft, 'completed');
  const newItem = { ...item, status: 'in_progress', content: [] };
  const last = draft.outputTokens + 4;
  return {
    opening: [
      event(0, 'response.created', { response: started }),
      event(1, 'response.in_progress', { response: started }),
      event(2, 'response.output_item.added', { output_index: 0, item: newItem }),
      event(3, 'response.content_part.added', { ...at, part: textPart('') }),
    ].join(''),
    token: (index) =>
      event(index + 4, 'response.output_text.delta', { ...at, delta: word(index), logprobs: [] }),
    finish: [
      event(last, 'response.output_text.done', { ...at, text: textOf(draft), logprobs: [] }),
      event(last + 1, 'response.content_part.done', { ...at, part: textPart(textOf(draft)) }),
      event(last + 2, 'response.output_item.done', { output_index: 0, item }),
    ].join(''),
    usage: '',
    done: event(last + 3, isShortened(draft) ? 'response.incomplete' : 'response.completed', {
      response: finalResponse(draft),
    }),
    failure: event(last, 'error', { code: 'server_error', message: FAILURE.message, param: null }),
  };
}

function finalResponse(draft: Draft): object {
  const status = isShortened(draft) ? 'incomplete' : 'completed';
  return responseObject(draft, status, [outputItem(draft, status)]);
}

/** What a later request goes on from. */
export function responseId({ id }: Pick<Draft, 'id'>): string {
  return `resp_${id}`;
}

function responseObject(draft: Draft, status: string, output: object[]): object {
  const { created, model, request } = draft;
  const final = status !== 'in_progress' && draft.reportUsage;
  return {
    id: responseId(draft),
    object: 'response',
    created_at: created,
    status,
    error: null,
    incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    instructions: request.instructions ?? null,
    max_output_tokens: request.max_output_tokens ?? null,
    model,
    output,
    parallel_tool_calls: true,
    previous_response_id: request.previous_response_id ?? null,
    tool_choice: 'auto',
    tools: [],
    metadata: {},
    usage: final ? responseUsage(draft) : null,
  };
}

function outputItem(draft: Draft, status: string): object {
  return {
    id: `msg_${draft.id}`,
    type: 'message',
    status,
    role: 'assistant',
    content: [textPart(textOf(draft))],
  };
}

function textPart(text: string): object {
  return { type: 'output_text', text, annotations: [] };
}

function embeddings(draft: Draft): object {
  const { input, encoding_format } = draft.request;
  const inputs = Array.isArray(input) ? input : [input];
  const data = inputs.map((text, index) => ({
    object: 'embedding',
    index,
    embedding: encodeVector(vectorOf(charsOf(text)), encoding_format),
  }));
  const prompt_tokens = promptTokens(draft.request);
  const usage = draft.reportUsage ? { usage: { prompt_tokens, total_tokens: prompt_tokens } } : {};
  return { object: 'list', data, model: draft.model, ...usage };
}

function vectorOf(seed: number): number[] {
  return Array.from({ length: 8 }, (_, index) => Math.sin(seed + index));
}

/** OpenAI's own client libraries ask for base64 of little-endian floats unless told otherwise. */
function encodeVector(vector: number[], format: unknown): number[] | string {
  return format === 'base64' ? Buffer.from(Float32Array.from(vector).buffer).toString('base64') : vector;
}

function envelope({ id, created, model }: Draft, prefix: string, object: string): object {
  return { id: `${prefix}-${id}`, object, created, model };
}

function usageField({ request, outputTokens, reportUsage }: Draft): object {
  const prompt_tokens = promptTokens(request);
  const total_tokens = prompt_tokens + outputTokens;
  return reportUsage ? { usage: { prompt_tokens, completion_tokens: outputTokens, total_tokens } } : {};
}

function responseUsage({ request, outputTokens }: Draft): object {
  const input_tokens = promptTokens(request);
  return {
    input_tokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: input_tokens + outputTokens,
  };
}

function promptTokens(request: RequestBody): number {
  return Math.ceil(charsOf(request.messages ?? request.prompt ?? request.input) / 4);
}

function charsOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (Array.isArray(value)) return value.reduce((sum: number, part: unknown) => sum + charsOf(part), 0);
  if (!isRecord(value)) return 0;
  return charsOf(value.content ?? value.text);
}

function wantsUsage(request: RequestBody): boolean {
  return isRecord(request.stream_options) && request.stream_options.include_usage === true;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isShortened(draft: Draft): boolean {
  return draft.outputTokens >= tokenLimit(draft.request);
}

function finishReason(draft: Draft): string {
  return isShortened(draft) ? 'length' : 'stop';
}

function textOf(draft: Draft): string {
  return Array.from({ length: draft.outputTokens }, (_, index) => word(index)).join('');
}

function word(index: number): string {
  return WORDS[index % WORDS.length] ?? '';
}

function sse(value: object): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}
