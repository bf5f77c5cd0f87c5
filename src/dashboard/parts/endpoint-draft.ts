import type { Endpoint } from '../api/shapes.js';

/** An endpoint as it stands in a form: texts, an empty one for what is left to the server. */
export interface Draft {
  url: string;
  name: string;
  apiKey: string;
  forgetsKey: boolean;
  /** A line each: `Name: value`. Those that are stored are never shown. */
  headers: string;
  interval: number | '';
  timeout: number | '';
  weight: number | '';
  priority: number | '';
  maxConcurrency: number | '';
  maxContext: number | '';
  allow: string;
  deny: string;
  notes: string;
}

export function draftOf(endpoint: Endpoint | undefined): Draft {
  return {
    url: endpoint?.base_url ?? '',
    name: endpoint?.name ?? '',
    apiKey: '',
    forgetsKey: false,
    headers: '',
    interval: endpoint?.health_check_interval_secs ?? '',
    timeout: endpoint?.inference_timeout_secs ?? '',
    weight: endpoint?.weight ?? '',
    priority: endpoint?.priority ?? '',
    maxConcurrency: endpoint?.max_concurrency ?? '',
    maxContext: endpoint?.max_context ?? '',
    allow: (endpoint?.models_allow ?? []).join(', '),
    deny: (endpoint?.models_deny ?? []).join(', '),
    notes: endpoint?.notes ?? '',
  };
}

/**
 * What is sent, or the number of the header line that is none. Of an endpoint that is there already only what was
 * changed, `null` for what was emptied: what it leaves to the server's defaults stays theirs.
 */
export function inputOf(draft: Draft, endpoint?: Endpoint): { body: object } | { problem: number } {
  const headers: Record<string, string> = {};
  const lines = draft.headers.split('\n');
  for (const [index, line] of lines.entries()) {
    if (line.trim() === '') continue;
    const colon = line.indexOf(':');
    if (colon < 1) return { problem: index + 1 };
    headers[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
  }
  const before = endpoint === undefined ? {} : fieldsOf(draftOf(endpoint));
  const changed = Object.entries(fieldsOf(draft)).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name] ?? null),
  );
  return {
    body: {
      ...Object.fromEntries(changed),
      ...(Object.keys(headers).length > 0 ? { headers } : {}),
      ...keyOf(draft),
    },
  };
}

function fieldsOf(draft: Draft): Record<string, unknown> {
  return {
    name: draft.name.trim(),
    base_url: draft.url.trim(),
    health_check_interval_secs: orNull(draft.interval),
    inference_timeout_secs: orNull(draft.timeout),
    weight: orNull(draft.weight),
    priority: orNull(draft.priority),
    max_concurrency: orNull(draft.maxConcurrency),
    max_context: orNull(draft.maxContext),
    models_allow: globs(draft.allow),
    models_deny: globs(draft.deny),
    notes: draft.notes.trim() === '' ? null : draft.notes,
  };
}

function keyOf({ apiKey, forgetsKey }: Draft): { api_key?: string | null } {
  if (apiKey !== '') return { api_key: apiKey };
  return forgetsKey ? { api_key: null } : {};
}

function orNull(value: number | ''): number | null {
  return value === '' ? null : value;
}

function globs(text: string): string[] | null {
  const found = text.split(',').flatMap((one) => (one.trim() === '' ? [] : [one.trim()]));
  return found.length === 0 ? null : found;
}
