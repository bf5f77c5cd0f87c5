import { Line, type Place } from '../line.js';
import type { LeaseOptions } from './leases.js';

/** A lease that is open at an endpoint. */
export interface Stay {
  readonly lease: LeaseOptions;
  /** Among all of them, and among those without a byte. */
  open: Place<Stay> | null;
  waiting: Place<Stay> | null;
}

/** What is in flight at one endpoint. Times are monotonic ms. */
export class Standing {
  readonly #open = new Line<Stay>();
  /** Those without a byte, oldest first. */
  #waiting = new Line<Stay>();
  /** How many are open: read far more often than they change. */
  active = 0;
  trials = 0;
  /** Its endpoint was removed. */
  isGone = false;
  /** When the endpoint last sent anything of an answer. */
  lastByteAt = Number.NEGATIVE_INFINITY;
  readonly #models = new Map<string, number>();
  /** Requests in flight × ms, up to when one last came or went. */
  #sum = 0;
  #summedAt = 0;

  activeOf(modelId: string): number {
    return this.#models.get(modelId) ?? 0;
  }

  /** Requests in flight × ms, up to now. */
  sum(mono: number): number {
    return this.#sum + this.active * Math.max(0, mono - this.#summedAt);
  }

  get open(): LeaseOptions[] {
    return Array.from(this.#open, ({ lease }) => lease);
  }

  get waiting(): LeaseOptions[] {
    return Array.from(this.#waiting, ({ lease }) => lease);
  }

  /** The one that has been without a byte for longest. */
  get oldest(): LeaseOptions | undefined {
    return this.#waiting.first?.lease;
  }

  enter(lease: LeaseOptions, mono: number): Stay {
    const stay: Stay = { lease, open: null, waiting: null };
    this.#add(stay, mono);
    stay.waiting = this.#waiting.add(stay);
    return stay;
  }

  #add(stay: Stay, mono: number): void {
    const { lease } = stay;
    this.#note(mono);
    stay.open = this.#open.add(stay);
    this.active = this.#open.size;
    this.#models.set(lease.modelId, this.activeOf(lease.modelId) + 1);
    if (lease.trial) this.trials += 1;
  }

  /** It has its first byte; false if it had one already, or is gone. */
  answer(stay: Stay): boolean {
    const { waiting } = stay;
    if (waiting === null || !this.#waiting.remove(waiting)) return false;
    stay.waiting = null;
    return true;
  }

  /** Takes over what is in flight in another one. */
  join(other: Standing, mono: number): void {
    const waiting = [...this.#waiting, ...other.#waiting].sort((a, b) => a.lease.sentAt - b.lease.sentAt);
    for (const stay of other.#open) this.#add(stay, mono);
    this.#waiting = new Line();
    for (const stay of waiting) stay.waiting = this.#waiting.add(stay);
    this.lastByteAt = Math.max(this.lastByteAt, other.lastByteAt);
  }

  /** False if it was gone already. */
  leave(stay: Stay, mono: number): boolean {
    const { lease, open } = stay;
    if (open === null || !this.#open.remove(open)) return false;
    this.#note(mono);
    stay.open = null;
    this.active = this.#open.size;
    this.answer(stay);
    const left = this.activeOf(lease.modelId) - 1;
    if (left > 0) this.#models.set(lease.modelId, left);
    else this.#models.delete(lease.modelId);
    if (lease.trial) this.trials -= 1;
    // When it last sent something is only of use to what waits now.
    if (this.active === 0) this.lastByteAt = Number.NEGATIVE_INFINITY;
    return true;
  }

  /** Whether its oldest request without a byte has waited past its allowance while nothing else was answered either. */
  isHung(mono: number): boolean {
    const { oldest } = this;
    return oldest !== undefined && mono - Math.max(oldest.sentAt, this.lastByteAt) > oldest.allowanceMs;
  }

  /** How much longer than expected its oldest request without a byte has waited; 0 if none has. */
  overdueMs(mono: number): number {
    const { oldest } = this;
    if (oldest === undefined || oldest.expectedMs === null) return 0;
    return Math.max(0, mono - oldest.sentAt - oldest.expectedMs);
  }

  /** Since when somebody waits there for the model; null if nobody does. */
  waitingSince(modelId: string): number | null {
    for (const { lease } of this.#waiting) if (lease.modelId === modelId) return lease.sentAt;
    return null;
  }

  #note(mono: number): void {
    this.#sum = this.sum(mono);
    this.#summedAt = Math.max(this.#summedAt, mono);
  }
}
