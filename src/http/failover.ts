import { NOBODY, type Principal } from '../access/principal.js';
import type { RateLimits } from '../access/rate-limits.js';
import type { Vault } from '../access/vault.js';
import type { Books } from '../actors/books.js';
import { tellEvidence } from '../actors/evidence.js';
import type { House } from '../actors/house.js';
import type { Lease, LeaseTable } from '../actors/leases.js';
import { RetryBudget } from '../actors/retry-budget.js';
import { settle } from '../actors/settle.js';
import { type Clock, pause } from '../clock.js';
import type { Deadlines, QueueLimits } from '../config.js';
import type { Candidate } from '../machines/candidate.js';
import { type Choice, judge } from '../machines/choose.js';
import type { AttemptEnd } from '../machines/classify.js';
import { decisionOf } from '../machines/decision.js';
import { type EvidenceEvent, ofModel } from '../machines/endpoint.js';
import { forecastOf } from '../machines/outlook.js';
import { type Asked, allowanceMs, NEW_PACE, type Pace } from '../machines/pace.js';
import { type ApiKind, lastAttempt, type RequestRecord } from '../machines/records.js';
import { type Forecast, firstByteMs, type SpeedSample, totalMs } from '../machines/speed.js';
import type { Seen, Unsent } from './attempt.js';
import { rewriteBody } from './body.js';
import { type ClientRequest, logLine } from './client-request.js';
import { deadlinesOf } from './deadlines.js';
import { ApiError } from './errors.js';
import { headerSafe, upstreamHeaders } from './headers.js';
import { relay } from './relay.js';
import type { Upstreams } from './upstreams.js';
import { verdictOf } from './verdict.js';
import { type Watched, wheel } from './wheel.js';

export interface FailoverDeps {
  house: House;
  books: Books;
  leases: LeaseTable;
  upstreams: Upstreams;
  clock: Clock;
  random: () => number;
  deadlines: Deadlines;
  queue: QueueLimits;
  vault: Vault;
  rateLimits: RateLimits;
  log: { info(details: object, message: string): void };
}

/** An endpoint that was chosen, and the place that was taken there. */
interface Turn {
  endpointId: string;
  modelId: string;
  /** Of the endpoint, which may be gone when it is needed. */
  name: string;
  lease: Lease;
  asked: Asked;
  pace: Pace;
  /** Where its time was expected to go; null: nothing was known. */
  told: Forecast | null;
  /** Of its prompt, what the endpoint likely had read before; and requests of others there. */
  cachedBytes: number;
  foreign: number;
}

/** Answers that somebody else may do better than. All others are the client's business, or the endpoint's last word. */
const ELSEWHERE: ReadonlySet<number> = new Set([408, 409, 425, 429, 500, 502, 503, 504]);
/** A retry that the budget does not allow waits so long for it, or for proof that the next endpoint is well. */
const BUDGET_PATIENCE_MS = 1000;
const BUDGET_LOOK_MS = 25;
const LEARN_EVERY_MS = 5;
/** Bodies that are kept for another endpoint, all together. */
const MOST_KEPT_BYTES = 512 * 1024 * 1024;

/**
 * Sees requests through: chooses, waits for a turn, forwards, and until the client has got the first byte asks the
 * next best endpoint where one fails.
 */
