// @vitest-environment happy-dom
import { flushPromises, mount } from '@vue/test-utils';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { defineComponent, h, nextTick, ref } from 'vue';
import {
  type HouseHealth,
  type Problem,
  problemsOfEndpoint,
  problemsOfHouse,
} from '../../src/actors/problems.js';
import { Refusal, Unreachable } from '../../src/dashboard/api/http.js';
import type { CandidateRecord, Endpoint, HistoryPoint, RequestRow } from '../../src/dashboard/api/shapes.js';
import { now } from '../../src/dashboard/format/times.js';
import Amount from '../../src/dashboard/parts/Amount.vue';
import Candidates from '../../src/dashboard/parts/Candidates.vue';
import { sorted, sortingOf, sortingText } from '../../src/dashboard/parts/columns.js';
import DataTable from '../../src/dashboard/parts/DataTable.vue';
import { draftOf, inputOf } from '../../src/dashboard/parts/endpoint-draft.js';
import Loaded from '../../src/dashboard/parts/Loaded.vue';
import Problems from '../../src/dashboard/parts/Problems.vue';
import { filterQuery, fits, type RequestFilter } from '../../src/dashboard/parts/request-filter.js';
import SearchField from '../../src/dashboard/parts/SearchField.vue';
import TimeAgo from '../../src/dashboard/parts/TimeAgo.vue';
import Timeline from '../../src/dashboard/parts/Timeline.vue';
import { i18n, setLanguage } from '../../src/dashboard/words/index.js';
import { NEW_CIRCUIT } from '../../src/machines/circuit.js';
import { newChild } from '../../src/machines/supervision.js';
import { fitsPattern } from '../../src/machines/wildcard.js';

beforeEach(() => setLanguage('en'));
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const stubs = { RouterLink: { props: ['to'], template: '<a><slot /></a>' } };

// DataTable.

/** happy-dom lays nothing out: a table is 400 px high, a row what it says. */
function layOut(height = 400): void {
  vi.spyOn(HTMLElement.prototype, 'clientHeight', 'get').mockReturnValue(height);
  vi.spyOn(HTMLElement.prototype, 'clientWidth', 'get').mockReturnValue(800);
}

interface Thing {
  id: string;
  size: number;
}
const things = (count: number): Thing[] =>
  Array.from({ length: count }, (_, index) => ({ id: `t${index}`, size: index }));
const columns = [
  { key: 'name', title: 'Name', sortable: true, first: 'ascending' as const },
  { key: 'size', title: 'Size', sortable: true },
  { key: 'note', title: 'Note' },
];

// biome-ignore lint/suspicious/noExplicitAny: a generic component has no type of its own
const Table = DataTable as any;

async function table(rows: Thing[], props: Record<string, unknown> = {}, opens?: (id: string) => void) {
  const found = mount(Table, {
    props: { label: 'Things', columns, rows, keyOf: ({ id }: Thing) => id, ...props },
    slots: {
      name: ({ row }: { row: Thing }) =>
        opens === undefined
          ? row.id
          : h('a', { class: 'opener', href: '#', onClick: () => opens(row.id) }, row.id),
      size: ({ row }: { row: Thing }) => h('button', { type: 'button' }, String(row.size)),
      note: () => '',
    },
    attachTo: document.body,
  });
  // What is in sight is known only after it has been measured.
  await flushPromises();
  await nextTick();
  return found;
}

test('an empty table has its head and no row', async () => {
  layOut();
  const found = await table([]);
  expect(found.findAll('th').map((one) => one.text())).toEqual(['Name', 'Size', 'Note']);
  expect(found.findAll('.row-line')).toHaveLength(0);
  expect(found.find('table').attributes('aria-rowcount')).toBe('1');
  found.unmount();
});

test('of a hundred thousand rows only those in sight are drawn, and the rest is height', async () => {
  layOut();
  const found = await table(things(100_000));
  const drawn = found.findAll('.row-line');
  expect(drawn.length).toBeGreaterThanOrEqual(10);
  expect(drawn.length).toBeLessThan(40);
  expect(found.find('table').attributes('aria-rowcount')).toBe('100001');
  expect(drawn[0]?.attributes('aria-rowindex')).toBe('2');
  const heights = found.findAll<HTMLElement>('.spacer td').map(({ element }) => element.style.height);
  expect(heights).toEqual([`${4_000_000 - drawn.length * 40}px`]);
  found.unmount();
});

