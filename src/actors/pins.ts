import type { Pin } from '../machines/demand.js';

/** What all pins to an endpoint share that were noted since it was last forgotten. */
interface Home {
  forgotten: boolean;
}

/** A link in a ring in the order of use. */
class Kept {
  before: Kept = this;
  after: Kept = this;
  readonly key: string;
  readonly endpointId: string;
  readonly bytes: number;
  readonly home: Home;

  constructor(key: string, endpointId: string, bytes: number, home: Home) {
    this.key = key;
    this.endpointId = endpointId;
    this.bytes = bytes;
    this.home = home;
  }

  insertBefore(other: Kept): void {
    this.before = other.before;
    this.after = other;
    this.before.after = this;
    other.before = this;
  }

  leave(): void {
    this.before.after = this.after;
    this.after.before = this.before;
  }
}

const MAX_BYTES = 16 * 1024 * 1024;
/** What a pin takes without its key's characters: 115 to 195 measured, by how full the map is. */
const PIN_BYTES = 192;

/**
 * Pins by key, as many as fit into `maxBytes` of memory, by default 16 MiB; past that the one goes that was neither
 * noted nor got for longest. A key takes a byte a character, as most do.
 */
export class Pins {
  readonly #maxBytes: number;
  // Not in the order of use: a map that is emptied at the front gets slow there, and an iterator that waits there keeps
  // every table that the map has outgrown.
  readonly #pins = new Map<string, Kept>();
  readonly #homes = new Map<string, Home>();
  /** Stands between the newest and the oldest. */
  readonly #ends = new Kept('', '', 0, { forgotten: false });
  #bytes = 0;

  constructor(maxBytes = MAX_BYTES) {
    if (!(maxBytes >= 0)) throw new RangeError('maxBytes must be at least 0');
    this.#maxBytes = maxBytes;
  }

  /** How many pins are kept; those of a forgotten endpoint count until something comes upon them. */
  get size(): number {
    return this.#pins.size;
  }

  /** The memory they take, estimated. */
  get bytes(): number {
    return this.#bytes;
  }

  note(key: string, { endpointId, bytes }: Pin): void {
    const known = this.#pins.get(key);
    if (known !== undefined) this.#drop(known);
    const kept = new Kept(key, endpointId, bytes, this.#homeOf(endpointId));
    kept.insertBefore(this.#ends);
    this.#pins.set(key, kept);
    this.#bytes += PIN_BYTES + key.length;
    while (this.#bytes > this.#maxBytes) this.#drop(this.#ends.after);
  }

  get(key: string): Pin | undefined {
    const kept = this.#pins.get(key);
    if (kept === undefined) return undefined;
    if (kept.home.forgotten) {
      this.#drop(kept);
      return undefined;
    }
    kept.leave();
    kept.insertBefore(this.#ends);
    // A copy: whoever held a link would hold all that were ever behind it.
    return { endpointId: kept.endpointId, bytes: kept.bytes };
  }

  /** Drops all pins to an endpoint. They go one by one later, as a walk over all of them would hold up everything. */
  forget(endpointId: string): void {
    const home = this.#homes.get(endpointId);
    if (home !== undefined) home.forgotten = true;
    this.#homes.delete(endpointId);
  }

  #homeOf(endpointId: string): Home {
    let home = this.#homes.get(endpointId);
    if (home === undefined) {
      home = { forgotten: false };
      this.#homes.set(endpointId, home);
    }
    return home;
  }

  #drop(kept: Kept): void {
    kept.leave();
    this.#pins.delete(kept.key);
    this.#bytes -= PIN_BYTES + kept.key.length;
  }
}
