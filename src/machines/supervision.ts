/** What a supervisor keeps of one child: it outlives the child, so the dashboard can show what happened to it. */

export type ChildStatus = 'active' | 'restarting' | 'quarantined' | 'parked' | 'stopped';

export interface Transition {
  /** Wall clock, ms. */
  at: number;
  event: string;
  from: string | null;
  to: string | null;
}

export interface ChildRecord {
  kind: string;
  status: ChildStatus;
  restarts: number;
  lastError: string | null;
  /** When it crashed, monotonic ms; only the last minute matters. */
  crashes: number[];
  /** Newest last, at most 100. */
  transitions: Transition[];
}

export const MOST_CRASHES = 5;
export const CRASH_WINDOW_MS = 60_000;
const MOST_TRANSITIONS = 100;

/** What a supervisor notes of a child by itself; all else its children tell. */
const CRASHED = 'crashed';
const RESTARTED = 'restarted';
const ASKED = 'restart asked for';
export const SUPERVISED: ReadonlySet<string> = new Set([CRASHED, RESTARTED, ASKED]);

export function newChild(kind: string): ChildRecord {
  return { kind, status: 'active', restarts: 0, lastError: null, crashes: [], transitions: [] };
}

/** A crash is noted; the child is down until its restart is noted. */
export function noteCrash(child: ChildRecord, error: string, mono: number, at: number): ChildRecord {
  const crashes = [...recentCrashes(child.crashes, mono), mono];
  const noted = { ...child, status: 'restarting' as const, lastError: error, crashes };
  return noteTransition(noted, { at, event: CRASHED, from: lastState(child), to: null });
}

export function noteRestart(child: ChildRecord, at: number): ChildRecord {
  const noted = { ...child, status: 'active' as const, restarts: child.restarts + 1 };
  return noteTransition(noted, { at, event: RESTARTED, from: null, to: lastState(child) });
}

/** Somebody asked for it: no crash, so nothing that leads to quarantine. Its restart is noted with it. */
export function noteRenewal(child: ChildRecord, at: number): ChildRecord {
  const from = child.status === 'active' ? lastState(child) : null;
  return noteRestart(noteTransition(child, { at, event: ASKED, from, to: null }), at);
}

export function noteTransition(child: ChildRecord, transition: Transition): ChildRecord {
  return { ...child, transitions: [...child.transitions, transition].slice(-MOST_TRANSITIONS) };
}

/** Five crashes within 60 s are too many. */
export function crashedTooOften(child: ChildRecord, mono: number): boolean {
  return recentCrashes(child.crashes, mono).length >= MOST_CRASHES;
}

/** Those of the last minute: older ones neither count nor lengthen a pause. */
export function recentCrashes(crashes: number[], mono: number): number[] {
  return crashes.filter((at) => mono - at < CRASH_WINDOW_MS);
}

/** Short error text for the dashboard: one line, without a stack. */
export function errorText(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n', 1)[0]?.slice(0, 200) ?? '';
}

function lastState(child: ChildRecord): string | null {
  for (let i = child.transitions.length - 1; i >= 0; i -= 1) {
    const to = child.transitions[i]?.to;
    if (to !== null && to !== undefined) return to;
  }
  return null;
}
