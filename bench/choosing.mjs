// What choosing costs among many endpoints, with everything learned and requests in flight.
import { decisionOf } from '../dist/machines/decision.js';
import { POLICIES } from '../dist/machines/policies.js';
import { Box } from './fleet/box.mjs';
import { Gateway } from './fleet/gateway.mjs';
import { randomOf } from './fleet/random.mjs';

const ENDPOINTS = 500;
const ROUNDS = 20_000;
const LOOKED = {
  promptBytes: 4000,
  textBytes: 4000,
  stream: true,
  maxTokens: 300,
  session: null,
  user: null,
  previous: null,
  prefixes: [],
};

/** µs a choice: the median of the rounds after warming up. */
function costOf(gateway, model, withDecision) {
  const wanted = { ...LOOKED, model };
  const took = [];
  for (let i = 0; i < ROUNDS; i += 1) {
    const from = process.hrtime.bigint();
    const choice = gateway.chooser.look(wanted);
    if (withDecision) decisionOf(choice, (id) => id);
    took.push(Number(process.hrtime.bigint() - from) / 1000);
  }
  const warm = took.slice(ROUNDS / 2).sort((a, b) => a - b);
  return Number(warm[Math.floor(warm.length / 2)].toFixed(1));
}

/** Endpoints that have answered requests for `m`, and five of them for `rare`; two in three have something to do. */
function fleetOf(policy) {
  let now = 0;
  const random = randomOf(7);
  const boxes = Array.from({ length: ENDPOINTS }, (_, i) => new Box(`box-${i}`, {}));
  const models = (id) => (Number(id.slice(4)) % 100 === 0 ? ['m', 'rare'] : ['m']);
  const gateway = new Gateway({ boxes, models: ['m'], modelsOf: models, policy, random, now: () => now });
  for (const model of ['m', 'rare']) {
    for (let i = 0; i < 20 * ENDPOINTS; i += 1) {
      now += 10;
      const attempt = gateway.send({ wanted: { ...LOOKED, model }, tried: new Set() }, () => {});
      if (i % (20 * 3) < 2) continue;
      now += 5 + random() * 30;
      gateway.settle(attempt, 'success', { firstAt: now - 3, tokens: 100 });
    }
  }
  return gateway;
}

export async function choosing() {
  const rows = Object.fromEntries(
    Object.keys(POLICIES).map((policy) => {
      const gateway = fleetOf(policy);
      return [
        policy,
        {
          'of 500, µs': costOf(gateway, 'm', false),
          'with its record': costOf(gateway, 'm', true),
          '5 of 500, µs': costOf(gateway, 'rare', false),
        },
      ];
    }),
  );
  console.log(`\nchoosing, ${ENDPOINTS} endpoints: at most 50 µs, and 5 µs where 5 have the model`);
  console.table(rows);
}
