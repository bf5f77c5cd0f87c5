import type { Message, Source } from './event-stream.js';
import type { LiveRequest } from './inference.js';

/** The oldest are shown: they are what somebody looks for. */
const MOST_SHOWN = 200;

/** The requests under way: anew whenever one comes, goes or moves. Ages go on by themselves. */
export function liveChanges(live: () => LiveRequest[]): Source {
  let told = '';

  function now(): { requests: LiveRequest[]; omitted: number } {
    const all = live();
    const requests = all.slice(0, MOST_SHOWN);
    return { requests, omitted: all.length - requests.length };
  }

  function message(shown: object): Message {
    return { event: 'live', data: JSON.stringify(shown) };
  }

  return {
    start() {
      told = ageless(now());
    },
    stop() {},
    first: () => [message(now())],
    next() {
      const shown = now();
      const text = ageless(shown);
      if (text === told) return [];
      told = text;
      return [message(shown)];
    },
  };
}

function ageless(shown: object): string {
  return JSON.stringify(shown, (key, value) => (key === 'age_ms' ? undefined : value));
}
