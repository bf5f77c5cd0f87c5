/**
 * A simulated inference box: so many slots, in which prompts are read and answers written, each stream a little slower
 * the more there are; what finds no slot waits in line. Models have to be in its memory, and what was read before is
 * read faster. Times are simulated ms.
 */
export class Box {
  constructor(id, options) {
    this.id = id;
    this.slots = options.slots ?? 8;
    /** ms for a token of a stream alone, and by what share of that each further stream slows all. */
    this.tokenMs = options.tokenMs ?? 15;
    this.crowding = options.crowding ?? 0.12;
    /** Bytes of prompts read in a ms, by all together. */
    this.readPerMs = options.readPerMs ?? 8;
    this.overheadMs = options.overheadMs ?? 30;
    this.loadMs = options.loadMs ?? 0;
    this.memory = options.memory ?? Number.POSITIVE_INFINITY;
    this.cached = options.cached ?? 0;
    this.faults = options.faults ?? [];
    this.slowdowns = options.slowdowns ?? [];
    this.running = [];
    this.line = [];
    this.loaded = [...(options.loaded ?? [])];
    this.loading = null;
    this.conversations = new Map();
    this.now = 0;
    this.done = [];
  }

  /** What is wrong with it: 'fails', 'hangs' or nothing. */
  faultAt(now) {
    return this.faults.find(({ from, to }) => now >= from && now < to)?.kind ?? null;
  }

  slowdownAt(now) {
    return this.slowdowns.find(({ from, to }) => now >= from && now < to)?.factor ?? 1;
  }

  /** Takes a job: {prompt, tokens, model, conversation}; its phases are told in `firstAt` and `endAt`. */
  add(job, now) {
    this.advance(now);
    job.state = 'line';
    this.line.push(job);
    this.#fill();
  }

  remove(job, now) {
    this.advance(now);
    this.running = this.running.filter((one) => one !== job);
    this.line = this.line.filter((one) => one !== job);
    this.#fill();
  }

  /** When something will change, if nothing else comes. */
  nextAt() {
    let next = Number.POSITIVE_INFINITY;
    if (this.loading !== null) next = this.loading.until;
    for (const job of this.running) next = Math.min(next, this.now + job.left / this.#rateOf(job));
    for (const { from, to } of this.slowdowns) {
      if (from > this.now) next = Math.min(next, from);
      else if (to > this.now) next = Math.min(next, to);
    }
    return this.running.length === 0 && this.line.length === 0 && this.loading === null
      ? Number.POSITIVE_INFINITY
      : next;
  }

  advance(now) {
    while (this.now < now) {
      const next = Math.min(now, Math.max(this.now, this.nextAt()));
      const ms = next - this.now;
      for (const job of this.running) job.left -= ms * this.#rateOf(job);
      this.now = next;
      this.#settle();
      if (ms === 0 && this.nextAt() <= this.now) continue;
      if (next >= now) break;
    }
    this.now = Math.max(this.now, now);
  }

  /** The jobs that changed since it was last asked: with a first byte, or answered. */
  taken() {
    const { done } = this;
    this.done = [];
    return done;
  }

  get size() {
    return this.running.length + this.line.length;
  }

  /** When a job would be answered if it came now and nothing else did. */
  completionOf(job, now) {
    const twin = this.copy();
    const one = { ...job };
    twin.add(one, now);
    for (let steps = 0; steps < 5000 && one.endAt === undefined; steps += 1) {
      const next = twin.nextAt();
      if (next === Number.POSITIVE_INFINITY) return next;
      twin.advance(Math.max(next, twin.now + 1e-6));
    }
    return one.endAt ?? Number.POSITIVE_INFINITY;
  }

  copy() {
    const twin = Object.assign(new Box(this.id, {}), this);
    twin.running = this.running.map((job) => ({ ...job }));
    twin.line = this.line.map((job) => ({ ...job }));
    twin.loaded = [...this.loaded];
    twin.loading = this.loading === null ? null : { ...this.loading };
    twin.conversations = new Map(this.conversations);
    twin.done = [];
    return twin;
  }

  #rateOf(job) {
    const slow = this.slowdownAt(this.now);
    if (job.state === 'overhead') return 1 / slow;
    if (job.state === 'reading') {
      const readers = this.running.filter(({ state }) => state === 'reading').length;
      return this.readPerMs / readers / slow;
    }
    const writers = this.running.length;
    return 1 / (this.tokenMs * (1 + this.crowding * (writers - 1)) * slow);
  }

  #settle() {
    if (this.loading !== null && this.now >= this.loading.until - 1e-9) {
      this.#keep(this.loading.model);
      this.loading = null;
    }
    for (const job of [...this.running]) {
      if (job.left > 1e-6) continue;
      if (job.state === 'overhead') {
        job.state = 'reading';
        job.left = Math.max(1, job.prompt - this.#knownOf(job));
      } else if (job.state === 'reading') {
        job.state = 'writing';
        job.left = Math.max(1, job.tokens);
        job.firstAt = this.now;
        this.#remember(job);
        this.done.push(job);
      } else {
        job.endAt = this.now;
        this.running = this.running.filter((one) => one !== job);
        this.done.push(job);
      }
    }
    this.#fill();
  }

  #fill() {
    for (const job of [...this.line]) {
      if (this.running.length >= this.slots) return;
      if (this.loadMs > 0 && !this.loaded.includes(job.model)) {
        if (this.loading === null && this.#hasRoomFor()) {
          this.loading = { model: job.model, until: this.now + this.loadMs };
        }
        continue;
      }
      if (this.loadMs > 0) this.#keep(job.model);
      this.line = this.line.filter((one) => one !== job);
      job.state = 'overhead';
      job.left = this.overheadMs;
      this.running.push(job);
    }
  }

  /** The model used longest ago gives way, but for one that is in use. */
  #hasRoomFor() {
    if (this.loaded.length < this.memory) return true;
    const idle = this.loaded.find((model) => !this.running.some((job) => job.model === model));
    if (idle === undefined) return false;
    this.loaded = this.loaded.filter((model) => model !== idle);
    return true;
  }

  #keep(model) {
    this.loaded = [...this.loaded.filter((one) => one !== model), model];
  }

  #knownOf(job) {
    return Math.min(job.prompt, this.conversations.get(job.conversation) ?? 0);
  }

  #remember(job) {
    if (this.cached === 0 || job.conversation === null) return;
    this.conversations.delete(job.conversation);
    this.conversations.set(job.conversation, job.prompt);
    if (this.conversations.size > this.cached) {
      this.conversations.delete(this.conversations.keys().next().value);
    }
  }
}
