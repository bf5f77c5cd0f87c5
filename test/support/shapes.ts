import { z } from 'zod';

/** The wire shapes of the contract: exactly these keys, `null` only where it says so. */
const ts = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
const uuid = z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
const int = z.int();
const count = z.int().min(0);

const endpointFields = {
  id: uuid,
  name: z.string(),
  base_url: z.string(),
  status: z.enum(['pending', 'online', 'offline', 'error', 'draining', 'quarantined']),
  endpoint_type: z.enum(['xllm', 'ollama', 'vllm', 'lm_studio', 'llamacpp', 'sglang', 'openai_compatible']),
  health_check_interval_secs: z.number(),
  inference_timeout_secs: int,
  latency_ms: int.nullable(),
  last_seen: ts.nullable(),
  last_error: z.string().nullable(),
  error_count: count,
  registered_at: ts,
  notes: z.string().nullable(),
  model_count: count,
  weight: z.number(),
  priority: count,
  max_concurrency: int.nullable(),
  max_context: int.nullable(),
  models_allow: z.array(z.string()).nullable(),
  models_deny: z.array(z.string()).nullable(),
  model_settings: z.record(
    z.string(),
    z.strictObject({
      weight: z.number().optional(),
      priority: count.optional(),
      max_concurrency: int.min(1).optional(),
    }),
  ),
  circuit: z.enum(['closed', 'open', 'half_open']),
};

const deadlineSet = z.strictObject({
  connect_ms: count.optional(),
  first_byte_ms: count.optional(),
  idle_ms: count.optional(),
  total_ms: count.optional(),
});

export const endpoint = z.strictObject(endpointFields);
export const endpointModel = z.strictObject({
  model_id: z.string(),
  capabilities: z.array(z.string()).nullable(),
  max_tokens: int.nullable(),
  last_checked: ts.nullable(),
  offered: z.boolean(),
});
export const endpointWithModels = z.strictObject({
  ...endpointFields,
  models: z.array(endpointModel),
  deadlines: deadlineSet.extend({ models: z.record(z.string(), deadlineSet).optional() }),
  tls_ca: z.string().nullable(),
});
export const endpointList = z.strictObject({ endpoints: z.array(endpoint), total: count });
export const endpointModels = z.strictObject({ endpoint_id: uuid, models: z.array(endpointModel) });
export const testResult = z.strictObject({
  success: z.boolean(),
  latency_ms: int.nullable(),
  error: z.string().nullable(),
  models_found: z.array(z.string()).nullable(),
});
export const syncResult = z.strictObject({
  synced_models: z.array(endpointModel),
  added: count,
  removed: count,
  updated: count,
});
export const dailyStat = z.strictObject({
  date: z.string().regex(/^\d{4}-\d\d-\d\d$/),
  total_requests: count,
  successful_requests: count,
  failed_requests: count,
});
const percentiles = z
  .strictObject({ p50: z.number().min(0), p95: z.number().min(0), p99: z.number().min(0) })
  .refine(({ p50, p95, p99 }) => p50 <= p95 && p95 <= p99)
  .nullable();
export const modelStat = z.strictObject({
  model_id: z.string(),
  total_requests: count,
  successful_requests: count,
  failed_requests: count,
  total_output_tokens: count,
  total_duration_ms: count,
  ttft_ms: percentiles,
  decode_tps: z.number().positive().nullable(),
  inter_token_ms: percentiles,
  duration_ms: percentiles,
  prediction_error: percentiles,
});
const modelTpsFields = {
  model_id: z.string(),
  api_kind: z.enum(['chat_completions', 'completions', 'responses', 'messages']),
  source: z.literal('production'),
  tps: z.number().nullable(),
  request_count: count,
  total_output_tokens: count,
  average_duration_ms: z.number().nullable(),
};
export const modelTps = z.strictObject(modelTpsFields);
export const tpsFrame = z.strictObject({ endpoint_id: uuid, ...modelTpsFields });

