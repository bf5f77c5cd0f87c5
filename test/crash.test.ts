import { expect, test } from 'vitest';
import type { Tamper } from '../src/actors/house.js';
import type { ActorView } from '../src/actors/tree.js';
import type { Fault } from '../src/demo/simulated-faults.js';
import { onCalls, throwing, throwingCount, throwingGuard } from './support/faults.js';
import { type Api, engine, pause, startLocal, until } from './support/server.js';

const STREAMS = 50;
const FAILING = 6;
const BOXES = ['one', 'two', 'three'];
const OFTEN = { TROUPE_HEALTH_INTERVAL_MS: '50' };
const HELLO = { messages: [{ role: 'user', content: 'Hello' }] };
const ASKED: [path: string, body: object][] = [
  ['/v1/chat/completions', HELLO],
  ['/v1/completions', { prompt: 'Hello' }],
  ['/v1/responses', { input: 'Hello' }],
];
/** What the engines do wrong on purpose, by box. */
const SPOILED: Record<string, Fault[]> = {
  one: [500, 500, 500].map((status) => ({ kind: 'status', status })),
  two: [{ kind: 'reset' }, { kind: 'reset' }],
  three: [{ kind: 'status', status: 500 }],
};

test('fifty streams without a fault inside are counted as sent, before and after a restart', async () => {
  const { live } = await twin();
  expect(live.stats).toMatchObject({
    total_requests: STREAMS,
    successful_requests: STREAMS - FAILING,
    failed_requests: FAILING,
    total_active_requests: 0,
    total_output_tokens: (STREAMS - FAILING) * 12,
    requests_60m: { success: STREAMS - FAILING, error: FAILING },
  });
  expect(live.timeline).toEqual({ success: STREAMS - FAILING, error: FAILING, points: 60 });
  expect(live.rows).toEqual({ all: STREAMS, success: STREAMS - FAILING, error: FAILING });
  expect(live.endpoints).toMatchObject([
    { name: 'three', total_requests: 16, successful_requests: 15, failed_requests: 1 },
    { name: 'two', total_requests: 17, successful_requests: 15, failed_requests: 2 },
    { name: 'one', total_requests: 17, successful_requests: 14, failed_requests: 3 },
  ]);
  expect(live.modelStats).toMatchObject([
    { model_id: 'model-one', total_requests: 17, total_output_tokens: 14 * 12 },
    { model_id: 'model-three', total_requests: 16, total_output_tokens: 15 * 12 },
    { model_id: 'model-two', total_requests: 17, total_output_tokens: 15 * 12 },
  ]);
});

test('endpoints that crash while they count lose no number and fail no request', async () => {
  const boom = onCalls(1, 2, 6, 10, 14, 18);
  await expectTwin({ endpoint: (logic) => throwingCount(logic, boom) }, boom);
});

test('endpoints that crash on a check result, before and after it was noted, lose no number', async () => {
  const before = onCalls(4);
  const after = onCalls(6, 8);
  await expectTwin(
    {
      endpoint: (logic) => throwing(throwing(logic, 'checked', before, 'before'), 'checked', after, 'after'),
    },
    before,
    after,
  );
});

test('trackers of the token rate that crash on a sample lose no number', async () => {
  const before = onCalls(1, 5, 12);
  const after = onCalls(2, 8);
  await expectTwin(
    { tps: (logic) => throwing(throwing(logic, 'sample', before, 'before'), 'sample', after, 'after') },
    before,
    after,
  );
});

test('boxes that crash take their endpoint with them and lose no number', async () => {
  const sample = onCalls(1, 3);
  const moved = onCalls(2);
  const trackers = onCalls(5);
  await expectTwin(
    {
      box: (logic) =>
        throwing(
          throwing(throwing(logic, 'sample', sample, 'before'), 'moved', moved, 'before'),
          'trackers',
          trackers,
          'after',
        ),
    },
    sample,
    moved,
  );
});

test('a history that crashes on a finished request loses no minute', async () => {
  const before = onCalls(1, 8);
  const after = onCalls(3, 12);
  await expectTwin(
    {
      history: (logic) => throwing(throwing(logic, 'finished', before, 'before'), 'finished', after, 'after'),
    },
    before,
    after,
  );
});

