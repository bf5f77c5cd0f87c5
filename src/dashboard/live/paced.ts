import { onScopeDispose } from 'vue';

/** Calls `act` at once if it has rested for `restMs`, else once as soon as it has; not after its scope has ended. */
export function paced(act: () => void): (restMs: number) => void {
  let timer: ReturnType<typeof setTimeout> | null = null;
  let doneAt = Number.NEGATIVE_INFINITY;
  function run(): void {
    timer = null;
    doneAt = performance.now();
    act();
  }
  onScopeDispose(() => {
    if (timer !== null) clearTimeout(timer);
  });
  return (restMs) => {
    if (timer !== null) return;
    const left = doneAt + restMs - performance.now();
    if (left <= 0) run();
    else timer = setTimeout(run, left);
  };
}
