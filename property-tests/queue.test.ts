import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createActor } from 'xstate';
import {
  ahead,
  enqueue,
  heldBy,
  leave,
  next,
  type QueueState,
  queueLogic,
  queueOf,
  type Ticket,
  take,
  turns,
} from '../src/machines/queue.js';

// Clients choose these names: some are those of every object.
const MODELS = ['llama', '__proto__', 'constructor'];
const KEYS = ['', 'anna', '__proto__', 'constructor', 'toString'];
const model = fc.constantFrom(...MODELS);
const key = fc.constantFrom(...KEYS);
const PRIORITIES = [0, 1, 7];
const priority = fc.constantFrom(...PRIORITIES);

type Step =
  | { do: 'enter'; model: string; key: string; priority: number }
  | { do: 'again'; back: number }
  | { do: 'leave'; back: number }
  | { do: 'take'; model: string };
/** Half of the runs keep to one model, so that its lanes fill. `back` counts from the newest, gone or not. */
const steps = fc.oneof(fc.constant(fc.constant('llama')), fc.constant(model)).chain((which) =>
  fc.array(
    fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({ do: fc.constant('enter' as const), model: which, key, priority }),
      },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('again' as const), back: fc.nat(12) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('leave' as const), back: fc.nat(12) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('take' as const), model: which }) },
    ),
    { maxLength: 80, size: 'max' },
  ),
) satisfies fc.Arbitrary<Step[]>;
/** The same where everybody is equal. */
const equalSteps = steps.map((list) =>
  list.map((step): Step => (step.do === 'enter' ? { ...step, priority: 0 } : step)),
);

/**
 * The plain model: one list in order of arrival, and since when each key stands at its place in the round of its
 * priority. It stands anew when it begins to wait and when it had its turn; of the best priority who stands longest
 * is next.
 */
class Model {
  waiting: Ticket[] = [];
  readonly #since = new Map<string, number>();
  #now = 0;

  enter(ticket: Ticket) {
    if (this.#of(ticket).length === 0) this.#stand(ticket);
    this.waiting.push(ticket);
  }

  remove(id: string) {
    this.waiting = this.waiting.filter((ticket) => ticket.id !== id);
  }

  next(of: string): Ticket | undefined {
    const all = this.waiting.filter((ticket) => ticket.model === of);
    const best = Math.min(...all.map((ticket) => ticket.priority));
    const [first] = all
      .filter((ticket) => ticket.priority === best)
      .sort((a, b) => this.#at(a) - this.#at(b));
    return first === undefined ? undefined : this.#of(first)[0];
  }

  take(of: string): Ticket | undefined {
    const ticket = this.next(of);
    if (ticket === undefined) return undefined;
    this.remove(ticket.id);
    this.#stand(ticket);
    return ticket;
  }

  keys(of: string): string[] {
    return KEYS.filter((each) => this.waiting.some((ticket) => ticket.model === of && ticket.key === each));
  }

  #of({ model, key, priority }: Ticket) {
    return this.waiting.filter(
      (ticket) => ticket.model === model && ticket.key === key && ticket.priority === priority,
    );
  }

  #at({ model, key, priority }: Ticket) {
    return this.#since.get(JSON.stringify([model, key, priority])) ?? 0;
  }

  #stand({ model, key, priority }: Ticket) {
    this.#now += 1;
    this.#since.set(JSON.stringify([model, key, priority]), this.#now);
  }
}

interface Seen {
  queue: QueueState;
  model: Model;
  taken: Ticket | undefined;
}

