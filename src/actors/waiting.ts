import { type Choice, choose } from '../machines/choose.js';
import { ahead, next, type QueueState, queueOf, type Ticket } from '../machines/queue.js';
import type { Catalogue } from './catalogue.js';
import { actorNamed, names, type System } from './names.js';
import type { Roster } from './roster.js';

/** A request that waits. `begin` takes its lease in the same step, so that the next one sees it. */
export interface Waiter {
  ticket: Ticket;
  /** Endpoints that it was at already. */
  tried: ReadonlySet<string>;
  begin: (choice: Choice) => void;
  /** Nobody will come any more: none is there, or everything ends. */
  giveUp: (why: 'nobody' | 'closing') => void;
}

export interface WaitingRoomDeps {
  catalogue: Catalogue;
  roster: Roster;
  system: () => System;
  mono: () => number;
  random: () => number;
}

/** Weight of the newest gap in the mean of the gaps between two turns of a model. */
const GAP_WEIGHT = 0.2;
const LEARNED_GAPS = 5;
const UNLEARNED_GAP_MS = 5000;
/** So long a request waits where nobody can serve, for one that is just being restarted. */
const HOPE_MS = 5000;

/**
 * The requests that wait, by id: what the queue's actor is seeded from, and who is told when it is whose turn. Whose
 * turn it is the actor says.
 */
export class WaitingRoom {
  readonly #deps: WaitingRoomDeps;
  readonly #waiters = new Map<string, Waiter>();
  /** Models that somebody waits for and nobody can serve, since when. */
  readonly #deadSince = new Map<string, number>();
  /** By model: when the last turn was, and the mean time between two. */
  readonly #turns = new Map<string, { at: number; gapMs: number; gaps: number }>();

  constructor(deps: WaitingRoomDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#waiters.size;
  }

  /** In order of arrival, for the queue's actor. */
  tickets(): Ticket[] {
    return [...this.#waiters.values()].map(({ ticket }) => ticket);
  }

  ahead(model: string): number {
    return this.#waiters.size === 0 ? 0 : ahead(this.#queue(), model);
  }

  /** How long somebody who comes now will wait, ms; null while nobody had to. */
  expectedMs(model: string): number | null {
    const turns = this.#turns.get(model);
    if (turns === undefined || turns.gaps < LEARNED_GAPS) return null;
    return (this.ahead(model) + 1) * turns.gapMs;
  }

  /** Whole seconds after which it is worth coming back. */
  retryAfterSecs(model: string): number {
    const ms = this.expectedMs(model) ?? UNLEARNED_GAP_MS;
    return Math.min(600, Math.max(1, Math.ceil(ms / 1000)));
  }

  enter(waiter: Waiter): void {
    this.#waiters.set(waiter.ticket.id, waiter);
    this.#tell({ type: 'entered', ticket: waiter.ticket });
  }

  leave({ id, model }: Ticket): void {
    if (this.#waiters.delete(id)) this.#tell({ type: 'left', id, model });
  }

  /** Something may have become free: whose turn it is begins, as long as there is room. */
  pump(): void {
    if (this.#waiters.size === 0) return;
    const { catalogue, mono, random } = this.#deps;
    for (const model of this.#queue().lanes.keys()) {
      for (;;) {
        const id = next(this.#queue(), model);
        const waiter = id === undefined ? undefined : this.#waiters.get(id);
        if (waiter === undefined) break;
        const choice = choose(catalogue.candidates(model, mono()), random, waiter.tried);
        if (choice.chosen === undefined) {
          if (!this.#isHopeless(model, choice.full)) break;
          waiter.giveUp('nobody');
          continue;
        }
        this.#deadSince.delete(model);
        this.#waiters.delete(waiter.ticket.id);
        this.#tell({ type: 'taken', model });
        this.#noteTurn(model);
        waiter.begin(choice);
      }
    }
  }

  /** Nobody waits any longer. */
  closeAll(): void {
    for (const waiter of [...this.#waiters.values()]) waiter.giveUp('closing');
  }

  /** Nobody can serve the model now, but an endpoint of it is just being restarted. */
  mayHope(model: string): boolean {
    const { catalogue, roster } = this.#deps;
    return catalogue
      .places(model)
      .some(({ endpointId }) => roster.entry(endpointId)?.status === 'restarting');
  }

  #isHopeless(model: string, full: boolean): boolean {
    if (full) {
      this.#deadSince.delete(model);
      return false;
    }
    const now = this.#deps.mono();
    const since = this.#deadSince.get(model) ?? now;
    this.#deadSince.set(model, since);
    return now - since > HOPE_MS;
  }

  #queue(): QueueState {
    const snapshot = actorNamed(this.#deps.system(), names.queue)?.getSnapshot();
    // An actor that is being restarted will start from just this.
    return snapshot?.status === 'active'
      ? (snapshot.context as { queue: QueueState }).queue
      : queueOf(this.tickets());
  }

  #tell(
    event:
      | { type: 'entered'; ticket: Ticket }
      | { type: 'left'; id: string; model: string }
      | { type: 'taken'; model: string },
  ): void {
    actorNamed(this.#deps.system(), names.queue)?.send(event);
  }

  #noteTurn(model: string): void {
    const now = this.#deps.mono();
    const turns = this.#turns.get(model);
    // One that came when nobody waited says nothing of the pace.
    if (turns === undefined || this.ahead(model) === 0) {
      this.#turns.set(model, { at: now, gapMs: turns?.gapMs ?? UNLEARNED_GAP_MS, gaps: turns?.gaps ?? 0 });
      return;
    }
    const gap = now - turns.at;
    const gapMs = turns.gaps === 0 ? gap : turns.gapMs + GAP_WEIGHT * (gap - turns.gapMs);
    this.#turns.set(model, { at: now, gapMs, gaps: turns.gaps + 1 });
  }
}