test('a ledger that crashes while it is told of a request writes every record once', async () => {
  const told = onCalls(1, 3);
  const guard = onCalls(3, 6);
  await expectTwin(
    { ledger: (logic) => throwing(throwingGuard(logic, guard), 'appended', told, 'after') },
    told,
    guard,
  );
});

test('a ledger that crashes when a batch was written writes no record twice', async () => {
  const done = onCalls(1, 2, 4);
  await expectTwin(
    { ledger: (logic) => throwing(logic, 'xstate.done.actor.0.ledger.writing.batch', done, 'before') },
    done,
  );
});

test('the supervisor of all endpoints and the ticker may crash, too', async () => {
  const started = onCalls(4, 9);
  const tick = onCalls(2, 4);
  await expectTwin(
    {
      endpoints: (logic) => throwing(logic, 'child.started', started, 'before'),
      ticker: (logic) =>
        logic.provide({
          actions: {
            tick: (...args) => {
              if (tick()) throw new Error('boom in tick');
              (logic.implementations.actions.tick as (...all: unknown[]) => void)(...args);
            },
          },
        }),
    },
    tick,
    started,
  );
});

test('all kinds may crash in the same run, in the very steps that settle requests', async () => {
  const count = onCalls(1, 8, 16);
  const sample = onCalls(1, 6);
  const box = onCalls(2);
  const finished = onCalls(1, 5, 12);
  const told = onCalls(1, 3);
  const guard = onCalls(9);
  await expectTwin(
    {
      endpoint: (logic) => throwingCount(logic, count),
      tps: (logic) => throwing(logic, 'sample', sample, 'before'),
      box: (logic) => throwing(logic, 'sample', box, 'before'),
      history: (logic) => throwing(logic, 'finished', finished, 'before'),
      ledger: (logic) => throwing(throwingGuard(logic, guard), 'appended', told, 'before'),
    },
    count,
    sample,
    finished,
    told,
  );
});

test('a settling step in which the endpoint crashes each time still counts each request once', async () => {
  const box = await engine({ models: ['only'] });
  const count = onCalls(1, 2, 3, 4);
  const server = await startLocal({
    seams: { tamper: { endpoint: (logic) => throwingCount(logic, count) } },
  });
  await server.register('only', box.url);
  for (let sent = 1; sent <= 6; sent += 1) {
    expect((await server.chat('only')).status).toBe(200);
    const [one] = (await server.get('/api/dashboard/endpoints')).json;
    expect(one).toMatchObject({ status: 'online', total_requests: sent, active_requests: 0 });
    // The next request meets an actor again, not the gap.
    await until(async () => (await down(server)).length === 0);
  }
  expect(count.fired).toBe(4);
});

interface Numbers {
  endpoints: object[];
  stats: object;
  timeline: object;
  endpointTps: object[];
  modelStats: object[];
  modelTps: object[];
  today: object[];
  rows: object;
}

interface Run {
  /** Read right after the last answer, whoever is in back-off then. */
  live: Numbers;
  restarts: number;
}

let twinRun: Promise<Run> | undefined;

/** One run without faults, which every other has to equal. */
function twin(): Promise<Run> {
  twinRun ??= run({});
  return twinRun;
}

/** Every fault has to happen at least once; how often depends on who is in back-off when. */
async function expectTwin(tamper: Tamper, ...faults: { fired: number }[]): Promise<void> {
  const { live } = await twin();
  const faulty = await run(tamper);
  expect(faults.map(({ fired }) => fired)).not.toContain(0);
  expect(faulty.restarts).toBeGreaterThan(0);
  expect(faulty.live).toEqual(live);
}

