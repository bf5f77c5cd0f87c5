import type { EngineLoad, Get } from './engine.js';

/** The names under which an engine tells Prometheus of its load. */
interface Gauges {
  running: string;
  waiting: string;
  /** Newest first. */
  cacheUse: string[];
  /** The queue that a sample with these labels speaks of; of several that speak of the same one the largest counts. */
  queueOf: (labels: string) => string;
}

/** The load in an engine's `/metrics`; undefined where it does not tell. Rejects like `get`. */
export async function loadFrom(get: Get, gauges: Gauges): Promise<EngineLoad | undefined> {
  const { text = '' } = await get('/metrics', 'text');
  const running = totalOf(samplesOf(text, gauges.running), gauges.queueOf);
  const waiting = totalOf(samplesOf(text, gauges.waiting), gauges.queueOf);
  if (running === undefined || waiting === undefined) return undefined;
  return { running, waiting, slots: null, cacheUse: shareOf(text, gauges.cacheUse) };
}

interface Sample {
  /** As they are written, without braces. */
  labels: string;
  value: number;
}

/** The samples of one name; those without a number of 0 or more are left out. */
function samplesOf(text: string, name: string): Sample[] {
  // Longer names begin with this one, and in the labels there may be braces.
  const lines = text.matchAll(new RegExp(`^${name}(?:\\{(.*)\\})?[ \\t]+(\\S+)`, 'gm'));
  return [...lines]
    .map(([, labels = '', value]) => ({ labels, value: Number(value) }))
    .filter(({ value }) => value >= 0 && value < Number.POSITIVE_INFINITY);
}

/** The sum over all queues; undefined without a sample, or if it is no number of requests. */
function totalOf(samples: Sample[], queueOf: Gauges['queueOf']): number | undefined {
  if (samples.length === 0) return undefined;
  const queues = new Map<string, number>();
  for (const { labels, value } of samples) {
    const queue = queueOf(labels);
    queues.set(queue, Math.max(queues.get(queue) ?? 0, value));
  }
  const total = [...queues.values()].reduce((sum, value) => sum + value, 0);
  return Number.isSafeInteger(total) ? total : undefined;
}

/** That of the fullest rank, under the first name there is. */
function shareOf(text: string, names: string[]): number | null {
  const samples = names.map((name) => samplesOf(text, name)).find(({ length }) => length > 0);
  return samples ? samples.reduce((most, { value }) => Math.max(most, Math.min(1, value)), 0) : null;
}
