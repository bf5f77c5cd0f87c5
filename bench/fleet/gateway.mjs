import { catalogueOf } from '../../dist/actors/catalogue.js';
import { Chooser } from '../../dist/actors/chooser.js';
import { Explorations } from '../../dist/actors/explorations.js';
import { LeaseTable } from '../../dist/actors/leases.js';
import { Pins } from '../../dist/actors/pins.js';
import { Turns } from '../../dist/actors/turns.js';
import { afterTime } from '../../dist/machines/circuit.js';
import { afterEvidence, nothingLearned, ofModel } from '../../dist/machines/endpoint.js';
import { forecastOf } from '../../dist/machines/outlook.js';
import { allowanceMs, NEW_PACE } from '../../dist/machines/pace.js';
import { firstByteMs, totalMs } from '../../dist/machines/speed.js';
import { addSample, tpsSeed } from '../../dist/machines/tps.js';

/**
 * A gateway in simulated time: the real choosing and learning, with simulated boxes behind it instead of actors and
 * sockets. `policy` is one of the real ones, or `clairvoyant`, which looks into the boxes.
 */
export class Gateway {
  constructor({ boxes, models, modelsOf = () => models, policy, random, now }) {
    this.boxes = new Map(boxes.map((box) => [box.id, box]));
    this.policy = policy;
    this.random = random;
    this.now = now;
    this.contexts = new Map();
    this.rates = new Map();
    const configs = boxes.map(({ id, weight = 1 }) => ({
      id,
      weight,
      priority: 0,
      maxConcurrency: null,
      maxContext: null,
      modelSettings: {},
    }));
    for (const { id, loadMs, loaded } of boxes) {
      const listed = modelsOf(id).map((modelId) => ({ modelId, capabilities: null, maxTokens: null }));
      const context = { ...nothingLearned(), health: 'online', draining: false, models: listed };
      this.contexts.set(id, { context: loadMs > 0 ? { ...context, loaded: [...loaded] } : context });
    }
    const byId = new Map(configs.map((config) => [config.id, config]));
    const roster = {
      configs: () => configs,
      config: (id) => byId.get(id),
      entry: () => ({ status: 'running' }),
      facts: (id) => this.contexts.get(id).context,
      reader: (id) => {
        const holder = this.contexts.get(id);
        return () => holder.context;
      },
      status: () => 'online',
    };
    this.leases = new LeaseTable(now);
    const turns = new Turns();
    const real = policy === 'clairvoyant' ? 'least-busy' : policy;
    this.catalogue = catalogueOf({
      roster,
      leases: this.leases,
      vault: { isLost: () => false },
      turns,
      policy: real,
      tps: ({ endpointId, modelId }) => this.#rateReader(`${endpointId} ${modelId}`),
    });
    this.chooser = new Chooser({
      catalogue: this.catalogue,
      turns,
      pins: new Pins(),
      responses: new Pins(),
      explorations: new Explorations(),
      policy: real,
      overflowMs: 1000,
      random,
      mono: now,
      ahead: () => 0,
    });
  }

  /** Where the request goes, with its lease; null: nowhere. `move` takes it away before its first byte. */
  send(request, move) {
    const { wanted, tried } = request;
    const choice = this.chooser.look(wanted, { tried });
    const chosen =
      this.policy === 'clairvoyant' ? this.#clairvoyant(request, choice.candidates) : choice.chosen;
    if (chosen === undefined) return null;
    const { endpointId, modelId, cold } = chosen;
    const told = forecastOf(chosen, choice.outlook);
    const asked = { promptBytes: wanted.promptBytes, stream: true, cold };
    const pace = ofModel(this.contexts.get(endpointId).context.paces, modelId) ?? NEW_PACE;
    const sentAt = this.now();
    const lease = this.leases.open({
      endpointId,
      modelId,
      trial: choice.trial,
      sentAt,
      stream: true,
      allowanceMs: allowanceMs(pace, asked),
      expectedMs: told === null ? null : firstByteMs(told, true),
      abort: () => {},
      move,
    });
    const { pin } = choice.outlook.demand;
    const cachedBytes = pin?.endpointId === endpointId ? Math.min(pin.bytes, wanted.promptBytes) : 0;
    this.chooser.taken({ ...choice, chosen }, wanted);
    return {
      endpointId,
      modelId,
      lease,
      asked,
      cachedBytes,
      sentAt,
      predictedMs: told === null ? null : totalMs(told),
    };
  }

  /** An attempt has ended: 'success', 'answer' (a 500) or 'transport' (no answer at all). */
  settle(attempt, what, job) {
    const { endpointId, modelId, lease, asked, cachedBytes, sentAt } = attempt;
    const mono = this.now();
    const beside = lease.beside(mono);
    lease.close();
    const durationMs = mono - sentAt;
    const sample =
      what === 'success'
        ? {
            ...asked,
            cachedBytes,
            ahead: lease.ahead,
            beside,
            firstByteMs: job.firstAt - sentAt,
            durationMs,
            outputTokens: job.tokens,
            mono,
          }
        : null;
    const holder = this.contexts.get(endpointId);
    const before = holder.context;
    const event = { type: 'evidence', modelId, what, mono, chance: this.random(), restMs: 0, sample };
    const after = { ...before, ...afterEvidence(before, event) };
    holder.context = after;
    if (what === 'success') this.#noteRate(attempt, job.tokens, durationMs);
    const opened = (a, b) => a?.state !== 'open' && b?.state === 'open';
    const model = (context) => ofModel(context.modelCircuits, modelId);
    if (opened(before.circuit, after.circuit) || opened(model(before), model(after))) {
      this.leases.moveWaiting(endpointId, 'its circuit opened');
    }
  }

  /** What a second brings: circuits that may be tried again, and every ten what the engines hold in memory. */
  tick() {
    const mono = this.now();
    for (const [id, holder] of this.contexts) {
      const { context } = holder;
      const modelCircuits = Object.fromEntries(
        Object.entries(context.modelCircuits).map(([model, one]) => [model, afterTime(one, mono)]),
      );
      const box = this.boxes.get(id);
      const checks = box.loadMs > 0 && Math.floor(mono / 1000) % 10 === 0;
      holder.context = {
        ...context,
        circuit: afterTime(context.circuit, mono),
        modelCircuits,
        ...(checks ? { loaded: [...box.loaded] } : {}),
      };
    }
  }

  /** Knows the length of the answer and what each box is doing. */
  #clairvoyant(request, candidates) {
    let best;
    let least = Number.POSITIVE_INFINITY;
    for (const candidate of candidates) {
      const { endpointId } = candidate;
      if (request.tried.has(endpointId)) continue;
      const box = this.boxes.get(endpointId);
      if (box.faultAt(this.now()) !== null) continue;
      const at = box.completionOf({ ...request.job }, this.now());
      if (at >= least) continue;
      best = candidate;
      least = at;
    }
    return best;
  }

  #rateReader(key) {
    const holder = { rate: null };
    this.rates.set(key, holder);
    return () => holder.rate?.ema ?? null;
  }

  #noteRate({ endpointId, modelId }, tokens, ms) {
    const key = `${endpointId} ${modelId}`;
    const holder = this.rates.get(key);
    if (holder === undefined) return;
    const before = holder.rate ?? tpsSeed({ date: '', samples: 0, tokens: 0, ms: 0 });
    holder.rate = addSample(before, { date: '', tokens, ms });
  }
}
