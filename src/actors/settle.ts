import { localDate, minuteOf } from '../clock.js';
import type { RequestRecord } from '../machines/records.js';
import type { Books } from './books.js';
import { actorNamed, names, type System } from './names.js';

/**
 * The end of a request, in one run without `await`: the record to the books, then one event to each actor whose
 * number it moves. The lease is closed before, the bytes that end the answer go out after.
 */
export function settle(system: System, books: Books, record: RequestRecord): void {
  const wasEmpty = books.isEmpty;
  books.append(record);
  const date = localDate(record.completedAt);
  for (const attempt of record.attempts) {
    const { endpointId, modelId, counted } = attempt;
    if (counted === 'none') continue;
    actorNamed(system, names.endpoint(endpointId))?.send({
      type: 'attempt.settled',
      success: counted === 'success',
    });
    if (!attempt.sampled) continue;
    const actorId = names.tps(endpointId, modelId, record.kind);
    const tracker = actorNamed(system, actorId);
    const sample = { type: 'sample', date, tokens: attempt.outputTokens ?? 0, ms: attempt.durationMs };
    if (tracker !== undefined) tracker.send(sample);
    // A first sample, or a tracker in back-off: its box spawns it from the fold, which has this sample already.
    else {
      actorNamed(system, names.box(endpointId))?.send({
        type: 'sample',
        tracker: { actorId, modelId, kind: record.kind },
      });
    }
  }
  if (record.timeline !== 'none') {
    const measured = record.outcome === 'success';
    actorNamed(system, names.history)?.send({
      type: 'finished',
      slot: {
        minute: minuteOf(record.completedAt),
        success: record.timeline === 'success' ? 1 : 0,
        error: record.timeline === 'error' ? 1 : 0,
        measured: measured ? 1 : 0,
        measuredMs: measured ? record.durationMs : 0,
      },
    });
  }
  // A ledger that has something to write looks for more by itself.
  if (wasEmpty) actorNamed(system, names.ledger)?.send({ type: 'appended' });
}