test('the end is told when the last rows come into sight, and not before', async () => {
  layOut();
  const far = await table(things(1000));
  expect(far.emitted('end')).toBeUndefined();
  far.unmount();
  const near = await table(things(12));
  expect(near.emitted('end')).toHaveLength(1);
  near.unmount();
});

test('the first click sorts as the column says, the next the other way', async () => {
  layOut();
  const found = await table(things(3));
  const [name, size] = found.findAll('.sort');
  await name?.trigger('click');
  expect(found.emitted('update:sorting')).toEqual([[{ key: 'name', order: 'ascending' }]]);
  await found.setProps({ sorting: { key: 'name', order: 'ascending' } });
  expect(found.findAll('th')[0]?.attributes('aria-sort')).toBe('ascending');
  expect(found.findAll('th')[2]?.attributes('aria-sort')).toBeUndefined();
  await name?.trigger('click');
  await size?.trigger('click');
  expect(found.emitted('update:sorting')?.slice(1)).toEqual([
    [{ key: 'name', order: 'descending' }],
    [{ key: 'size', order: 'descending' }],
  ]);
  found.unmount();
});

test('a click anywhere on a row follows its link once, but a button within does only its own', async () => {
  layOut();
  const opens = vi.fn();
  const found = await table(things(3), { chosen: 't1' }, opens);
  const [first, second, third] = found.findAll('.row-line');
  await first?.find('td:last-child').trigger('click');
  await second?.find('button').trigger('click');
  await third?.find('a').trigger('click');
  expect(opens.mock.calls).toEqual([['t0'], ['t2']]);
  expect(second?.classes()).toContain('chosen');
  found.unmount();
});

test('a click on a row that leads nowhere does nothing', async () => {
  layOut();
  const found = await table(things(2));
  await found.find('.row-line').trigger('click');
  await found.find('.row-line').trigger('keydown', { key: 'ArrowDown' });
  expect(document.activeElement).toBe(document.body);
  found.unmount();
});

test('the arrow keys go from link to link and stop at the ends', async () => {
  layOut();
  const found = await table(things(3), {}, () => {});
  const links = found.findAll<HTMLElement>('.opener');
  links[0]?.element.focus();
  await links[0]?.trigger('keydown', { key: 'ArrowUp' });
  expect(document.activeElement).toBe(links[0]?.element);
  await links[0]?.trigger('keydown', { key: 'ArrowDown' });
  await links[1]?.trigger('keydown', { key: 'ArrowDown' });
  await links[2]?.trigger('keydown', { key: 'ArrowDown' });
  expect(document.activeElement).toBe(links[2]?.element);
  await found.find('button').trigger('keydown', { key: 'ArrowDown' });
  expect(document.activeElement).toBe(links[2]?.element);
  found.unmount();
});

// Loaded.

function loaded(props: { isPending: boolean; error: unknown; hasData: boolean }) {
  return mount(Loaded, { props, slots: { default: 'the data' } });
}

test('what is asked for says that it is loading, then why it failed, or is there', async () => {
  const loading = loaded({ isPending: true, error: null, hasData: false });
  expect(loading.find('[role=status]').text()).toBe('Loading …');
  const gone = loaded({ isPending: false, error: new Unreachable(null), hasData: false });
  expect(gone.find('[role=alert]').text()).toContain('The server cannot be reached.');
  await gone.find('button').trigger('click');
  expect(gone.emitted('retry')).toHaveLength(1);
  const refused = loaded({ isPending: false, error: new Refusal(503, 'x', 'in its words'), hasData: false });
  expect(refused.text()).toContain('in its words');
  expect(loaded({ isPending: false, error: null, hasData: true }).text()).toBe('the data');
});

test('what was there stays while it is asked for again, even in vain', () => {
  expect(loaded({ isPending: true, error: null, hasData: true }).text()).toBe('the data');
  expect(loaded({ isPending: false, error: new Unreachable(null), hasData: true }).text()).toBe('the data');
});

// Amount and TimeAgo.

test('a number stands short and is exact on hover', () => {
  const found = mount(Amount, { props: { value: 123_456, unit: 'tokens', why: '' } });
  expect(found.text()).toBe('123K');
  expect(found.attributes('data-tip')).toBe('123,456');
});

test('a number that is exact already has no tooltip', () => {
  expect(
    mount(Amount, { props: { value: 5, unit: 'count', why: '' } }).attributes('data-tip'),
  ).toBeUndefined();
});