export function failoverOf(deps: FailoverDeps) {
  const { house, books, leases, upstreams, vault, rateLimits, clock, random, deadlines, queue } = deps;
  const { chooser, roster, waiting } = house;
  const evidence = { system: () => house.system, roster, leases };
  const budget = new RetryBudget();
  /** Endpoints (by URL) that are better not asked for usage. */
  const refusesUsage = new Set<string>();
  let keptBytes = 0;

  const nameOf = (id: string) => roster.config(id)?.name ?? id;

  /** The end of a request: its row, every number it moves, its line. Once. */
  function finish(request: ClientRequest, end: AttemptEnd): void {
    if (request.settled) return;
    request.settled = true;
    const record = request.record(end, clock.now(), clock.mono());
    settle(house.system, books, record);
    charge(request.accepted.principal, record);
    // Before the last byte is out: who has read it may come again.
    request.accepted.release();
    deps.log.info(logLine(record), 'request');
  }

  /** Tokens count against a key's limits once they are known. */
  function charge({ keyId, rateLimit }: Principal, record: RequestRecord): void {
    if (keyId === null || rateLimit === null) return;
    const last = lastAttempt(record);
    rateLimits.charge(keyId, (last?.inputTokens ?? 0) + (last?.outputTokens ?? 0), clock.mono());
  }

  function look(request: ClientRequest): Choice {
    return chooser.look(request.wanted, { tried: request.tried });
  }

  /** Takes the place that was chosen, in the same step. */
  function take(request: ClientRequest, choice: Choice, candidate: Candidate): Turn {
    chooser.taken(choice, request.wanted);
    return seat(request, choice, candidate);
  }

  function seat(request: ClientRequest, choice: Choice, candidate: Candidate): Turn {
    const { endpointId, modelId, cold, foreign } = candidate;
    const { promptBytes, stream } = request.wanted;
    const { pin } = choice.outlook.demand;
    request.decision = decisionOf(choice, nameOf);
    const told = forecastOf(candidate, choice.outlook);
    const asked: Asked = { promptBytes, stream, cold };
    const pace = ofModel(roster.facts(endpointId).paces, modelId) ?? NEW_PACE;
    const lease = leases.open({
      endpointId,
      modelId,
      trial: choice.trial,
      sentAt: clock.mono(),
      allowanceMs: allowanceMs(pace, asked),
      stream,
      expectedMs: told === null ? null : firstByteMs(told, stream),
      abort: () => request.running?.end('the endpoint was removed', 'upstream_broken'),
      move: (reason) => {
        if (mayGoElsewhere(request)) request.running?.move(reason);
      },
    });
    const cachedBytes = pin?.endpointId === endpointId ? Math.min(pin.bytes, promptBytes) : 0;
    return { endpointId, modelId, name: nameOf(endpointId), lease, asked, pace, told, cachedBytes, foreign };
  }

  /** Whether somebody else could be asked if this attempt failed. */
  function mayGoElsewhere(request: ClientRequest): boolean {
    if (!request.repeatable || request.gone) return false;
    const { chosen, full } = look(request);
    return chosen !== undefined || full;
  }

  /** A place at an endpoint, at once or when it is its turn; or why there is none. */
  async function nextTurn(request: ClientRequest): Promise<Turn | ApiError | 'left'> {
    const { model } = request.accepted.scanned;
    const choice = look(request);
    const isRetry = request.tried.size > 0;
    if (choice.chosen !== undefined && (isRetry || waiting.ahead(model) === 0)) {
      return take(request, choice, choice.chosen);
    }
    request.decision = decisionOf(choice, nameOf);
    if (choice.chosen === undefined && !choice.full && !waiting.mayHope(model)) return nobody(model, choice);
    // A body that may not be kept for another endpoint may not wait for one either.
    if (waiting.size >= queue.max || !request.repeatable) {
      return choice.chosen !== undefined || choice.full ? tooMany(model) : nobody(model, choice);
    }
    const { principal, key } = request.accepted;
    // Nobody fills the room alone, but for the key of the environment, which has no limits.
    if (principal.keyId !== NOBODY && waiting.heldBy(key()) >= queue.maxPerKey) return tooManyOfKey(model);
    const expected = waiting.expectedMs(model);
    // How long one endpoint alone will take nobody knows.
    const isForeseen = choice.keeper === null && expected !== null && expected > queue.timeoutMs;
    if (queue.timeoutMs > 0 && isForeseen) return tooLong(model, true);
    return waitForTurn(request, choice.keeper);
  }

  function waitForTurn(request: ClientRequest, keeper: string | null): Promise<Turn | ApiError | 'left'> {
    const { id, key, principal, scanned } = request.accepted;
    const { model } = scanned;
    const ticket = { id, model, key: key(), priority: principal.priority };
    const since = clock.mono();
    request.phase = 'queued';
    request.endpointId = null;
    return new Promise((resolve) => {
      let isOver = false;
      const over = (what: Turn | ApiError | 'left') => {
        if (isOver) return;
        isOver = true;
        wheel.forget(watched);
        request.reply.socket.off('close', onLeft);
        waiting.leave(ticket);
        request.queuedMs += clock.mono() - since;
        resolve(what);
      };
      const onLeft = () => over('left');
      const patience: Watched = {
        dueAt: wheel.after(queue.timeoutMs),
        due: () => over(tooLong(model)),
      };
      const watched = wheel.watch(patience);
      request.reply.socket.on('close', onLeft);
      waiting.enter({
        ticket,
        wanted: request.wanted,
        since,
        tried: request.tried,
        keeper,
        begin: (choice) => over(take(request, choice, choice.chosen as Candidate)),
        giveUp: (why) =>
          over(
            why === 'nobody'
              ? nobody(model, look(request))
              : new ApiError('shutting_down', 'the server is shutting down'),
          ),
      });
      // Somebody may wait for an endpoint that this one does not need.
      waiting.pump();
    });
  }

  function tooMany(model: string): ApiError {
    return new ApiError('queue_full', `${queue.max} requests wait already: come back later`, {
      headers: { 'retry-after': String(waiting.retryAfterSecs(model)) },
    });
  }

  function tooManyOfKey(model: string): ApiError {
    return new ApiError(
      'queue_full',
      `${queue.maxPerKey} requests with this key wait already: come back later`,
      {
        headers: { 'retry-after': String(waiting.retryAfterSecs(model)) },
      },
    );
  }

  function tooLong(model: string, isForeseen = false): ApiError {
    return new ApiError(
      'queue_timeout',
      `no endpoint ${isForeseen ? 'will have' : 'had'} room for the model ${JSON.stringify(model)} within ${queue.timeoutMs} ms`,
      { param: 'model', headers: { 'retry-after': String(waiting.retryAfterSecs(model)) } },
    );
  }

  /** True once the budget allows a retry, or the next endpoint has just proved that it is well. */
  async function mayRetry(request: ClientRequest): Promise<boolean> {
    const until = clock.mono() + BUDGET_PATIENCE_MS;
    for (;;) {
      if (request.gone) return false;
      const now = clock.mono();
      if (budget.mayRetry(now)) {
        budget.noteRetry(now);
        return true;
      }
      // Where it goes to is well: such a retry finishes nobody off.
      if (look(request).chosen?.proven === true) return true;
      if (now > until) return false;
      await pause(BUDGET_LOOK_MS);
    }
  }

  /** The attempt; a lease does not outlive one that could not even begin. */
  function begin(request: ClientRequest, turn: Turn, counts: boolean): Promise<Unsent | null> {
    try {
      return attempt(request, turn, counts);
    } catch (error) {
      turn.lease.close();
      throw error;
    }
  }

  /** One attempt at the endpoint of a turn; null if the client has got something of it, or is gone. */
  function attempt(request: ClientRequest, turn: Turn, counts: boolean): Promise<Unsent | null> {
    const { endpointId, modelId, lease, asked, pace, told } = turn;
    const config = roster.config(endpointId);
    if (config === undefined) {
      lease.close();
      waiting.pump();
      request.tried.add(endpointId);
      const message = 'the endpoint was removed';
      return Promise.resolve({ code: 'upstream_broken', message, answer: null, moved: true, ended: false });
    }
    const { scanned, route, rawHeaders, requestId } = request.accepted;
    const startedAt = clock.mono();
    const predictedMs = told === null ? null : totalMs(told);
    const tried = { config, modelId, startedAt, predictedMs };
    const model = modelId === scanned.model ? {} : { model: modelId };
    const addUsage =
      scanned.stream &&
      asksUsage(route.kind) &&
      scanned.usage !== 'asked' &&
      !refusesUsage.has(config.baseUrl);
    const plain = joined(rewriteBody(request.body, scanned, model));
    const { pool, prefix } = upstreams.target(config.id, config.baseUrl, config.tlsCa);
    request.tried.add(endpointId);
    request.endpointId = endpointId;
    request.phase = 'connecting';
    request.sentAt = startedAt;
    const running = relay({
      pool,
      fresh: () => upstreams.fresh(config.baseUrl, config.tlsCa),
      path: prefix + route.path,
      headers: upstreamHeaders(rawHeaders, vault.get(config.id), requestId),
      body: addUsage ? joined(rewriteBody(request.body, scanned, { ...model, addUsage })) : plain,
      plainBody: addUsage ? plain : null,
      kind: route.kind,
      stream: scanned.stream,
      stores: scanned.stores,
      deadlines: deadlinesOf(deadlines, config, modelId, pace, asked),
      clock,
      reply: request.reply,
      ownHeaders: () => request.reply.headers(headerSafe(turn.name)),
      keepsBack: (status) => counts && ELSEWHERE.has(status) && mayGoElsewhere(request),
      sent: () => {
        request.phase = 'waiting';
      },
      byteCame: (first) => {
        if (first) lease.answered(clock.mono());
        else lease.touch(clock.mono());
      },
      begins: () => {
        request.phase = 'streaming';
        request.reply.begins();
        request.freeBody();
      },
      settle: (end, seen, final) => {
        const mono = clock.mono();
        const hung = end.how === 'left' && leases.isHung(endpointId, mono);
        const beside = lease.beside(mono);
        lease.close();
        request.noteAttempt(end, seen, tried, mono);
        if (seen.responseId !== null) chooser.answered(seen.responseId, books.resolve(endpointId));
        if (counts) {
          if (final) finish(request, end);
          tell(turn, end, seen, hung, beside, mono - startedAt);
        }
        // There is room for somebody who waits.
        waiting.pump();
      },
      refusesUsage: () => refusesUsage.add(config.baseUrl),
    });
    request.running = running;
    return running.done;
  }

  /** What the attempt says of its endpoint. */
  function tell(
    turn: Turn,
    end: AttemptEnd,
    seen: Seen,
    hung: boolean,
    beside: number,
    durationMs: number,
  ): void {
    const { endpointId, modelId, asked, lease, cachedBytes, foreign } = turn;
    const mono = clock.mono();
    const { what, restMs } = verdictOf(end, seen, hung);
    if (what === null) return;
    const { outputTokens } = seen;
    let sample: SpeedSample | null = null;
    if (what === 'success' && seen.firstByteMs !== null && isNews(turn, mono)) {
      const ahead = lease.ahead + foreign;
      const others = beside + foreign;
      sample = {
        promptBytes: asked.promptBytes,
        stream: asked.stream,
        cold: asked.cold,
        cachedBytes,
        ahead,
        beside: others,
        firstByteMs: seen.firstByteMs,
        durationMs,
        outputTokens,
        mono,
      };
    }
    const event: EvidenceEvent = { type: 'evidence', modelId, what, mono, chance: random(), restMs, sample };
    // Registered late, it may have got another id meanwhile.
    tellEvidence(evidence, books.resolve(endpointId), event);
  }

  /** More samples in so short a time say nothing more; but that a cold model has answered is worth knowing. */
  function isNews({ endpointId, modelId, asked }: Turn, mono: number): boolean {
    const known = ofModel(roster.facts(endpointId).paces, modelId);
    return asked.cold || known === undefined || mono - known.speed.measuredAt >= LEARN_EVERY_MS;
  }

  /** Nobody is asked any more: the last answer of an endpoint as it was, or an error that names who was tried. */
  function giveUp(request: ClientRequest, failed: Failed[], refused: ApiError | null): void {
    const answered = failed.findLast(({ unsent }) => unsent.answer !== null);
    const answer = answered?.unsent.answer ?? null;
    if (answered !== undefined && answer !== null) {
      finish(request, { how: 'refused', status: answer.status });
      request.reply.answer(answer, headerSafe(answered.name));
      return;
    }
    const last = failed[failed.length - 1];
    const error =
      last === undefined
        ? (refused as ApiError)
        : new ApiError(
            last.unsent.code,
            failed.map(({ name, unsent }) => `${name}: ${unsent.message}`).join('; '),
          );
    const told = failed.length === 1 ? (last?.unsent.message ?? error.message) : error.message;
    const ended = last?.unsent.ended === true;
    finish(request, { how: ended ? 'ended' : 'broken', status: error.status, error: told });
    request.reply.error(error, last === undefined ? null : headerSafe(last.name));
  }

  /** From the first choice to the last byte. */
  async function serve(request: ClientRequest): Promise<void> {
    budget.noteRequest(clock.mono());
    keep(request);
    const failed: Failed[] = [];
    for (;;) {
      const turn = await nextTurn(request);
      if (turn === 'left') return finish(request, { how: 'left', status: null });
      if (turn instanceof ApiError) return giveUp(request, failed, turn);
      if (request.gone) {
        // It left, or everything ended, between the choice and now.
        turn.lease.close();
        waiting.pump();
        if (request.left) return finish(request, { how: 'left', status: null });
        return giveUp(request, failed, new ApiError('shutting_down', 'the server is shutting down'));
      }
      const unsent = await begin(request, turn, true);
      if (unsent === null || request.settled) return;
      failed.push({ name: turn.name, unsent });
      const goesOn = !unsent.ended && mayGoElsewhere(request) && (unsent.moved || (await mayRetry(request)));
      if (request.left) return finish(request, { how: 'left', status: null });
      if (!goesOn) return giveUp(request, failed, null);
    }
  }

  /** Counts a body as kept until the request has begun or is over; one too many is not kept past its first attempt. */
  function keep(request: ClientRequest): void {
    const bytes = request.body.length;
    if (keptBytes + bytes > MOST_KEPT_BYTES) {
      request.repeatable = false;
      return;
    }
    keptBytes += bytes;
    request.onFree = () => {
      keptBytes -= bytes;
    };
  }

  return {
    serve,
    finish,

    /** One attempt at one endpoint, counted nowhere. */
    async tryOut(request: ClientRequest, candidate: Candidate): Promise<void> {
      const choice = chooser.only(candidate, request.wanted);
      // It is for this endpoint: nobody else is asked, and nothing takes it away.
      request.repeatable = false;
      const turn = seat(request, choice, candidate);
      const unsent = await begin(request, turn, false);
      if (unsent === null) return;
      const { name } = turn;
      request.reply.error(new ApiError(unsent.code, `${name}: ${unsent.message}`), headerSafe(name));
    },
  };
}

