/** A request in flight at an endpoint. It is settled once; settling it again does nothing. */
export interface Lease {
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
  /** Monotonic, ms. */
  sentAt: number;
  /** How long it may wait for its first byte before the endpoint counts as hung; ms. */
  allowanceMs: number;
  /** Ends the request; called when the endpoint is removed by force. */
  abort: () => void;
  /** Before its first byte: takes the request to another endpoint, if there is one. */
  move: (reason: string) => void;
}

interface Place {
  open: Set<LeaseOptions>;
  /** Those without a byte, oldest first. */
  waiting: Set<LeaseOptions>;
  trials: number;
  /** When the endpoint last sent anything of an answer, monotonic ms. */
  lastByteAt: number;
}

/** The open leases by endpoint: `active_requests` is the size of that set, for everybody who asks. */
export class LeaseTable {
  readonly #places = new Map<string, Place>();
  #total = 0;

  open(options: LeaseOptions): Lease {
    const place = this.#place(options.endpointId);
    place.open.add(options);
    place.waiting.add(options);
    if (options.trial) place.trials += 1;
    this.#total += 1;
    return {
      answered: (mono) => {
        this.#places.get(options.endpointId)?.waiting.delete(options);
        this.#noteByte(options.endpointId, mono);
      },
      touch: (mono) => this.#noteByte(options.endpointId, mono),
      close: () => this.#close(options),
    };
  }

  count(endpointId: string): number {
    return this.#places.get(endpointId)?.open.size ?? 0;
  }

  get total(): number {
    return this.#total;
  }

  /** Whether its oldest request without a byte has waited past its allowance while nothing else was answered either. */
  isHung(endpointId: string, mono: number): boolean {
    const place = this.#places.get(endpointId);
    if (place === undefined || place.waiting.size === 0) return false;
    const oldest = place.waiting.values().next().value as LeaseOptions;
    return mono - Math.max(oldest.sentAt, place.lastByteAt) > oldest.allowanceMs;
  }

  /** Whether a trial is under way there. */
  isOnTrial(endpointId: string): boolean {
    return (this.#places.get(endpointId)?.trials ?? 0) > 0;
  }

  /** Ends every request in flight at an endpoint. */
  abortAll(endpointId: string): void {
    for (const options of [...(this.#places.get(endpointId)?.open ?? [])]) options.abort();
  }

  /** Requests before their first byte go elsewhere: those of one model there, or all. */
  moveWaiting(endpointId: string, reason: string, modelId?: string): void {
    for (const options of [...(this.#places.get(endpointId)?.waiting ?? [])]) {
      if (modelId === undefined || options.modelId === modelId) options.move(reason);
    }
  }

  /** A provisional endpoint turned out to be a stored one: its requests go on under the stored id. */
  rename(from: string, to: string): void {
    const place = this.#places.get(from);
    if (place === undefined) return;
    const there = this.#place(to);
    for (const options of place.open) {
      options.endpointId = to;
      there.open.add(options);
    }
    there.waiting = new Set([...there.waiting, ...place.waiting].sort((a, b) => a.sentAt - b.sentAt));
    there.trials += place.trials;
    there.lastByteAt = Math.max(there.lastByteAt, place.lastByteAt);
    this.#places.delete(from);
  }

  #place(endpointId: string): Place {
    let place = this.#places.get(endpointId);
    if (place === undefined) {
      place = { open: new Set(), waiting: new Set(), trials: 0, lastByteAt: Number.NEGATIVE_INFINITY };
      this.#places.set(endpointId, place);
    }
    return place;
  }

  /** A coarse clock may say an earlier time than was noted already. */
  #noteByte(endpointId: string, mono: number): void {
    const place = this.#places.get(endpointId);
    if (place !== undefined && mono > place.lastByteAt) place.lastByteAt = mono;
  }

  #close(options: LeaseOptions): void {
    const place = this.#places.get(options.endpointId);
    if (place?.open.delete(options) !== true) return;
    place.waiting.delete(options);
    if (options.trial) place.trials -= 1;
    this.#total -= 1;
    // When it last sent something is only of use to what waits now.
    if (place.open.size === 0) this.#places.delete(options.endpointId);
  }
}
