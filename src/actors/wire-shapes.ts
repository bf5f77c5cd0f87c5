import type { EndpointStatus } from '../machines/candidate.js';
import type { CircuitState } from '../machines/circuit.js';
import type { Percentiles } from '../machines/histogram.js';
import type { ApiKind, Outcome } from '../machines/records.js';
import type { ModelSettings } from '../persistence/store.js';

/** What the dashboard and its tools are told, as it is on the wire. */

export interface EndpointView {
  id: string;
  name: string;
  base_url: string;
  status: EndpointStatus;
  endpoint_type: string;
  health_check_interval_secs: number;
  inference_timeout_secs: number;
  latency_ms: number | null;
  last_seen: string | null;
  last_error: string | null;
  error_count: number;
  registered_at: string;
  notes: string | null;
  model_count: number;
  weight: number;
  priority: number;
  max_concurrency: number | null;
  max_context: number | null;
  models_allow: string[] | null;
  models_deny: string[] | null;
  model_settings: Record<string, ModelSettings>;
  /** The worst of its own and those of its models. */
  circuit: CircuitState;
}

export interface DashboardEndpointView extends EndpointView {
  total_requests: number;
  successful_requests: number;
  failed_requests: number;
  active_requests: number;
}

export interface EndpointModelView {
  model_id: string;
  capabilities: string[] | null;
  max_tokens: number | null;
  last_checked: string | null;
  /** False: it is only there for trying the endpoint out. */
  offered: boolean;
}

export interface ModelStatView {
  model_id: string;
  total_requests: number;
  successful_requests: number;
  failed_requests: number;
  total_output_tokens: number;
  total_duration_ms: number;
  ttft_ms: Percentiles | null;
  decode_tps: number | null;
  inter_token_ms: Percentiles | null;
  duration_ms: Percentiles | null;
  prediction_error: Percentiles | null;
}

export interface ModelTpsView {
  model_id: string;
  api_kind: ApiKind;
  source: 'production';
  tps: number | null;
  request_count: number;
  total_output_tokens: number;
  average_duration_ms: number | null;
}

/** Today's samples of an endpoint, over its models and kinds. */
export interface EndpointTpsView {
  endpoint_id: string;
  model_count: number;
  aggregate_tps: number | null;
  total_output_tokens: number;
  total_requests: number;
}

export interface DailyStatView {
  date: string;
  total_requests: number;
  successful_requests: number;
  failed_requests: number;
}

export interface HistoryPointView {
  minute: string;
  success: number;
  error: number;
}

export type StatsView = Record<string, number | null | string | { success: number; error: number }>;

export interface RecordView {
  id: string;
  request_id: string;
  timestamp: string;
  request_type: string;
  model: string;
  endpoint_id: string | null;
  endpoint_name: string | null;
  client_ip: string | null;
  key_id: string | null;
  user_id: string | null;
  duration_ms: number;
  ttft_ms: number | null;
  status: { type: 'success' } | { type: 'error'; message: string };
  outcome: Outcome;
  status_code: number;
  completed_at: string;
  input_tokens: number | null;
  output_tokens: number | null;
  total_tokens: number | null;
  tokens_estimated: boolean;
  attempts: object[];
}
