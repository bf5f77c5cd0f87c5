/** Whose turn is when, model by model: each turn moves its endpoint on by 1 ÷ weight. */
export class Turns {
  readonly #models = new Map<string, { now: number; next: Map<string, number> }>();

  /** When the next turn of an endpoint is. One that is new, or was away, does not catch up. */
  of(modelId: string, endpointId: string): number {
    const model = this.#models.get(modelId);
    if (model === undefined) return 0;
    return Math.max(model.next.get(endpointId) ?? 0, model.now);
  }

  /** It had its turn. */
  note(modelId: string, endpointId: string, weight: number): void {
    const turn = this.of(modelId, endpointId);
    const model = this.#models.get(modelId) ?? { now: 0, next: new Map() };
    this.#models.set(modelId, model);
    model.now = turn;
    model.next.set(endpointId, turn + 1 / weight);
  }

  /** Of an endpoint that is gone. */
  forget(endpointId: string): void {
    for (const [modelId, { next }] of this.#models) {
      next.delete(endpointId);
      if (next.size === 0) this.#models.delete(modelId);
    }
  }
}