test('nought is a number', () => {
  expect(mount(Amount, { props: { value: 0, unit: 'ms', why: 'never' } }).text()).toBe('0 ms');
});

test.each([null, undefined])('%s is an em dash that says why, on hover and to a screen reader', (value) => {
  const amount = mount(Amount, { props: { value, unit: 'ms', why: 'never measured' } });
  const time = mount(TimeAgo, { props: { at: value, why: 'never measured' } });
  for (const found of [amount, time]) {
    expect(found.attributes('data-tip')).toBe('never measured');
    expect(found.find('[aria-hidden=true]').text()).toBe('—');
    expect(found.find('.sr-only').text()).toBe('never measured');
  }
});

test('a time that lies a little ahead, by another clock, is now', () => {
  const at = new Date(now.value + 4000).toISOString();
  expect(mount(TimeAgo, { props: { at, why: '' } }).text()).toBe('now');
});

// Timeline.

const NOON = Date.UTC(2026, 0, 15, 12);
const minute = (ago: number, success: number, error = 0): HistoryPoint => ({
  minute: new Date(NOON - ago * 60_000).toISOString(),
  success,
  error,
});

function timeline(points: HistoryPoint[]) {
  const found = mount(Timeline, { props: { points } });
  const bars = () =>
    found
      .findAll('g')
      .map((one) => [Number(one.attributes('data-success')), Number(one.attributes('data-error'))]);
  return { found, bars };
}

test('sixty minutes stand in sixty bars, the last one the minute that runs', async () => {
  now.value = NOON + 30_000;
  const { found, bars } = timeline([minute(59, 3), minute(1, 0, 2), minute(0, 7, 1)]);
  expect(bars()).toHaveLength(60);
  expect(bars()[0]).toEqual([3, 0]);
  expect(bars().slice(-2)).toEqual([
    [0, 2],
    [7, 1],
  ]);
  expect(found.find('svg').attributes('aria-label')).toBe(
    'Requests of the last 60 minutes: 10 success, 3 error',
  );
  expect(found.findAll('g').at(-1)?.attributes('data-tip')).toContain('still running: 7 success, 1 error');
});

test('without any request it is sixty empty bars', () => {
  now.value = NOON;
  const { found, bars } = timeline([]);
  expect(bars()).toEqual(Array.from({ length: 60 }, () => [0, 0]));
  expect(found.html()).not.toMatch(/NaN|Infinity/);
});

test('the window moves on with the clock, and what is older than an hour leaves it', async () => {
  now.value = NOON;
  const { found, bars } = timeline([minute(59, 3), minute(0, 7)]);
  now.value = NOON + 60_000;
  await nextTick();
  expect(bars()[0]).toEqual([0, 0]);
  expect(bars().slice(-2)).toEqual([
    [7, 0],
    [0, 0],
  ]);
  expect(found.find('svg').attributes('aria-label')).toContain('7 success');
  now.value = NOON + 3_600_000;
  await nextTick();
  expect(found.find('svg').attributes('aria-label')).toContain(': 0 success, 0 error');
});

test('a server whose clock is a minute ahead shows its newest minute all the same', () => {
  now.value = NOON - 60_000;
  const { bars } = timeline([minute(1, 1), minute(0, 2)]);
  expect(bars().slice(-2)).toEqual([
    [1, 0],
    [2, 0],
  ]);
});

test('one error beside a million successes is seen, and no bar is taller than the picture', () => {
  now.value = NOON;
  const { found } = timeline([minute(3, 1_000_000), minute(2, 999_999, 1), minute(1, 0, 1), minute(0, 1)]);
  for (const bar of found.findAll('rect.good, rect.bad')) {
    const [y, height] = [Number(bar.attributes('y')), Number(bar.attributes('height'))];
    expect(y).toBeGreaterThanOrEqual(0);
    expect(y + height).toBeLessThanOrEqual(100.001);
  }
  const heights = found.findAll('rect.bad').map((one) => Number(one.attributes('height')));
  expect(heights.filter((height) => height >= 2)).toHaveLength(2);
});

// Problems.

const HEALTH: HouseHealth = {
  now: NOON,
  children: {},
  unseeded: ['users'],
  isDraining: true,
  hasEndpoints: false,
  storeTrouble: { detail: 'locked', since: NOON },
  waiting: { rows: 1, oldest: 0, withoutDetail: 3 },
  disk: { free: 1, total: 10 ** 12 },
};

