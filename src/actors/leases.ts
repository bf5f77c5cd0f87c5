/** A request in flight at an endpoint. It is settled once; settling it again does nothing. */
export interface Lease {
  readonly endpointId: string;
  close(): void;
}

export interface LeaseOptions {
  endpointId: string;
  /** Ends the request; called when the endpoint is removed by force. */
  abort: () => void;
}

/** The open leases by endpoint: `active_requests` is the size of that set, for everybody who asks. */
export class LeaseTable {
  readonly #open = new Map<string, Set<LeaseOptions>>();
  #total = 0;

  open(options: LeaseOptions): Lease {
    const { endpointId } = options;
    let set = this.#open.get(endpointId);
    if (set === undefined) {
      set = new Set();
      this.#open.set(endpointId, set);
    }
    set.add(options);
    this.#total += 1;
    return { endpointId, close: () => this.#close(options) };
  }

  count(endpointId: string): number {
    return this.#open.get(endpointId)?.size ?? 0;
  }

  get total(): number {
    return this.#total;
  }

  /** Ends every request in flight at an endpoint. */
  abortAll(endpointId: string): void {
    for (const options of [...(this.#open.get(endpointId) ?? [])]) options.abort();
  }

  /** A provisional endpoint turned out to be a stored one: its requests go on under the stored id. */
  rename(from: string, to: string): void {
    for (const options of this.#open.get(from) ?? []) {
      options.endpointId = to;
      const set = this.#open.get(to) ?? new Set();
      set.add(options);
      this.#open.set(to, set);
    }
    this.#open.delete(from);
  }

  #close(options: LeaseOptions): void {
    const set = this.#open.get(options.endpointId);
    if (set?.delete(options) !== true) return;
    this.#total -= 1;
    if (set.size === 0) this.#open.delete(options.endpointId);
  }
}