/** Plays the steps on the queue and on the plain model; `each` looks after every step. */
function play(list: Step[], each: (seen: Seen) => void = () => {}) {
  const model = new Model();
  const entered: Ticket[] = [];
  const left: string[] = [];
  const taken: Ticket[] = [];
  let queue = queueOf([]);
  for (const step of list) {
    let turn: Ticket | undefined;
    switch (step.do) {
      case 'enter': {
        const { model: of, key: whose, priority: first } = step;
        const ticket = { id: `r${entered.length}`, model: of, key: whose, priority: first };
        entered.push(ticket);
        model.enter(ticket);
        queue = enqueue(queue, ticket);
        break;
      }
      case 'again': {
        const ticket = entered.at(-1 - step.back);
        if (ticket === undefined || !model.waiting.includes(ticket)) break;
        expect(enqueue(queue, ticket)).toBe(queue);
        break;
      }
      case 'leave': {
        const ticket = entered.at(-1 - step.back);
        if (ticket === undefined) break;
        const there = model.waiting.includes(ticket);
        const after = leave(queue, ticket.id, ticket.model);
        expect(after === queue).toBe(!there);
        queue = after;
        model.remove(ticket.id);
        if (there) left.push(ticket.id);
        break;
      }
      case 'take': {
        turn = model.take(step.model);
        const after = take(queue, step.model);
        expect(next(queue, step.model)).toBe(turn?.id);
        expect(after === queue).toBe(turn === undefined);
        queue = after;
        if (turn !== undefined) taken.push(turn);
      }
    }
    each({ queue, model, taken: turn });
  }
  return { queue, entered, left, taken, waiting: model.waiting };
}

/** Takes out everybody, in the order of their turns. */
function drain(queue: QueueState): { ids: string[]; rest: QueueState } {
  const ids: string[] = [];
  let rest = queue;
  for (const of of MODELS) {
    for (let id = next(rest, of); id !== undefined; id = next(rest, of)) {
      ids.push(id);
      rest = take(rest, of);
    }
  }
  return { ids, rest };
}

test('in any order of entering, leaving and taking, the turn and the counts are those of a plain list', () => {
  fc.assert(
    fc.property(steps, (list) => {
      play(list, ({ queue, model }) => {
        expect(queue.size).toBe(model.waiting.length);
        for (const of of [...MODELS, 'nobody', 'toString']) {
          expect(next(queue, of)).toBe(model.next(of)?.id);
          expect(ahead(queue, of)).toBe(model.waiting.filter((ticket) => ticket.model === of).length);
        }
        for (const whose of KEYS) {
          expect(heldBy(queue, whose)).toBe(model.waiting.filter((ticket) => ticket.key === whose).length);
        }
      });
    }),
  );
});

test('every ticket leaves or has its turn, once, and nothing remains of an empty queue', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const { queue, entered, left, taken } = play(list);
      const { ids, rest } = drain(queue);
      const gone = [...left, ...taken.map(({ id }) => id), ...ids];
      expect(gone.sort()).toEqual(entered.map(({ id }) => id).sort());
      expect(rest).toEqual(queueOf([]));
    }),
  );
});

test('between two turns of a key that waits, every other key of its priority that waits has exactly one', () => {
  fc.assert(
    fc.property(equalSteps, (list) => {
      // Per model and key since its last turn: the turns of others, and who has waited all the time.
      const spans = new Map<string, { turns: string[]; all: Set<string>; on: boolean }>();
      const nameOf = (of: string, whose: string) => JSON.stringify([of, whose]);
      play(list, ({ model, taken }) => {
        if (taken !== undefined) {
          const own = spans.get(nameOf(taken.model, taken.key));
          for (const other of KEYS.filter((each) => each !== taken.key)) {
            const turns = own?.turns.filter((each) => each === other).length ?? 0;
            if (own?.on) expect(turns).toBeLessThanOrEqual(1);
            if (own?.all.has(other)) expect(turns).toBeGreaterThanOrEqual(1);
          }
          for (const each of KEYS) spans.get(nameOf(taken.model, each))?.turns.push(taken.key);
          const all = new Set(model.keys(taken.model));
          spans.set(nameOf(taken.model, taken.key), { turns: [], all, on: true });
        }
        for (const of of MODELS) {
          const waiting = new Set(model.keys(of));
          for (const whose of KEYS) {
            const span = spans.get(nameOf(of, whose));
            if (span === undefined) continue;
            span.on &&= waiting.has(whose);
            // Its turn was what it waited for: after that it need not wait on.
            for (const each of span.all)
              if (!waiting.has(each) && !span.turns.includes(each)) span.all.delete(each);
          }
        }
      });
    }),
  );
});

test('whoever has a turn, nobody of a better priority waits for that model', () => {
  fc.assert(
    fc.property(steps, (list) => {
      play(list, ({ model, taken }) => {
        if (taken === undefined) return;
        const rest = model.waiting.filter((ticket) => ticket.model === taken.model);
        for (const ticket of rest) expect(ticket.priority).toBeGreaterThanOrEqual(taken.priority);
      });
    }),
  );
});