/** Every problem that the server can have. */
function everyProblem(): Problem[] {
  const parked = ['ledger', 'history', 'queue'].map((name) => [
    name,
    { ...newChild(name), status: 'parked' as const },
  ]);
  const house = problemsOfHouse({ ...HEALTH, children: Object.fromEntries(parked) });
  const box = {
    id: 'one',
    name: 'box-1',
    lastError: 'refused',
    lastSeen: null,
    circuit: { ...NEW_CIRCUIT, state: 'open' as const },
    modelCircuits: {},
    keyIsLost: true,
    transitions: [],
    crash: null,
  };
  const endpoints = (['offline', 'error', 'quarantined', 'online'] as const).flatMap((status) =>
    problemsOfEndpoint({ ...box, status }),
  );
  return [...house, ...endpoints];
}

test.each(['en', 'ja'] as const)(
  'every problem of the server has words of its own (%s)',
  async (language) => {
    setLanguage(language);
    const all = everyProblem();
    expect(new Set(all.map(({ code }) => code)).size).toBeGreaterThanOrEqual(15);
    for (const problem of all) {
      const found = mount(Problems, { props: { problems: [problem] }, global: { stubs } });
      const text = found.text();
      expect(text, problem.code).not.toContain(problem.code);
      expect(text, problem.code).not.toMatch(/problems\.|\{|Something is wrong|問題が発生/);
      if (problem.endpoint_name !== null) expect(found.find('strong').text()).toContain('box-1');
      if (problem.detail !== null) expect(text).toContain(problem.detail);
    }
  },
);

test('a problem that this page does not know yet is told by its code', () => {
  const [problem] = everyProblem();
  const unknown = { ...(problem as Problem), code: 'sun_exploded' };
  const found = mount(Problems, { props: { problems: [unknown] }, global: { stubs } });
  expect(found.text()).toContain('Something is wrong: sun_exploded');
});

test('no problem shows nothing, and of many the first four until more are wanted', async () => {
  expect(
    mount(Problems, { props: { problems: [] }, global: { stubs } })
      .find('section')
      .exists(),
  ).toBe(false);
  const problems = Array.from(
    { length: 300 },
    (_, index): Problem => ({
      code: 'endpoint_offline',
      severity: 'error',
      endpoint_id: String(index),
      endpoint_name: `box-${index}`,
      detail: null,
      since: null,
    }),
  );
  const found = mount(Problems, { props: { problems }, global: { stubs } });
  expect(found.findAll('li')).toHaveLength(4);
  expect(found.find('button').text()).toBe('296 more');
  await found.find('button').trigger('click');
  expect(found.findAll('li')).toHaveLength(300);
  await found.find('button').trigger('click');
  expect(found.findAll('li')).toHaveLength(4);
});

// Candidates.

const candidate = (more: Partial<CandidateRecord>): CandidateRecord => ({
  endpoint_id: 'one',
  endpoint_name: 'box',
  eligible: true,
  reason: null,
  predicted_ms: null,
  parts: {},
  ...more,
});

test('a candidate shows what it was predicted to take, part by part, the longest as wide as the picture', () => {
  const candidates = [
    candidate({ predicted_ms: 400, parts: { wait_ms: 0, load_ms: 100, prefill_ms: 100, decode_ms: 200 } }),
    candidate({ endpoint_id: 'two', endpoint_name: 'other', eligible: false, reason: 'draining' }),
  ];
  const found = mount(Candidates, { props: { candidates, chosen: 'one' } });
  const [one, two] = found.findAll('li');
  expect(one?.text()).toContain('predicted 400 ms');
  expect(one?.text()).toContain('chosen');
  const widths = one?.findAll('.bar span').map((part) => (part.element as HTMLElement).style.width);
  expect(widths).toEqual(['25%', '25%', '50%']);
  expect(two?.text()).toContain('draining');
  expect(two?.text()).toContain('nothing is known of its speed yet');
  expect(two?.text()).not.toContain('chosen');
});

test('a reason that this page does not know stands as it is', () => {
  const candidates = [candidate({ eligible: false, reason: 'full_moon' })];
  expect(mount(Candidates, { props: { candidates, chosen: null } }).text()).toContain('full_moon');
});

test('no candidate at all is no error, and neither are a thousand', () => {
  expect(mount(Candidates, { props: { candidates: [], chosen: null } }).findAll('li')).toHaveLength(0);
  const candidates = Array.from({ length: 1000 }, (_, index) => candidate({ endpoint_id: String(index) }));
  expect(mount(Candidates, { props: { candidates, chosen: null } }).findAll('li')).toHaveLength(1000);
});

// SearchField.

test('what is typed while the address is still being changed is kept', async () => {
  vi.useFakeTimers();
  const told: string[] = [];
  const Holder = defineComponent({
    setup() {
      const text = ref('');
      // As a router does: the change comes back a little later.
      const set = (value: string) => {
        told.push(value);
        setTimeout(() => {
          text.value = value;
        }, 30);
      };
      return () => h(SearchField, { modelValue: text.value, 'onUpdate:modelValue': set });
    },
  });
  const found = mount(Holder);
  const field = found.find('input');
  await field.setValue('a');
  await vi.advanceTimersByTimeAsync(160);
  await field.setValue('ab');
  await vi.advanceTimersByTimeAsync(1000);
  expect((field.element as HTMLInputElement).value).toBe('ab');
  expect(told).toEqual(['a', 'ab']);
});

test('a search tells once the typing pauses, Esc empties it, and what is given from outside stands in it', async () => {
  vi.useFakeTimers();
  const found = mount(SearchField, { props: { modelValue: '' } });
  const field = found.find('input');
  for (const text of ['l', 'll', 'lla']) {
    await field.setValue(text);
    await vi.advanceTimersByTimeAsync(50);
  }
  expect(found.emitted('update:modelValue')).toBeUndefined();
  await vi.advanceTimersByTimeAsync(200);
  expect(found.emitted('update:modelValue')).toEqual([['lla']]);
  await field.trigger('keydown', { key: 'Escape' });
  await vi.advanceTimersByTimeAsync(200);
  expect(found.emitted('update:modelValue')?.at(-1)).toEqual(['']);
  await found.setProps({ modelValue: 'given' });
  await flushPromises();
  expect((field.element as HTMLInputElement).value).toBe('given');
});

// The filter of requests.

const ANY: RequestFilter = { model: '', endpoint: '', key: '', status: '', span: '', from: '', to: '' };
const row = (more: Partial<RequestRow> = {}): RequestRow =>
  ({
    model: 'llama3:8b',
    endpoint_id: 'e1',
    key_id: 'k1',
    status: { type: 'success' },
    ...more,
  }) as RequestRow;

test.each<[Partial<RequestFilter>, boolean]>([
  [{}, true],
  [{ model: 'llama3:8b' }, true],
  [{ model: 'llama3' }, false],
  [{ model: 'llama3*' }, true],
  [{ model: '*8b' }, true],
  [{ model: 'l.ama3:8b' }, false],
  [{ endpoint: 'e1' }, true],
  [{ endpoint: 'e2' }, false],
  [{ key: 'k1', status: 'success' }, true],
  [{ key: 'k2' }, false],
  [{ status: 'error' }, false],
  [{ span: '1 h' }, true],
])('a request that has just ended fits %j: %s', (filter, isWanted) => {
  expect(fits(row(), { ...ANY, ...filter })).toBe(isWanted);
});

test('a pattern of models means the same here as on the server', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '*', '.', '/', '(', '\n', '+'), maxLength: 8 });
  fc.assert(
    fc.property(text, text, (model, name) => {
      fc.pre(model !== '');
      expect(fits(row({ model: name }), { ...ANY, model })).toBe(fitsPattern(model, name));
    }),
    { numRuns: 2000 },
  );
});

