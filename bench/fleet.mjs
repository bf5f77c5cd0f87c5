// Every policy on the same simulated fleets and the same traffic, beside a rule that knows everything.
import { POLICIES } from '../dist/machines/policies.js';
import { summaryOf } from './fleet/report.mjs';
import { SCENES } from './fleet/scenes.mjs';
import { play } from './fleet/simulation.mjs';

/** Constants are tuned on the first, and told on the second, which nothing was tuned on. */
const TUNING = [1, 2, 3];
const HELD_OUT = [1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008];

/** `args`: `--tune` for the seeds of tuning, `--policies=a,b`, and parts of the names of scenes. */
export async function benchFleet(args) {
  const seeds = args.includes('--tune') ? TUNING : HELD_OUT;
  const chosen = args.find((arg) => arg.startsWith('--policies='))?.slice('--policies='.length);
  const policies = chosen?.split(',') ?? [...Object.keys(POLICIES), 'clairvoyant'];
  const parts = args.filter((arg) => !arg.startsWith('--'));
  const scenes = SCENES.filter(({ name }) => parts.length === 0 || parts.some((part) => name.includes(part)));
  for (const scene of scenes) {
    console.log(`\n## ${scene.name} (${seeds.length} seeds)`);
    const rows = policies.map((policy) => {
      const lines = seeds.flatMap((seed) => play(scene, policy, seed));
      return [policy, summaryOf(lines, scene)];
    });
    console.table(Object.fromEntries(rows));
  }
}
