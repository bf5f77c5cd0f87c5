export type EngineKind =
  | 'openai_compatible'
  | 'ollama'
  | 'vllm'
  | 'llamacpp'
  | 'sglang'
  | 'lm_studio'
  | 'xllm';

/** `active`: the inference requests it serves now. */
type Render = (models: readonly string[], active: number) => object | string;
interface Native {
  ownedBy: string;
  marks?: (model: string) => object;
  headers?: Record<string, string>;
  routes: Record<string, Render>;
}

const CONTEXT = 8192;
const SLOTS = 4;
const CREATED = 1_735_689_600;
const LISTS = new Set(['/v1/models', '/api/tags', '/api/v0/models']);

const NATIVE: Record<EngineKind, Native> = {
  openai_compatible: { ownedBy: 'simulated', routes: {} },
  ollama: {
    ownedBy: 'library',
    routes: {
      '/api/version': () => ({ version: '0.12.3' }),
      '/api/tags': (models) => ({ models: models.map(ollamaModel) }),
      '/api/ps': (models) => ({ models: models.slice(0, 1).map(ollamaLoaded) }),
    },
  },
  vllm: {
    ownedBy: 'vllm',
    marks: (model) => ({ root: model, parent: null, max_model_len: CONTEXT }),
    routes: { '/version': () => ({ version: '0.11.0' }), '/metrics': vllmMetrics },
  },
  llamacpp: {
    ownedBy: 'llamacpp',
    marks: () => ({ meta: { n_ctx_train: CONTEXT, n_params: 1_000_000_000, size: 700_000_000 } }),
    headers: { server: 'llama.cpp' },
    routes: { '/props': llamaProps, '/slots': (_, active) => llamaSlots(active) },
  },
  sglang: {
    ownedBy: 'sglang',
    marks: (model) => ({ root: model, max_model_len: CONTEXT }),
    routes: { '/get_model_info': sglangInfo },
  },
  lm_studio: {
    ownedBy: 'organization_owner',
    routes: { '/api/v0/models': (models) => ({ object: 'list', data: models.map(lmStudioModel) }) },
  },
  xllm: { ownedBy: 'xllm', routes: { '/api/system': () => ({ xllm_version: '0.4.0', device: 'cpu' }) } },
};

/** The body of a GET route this engine has, a string where it is no JSON; undefined: it does not have it. */
export function catalogueEntry(
  engine: EngineKind,
  path: string,
  models: readonly string[],
  active: number,
): object | string | undefined {
  if (path === '/v1/models') return modelList(NATIVE[engine], models);
  const { routes } = NATIVE[engine];
  return Object.hasOwn(routes, path) ? routes[path]?.(models, active) : undefined;
}

/** True where an engine has to look through its models before it answers. */
export function isModelList(path: string): boolean {
  return LISTS.has(path);
}

/** Headers this engine puts on every answer. */
export function engineHeaders(engine: EngineKind): Record<string, string> {
  return NATIVE[engine].headers ?? {};
}

function modelList({ ownedBy, marks }: Native, models: readonly string[]): object {
  const data = models.map((id) => ({
    id,
    object: 'model',
    created: CREATED,
    owned_by: ownedBy,
    ...marks?.(id),
  }));
  return { object: 'list', data };
}

function ollamaModel(name: string): object {
  return {
    name,
    model: name,
    modified_at: '2025-01-01T00:00:00Z',
    size: 700_000_000,
    digest: '0'.repeat(64),
    details: {
      format: 'gguf',
      family: 'sim',
      families: ['sim'],
      parameter_size: '1B',
      quantization_level: 'Q4_0',
    },
  };
}

function ollamaLoaded(name: string): object {
  return {
    ...ollamaModel(name),
    expires_at: '2099-01-01T00:00:00Z',
    size_vram: 700_000_000,
    context_length: CONTEXT,
  };
}

function llamaProps(models: readonly string[]): object {
  return {
    default_generation_settings: { n_ctx: CONTEXT },
    total_slots: SLOTS,
    model_path: `/models/${models[0] ?? 'none'}.gguf`,
    build_info: 'b6700',
  };
}

function llamaSlots(active: number): object[] {
  return Array.from({ length: SLOTS }, (_, id) => ({ id, n_ctx: CONTEXT, is_processing: id < active }));
}

/** Nobody waits, and it has no cache to tell of. */
function vllmMetrics(models: readonly string[], active: number): string {
  const gauge = (name: string, help: string, value: number) =>
    [
      `# HELP vllm:${name} ${help}`,
      `# TYPE vllm:${name} gauge`,
      `vllm:${name}{engine="0",model_name="${models[0] ?? ''}"} ${value.toFixed(1)}\n`,
    ].join('\n');
  return (
    gauge('num_requests_running', 'Number of requests in model execution batches.', active) +
    gauge('num_requests_waiting', 'Number of requests waiting to be processed.', 0)
  );
}

function sglangInfo(models: readonly string[]): object {
  const path = models[0] ?? '';
  return { model_path: path, tokenizer_path: path, is_generation: true };
}

function lmStudioModel(id: string): object {
  return {
    id,
    object: 'model',
    type: 'llm',
    publisher: 'simulated',
    arch: 'sim',
    compatibility_type: 'gguf',
    quantization: 'Q4_0',
    state: 'loaded',
    max_context_length: CONTEXT,
  };
}
