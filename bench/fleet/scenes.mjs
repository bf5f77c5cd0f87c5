import { Box } from './box.mjs';
import { exponential, lognormal, randomOf } from './random.mjs';

/** Lengths as chat traffic has them: most short, some very long. */
const PROMPT = { median: 1500, sigma: 1.1, most: 60_000 };
const ANSWER = { median: 140, sigma: 0.9, most: 2000 };

const promptOf = (random) =>
  Math.round(Math.min(PROMPT.most, 40 + lognormal(random, PROMPT.median, PROMPT.sigma)));
const answerOf = (random) => Math.ceil(Math.min(ANSWER.most, lognormal(random, ANSWER.median, ANSWER.sigma)));

/** A box with so many times the speed of an ordinary one. */
const fast = (speed, more = {}) => ({ tokenMs: 15 / speed, readPerMs: 8 * speed, ...more });
const times = (count, make) => Array.from({ length: count }, (_, i) => make(i));

/** Requests a ms that keep these boxes as busy as that: a share of what they answer when they always have a line. */
function rateFor(boxes, load) {
  const kinds = new Map();
  for (const box of boxes) {
    const key = JSON.stringify([box.tokenMs, box.readPerMs]);
    if (!kinds.has(key)) kinds.set(key, capacityOf(box));
  }
  return load * boxes.reduce((sum, box) => sum + kinds.get(JSON.stringify([box.tokenMs, box.readPerMs])), 0);
}

function capacityOf({ tokenMs, readPerMs }) {
  const random = randomOf(4711);
  const box = new Box('full', { tokenMs, readPerMs });
  for (let i = 0; i < 1000; i += 1) box.add({ prompt: promptOf(random), tokens: answerOf(random) }, 0);
  let answered = 0;
  // The last ones have slots to spare.
  while (answered < 900) {
    box.advance(box.nextAt());
    answered += box.taken().filter(({ endAt }) => endAt !== undefined).length;
  }
  return answered / box.now;
}

/** Requests on their own, so many. */
function poisson(rate, count, modelOf = () => 'm') {
  return (random) => {
    const arrivals = [];
    let at = 0;
    for (let i = 0; i < count; i += 1) {
      at += exponential(random, rate);
      arrivals.push({
        at,
        asked: { prompt: promptOf(random), tokens: answerOf(random), model: modelOf(random) },
      });
    }
    return arrivals;
  };
}

/** People who write, read the answer, think, and go on: every turn has all the earlier ones in front of it. */
function conversations(rate, count) {
  return (random) => {
    const arrivals = [];
    let at = 0;
    for (let i = 0; i < count; i += 1) {
      at += exponential(random, rate);
      const turns = 3 + Math.floor(random() * 10);
      const prompt = 2000 + promptOf(random);
      arrivals.push({ at, asked: turnOf(`c${i}`, 1, turns, prompt, answerOf(random), []) });
    }
    return arrivals;
  };
}

function turnOf(conversation, turn, turns, prompt, tokens, before) {
  const prefixes = [...before, { key: `${conversation}:${turn}`, bytes: prompt }];
  return {
    prompt,
    tokens,
    conversation,
    prefixes,
    next: (random, answered) => {
      if (!answered || turn >= turns) return undefined;
      const longer = prompt + 4 * tokens + promptOf(random);
      const after = 2000 + exponential(random, 1 / 15_000);
      return { after, asked: turnOf(conversation, turn + 1, turns, longer, answerOf(random), prefixes) };
    },
  };
}

/** More people want the first models than the last ones. */
function zipf(models) {
  const weights = models.map((_, i) => 1 / (i + 1));
  const all = weights.reduce((sum, one) => sum + one);
  return (random) => {
    let left = random() * all;
    const drawn = models.findIndex((_, i) => {
      left -= weights[i];
      return left < 0;
    });
    return models[Math.max(0, drawn)];
  };
}

const equal = times(4, () => fast(1));
const unequal = [fast(6), fast(3), fast(1)];
const MODELS = times(7, (i) => `m${i}`);
/** Seven models, room for two on each of three boxes. */
const small = times(3, (i) =>
  fast(1, { loadMs: 8000, memory: 2, loaded: [MODELS[2 * i], MODELS[2 * i + 1]] }),
);
const readers = times(4, () => fast(1, { cached: 40, readPerMs: 2 }));
const large = times(200, (i) => fast([4, 2, 1, 1][i % 4]));

const HALF_BUSY = rateFor(equal, 0.5);
/** The last of so many requests at that rate comes about then. */
const lastOf = (count) => count / HALF_BUSY;
const LATER = Number.POSITIVE_INFINITY;
const onFirst = (more) => equal.map((box, i) => (i === 0 ? { ...box, ...more } : box));

const likeEachOther = (count) => ({
  name: 'equal boxes, 70 %',
  boxes: equal,
  arrivals: poisson(rateFor(equal, 0.7), count),
});

const ofThreeSpeeds = (count) => ({
  name: 'speeds 6:3:1, 70 %',
  boxes: unequal,
  arrivals: poisson(rateFor(unequal, 0.7), count),
});

const turningSlow = (count) => ({
  name: 'one turns five times slower half-way',
  boxes: onFirst({ slowdowns: [{ from: lastOf(count) / 2, to: LATER, factor: 5 }] }),
  arrivals: poisson(HALF_BUSY, count),
});

/** Short enough for real time. */
export const REAL_SCENES = [likeEachOther(800), ofThreeSpeeds(1500), turningSlow(800)];

export const SCENES = [
  likeEachOther(4000),
  ofThreeSpeeds(4000),
  turningSlow(4000),
  {
    name: 'one fails fast from a third on',
    boxes: onFirst({ faults: [{ kind: 'fails', from: lastOf(4000) / 3, to: LATER }] }),
    arrivals: poisson(HALF_BUSY, 4000),
  },
  {
    name: 'one hangs for five minutes',
    boxes: onFirst({ faults: [{ kind: 'hangs', from: lastOf(4000) / 2, to: lastOf(4000) / 2 + 300_000 }] }),
    arrivals: poisson(HALF_BUSY, 4000),
  },
  {
    name: 'cold models, 8 s to load, more than fit',
    boxes: small,
    models: MODELS,
    arrivals: poisson(rateFor(small, 0.35), 3000, zipf(MODELS)),
  },
  {
    name: 'long conversations, prefix caches',
    boxes: readers,
    arrivals: conversations(rateFor(readers, 0.18) / 7.5, 400),
  },
  { name: '20 % overload', boxes: equal, arrivals: poisson(rateFor(equal, 1.2), 2500) },
  { name: '200 boxes of three speeds, 70 %', boxes: large, arrivals: poisson(rateFor(large, 0.7), 8000) },
  { ...ofThreeSpeeds(4000), name: 'two gateways, speeds 6:3:1, 70 %', gateways: 2 },
];
