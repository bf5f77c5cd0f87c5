import { setMaxListeners } from 'node:events';
import type { Dispatcher } from 'undici';
import type { Engine, EngineLoad, EngineModel, EngineType, Get, Reply } from './engine.js';
import { marksOf } from './evidence.js';
import { createGet, NoReply } from './get.js';
import { OPENAI_LIST } from './openai-list.js';
import { engineOf, recognise } from './recognise.js';

export interface CheckTarget {
  /** Without a trailing slash and without `/v1`. */
  baseUrl: string;
  apiKey: string | null;
  headers: Record<string, string>;
  /** null: not recognised yet. */
  engineType: EngineType | null;
}

export interface CheckOptions {
  /** For everything within the check together. */
  timeoutMs: number;
  dispatcher: Dispatcher;
  /** Monotonic, ms. */
  mono: () => number;
  /** Ends the check early, as `unreachable`. */
  signal?: AbortSignal;
}

/**
 * `latencyMs`: whole ms to the response head of the model list. Something that answers, but not with a model list, is
 * `not_recognised` while the type is unknown and `bad_answer` after.
 */
export type CheckResult =
  | {
      ok: true;
      latencyMs: number;
      engineType: EngineType;
      models: EngineModel[];
      /** Models in memory; null where the engine does not tell. */
      loaded: string[] | null;
      /** null where the engine does not tell. */
      load: EngineLoad | null;
    }
  | {
      ok: false;
      reason: 'unreachable' | 'timeout' | 'key_refused' | 'server_error' | 'not_recognised' | 'bad_answer';
      error: string;
    };

type Success = Extract<CheckResult, { ok: true }>;

interface Failure {
  ok: false;
  reason: 'unreachable' | 'timeout' | 'key_refused' | 'server_error' | 'foreign';
  error: string;
  /** The server has nothing under this path. */
  absent?: boolean;
}

/**
 * One health check: the models of the endpoint, and its engine where that is not known or no longer true. A known engine
 * costs one request, and one more where it tells what it holds or does. Never rejects.
 */
export async function checkEndpoint(target: CheckTarget, options: CheckOptions): Promise<CheckResult> {
  const { timeoutMs, mono, dispatcher, signal } = options;
  const deadline = mono() + timeoutMs;
  const stop = new AbortController();
  // Every request listens to it twice, and recognition sends nine at once.
  setMaxListeners(0, stop.signal);
  const timedOut = () => stop.abort(new NoReply('timeout', `no answer within ${timeoutMs} ms`));
  const cancelled = () => stop.abort(new NoReply('unreachable', 'the check was cancelled'));
  const timer = setTimeout(timedOut, timeoutMs);
  signal?.addEventListener('abort', cancelled, { once: true });
  if (signal?.aborted) cancelled();
  try {
    const get = createGet({ ...target, dispatcher, mono, signal: stop.signal });
    const result = await check(get, target.engineType, () => deadline - mono());
    return result.ok ? result : named(result, target.engineType);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', cancelled);
    // Ends the probes that nobody waits for any more.
    stop.abort(new NoReply('unreachable', 'the check is over'));
  }
}

async function check(get: Get, known: EngineType | null, timeLeft: () => number): Promise<Success | Failure> {
  if (known) {
    const result = await list(engineOf(known), get, true);
    // Somebody may have put another server on its port.
    if (result.ok || result.reason !== 'foreign' || known === 'openai_compatible') return result;
  }
  const engine = await recognise(get, timeLeft);
  return engine ? list(engine, get, false) : explain(get);
}

/** With `suspicious` a list that names another engine is none. */
async function list(engine: Engine, get: Get, suspicious: boolean): Promise<Success | Failure> {
  try {
    const { reply, models } = await engine.listModels(get);
    if (!models || (suspicious && isOfAnother(engine.type, reply))) return judged(reply);
    const [loaded, load] = await Promise.all([
      inTime(engine.listLoaded?.(get)),
      inTime(engine.readLoad?.(get)),
    ]);
    return { ok: true, latencyMs: Math.round(reply.headMs), engineType: engine.type, models, loaded, load };
  } catch (error) {
    return unanswered(error);
  }
}

const TELL_WAIT_MS = 1000;

/** Never rejects, and makes no check fail: who does not say it in time does not tell. */
async function inTime<T>(answer: Promise<T | undefined> | undefined): Promise<T | null> {
  if (answer === undefined) return null;
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, TELL_WAIT_MS, undefined);
  });
  const told = answer.catch(() => undefined);
  const first = await Promise.race([told, patience]);
  clearTimeout(timer);
  return first ?? null;
}

function isOfAnother(type: EngineType, reply: Reply): boolean {
  const marks = marksOf(reply);
  return type !== 'openai_compatible' && marks.size > 0 && !marks.has(type);
}

const LISTS = [OPENAI_LIST, '/api/tags', '/api/v0/models'];

/** Why no engine was recognised: what the first list says that is there at all. */
async function explain(get: Get): Promise<Failure> {
  const failures = await Promise.all(LISTS.map((path) => get(path).then(judged, unanswered)));
  const silence = ({ reason, absent }: Failure) => (absent ? 2 : reason === 'unreachable' ? 1 : 0);
  return failures.reduce((first, next) => (silence(next) < silence(first) ? next : first));
}

function judged({ status, path, json }: Reply): Failure {
  const answered = `answered ${status} to GET ${path}`;
  if (status === 401 || status === 403) {
    return { ok: false, reason: 'key_refused', error: 'the endpoint refused the key' };
  }
  if (status >= 500) return { ok: false, reason: 'server_error', error: answered };
  if (status !== 200) {
    return { ok: false, reason: 'foreign', error: answered, absent: status === 404 || status === 405 };
  }
  const what = json === undefined ? 'something that is not JSON' : 'JSON that is no model list';
  return { ok: false, reason: 'foreign', error: `answered GET ${path} with ${what}` };
}

function unanswered(error: unknown): Failure {
  if (error instanceof NoReply) return { ok: false, reason: error.reason, error: error.message };
  // Whatever an endpoint sends, a check ends with a result.
  return { ok: false, reason: 'foreign', error: 'its answer could not be understood' };
}

function named({ reason, error }: Failure, known: EngineType | null): CheckResult {
  if (reason !== 'foreign') return { ok: false, reason, error };
  return known
    ? { ok: false, reason: 'bad_answer', error: `something answers, but not like ${known}: ${error}` }
    : {
        ok: false,
        reason: 'not_recognised',
        error: `something answers, but it is no inference server: ${error}`,
      };
}
