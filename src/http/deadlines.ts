import type { Deadlines } from '../config.js';
import { ofModel } from '../machines/endpoint.js';
import { type Asked, extraMs, type Pace } from '../machines/pace.js';
import type { EndpointConfig } from '../persistence/store.js';
import type { AttemptDeadlines } from './attempt.js';

/** The default deadline to the first byte is not stretched by more than this, ms. */
const MOST_EXTRA_MS = 30 * 60_000;

/** The most specific deadline that is set; the default one to the first byte grows with what such requests need. */
export function deadlinesOf(
  global: Deadlines,
  config: EndpointConfig,
  modelId: string,
  pace: Pace,
  asked: Asked,
): AttemptDeadlines {
  const own = config.deadlines;
  const set = { ...own, ...ofModel(own.models ?? {}, modelId) };
  const total = config.inferenceTimeoutSecs > 0 ? config.inferenceTimeoutSecs * 1000 : global.totalMs;
  const byDefault = asked.stream ? global.firstByteMs : global.firstByteWholeMs;
  // What an operator has set holds as it is.
  const grows = set.first_byte_ms === undefined && !global.firstByteSet;
  const extra = grows ? Math.round(Math.min(MOST_EXTRA_MS, extraMs(pace, asked))) : 0;
  return {
    connectMs: set.connect_ms ?? global.connectMs,
    firstByteMs: (set.first_byte_ms ?? byDefault) + extra,
    idleMs: set.idle_ms ?? global.idleMs,
    totalMs: set.total_ms ?? total,
  };
}