export const dashboardEndpoint = z.strictObject({
  ...endpointFields,
  total_requests: count,
  successful_requests: count,
  failed_requests: count,
  active_requests: count,
});
export const historyPoint = z.strictObject({
  minute: z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:00Z$/),
  success: count,
  error: count,
});
const endpointTps = z.strictObject({
  endpoint_id: uuid,
  model_count: count,
  aggregate_tps: z.number().nullable(),
  total_output_tokens: count,
  total_requests: count,
});
export const stats = z.strictObject({
  total_runtimes: count,
  online_runtimes: count,
  pending_runtimes: count,
  registering_runtimes: z.literal(0),
  offline_runtimes: count,
  total_requests: count,
  successful_requests: count,
  failed_requests: count,
  total_active_requests: count,
  queued_requests: count,
  requests_60m: z.strictObject({ success: count, error: count }),
  average_response_time_ms: z.number().nullable(),
  output_tps: z.number().min(0),
  average_gpu_usage: z.number().nullable(),
  average_gpu_memory_usage: z.number().nullable(),
  last_metrics_updated_at: ts.nullable(),
  last_registered_at: ts.nullable(),
  last_seen_at: ts.nullable(),
  total_input_tokens: count,
  total_output_tokens: count,
  total_tokens: count,
});
export const problems = z.array(
  z.strictObject({
    code: z.string().regex(/^[a-z_]+$/),
    severity: z.enum(['warning', 'error']),
    endpoint_id: uuid.nullable(),
    endpoint_name: z.string().nullable(),
    detail: z.string().nullable(),
    since: ts.nullable(),
  }),
);
export const overview = z.strictObject({
  endpoints: z.array(dashboardEndpoint),
  stats,
  problems,
  history: z.array(historyPoint).length(60),
  endpoint_tps: z.array(endpointTps),
  time_zone: z.string().min(1),
  generated_at: ts,
  generation_time_ms: z.number().min(0),
});
const outcome = z.enum(['success', 'failure', 'cancelled']);
const record = z.strictObject({
  id: uuid,
  request_id: z.string().min(1),
  timestamp: ts,
  request_type: z.string(),
  model: z.string(),
  endpoint_id: uuid.nullable(),
  endpoint_name: z.string().nullable(),
  client_ip: z.string().nullable(),
  key_id: uuid.nullable(),
  user_id: uuid.nullable(),
  duration_ms: count,
  ttft_ms: int.nullable(),
  status: z.union([
    z.strictObject({ type: z.literal('success') }),
    z.strictObject({ type: z.literal('error'), message: z.string() }),
  ]),
  outcome,
  status_code: int,
  completed_at: ts,
  input_tokens: int.nullable(),
  output_tokens: int.nullable(),
  total_tokens: int.nullable(),
  tokens_estimated: z.boolean(),
  attempts: z.array(
    z.strictObject({
      endpoint_id: uuid,
      endpoint_name: z.string(),
      outcome,
      status_code: int.nullable(),
      error: z.string().nullable(),
      duration_ms: count,
      predicted_ms: count.nullable(),
    }),
  ),
});
export const recordPage = z.strictObject({
  records: z.array(record),
  total_count: count,
  total_is_capped: z.boolean(),
  page: int,
  per_page: int,
});
const actorFields = {
  id: z.string(),
  kind: z.string(),
  state: z.string().nullable(),
  status: z.enum(['active', 'restarting', 'quarantined', 'parked', 'stopped']),
  context: z.record(z.string(), z.unknown()),
  restarts: count,
  last_error: z.string().nullable(),
};
const actorHead = z.strictObject(actorFields);
export type Actor = z.infer<typeof actorHead> & { children: Actor[] };
export const actor: z.ZodType<Actor> = z.lazy(() =>
  z.strictObject({ ...actorFields, children: z.array(actor) }),
);
export const actorDetail = z.strictObject({
  ...actorFields,
  children: z.array(actor),
  transitions: z
    .array(
      z.strictObject({ at: ts, event: z.string(), from: z.string().nullable(), to: z.string().nullable() }),
    )
    .max(100),
});
export const machines = z
  .array(
    z.strictObject({
      id: z.string(),
      definition: z.record(z.string(), z.unknown()),
      mermaid: z.string(),
    }),
  )
  .min(1);