test('a filter is a query of the server, and what is empty is no part of it', () => {
  expect(filterQuery(ANY, NOON).toString()).toBe('');
  expect(filterQuery({ ...ANY, span: 'since ever' }, NOON).toString()).toBe('');
  const all = filterQuery(
    { ...ANY, model: 'a*', endpoint: 'e', key: 'k', status: 'error', span: '15 min' },
    NOON,
  );
  expect(Object.fromEntries(all)).toEqual({
    model: 'a*',
    endpoint_id: 'e',
    key_id: 'k',
    status: 'error',
    start_time: '2026-01-15T11:45:00.000Z',
  });
});

test('a span with two ends asks for what lies between, and one without a time asks for all', () => {
  const noon = new Date(NOON).toISOString();
  const custom = { ...ANY, span: 'custom', from: noon };
  expect(Object.fromEntries(filterQuery({ ...custom, to: noon }, 0))).toEqual({
    start_time: noon,
    end_time: noon,
  });
  expect(filterQuery({ ...ANY, span: 'custom', from: 'nonsense' }, 0).toString()).toBe('');
  const ended = (at: number) => row({ completed_at: new Date(at).toISOString() });
  expect([NOON - 1, NOON, NOON + 1].map((at) => fits(ended(at), { ...custom, to: noon }))).toEqual([
    false,
    true,
    false,
  ]);
  expect(fits(ended(NOON - 1), { ...ANY, from: noon })).toBe(true);
});

