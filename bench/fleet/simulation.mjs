import { Box } from './box.mjs';
import { Gateway } from './gateway.mjs';
import { randomOf } from './random.mjs';

/** What a failing box needs to say no, and when a request is given up that got no first byte; simulated ms. */
const FAIL_MS = 5;
const FIRST_BYTE_MS = 120_000;
const TICK_MS = 1000;
/** Nothing goes on for longer. */
const END_MS = 24 * 3600_000;

/**
 * Plays a scene under a policy: answers one line per request. The requests and the boxes are the same for every
 * policy; only what the gateway draws for itself is drawn by it.
 */
export function play(scene, policy, seed) {
  const { boxes: boxOptions, models = ['m'], gateways: gatewayCount = 1 } = scene;
  let now = 0;
  const boxes = boxOptions.map((options, i) => new Box(`box-${i}`, options));
  const traffic = randomOf(seed);
  const gateways = Array.from(
    { length: gatewayCount },
    (_, i) => new Gateway({ boxes, models, policy, random: randomOf(seed * 7919 + i + 1), now: () => now }),
  );
  const arrivals = scene.arrivals(traffic, seed);
  const lines = [];
  const timers = [];
  const next = boxes.map(() => Number.POSITIVE_INFINITY);
  const indexOf = new Map(boxes.map((box, i) => [box.id, i]));
  let arrived = 0;
  let open = 0;
  let nextTick = TICK_MS;

  const at = (time, run) => {
    let i = timers.length;
    while (i > 0 && timers[i - 1].time < time) i -= 1;
    timers.splice(i, 0, { time, run });
  };
  const touch = (box) => {
    next[indexOf.get(box.id)] = box.nextAt();
  };

  function accept(asked) {
    open += 1;
    const gateway = gateways[gatewayCount === 1 ? 0 : Math.floor(traffic() * gatewayCount)];
    const { prompt, tokens, model = 'm', conversation = null, prefixes = [] } = asked;
    const wanted = {
      model,
      promptBytes: prompt,
      textBytes: prompt,
      stream: true,
      maxTokens: null,
      session: null,
      user: null,
      previous: null,
      prefixes,
    };
    const job = { prompt, tokens, model, conversation };
    begin({ gateway, asked, wanted, job, tried: new Set(), acceptedAt: now });
  }

  function begin(request) {
    let attempt = null;
    const move = () => {
      if (attempt === null || attempt.over || attempt.job?.firstAt !== undefined) return;
      attempt.over = true;
      attempt.lease.close();
      if (attempt.job !== undefined) {
        attempt.box.remove(attempt.job, now);
        touch(attempt.box);
      }
      begin(request);
    };
    attempt = request.gateway.send(request, move);
    if (attempt === null) return finish(request, null, null);
    const box = boxes[indexOf.get(attempt.endpointId)];
    attempt.box = box;
    request.tried.add(attempt.endpointId);
    const fault = box.faultAt(now);
    if (fault === 'fails') return at(now + FAIL_MS, () => fail(request, attempt, 'answer'));
    if (fault !== 'hangs') {
      attempt.job = { ...request.job, request, attempt };
      box.add(attempt.job, now);
      touch(box);
    }
    at(now + FIRST_BYTE_MS, () => {
      if (attempt.over || attempt.job?.firstAt !== undefined) return;
      if (attempt.job !== undefined) {
        box.remove(attempt.job, now);
        touch(box);
      }
      fail(request, attempt, 'transport');
    });
  }

  function fail(request, attempt, what) {
    if (attempt.over) return;
    attempt.over = true;
    request.gateway.settle(attempt, what);
    begin(request);
  }

  function finish(request, attempt, job) {
    open -= 1;
    lines.push({
      acceptedAt: request.acceptedAt,
      failed: job === null,
      ttftMs: job === null ? null : job.firstAt - request.acceptedAt,
      totalMs: now - request.acceptedAt,
      predictedMs: attempt?.predictedMs ?? null,
      tookMs: attempt === null ? null : now - attempt.sentAt,
      box: attempt?.endpointId ?? null,
      attempts: request.tried.size,
    });
    const following = request.asked.next?.(traffic, job !== null);
    if (following !== undefined) at(now + following.after, () => accept(following.asked));
  }

  function step(box) {
    box.advance(now);
    for (const job of box.taken()) {
      const { request, attempt } = job;
      if (attempt.over) continue;
      if (job.endAt === undefined) attempt.lease.answered(now);
      else {
        attempt.over = true;
        request.gateway.settle(attempt, 'success', job);
        finish(request, attempt, job);
      }
    }
    touch(box);
  }

  while (now < END_MS) {
    const arrival = arrivals[arrived]?.at ?? Number.POSITIVE_INFINITY;
    const timer = timers[timers.length - 1]?.time ?? Number.POSITIVE_INFINITY;
    let boxAt = Number.POSITIVE_INFINITY;
    let which = 0;
    for (let i = 0; i < next.length; i += 1) {
      if (next[i] >= boxAt) continue;
      boxAt = next[i];
      which = i;
    }
    if (open === 0 && arrival === Number.POSITIVE_INFINITY && !timers.some(({ keeps }) => keeps)) {
      if (timers.every(({ time }) => time - now > 60_000)) break;
    }
    const soonest = Math.min(arrival, timer, boxAt, nextTick);
    if (soonest === Number.POSITIVE_INFINITY) break;
    now = Math.max(now, soonest);
    if (nextTick === soonest) {
      nextTick += TICK_MS;
      for (const gateway of gateways) gateway.tick();
    } else if (boxAt === soonest) step(boxes[which]);
    else if (timer === soonest) timers.pop().run();
    else {
      accept(arrivals[arrived].asked);
      arrived += 1;
    }
  }
  return lines;
}