export const apiError = z.strictObject({
  error: z.strictObject({ message: z.string().min(1), type: z.string().min(1), code: z.string().min(1) }),
});
export const openAiError = z.strictObject({
  error: z.strictObject({
    message: z.string().min(1),
    type: z.string().min(1),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});

export type RequestRow = z.infer<typeof record>;

export const decision = z.strictObject({
  policy: z.enum([
    'adaptive',
    'least-busy',
    'round-robin',
    'power-of-two',
    'fastest',
    'weighted',
    'affinity',
  ]),
  candidates: z
    .array(
      z.strictObject({
        endpoint_id: uuid,
        endpoint_name: z.string(),
        eligible: z.boolean(),
        reason: z.string().nullable(),
        predicted_ms: z.number().nullable(),
        parts: z.record(z.string(), z.number()),
      }),
    )
    .max(5),
  rejected: z.record(z.string(), count),
  phases: z.strictObject({
    queued_ms: count,
    connect_ms: count.nullable(),
    first_byte_ms: count.nullable(),
    stream_ms: count.nullable(),
  }),
});
export const liveRequests = z.array(
  z.strictObject({
    id: uuid,
    request_id: z.string(),
    model: z.string(),
    endpoint_id: uuid.nullable(),
    phase: z.enum(['queued', 'connecting', 'waiting', 'streaming']),
    age_ms: count,
    output_tokens: count,
    attempts: count,
  }),
);

const role = z.enum(['admin', 'viewer']);
export const login = z.strictObject({
  token: z.string().regex(/^ts_[\w-]{43}$/),
  expires_in: z.literal(86_400),
  csrf_token: z.string().regex(/^[\w-]{43}$/),
  user: z.strictObject({ id: uuid, username: z.string(), role, must_change_password: z.boolean() }),
});
export const me = z.strictObject({
  user_id: uuid,
  username: z.string(),
  role,
  must_change_password: z.boolean(),
});
const user = z.strictObject({
  id: uuid,
  username: z.string(),
  role,
  created_at: ts,
  last_login: ts.nullable(),
  must_change_password: z.boolean(),
});
export const userList = z.strictObject({ users: z.array(user) });
export const newUser = z.strictObject({ user, generated_password: z.string().min(16) });
const apiKeyFields = {
  id: uuid,
  key_prefix: z.string().regex(/^sk_[\w-]{7}$/),
  name: z.string(),
  created_by: uuid,
  created_at: ts,
  expires_at: ts.nullable(),
  permissions: z.array(
    z.enum([
      'openai.inference',
      'openai.models.read',
      'endpoints.read',
      'endpoints.manage',
      'dashboard.read',
      'users.manage',
      'metrics.read',
      'logs.read',
    ]),
  ),
  models: z.array(z.string()).nullable(),
  rate_limit: z.strictObject({
    requests_per_minute: int.nullable(),
    tokens_per_minute: int.nullable(),
    concurrent: int.nullable(),
    tokens_per_day: int.nullable(),
    tokens_per_month: int.nullable(),
  }),
  priority: count,
};
export const apiKey = z.strictObject(apiKeyFields);
export const newApiKey = z.strictObject({ ...apiKeyFields, key: z.string().regex(/^sk_[\w-]{43}$/) });
export const apiKeyList = z.strictObject({ api_keys: z.array(apiKey) });
const usage = z.strictObject({
  requests: count,
  errors: count,
  input_tokens: count,
  output_tokens: count,
});
export const keyUsage = z.array(
  z.strictObject({
    id: uuid,
    name: z.string(),
    key_prefix: z.string(),
    today: usage,
    total: usage,
    last_used_at: ts.nullable(),
  }),
);
export const auditPage = z.strictObject({
  items: z.array(
    z.strictObject({
      id: int.min(1),
      at: ts,
      actor: z.string().min(1),
      actor_type: z.enum(['user', 'api_key', 'system']),
      action: z.string().regex(/^[a-z_]+\.[a-z_]+$/),
      target: z.string().nullable(),
      client_ip: z.string().nullable(),
      detail: z.record(z.string(), z.unknown()),
    }),
  ),
  total: count,
  page: int.min(1),
  per_page: int.min(1),
});
export const auditVerdict = z.strictObject({
  valid: z.boolean(),
  checked: count,
  first_bad: int.nullable(),
});