/** Fifty paced streams over three boxes, six of them spoiled by the engine; then all numbers, thrice. */
async function run(tamper: Tamper): Promise<Run> {
  const server = await startLocal({ seams: { tamper }, env: OFTEN });
  for (const name of BOXES) {
    const box = await engine({ models: [`model-${name}`], tokensPerSecond: 200, outputTokens: 12 });
    box.faults.next.push(...(SPOILED[name] ?? []));
    await server.register(name, box.url);
  }
  await until(async () => (await online(server)) === BOXES.length, 10_000, 'all boxes online');
  const answers = await Promise.all(Array.from({ length: STREAMS }, (_, i) => stream(server, i)));
  const live = await numbers(server);
  expect(answers.sort()).toEqual([
    ...new Array(STREAMS - FAILING).fill('200 complete'),
    ...new Array(4).fill('500'),
    ...new Array(2).fill('502'),
  ]);
  await until(async () => (await down(server)).length === 0, 10_000, 'everybody back');
  expect(await numbers(server)).toEqual(live);
  const restarts = (await actors(server)).reduce((sum, actor) => sum + actor.restarts, 0);
  expect(await server.server.stop()).toBe(0);

  const again = await startLocal({ dataDir: server.dataDir, env: OFTEN });
  await until(async () => (await online(again)) === BOXES.length, 10_000, 'all boxes online again');
  expect(await numbers(again)).toEqual(live);
  return { live, restarts };
}

async function stream(server: Api, i: number): Promise<string> {
  await pause(i * 6);
  const [path, body] = ASKED[i % 3] as [string, object];
  const model = `model-${BOXES[i % 3]}`;
  const { status, text } = await server.send('POST', path, { model, stream: true, ...body });
  if (status !== 200) return String(status);
  return text.includes('[DONE]') || text.includes('response.completed') ? '200 complete' : `200 ${text}`;
}

async function online(server: Api): Promise<number> {
  const { endpoints } = (await server.get('/api/endpoints?status=online')).json;
  return endpoints.length;
}

/** Every actor of the tree, the root first. */
async function actors(server: Api): Promise<ActorView[]> {
  const all: ActorView[] = [(await server.get('/api/dashboard/actors')).json.root];
  for (const actor of all) all.push(...actor.children);
  return all;
}

async function down(server: Api): Promise<string[]> {
  return (await actors(server)).filter(({ status }) => status !== 'active').map(({ id }) => id);
}

/** Every number of the dashboard; of what is measured and of ids and times only whether there is one. */
async function numbers(server: Api): Promise<Numbers> {
  const { endpoints, stats, history, endpoint_tps } = (await server.get('/api/dashboard/overview')).json;
  const ids: string[] = endpoints.map(({ id }: { id: string }) => id);
  const listed = await Promise.all(
    ids.map(async (id) => ({
      today: (await server.get(`/api/endpoints/${id}/today-stats`)).json,
      tps: (await server.get(`/api/endpoints/${id}/model-tps`)).json,
    })),
  );
  const rows = async (filter: string) =>
    (await server.get(`/api/dashboard/request-responses${filter}`)).json.total_count;
  const foretold = await foretoldModels(server);
  return {
    endpoints: endpoints.map(unmeasured),
    stats: unmeasured(stats),
    timeline: {
      success: sumOf(history, 'success'),
      error: sumOf(history, 'error'),
      points: history.length,
    },
    endpointTps: endpoint_tps.map(unmeasured),
    modelStats: (await server.get('/api/dashboard/model-stats')).json.map(
      (stat: Record<string, unknown> & { model_id: string }) => ({
        ...unmeasured(stat),
        prediction_error_is_that_of_rows: (stat.prediction_error !== null) === foretold.has(stat.model_id),
      }),
    ),
    modelTps: listed.map(({ tps }) => tps.map(unmeasured)),
    today: listed.map(({ today }) => today),
    rows: { all: await rows(''), success: await rows('?status=success'), error: await rows('?status=error') },
  };
}

/** Models with a whole answer that was foretold: what an endpoint has learned ends with it, so not every run has one. */
async function foretoldModels(server: Api): Promise<Set<string>> {
  const { records } = (await server.get('/api/dashboard/request-responses?per_page=100')).json;
  const found = records.filter(
    ({ outcome, attempts }: { outcome: string; attempts: { predicted_ms: number | null }[] }) =>
      outcome === 'success' && attempts.at(-1)?.predicted_ms !== null,
  );
  return new Set(found.map(({ model }: { model: string }) => model));
}

function sumOf(points: Record<string, number>[], key: string): number {
  return points.reduce((sum, point) => sum + (point[key] ?? 0), 0);
}

const MEASURED =
  /^(id|endpoint_id|base_url|registered_at)$|^last_|latency|average|duration|ttft|inter_token|tps$/;

function unmeasured({ prediction_error: _, output_tps: __, ...value }: Record<string, unknown>): object {
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => [key, MEASURED.test(key) ? part !== null : part]),
  );
}
