interface Model {
  now: number;
  next: Map<string, { at: number }>;
}

/** Whose turn is when, model by model: each turn moves its endpoint on by 1 ÷ weight. */
export class Turns {
  readonly #models = new Map<string, Model>();

  /** When the next turn of an endpoint is. One that is new, or was away, does not catch up. */
  of(modelId: string, endpointId: string): number {
    return this.reader(modelId, endpointId)();
  }

  /** Reads that again and again, until the endpoint is forgotten. */
  reader(modelId: string, endpointId: string): () => number {
    const model = this.#model(modelId);
    const next = model.next.get(endpointId) ?? { at: 0 };
    model.next.set(endpointId, next);
    return () => Math.max(next.at, model.now);
  }

  /** It had its turn. */
  note(modelId: string, endpointId: string, weight: number): void {
    const turn = this.of(modelId, endpointId);
    const model = this.#model(modelId);
    model.now = turn;
    (model.next.get(endpointId) as { at: number }).at = turn + 1 / weight;
  }

  /** Of an endpoint that is gone. */
  forget(endpointId: string): void {
    for (const [modelId, { next }] of this.#models) {
      next.delete(endpointId);
      if (next.size === 0) this.#models.delete(modelId);
    }
  }

  #model(modelId: string): Model {
    const model = this.#models.get(modelId) ?? { now: 0, next: new Map() };
    this.#models.set(modelId, model);
    return model;
  }
}
