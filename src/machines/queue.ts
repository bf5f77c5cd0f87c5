import { fromStore } from '@xstate/store';

/** A waiting request. `key` says whose it is (an opaque text), `priority` 0 is first; `id` is unique. */
export interface Ticket {
  id: string;
  model: string;
  key: string;
  priority: number;
}

/** The waiting requests of one key and priority for one model, in order of arrival; never empty. */
export interface Lane {
  readonly key: string;
  readonly priority: number;
  readonly ids: readonly string[];
}

/** Who waits, by model; lanes of a better priority come first, and the first lane is the one whose turn it is. */
export interface QueueState {
  /** A map, because clients choose the names and one may call itself `__proto__`. */
  readonly lanes: ReadonlyMap<string, readonly Lane[]>;
  /** Waiting for any model. */
  readonly size: number;
}

/** The actor of the waiting requests. */
export const queueLogic = fromStore({
  context: (input: { tickets: Ticket[] }) => ({ queue: queueOf(input.tickets) }),
  on: {
    entered: (context, event: { ticket: Ticket }) => ({ queue: enqueue(context.queue, event.ticket) }),
    left: (context, event: { id: string; model: string }) => ({
      queue: leave(context.queue, event.id, event.model),
    }),
    taken: (context, event: { model: string; id: string }) => ({
      queue: take(context.queue, event.model, event.id),
    }),
  },
});

/** The queue of these tickets, given in order of arrival: what `enqueue` makes of them, in one go. */
export function queueOf(tickets: Iterable<Ticket>): QueueState {
  const models = new Map<string, Map<string, { key: string; priority: number; ids: Set<string> }>>();
  for (const { id, model, key, priority } of tickets) {
    const lanes = models.get(model) ?? new Map();
    models.set(model, lanes);
    const name = `${priority}\n${key}`;
    const lane = lanes.get(name) ?? { key, priority, ids: new Set() };
    lanes.set(name, lane);
    lane.ids.add(id);
  }
  const lanes = new Map<string, Lane[]>();
  let size = 0;
  for (const [model, ofModel] of models) {
    const all = [...ofModel.values()].map(({ key, priority, ids }) => ({ key, priority, ids: [...ids] }));
    lanes.set(
      model,
      all.sort((a, b) => a.priority - b.priority),
    );
    for (const { ids } of all) size += ids.length;
  }
  return { lanes, size };
}

/** Last in its lane; a new lane goes behind the others of its priority. The same object if it waits already. */
export function enqueue(queue: QueueState, { id, model, key, priority }: Ticket): QueueState {
  const lanes = lanesOf(queue, model);
  const place = lanes.findIndex((lane) => lane.key === key && lane.priority === priority);
  const lane = lanes[place];
  if (lane === undefined) {
    return withLanes(queue, model, behind(lanes, { key, priority, ids: [id] }), 1);
  }
  // A ticket may come twice: with the seed after a restart, and as the event that was on its way.
  if (lane.ids.includes(id)) return queue;
  return withLanes(queue, model, lanes.with(place, { ...lane, ids: [...lane.ids, id] }), 1);
}

/** Without this ticket; its key keeps its place in the round. The same object if it does not wait. */
export function leave(queue: QueueState, id: string, model: string): QueueState {
  const lanes = lanesOf(queue, model);
  const place = lanes.findIndex(({ ids }) => ids.includes(id));
  const lane = lanes[place];
  if (lane === undefined) return queue;
  const ids = lane.ids.filter((each) => each !== id);
  const rest = ids.length === 0 ? lanes.toSpliced(place, 1) : lanes.with(place, { ...lane, ids });
  return withLanes(queue, model, rest, -1);
}

/**
 * The best priority first; within it round robin over keys, within a key first come first served. Undefined means
 * nobody waits.
 */
export function next(queue: QueueState, model: string): string | undefined {
  return lanesOf(queue, model)[0]?.ids[0];
}

/** Everybody who waits for the model, in the order of their turns. */
export function* turns(queue: QueueState, model: string): Generator<string> {
  const lanes = lanesOf(queue, model);
  for (let from = 0; from < lanes.length; ) {
    const priority = lanes[from]?.priority;
    const peers = lanes.filter((lane) => lane.priority === priority);
    for (let round = 0, found = true; found; round += 1) {
      found = false;
      for (const { ids } of peers) {
        const id = ids[round];
        if (id === undefined) continue;
        found = true;
        yield id;
      }
    }
    from += peers.length;
  }
}

/**
 * Without `next`, or without one who gets the turn before others; the key goes behind the other keys of its priority, the model behind
 * the other models. The same object if that one does not wait.
 */
export function take(queue: QueueState, model: string, id = next(queue, model)): QueueState {
  const lanes = lanesOf(queue, model);
  const lane = id === undefined ? undefined : lanes.find(({ ids }) => ids.includes(id));
  if (lane === undefined) return queue;
  const others = lanes.filter((one) => one !== lane);
  const ids = lane.ids.filter((each) => each !== id);
  const without = new Map(queue.lanes);
  without.delete(model);
  const rest = ids.length === 0 ? others : behind(others, { ...lane, ids });
  return withLanes({ lanes: without, size: queue.size }, model, rest, -1);
}

/** How many of this key wait, for any model. */
export function heldBy(queue: QueueState, key: string): number {
  let held = 0;
  for (const lanes of queue.lanes.values()) {
    for (const lane of lanes) if (lane.key === key) held += lane.ids.length;
  }
  return held;
}

/** How many wait for this model. */
export function ahead(queue: QueueState, model: string): number {
  return lanesOf(queue, model).reduce((sum, { ids }) => sum + ids.length, 0);
}

/** The lanes with one more, behind those of its priority. */
function behind(lanes: readonly Lane[], lane: Lane): Lane[] {
  const worse = lanes.findIndex(({ priority }) => priority > lane.priority);
  return worse === -1 ? [...lanes, lane] : lanes.toSpliced(worse, 0, lane);
}

function lanesOf(queue: QueueState, model: string): readonly Lane[] {
  return queue.lanes.get(model) ?? [];
}

function withLanes(queue: QueueState, model: string, lanes: readonly Lane[], change: number): QueueState {
  const all = new Map(queue.lanes);
  // Models come and go with the clients' spelling: an empty one must not stay.
  if (lanes.length === 0) all.delete(model);
  else all.set(model, lanes);
  return { lanes: all, size: queue.size + change };
}