interface Failed {
  name: string;
  unsent: Unsent;
}

function nobody(model: string, choice: Choice): ApiError {
  const told = new Map<string, number>();
  let restMs = 0;
  const { keeper } = choice;
  for (const { candidate, reason } of judge(choice)) {
    if (keeper !== null && candidate.endpointId !== keeper) continue;
    if (reason !== null) told.set(reason, (told.get(reason) ?? 0) + 1);
    if (candidate.restMs > 0) restMs = restMs === 0 ? candidate.restMs : Math.min(restMs, candidate.restMs);
  }
  const why = [...told].map(([reason, count]) => `${count} ${reason}`).join(', ');
  return new ApiError(
    'no_endpoint_available',
    keeper === null
      ? `no endpoint can serve the model ${JSON.stringify(model)} now (${why})`
      : `the endpoint that has the response to go on from cannot be asked now (${why})`,
    { param: 'model', headers: { 'retry-after': String(restMs > 0 ? Math.ceil(restMs / 1000) : 5) } },
  );
}

function asksUsage(kind: ApiKind): boolean {
  return kind === 'chat_completions' || kind === 'completions';
}

function joined(slices: Buffer[]): Buffer {
  return slices.length === 1 ? (slices[0] as Buffer) : Buffer.concat(slices);
}
