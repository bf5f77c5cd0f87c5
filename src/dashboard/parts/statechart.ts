/** A statechart's definition as a graph, and which of its states and arrows are lit. */

interface TransitionDefinition {
  target?: string[];
  guard?: unknown;
  source: string;
  eventType: string | null;
}

export interface StateDefinition {
  id: string;
  key: string;
  type: 'atomic' | 'compound' | 'parallel' | 'final' | 'history';
  initial?: { target: string[] };
  states: Record<string, StateDefinition>;
  transitions: TransitionDefinition[];
  /** Those that need no event. */
  always: TransitionDefinition[];
}

export interface MachineDefinition {
  id: string;
  definition: StateDefinition;
  mermaid: string;
}

export interface ChartState {
  id: string;
  name: string;
  isFinal: boolean;
  isInitial: boolean;
  children: ChartState[];
}

export interface ChartArrow {
  id: string;
  source: string;
  target: string;
  /** What it takes, a line each: `checked [isSuccess]`. */
  events: string[];
}

export interface Chart {
  /** The states are regions that are all active, and stand one below the other. */
  isParallel: boolean;
  states: ChartState[];
  arrows: ChartArrow[];
}

const NOWHERE: ReadonlySet<string> = new Set();

export function chartOf(root: StateDefinition): Chart {
  const found = new Map<string, ChartArrow>();
  collect(root, found);
  const arrows = [...found.values()];
  const isParallel = root.type === 'parallel';
  const whole = stateOf(root, NOWHERE);
  // What can happen in every state leads from around all of them.
  const isDrawn = !isParallel && arrows.some(({ source, target }) => [source, target].includes(root.id));
  return { isParallel, states: isDrawn ? [whole] : whole.children, arrows };
}

function stateOf(node: StateDefinition, initial: ReadonlySet<string>): ChartState {
  return {
    id: node.id,
    name: node.key,
    isFinal: node.type === 'final',
    isInitial: initial.has(node.id),
    children: Object.values(node.states).map((child) => stateOf(child, initialOf(node))),
  };
}

/** Every region of a parallel state is entered: that is no news. */
function initialOf({ type, initial }: StateDefinition): ReadonlySet<string> {
  return new Set(type === 'parallel' ? [] : (initial?.target ?? []).map(idOf));
}

function collect(node: StateDefinition, arrows: Map<string, ChartArrow>): void {
  for (const { target, guard, eventType } of [...node.transitions, ...node.always]) {
    for (const to of target ?? []) {
      const key = `${node.id}→${idOf(to)}`;
      const arrow = arrows.get(key) ?? { id: key, source: node.id, target: idOf(to), events: [] };
      const words = `${eventWords(eventType ?? '')}${guard === undefined ? '' : ` [${guardWords(guard)}]`}`;
      if (!arrow.events.includes(words)) arrow.events.push(words);
      arrows.set(key, arrow);
    }
  }
  for (const child of Object.values(node.states)) collect(child, arrows);
}

/** Targets are written `#machine.state`. */
function idOf(target: string): string {
  return target.replace(/^#/, '');
}

/** `xstate.after.backoff.ledger.waiting` and its like say little but for their first words. */
export function eventWords(type: string): string {
  if (type === '') return 'always';
  const after = /^xstate\.after\.([^.]+)/.exec(type);
  if (after !== null) return `after ${after[1]}`;
  const ended = /^xstate\.(done|error)\./.exec(type);
  return ended === null ? type : `${ended[1]}`;
}

function guardWords(guard: unknown): string {
  return typeof guard === 'string' ? guard : ((guard as { type?: string }).type ?? 'guard');
}

/**
 * The ids of the states that are active: `state` is as the server tells it, the leaves in the order of their regions,
 * joined by `, `.
 */
export function activeIds(root: StateDefinition, state: string | null): ReadonlySet<string> {
  const ids = new Set<string>();
  if (state !== null) walk(root, state.split(', '), ids);
  return ids;
}

/** Takes the leaves of `node` from the front of `leaves`. */
function walk(node: StateDefinition, leaves: string[], ids: Set<string>): boolean {
  const children = Object.values(node.states);
  if (children.length === 0) {
    if (leaves[0] !== node.key) return false;
    leaves.shift();
    ids.add(node.id);
    return true;
  }
  if (node.type === 'parallel') {
    for (const child of children) walk(child, leaves, ids);
    ids.add(node.id);
    return true;
  }
  const found = children.some((child) => walk(child, leaves, ids));
  if (found) ids.add(node.id);
  return found;
}

/** The arrows that a change from one state to another went along. */
export function litArrows(
  root: StateDefinition,
  arrows: readonly ChartArrow[],
  from: string | null,
  to: string | null,
): ReadonlySet<string> {
  const before = activeIds(root, from);
  const after = activeIds(root, to);
  const left = new Set([...before].filter((id) => !after.has(id)));
  const entered = new Set([...after].filter((id) => !before.has(id)));
  const isLit = ({ source, target }: ChartArrow) =>
    (left.has(source) || (before.has(source) && after.has(source))) && entered.has(target);
  return new Set(arrows.filter(isLit).map(({ id }) => id));
}
