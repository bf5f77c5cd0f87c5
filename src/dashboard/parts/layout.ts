import ELK, { type ElkExtendedEdge, type ElkNode } from 'elkjs/lib/elk-api.js';
import workerUrl from 'elkjs/lib/elk-worker.min.js?url';
import type { Chart, ChartArrow, ChartState } from './statechart.js';

/** Where everything lies, in pixels from the chart's upper left. */
export interface Layout {
  width: number;
  height: number;
  states: {
    id: string;
    name: string;
    x: number;
    y: number;
    width: number;
    height: number;
    isGroup: boolean;
    isInitial: boolean;
    isFinal: boolean;
  }[];
  arrows: { id: string; path: string; labels: { text: string; x: number; y: number }[] }[];
}

const LETTER = 6.7;
const LINE = 15;
const OPTIONS = {
  'elk.algorithm': 'layered',
  'elk.direction': 'DOWN',
  'elk.hierarchyHandling': 'INCLUDE_CHILDREN',
  'elk.edgeRouting': 'ORTHOGONAL',
  'elk.layered.spacing.nodeNodeBetweenLayers': '36',
  'elk.spacing.nodeNode': '26',
  'elk.spacing.edgeNode': '14',
  'elk.spacing.edgeEdge': '12',
  'elk.spacing.edgeLabel': '4',
  'elk.layered.spacing.edgeNodeBetweenLayers': '14',
  'elk.json.edgeCoords': 'ROOT',
  'elk.json.shapeCoords': 'ROOT',
  'elk.padding': '[top=12,left=12,bottom=12,right=12]',
};
const GROUP = { ...OPTIONS, 'elk.padding': '[top=36,left=16,bottom=16,right=16]' };

let elk: InstanceType<typeof ELK> | null = null;

const REGION_GAP = 14;

/** Laid out beside the main thread. */
export async function layOut({ isParallel, states, arrows }: Chart): Promise<Layout> {
  if (!isParallel) return layOutFrom(0, states, arrows);
  // Nothing leads from one region to another: they stand one below the other.
  const whole: Layout = { width: 0, height: 0, states: [], arrows: [] };
  for (const region of states) {
    const ids = new Set(flat([region]).map(({ id }) => id));
    const own = arrows.filter(({ source, target }) => ids.has(source) && ids.has(target));
    const top = whole.height === 0 ? 0 : whole.height + REGION_GAP;
    const part = await layOutFrom(top, [region], own);
    whole.width = Math.max(whole.width, part.width);
    whole.height = part.height;
    whole.states.push(...part.states);
    whole.arrows.push(...part.arrows);
  }
  return whole;
}

async function layOutFrom(top: number, states: ChartState[], arrows: ChartArrow[]): Promise<Layout> {
  // A classic worker of this server: the page may run nothing else.
  elk ??= new ELK({ workerFactory: () => new Worker(workerUrl) });
  const graph: ElkNode = {
    id: '',
    layoutOptions: OPTIONS,
    children: states.map(nodeOf),
    edges: arrows.map(({ id, source, target, events }) => ({
      id,
      sources: [source],
      targets: [target],
      labels: [
        {
          text: events.join('\n'),
          width: Math.max(...events.map(({ length }) => length)) * (LETTER - 0.6) + 8,
          height: events.length * LINE,
        },
      ],
    })),
  };
  const laidOut = await elk.layout(graph);
  const found: Layout['states'] = [];
  collect(laidOut.children ?? [], top, new Map(flat(states).map((state) => [state.id, state])), found);
  return {
    width: laidOut.width ?? 0,
    height: top + (laidOut.height ?? 0),
    states: found,
    arrows: (laidOut.edges ?? []).map((edge) => arrowOf(edge, top)),
  };
}

function nodeOf({ id, name, children }: ChartState): ElkNode {
  if (children.length > 0) return { id, layoutOptions: GROUP, children: children.map(nodeOf) };
  return { id, width: Math.max(64, name.length * (LETTER + 0.8) + 28), height: 34 };
}

function flat(states: readonly ChartState[]): ChartState[] {
  return states.flatMap((state) => [state, ...flat(state.children)]);
}

function collect(
  nodes: ElkNode[],
  top: number,
  known: Map<string, ChartState>,
  found: Layout['states'],
): void {
  for (const { id, x = 0, y = 0, width = 0, height = 0, children = [] } of nodes) {
    const state = known.get(id);
    if (state === undefined) continue;
    const { name, isInitial, isFinal } = state;
    found.push({ id, name, x, y: top + y, width, height, isGroup: children.length > 0, isInitial, isFinal });
    collect(children, top, known, found);
  }
}

const ROUND = 6;

function arrowOf({ id, sections = [], labels = [] }: ElkExtendedEdge, top: number): Layout['arrows'][number] {
  const [section] = sections;
  const points =
    section === undefined
      ? []
      : [section.startPoint, ...(section.bendPoints ?? []), section.endPoint].map(({ x, y }) => ({
          x,
          y: top + y,
        }));
  return {
    id,
    path: rounded(points),
    labels: labels.flatMap(({ text = '', x = 0, y = 0 }) =>
      text.split('\n').map((line, index) => ({ text: line, x: x + 4, y: top + y + index * LINE + 11 })),
    ),
  };
}

/** A line through the points with its corners rounded. */
function rounded(points: { x: number; y: number }[]): string {
  return points
    .map((point, index) => {
      const before = points[index - 1];
      const next = points[index + 1];
      if (before === undefined) return `M${point.x} ${point.y}`;
      if (next === undefined) return `L${point.x} ${point.y}`;
      const enter = towards(point, before);
      const leave = towards(point, next);
      return `L${enter.x} ${enter.y}Q${point.x} ${point.y} ${leave.x} ${leave.y}`;
    })
    .join('');
}

function towards(from: { x: number; y: number }, to: { x: number; y: number }): { x: number; y: number } {
  const length = Math.hypot(to.x - from.x, to.y - from.y);
  const part = length === 0 ? 0 : Math.min(ROUND, length / 2) / length;
  return { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part };
}
