import { Standing, type Stay } from './standing.js';

/** A request in flight at an endpoint. It is settled once; settling it again does nothing. */
export interface Lease {
  /** Others that were in flight there when it was sent, and on average since then; of a stream since its first byte. */
  readonly ahead: number;
  beside(mono: number): number;
  /** Its first byte has come. */
  answered(mono: number): void;
  /** Another byte has come. */
  touch(mono: number): void;
  close(): void;
}

export interface LeaseOptions {
  endpointId: string;
  /** The name under which the endpoint lists the model. */
  modelId: string;
  /** It is the trial of a half-open circuit. */
  trial: boolean;
  /** Its answer comes piece by piece. */
  stream: boolean;
  /** Monotonic, ms. */
  sentAt: number;
  /** How long it may wait for its first byte before the endpoint counts as hung; ms. */
  allowanceMs: number;
  /** How long until its first byte, as predicted; ms, null: not known. */
  expectedMs: number | null;
  /** Ends the request; called when the endpoint is removed by force. */
  abort: () => void;
  /** Before its first byte: takes the request to another endpoint, if there is one. */
  move: (reason: string) => void;
}

/** The open leases by endpoint: `active_requests` is how many there are, for everybody who asks. */
export class LeaseTable {
  readonly #standings = new Map<string, Standing>();
  readonly #mono: () => number;
  #total = 0;

  /** `mono`: monotonic, ms. */
  constructor(mono: () => number) {
    this.#mono = mono;
  }

  open(options: LeaseOptions): Lease {
    const standing = this.standing(options.endpointId);
    const ahead = standing.active;
    const stay = standing.enter(options, options.sentAt);
    this.#total += 1;
    const there = () => this.#standings.get(options.endpointId);
    let since = options.sentAt;
    let sumThen = standing.sum(since);
    return {
      ahead,
      beside(mono) {
        const ms = mono - since;
        // Under the id that it got late nothing was summed before.
        if (ms <= 0 || there() !== standing) return ahead;
        return Math.max(0, (standing.sum(mono) - sumThen) / ms - 1);
      },
      answered(mono) {
        const now = there();
        if (now?.answer(stay) !== true) return;
        noteByte(now, mono);
        // An answer that comes as a whole is over with its first byte.
        if (!options.stream) return;
        since = mono;
        sumThen = now.sum(mono);
      },
      touch(mono) {
        noteByte(there(), mono);
      },
      close: () => this.#close(stay),
    };
  }

  count(endpointId: string): number {
    return this.#standings.get(endpointId)?.active ?? 0;
  }

  get total(): number {
    return this.#total;
  }

  /** What is in flight at an endpoint: the same object as long as the endpoint is there. */
  standing(endpointId: string): Standing {
    let standing = this.#standings.get(endpointId);
    if (standing === undefined) {
      standing = new Standing();
      this.#standings.set(endpointId, standing);
    }
    return standing;
  }

  /** Of an endpoint that is gone, once nothing is in flight there. */
  forget(endpointId: string): void {
    const standing = this.#standings.get(endpointId);
    if (standing === undefined) return;
    standing.isGone = true;
    if (standing.active === 0) this.#standings.delete(endpointId);
  }

  isHung(endpointId: string, mono: number): boolean {
    return this.#standings.get(endpointId)?.isHung(mono) ?? false;
  }

  /** Ends every request in flight at an endpoint. */
  abortAll(endpointId: string): void {
    for (const options of this.#standings.get(endpointId)?.open ?? []) options.abort();
  }

  /** Requests before their first byte go elsewhere: those of one model there, or all. */
  moveWaiting(endpointId: string, reason: string, modelId?: string): void {
    for (const options of this.#standings.get(endpointId)?.waiting ?? []) {
      if (modelId === undefined || options.modelId === modelId) options.move(reason);
    }
  }

  /** A provisional endpoint turned out to be a stored one: its requests go on under the stored id. */
  rename(from: string, to: string): void {
    const standing = this.#standings.get(from);
    if (standing === undefined) return;
    for (const options of standing.open) options.endpointId = to;
    this.standing(to).join(standing, this.#mono());
    this.#standings.delete(from);
  }

  #close(stay: Stay): void {
    const { endpointId } = stay.lease;
    const standing = this.#standings.get(endpointId);
    if (standing?.leave(stay, this.#mono()) !== true) return;
    this.#total -= 1;
    if (standing.isGone && standing.active === 0) this.#standings.delete(endpointId);
  }
}

/** A coarse clock may say an earlier time than was noted already. */
function noteByte(standing: Standing | undefined, mono: number): void {
  if (standing !== undefined && mono > standing.lastByteAt) standing.lastByteAt = mono;
}
