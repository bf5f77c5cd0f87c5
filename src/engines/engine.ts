export const ENGINE_TYPES = [
  'xllm',
  'ollama',
  'vllm',
  'lm_studio',
  'llamacpp',
  'sglang',
  'openai_compatible',
] as const;

export type EngineType = (typeof ENGINE_TYPES)[number];

export interface EngineModel {
  /** Exactly the name OpenAI requests to this endpoint use. */
  modelId: string;
  /** Of `chat`, `embeddings`, `vision`, `tools`, in this order; null where the engine does not tell. */
  capabilities: string[] | null;
  /** Context length in tokens; null where the engine does not tell. */
  maxTokens: number | null;
}

export interface Reply {
  path: string;
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /** undefined when the body is not JSON; only the body of a 200 is read. */
  json: unknown;
  /** The body as it came; only where it was asked for as text, and then instead of `json`. */
  text?: string;
  /** Time from sending the request to the response head, ms. */
  headMs: number;
}

/** Asks the endpoint; the same path asked twice within a check is one request. Rejects with `NoReply` only. */
export type Get = (path: string, as?: 'json' | 'text') => Promise<Reply>;

/** What an engine says it has to do, whoever sent it. */
export interface EngineLoad {
  running: number;
  /** Received, but not begun. */
  waiting: number;
  /** How many it serves at once; null where it does not tell. */
  slots: number | null;
  /** Share of its cache that is in use, from 0 to 1; null where it does not tell. */
  cacheUse: number | null;
}

export interface Engine {
  type: EngineType;
  /** Whether the endpoint is this engine; a probe without an answer counts as no, so this never rejects. */
  recognise(get: Get): Promise<boolean>;
  /** The model list; `models` undefined: the reply is not this engine's list. Rejects like `get`. */
  listModels(get: Get): Promise<Listing>;
  /** The models it holds in memory, by their listed names; undefined where it does not tell. Rejects like `get`. */
  listLoaded?(get: Get): Promise<string[] | undefined>;
  /** What it has to do now; undefined where it does not tell. Rejects like `get`. */
  readLoad?(get: Get): Promise<EngineLoad | undefined>;
}

export interface Listing {
  reply: Reply;
  models: EngineModel[] | undefined;
}