// An endpoint in a form.

const ENDPOINT = {
  id: 'one',
  name: 'box',
  base_url: 'http://127.0.0.1:1',
  health_check_interval_secs: 10,
  inference_timeout_secs: 0,
  weight: 1,
  priority: 0,
  max_concurrency: null,
  max_context: 4096,
  models_allow: ['llama*', 'qwen*'],
  models_deny: null,
  notes: null,
} as unknown as Endpoint;

test('a new endpoint sends only what was filled in', () => {
  const draft = { ...draftOf(undefined), url: ' http://10.0.0.1:8000 ', name: ' box ' };
  expect(inputOf(draft)).toEqual({ body: { name: 'box', base_url: 'http://10.0.0.1:8000' } });
});

test('a change sends what was changed and nothing else, null for what was emptied', () => {
  const draft = { ...draftOf(ENDPOINT), maxContext: '' as const, allow: ' , ' };
  expect(inputOf(draft, ENDPOINT)).toEqual({ body: { max_context: null, models_allow: null } });
});

test('a form that nobody touched changes nothing', () => {
  expect(inputOf(draftOf(ENDPOINT), ENDPOINT)).toEqual({ body: {} });
});

test('a stored key is forgotten when that is said, unless a new one is given', () => {
  expect(inputOf({ ...draftOf(ENDPOINT), forgetsKey: true }, ENDPOINT)).toMatchObject({
    body: { api_key: null },
  });
  const both = { ...draftOf(ENDPOINT), forgetsKey: true, apiKey: 'new' };
  expect(inputOf(both, ENDPOINT)).toMatchObject({ body: { api_key: 'new' } });
});

test('headers are a line each, and the line that is none is named', () => {
  const headers = 'x-one: 1\n\n  x-two :a:b  ';
  expect(inputOf({ ...draftOf(ENDPOINT), headers }, ENDPOINT)).toMatchObject({
    body: { headers: { 'x-one': '1', 'x-two': 'a:b' } },
  });
  expect(inputOf({ ...draftOf(ENDPOINT), headers: 'x-one: 1\nnonsense' }, ENDPOINT)).toEqual({ problem: 2 });
  expect(inputOf({ ...draftOf(ENDPOINT), headers: ': nameless' }, ENDPOINT)).toEqual({ problem: 1 });
});

// Sorting.

const size = ({ size: value }: { size: number | string | null }, _key: string) => value;

test('what is unknown comes last in either order, and nothing is sorted without a wish', () => {
  const rows = [{ size: 2 }, { size: null }, { size: 10 }, { size: 1 }];
  const values = (order: 'ascending' | 'descending') =>
    sorted(rows, { key: 'size', order }, size).map((one) => one.size);
  expect(values('ascending')).toEqual([1, 2, 10, null]);
  expect(values('descending')).toEqual([10, 2, 1, null]);
  expect(sorted(rows, null, size)).toEqual(rows);
  expect(rows[0]).toEqual({ size: 2 });
});

test('names are sorted as people count, and equals keep their order', () => {
  const rows = ['box-10', 'box-9', 'Box-9', 'box-1'].map((one) => ({ size: one }));
  expect(sorted(rows, { key: 'size', order: 'ascending' }, size).map((one) => one.size)).toEqual([
    'box-1',
    'box-9',
    'Box-9',
    'box-10',
  ]);
  const same = [1, 2, 3].map((id) => ({ id, size: 5 }));
  for (const order of ['ascending', 'descending'] as const) {
    expect(sorted(same, { key: 'size', order }, size).map(({ id }) => id)).toEqual([1, 2, 3]);
  }
});

test('a sorting as a word of the address reads back as itself', () => {
  for (const word of ['latency', '-latency']) expect(sortingText(sortingOf(word))).toBe(word);
  for (const none of ['', null, undefined, ['a', 'b']]) expect(sortingOf(none)).toBeNull();
  expect(sortingText(null)).toBeUndefined();
  expect(i18n.global.locale.value).toBe('en');
});
