import type { AnyStateMachine, AnyStateNode } from 'xstate';

/** A statechart as a Mermaid `stateDiagram-v2`. */
export function mermaid(machine: AnyStateMachine): string {
  const { root } = machine;
  const lines = ['stateDiagram-v2'];
  if (!leadsSomewhere(root)) drawStates(root, lines, '  ');
  else {
    // What can happen in every state leads from around all of them.
    drawGroup(root, lines, '  ');
    drawTransitions(root, lines, '  ');
  }
  return lines.join('\n');
}

/** A statechart as data: states, transitions, those that need no event as well, and the names of guards and actions. */
export function definition(machine: AnyStateMachine): object {
  return JSON.parse(JSON.stringify(definitionOf(machine.root), (_key, value) => named(value))) as object;
}

/** XState's own definition leaves out what happens without an event. */
function definitionOf(node: AnyStateNode): object {
  const states = Object.values(node.states).map((child) => [child.key, definitionOf(child as AnyStateNode)]);
  return { ...node.definition, always: node.always ?? [], states: Object.fromEntries(states) };
}

function drawStates(node: AnyStateNode, lines: string[], indent: string): void {
  const children = Object.values(node.states) as AnyStateNode[];
  if (node.type === 'compound') {
    const initial = node.initial.target[0];
    if (initial !== undefined) lines.push(`${indent}[*] --> ${nameOf(initial)}`);
  }
  children.forEach((child, index) => {
    // Regions of a parallel state are parted by a line.
    if (node.type === 'parallel' && index > 0 && node.parent !== undefined) lines.push(`${indent}--`);
    drawGroup(child, lines, indent);
    if (child.type === 'final') lines.push(`${indent}${nameOf(child)} --> [*]`);
  });
  for (const child of children) drawTransitions(child, lines, indent);
}

function drawGroup(node: AnyStateNode, lines: string[], indent: string): void {
  lines.push(`${indent}state "${node.key}" as ${nameOf(node)}`);
  if (Object.keys(node.states).length === 0) return;
  lines.push(`${indent}state ${nameOf(node)} {`);
  drawStates(node, lines, `${indent}  `);
  lines.push(`${indent}}`);
}

function transitionsOf(node: AnyStateNode) {
  return [...node.transitions.values(), node.always ?? []].flat();
}

function leadsSomewhere(node: AnyStateNode): boolean {
  return transitionsOf(node).some(({ target }) => (target?.length ?? 0) > 0);
}

function drawTransitions(node: AnyStateNode, lines: string[], indent: string): void {
  const seen = new Set<string>();
  for (const transition of transitionsOf(node)) {
    for (const target of transition.target ?? []) {
      const guard = transition.guard === undefined ? '' : ` [${guardName(transition.guard)}]`;
      const line = `${indent}${nameOf(node)} --> ${nameOf(target)} : ${eventName(transition.eventType)}${guard}`;
      if (!seen.has(line)) lines.push(line);
      seen.add(line);
    }
  }
}

function nameOf(node: AnyStateNode): string {
  return node.id.replace(/\W/g, '_');
}

/** Mermaid ends a label at a colon. */
function eventName(type: string): string {
  if (type === '') return 'always';
  return type.replace(/^xstate\./, '').replaceAll(':', ' ');
}

function guardName(guard: unknown): string {
  if (typeof guard === 'string') return guard;
  return (guard as { type?: string }).type ?? 'guard';
}

function named(value: unknown): unknown {
  return typeof value === 'function' ? value.name || 'action' : value;
}