test('within a key and priority the turns are in the order of arrival', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const { queue, entered, taken } = play(list);
      const order = [...taken.map(({ id }) => id), ...drain(queue).ids];
      for (const of of MODELS) {
        for (const whose of KEYS) {
          for (const rank of PRIORITIES) {
            const own = entered.filter(
              (ticket) => ticket.model === of && ticket.key === whose && ticket.priority === rank,
            );
            const arrived = own.map(({ id }) => id).filter((id) => order.includes(id));
            expect(order.filter((id) => arrived.includes(id))).toEqual(arrived);
          }
        }
      }
    }),
  );
});

test('who has left never has a turn, and the others have theirs in the order they had before', () => {
  fc.assert(
    fc.property(steps, fc.nat(80), (list, place) => {
      const { queue, waiting } = play(list);
      const leaver = waiting[place % Math.max(1, waiting.length)];
      fc.pre(leaver !== undefined);
      const before = structuredClone(queue);
      const { ids } = drain(leave(queue, leaver.id, leaver.model));
      expect(ids.toSorted()).toEqual(
        waiting
          .map(({ id }) => id)
          .filter((id) => id !== leaver.id)
          .sort(),
      );
      expect(leave(queue, leaver.id, 'nobody')).toBe(queue);
      expect(queue).toEqual(before);
    }),
  );
});

test('a queue made of tickets is the one they would have entered one by one', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ id: fc.constantFrom('a', 'b', 'c'), model, key, priority })),
      (tickets) => {
        const entered = tickets.reduce(enqueue, queueOf([]));
        const made = queueOf(tickets);
        expect(made).toEqual(entered);
        expect(drain(made).ids).toEqual(drain(entered).ids);
      },
    ),
  );
});

test('no step changes the queue it was given', () => {
  fc.assert(
    fc.property(steps, model, key, (list, of, whose) => {
      const { queue } = play(list);
      const before = structuredClone(queue);
      enqueue(queue, { id: 'new', model: of, key: whose, priority: 3 });
      take(queue, of);
      leave(queue, next(queue, of) ?? 'nobody', of);
      expect(queue).toEqual(before);
    }),
  );
});

test('the actor begins with its tickets and follows its events', () => {
  const first = { id: 'a', model: 'llama', key: 'anna', priority: 0 };
  const second = { id: 'b', model: 'llama', key: 'anna', priority: 0 };
  const third = { id: 'c', model: 'llama', key: 'ben', priority: 0 };
  const actor = createActor(queueLogic, { input: { tickets: [first, second] } }).start();
  const queue = () => actor.getSnapshot().context.queue;
  actor.send({ type: 'entered', ticket: third });
  expect(drain(queue()).ids).toEqual(['a', 'c', 'b']);
  actor.send({ type: 'taken', model: 'llama', id: 'a' });
  expect(drain(queue()).ids).toEqual(['c', 'b']);
  actor.send({ type: 'left', id: 'c', model: 'llama' });
  expect(queue()).toEqual(queueOf([second]));
});

test('everybody is in the order of turns once, and that is the order in which they are taken', () => {
  fc.assert(
    fc.property(steps, model, (list, of) => {
      const { queue } = play(list);
      const order = [...turns(queue, of)];
      const taken: string[] = [];
      for (let rest = queue, id = next(rest, of); id !== undefined; id = next(rest, of)) {
        taken.push(id);
        rest = take(rest, of);
      }
      expect(taken).toEqual(order);
    }),
  );
});

test('whoever gets a turn before others takes nobody else’s, and a model goes behind the others', () => {
  fc.assert(
    fc.property(steps, model, fc.nat(20), (list, of, place) => {
      const { queue } = play(list);
      const order = [...turns(queue, of)];
      const id = order[place % Math.max(1, order.length)];
      if (id === undefined) return;
      const after = take(queue, of, id);
      expect([...turns(after, of)].sort()).toEqual(order.filter((one) => one !== id).sort());
      expect(after.size).toBe(queue.size - 1);
      if (after.lanes.has(of)) expect([...after.lanes.keys()].at(-1)).toBe(of);
    }),
  );
});
