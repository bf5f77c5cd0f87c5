/** What the chooser knows of a request; sizes in bytes. */
export interface Demand {
  readonly promptBytes: number;
  /** Without what is base64: that is no text. */
  readonly textBytes: number;
  readonly stream: boolean;
  /** The longest answer that is asked for, in tokens; null: as long as it gets. */
  readonly maxTokens: number | null;
  /** Tokens of a context that are kept for the answer. */
  readonly room: number;
  /** Where the beginning of it was answered before. */
  readonly pin: Pin | null;
}

/** An endpoint that likely holds so many bytes of a prompt in its cache; 0: it has only seen the session. */
export interface Pin {
  readonly endpointId: string;
  readonly bytes: number;
}

export const NO_DEMAND: Demand = {
  promptBytes: 0,
  textBytes: 0,
  stream: true,
  maxTokens: null,
  room: 0,
  pin: null,
};

/** A guess at how many bytes make a token, and more than any tokeniser makes of a text. */
const BYTES_PER_TOKEN = 4;
const MOST_BYTES_PER_TOKEN = 8;

/** Whether a prompt and its answer are probably longer than a context of so many tokens. */
export function isProbablyLonger(demand: Demand, context: number): boolean {
  const most = (context - demand.room) * BYTES_PER_TOKEN;
  // The text is looked for only where it could matter.
  return demand.promptBytes > most && demand.textBytes > most;
}

/** Whether it is longer, whatever the tokeniser. */
export function isSurelyLonger(demand: Pick<Demand, 'promptBytes' | 'textBytes'>, context: number): boolean {
  const most = context * MOST_BYTES_PER_TOKEN;
  return demand.promptBytes > most && demand.textBytes > most;
}

/** Of a prompt at an endpoint: what its cache does not hold. */
export function unreadBytes({ promptBytes, pin }: Demand, endpointId: string): number {
  return pin?.endpointId === endpointId ? Math.max(0, promptBytes - pin.bytes) : promptBytes;
}
