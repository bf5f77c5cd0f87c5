/** What the server sends: its own types, and those of answers that it only writes down. */
export type {
  DailyStatView as DailyStat,
  DashboardEndpointView as Endpoint,
  EndpointModelView as EndpointModel,
  HistoryPointView as HistoryPoint,
  ModelStatView as ModelStat,
  ModelTpsView as ModelTps,
} from '../../actors/wire-shapes.js';
export type { EndpointStatus } from '../../machines/candidate.js';
export type { CandidateRecord, DecisionRecord } from '../../machines/decision.js';

import type {
  DashboardEndpointView,
  HistoryPointView,
  ModelTpsView,
  RecordView,
} from '../../actors/wire-shapes.js';
import type { DecisionRecord } from '../../machines/decision.js';

export interface Stats {
  total_runtimes: number;
  online_runtimes: number;
  pending_runtimes: number;
  offline_runtimes: number;
  total_requests: number;
  successful_requests: number;
  failed_requests: number;
  total_active_requests: number;
  queued_requests: number;
  requests_60m: { success: number; error: number };
  average_response_time_ms: number | null;
  /** Tokens that endpoints wrote over the last 10 s, per second. */
  output_tps: number;
  total_input_tokens: number;
  total_output_tokens: number;
  total_tokens: number;
}

export interface EndpointTps {
  endpoint_id: string;
  model_count: number;
  aggregate_tps: number | null;
  total_output_tokens: number;
  total_requests: number;
}

export interface Problem {
  code: string;
  severity: 'warning' | 'error';
  endpoint_id: string | null;
  endpoint_name: string | null;
  detail: string | null;
  since: string | null;
}

export interface Overview {
  endpoints: DashboardEndpointView[];
  stats: Stats;
  history: HistoryPointView[];
  endpoint_tps: EndpointTps[];
  problems: Problem[];
  time_zone: string;
  generated_at: string;
}

/** The rate of one model at one endpoint, by API. */
export type Rate = ModelTpsView & { endpoint_id: string };

export interface Attempt {
  endpoint_id: string;
  endpoint_name: string;
  outcome: 'success' | 'failure' | 'cancelled';
  status_code: number | null;
  error: string | null;
  duration_ms: number;
  predicted_ms: number | null;
}

export type RequestRow = Omit<RecordView, 'attempts'> & { attempts: Attempt[] };
export type RequestDetail = RequestRow & { decision: DecisionRecord | null };

export interface RequestPage {
  records: RequestRow[];
  total_count: number;
  total_is_capped: boolean;
}

export interface LiveRequest {
  id: string;
  request_id: string;
  model: string;
  endpoint_id: string | null;
  phase: 'queued' | 'connecting' | 'waiting' | 'streaming';
  age_ms: number;
  output_tokens: number;
  attempts: number;
}

export type ActorStatus = 'active' | 'restarting' | 'quarantined' | 'parked' | 'stopped';

export interface Actor {
  id: string;
  kind: string;
  state: string | null;
  status: ActorStatus;
  context: Record<string, unknown>;
  restarts: number;
  last_error: string | null;
  children: Actor[];
}

export interface Transition {
  at: string;
  event: string;
  from: string | null;
  to: string | null;
}

export type ActorDetail = Actor & { transitions: Transition[] };

export const METRICS = ['requests', 'errors', 'latency', 'ttft', 'tps', 'tokens'] as const;
export type Metric = (typeof METRICS)[number];
export const RANGES = ['1h', '24h', '7d', '30d'] as const;
export type Range = (typeof RANGES)[number];

export interface Series {
  metric: Metric;
  range: Range;
  step_secs: number;
  points: [number, number | null][];
}

export interface Usage {
  requests: number;
  errors: number;
  input_tokens: number;
  output_tokens: number;
}

export interface KeyUsage {
  id: string;
  name: string;
  key_prefix: string;
  today: Usage;
  total: Usage;
  last_used_at: string | null;
}

export interface RateLimit {
  requests_per_minute: number | null;
  tokens_per_minute: number | null;
  concurrent: number | null;
  tokens_per_day: number | null;
  tokens_per_month: number | null;
}

export interface ApiKey {
  id: string;
  key_prefix: string;
  name: string;
  created_by: string | null;
  created_at: string;
  expires_at: string | null;
  permissions: string[];
  models: string[] | null;
  rate_limit: Partial<RateLimit> | null;
  priority: number;
}

export interface User {
  id: string;
  username: string;
  role: 'admin' | 'viewer';
  created_at: string;
  last_login: string | null;
  must_change_password: boolean;
}

export interface AuditLine {
  id: number;
  at: string;
  actor: string;
  actor_type: 'user' | 'api_key' | 'system';
  action: string;
  target: string | null;
  client_ip: string | null;
  detail: Record<string, unknown>;
}

export interface Setting {
  name: string;
  value: string | number | boolean | string[] | null;
  source: 'default' | 'environment' | 'option' | 'file' | 'store';
}

export type { ModelPlaceView as ModelPlace, ModelView as FleetModel } from '../../actors/model-places.js';
