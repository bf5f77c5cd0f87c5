import type { AnyActorRef } from 'xstate';

/**
 * An actor that crashes leaves its children running, out of reach of `stopChild`. This ends them, from the
 * crashed actor's last snapshot, so that a restart begins with nothing left over.
 */
export function reapOrphans(parent: { getSnapshot(): unknown }, actorId: string): void {
  const crashed = childrenOf(parent.getSnapshot())[actorId];
  if (crashed !== undefined) endChildren(crashed);
}

function endChildren(actor: AnyActorRef): void {
  for (const child of Object.values(childrenOf(actor.getSnapshot()))) {
    endChildren(child);
    if (child.getSnapshot().status === 'active') child.send({ type: 'xstate.stop' });
  }
}

function childrenOf(snapshot: unknown): Record<string, AnyActorRef> {
  const children = (snapshot as { children?: Record<string, AnyActorRef> } | undefined)?.children;
  return children ?? {};
}
