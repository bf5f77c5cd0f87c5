import type { Choice } from '../machines/choose.js';
import { ahead, heldBy, type QueueState, queueOf, type Ticket, turns } from '../machines/queue.js';
import type { Catalogue } from './catalogue.js';
import type { Chooser, Wanted } from './chooser.js';
import { actorNamed, names, type System } from './names.js';
import type { Roster } from './roster.js';

/** A request that waits. `begin` takes its lease in the same step, so that the next one sees it; it cannot throw. */
export interface Waiter {
  ticket: Ticket;
  wanted: Wanted;
  /** Since when, monotonic ms. */
  since: number;
  /** Endpoints that it was at already. */
  tried: ReadonlySet<string>;
  /** The only endpoint that can serve it; null: anybody can. */
  keeper: string | null;
  begin: (choice: Choice) => void;
  /** Nobody will come any more: none is there, or everything ends. */
  giveUp: (why: 'nobody' | 'closing') => void;
}

export interface WaitingRoomDeps {
  chooser: Chooser;
  catalogue: Catalogue;
  roster: Roster;
  system: () => System;
  mono: () => number;
}

/** How fast a model's turns follow each other while somebody waits: the last one, and the mean time between two. */
interface Pace {
  at: number;
  gapMs: number;
  gaps: number;
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
  /** How many of those who wait for a model are for one endpoint alone: nobody else waits behind them. */
  readonly #bound = new Map<string, number>();
  /** Of models that somebody had to wait for. */
  readonly #paces = new Map<string, Pace>();
  /** Models that somebody waits for and nobody can serve, since when. */
  readonly #deadSince = new Map<string, number>();

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

  /** How many have their turn before somebody who comes now. */
  ahead(model: string): number {
    return this.#waitFor(model) - (this.#bound.get(model) ?? 0);
  }

  /** How many of that key wait, for any model. */
  heldBy(key: string): number {
    return this.#waiters.size === 0 ? 0 : heldBy(this.#queue(), key);
  }

  /** How long somebody who comes now will wait, ms; null while that is not known, or nobody waits. */
  expectedMs(model: string): number | null {
    const pace = this.#paces.get(model);
    const before = this.ahead(model);
    // The first in line may always wait: only who does teaches the pace.
    if (pace === undefined || pace.gaps < LEARNED_GAPS || before === 0) return null;
    return (before + 1) * pace.gapMs;
  }

  /** Whole seconds after which it is worth coming back. */
  retryAfterSecs(model: string): number {
    const ms = this.expectedMs(model) ?? UNLEARNED_GAP_MS;
    return Math.min(600, Math.max(1, Math.ceil(ms / 1000)));
  }

  enter(waiter: Waiter): void {
    this.#waiters.set(waiter.ticket.id, waiter);
    this.#countBound(waiter, 1);
    this.#tell({ type: 'entered', ticket: waiter.ticket });
  }

  leave({ id, model }: Ticket): void {
    const waiter = this.#waiters.get(id);
    if (waiter === undefined) return;
    this.#drop(waiter);
    this.#tell({ type: 'left', id, model });
    if (this.#waitFor(model) === 0) this.#deadSince.delete(model);
  }

  /** Something may have become free: whose turn it is begins, as long as there is room. */
  pump(): void {
    if (this.#waiters.size === 0) return;
    // One turn a model and round, so that no model can keep a box from the others.
    for (let began = true; began; ) {
      began = false;
      for (const model of this.#queue().lanes.keys()) began = this.#beginOne(model) || began;
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

  /**
   * The first in turn for whom there is room: one who was somewhere already, is for one endpoint alone, or asks for
   * less, may find other room.
   */
  #beginOne(model: string): boolean {
    const { chooser, mono } = this.#deps;
    let smallest = Number.POSITIVE_INFINITY;
    let ahead = 0;
    const full = new Set<string>();
    for (const id of turns(this.#queue(), model)) {
      const waiter = this.#waiters.get(id);
      if (waiter === undefined) continue;
      const { wanted, tried, since, keeper } = waiter;
      const mayGoAnywhere = tried.size === 0 && keeper === null;
      // Where one had no room a shorter prompt may fit elsewhere.
      if (mayGoAnywhere && wanted.promptBytes >= smallest) continue;
      if (keeper !== null && full.has(keeper)) continue;
      const choice = chooser.look(wanted, { tried, waitedMs: mono() - since, ahead });
      if (keeper === null) ahead += 1;
      if (choice.chosen !== undefined) {
        this.#drop(waiter);
        this.#deadSince.delete(model);
        this.#tell({ type: 'taken', model, id });
        // Of one endpoint's pace the others learn nothing.
        if (keeper === null) this.#noteTurn(model, waiter.since);
        waiter.begin(choice);
        return true;
      }
      if (mayGoAnywhere) smallest = wanted.promptBytes;
      if (keeper !== null && choice.full && choice.keeper === keeper) full.add(keeper);
      if (this.#isHopeless(waiter, choice.full)) waiter.giveUp('nobody');
    }
    return false;
  }

  #isHopeless({ ticket: { model }, since }: Waiter, full: boolean): boolean {
    if (full) {
      this.#deadSince.delete(model);
      return false;
    }
    const now = this.#deps.mono();
    const dead = this.#deadSince.get(model) ?? now;
    this.#deadSince.set(model, dead);
    return now - Math.max(dead, since) > HOPE_MS;
  }

  #waitFor(model: string): number {
    return this.#waiters.size === 0 ? 0 : ahead(this.#queue(), model);
  }

  #drop(waiter: Waiter): void {
    this.#waiters.delete(waiter.ticket.id);
    this.#countBound(waiter, -1);
  }

  #countBound({ keeper, ticket: { model } }: Waiter, step: 1 | -1): void {
    if (keeper === null) return;
    const count = (this.#bound.get(model) ?? 0) + step;
    if (count > 0) this.#bound.set(model, count);
    else this.#bound.delete(model);
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
      | { type: 'taken'; id: string; model: string },
  ): void {
    actorNamed(this.#deps.system(), names.queue)?.send(event);
  }

  /** Time in which nobody waited is no gap. */
  #noteTurn(model: string, since: number): void {
    const now = this.#deps.mono();
    const pace = this.#paces.get(model) ?? { at: since, gapMs: 0, gaps: 0 };
    const gap = now - Math.max(pace.at, since);
    const gapMs = pace.gaps === 0 ? gap : pace.gapMs + GAP_WEIGHT * (gap - pace.gapMs);
    this.#paces.set(model, { at: now, gapMs, gaps: pace.gaps + 1 });
  }
}
