import type { LeaseOptions } from './leases.js';

/** What is in flight at one endpoint. Times are monotonic ms. */
export class Standing {
  readonly open = new Set<LeaseOptions>();
  /** Those without a byte, oldest first, and the first of them. */
  readonly #waiting = new Set<LeaseOptions>();
  #oldest: LeaseOptions | undefined;
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

  get waiting(): ReadonlySet<LeaseOptions> {
    return this.#waiting;
  }

  /** The one that has been without a byte for longest. */
  get oldest(): LeaseOptions | undefined {
    return this.#oldest;
  }

  enter(lease: LeaseOptions, mono: number): void {
    this.#note(mono);
    this.open.add(lease);
    this.active = this.open.size;
    this.#waiting.add(lease);
    this.#oldest ??= lease;
    this.#models.set(lease.modelId, this.activeOf(lease.modelId) + 1);
    if (lease.trial) this.trials += 1;
  }

  /** It has its first byte; false if it had one already, or is gone. */
  answer(lease: LeaseOptions): boolean {
    if (!this.#waiting.delete(lease)) return false;
    if (this.#oldest === lease) this.#oldest = this.#waiting.values().next().value;
    return true;
  }

  /** Takes over what is in flight in another one. */
  join(other: Standing, mono: number): void {
    const waiting = [...this.#waiting, ...other.#waiting].sort((a, b) => a.sentAt - b.sentAt);
    for (const lease of other.open) this.enter(lease, mono);
    this.#waiting.clear();
    for (const lease of waiting) this.#waiting.add(lease);
    this.#oldest = waiting[0];
    this.lastByteAt = Math.max(this.lastByteAt, other.lastByteAt);
  }

  /** False if it was gone already. */
  leave(lease: LeaseOptions, mono: number): boolean {
    if (!this.open.has(lease)) return false;
    this.#note(mono);
    this.open.delete(lease);
    this.active = this.open.size;
    this.answer(lease);
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
    const oldest = this.#oldest;
    return oldest !== undefined && mono - Math.max(oldest.sentAt, this.lastByteAt) > oldest.allowanceMs;
  }

  /** How much longer than expected its oldest request without a byte has waited; 0 if none has. */
  overdueMs(mono: number): number {
    const oldest = this.#oldest;
    if (oldest === undefined || oldest.expectedMs === null) return 0;
    return Math.max(0, mono - oldest.sentAt - oldest.expectedMs);
  }

  /** Since when somebody waits there for the model; null if nobody does. */
  waitingSince(modelId: string): number | null {
    for (const lease of this.#waiting) if (lease.modelId === modelId) return lease.sentAt;
    return null;
  }

  #note(mono: number): void {
    this.#sum = this.sum(mono);
    this.#summedAt = Math.max(this.#summedAt, mono);
  }
}
