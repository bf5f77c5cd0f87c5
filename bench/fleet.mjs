// Every policy on the same simulated fleets and the same traffic, beside a rule that knows everything.
import { POLICIES } from '../dist/machines/policies.js';
import { summaryOf } from './fleet/report.mjs';
import { REAL_SCENES, SCENES } from './fleet/scenes.mjs';
import { play } from './fleet/simulation.mjs';
import { FASTER, playOverSockets } from './fleet/sockets.mjs';

/** Constants are tuned on the first, and told on the second, which nothing was tuned on. */
const TUNING = [1, 2, 3];
const HELD_OUT = [1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008];

/** These policies stand for all where real time has to be waited for. */
const IN_REAL_TIME = ['adaptive', 'least-busy', 'round-robin'];

/** `args`: `--sockets`, `--tune` for the seeds of tuning, `--policies=a,b`, and parts of the names of scenes. */
export async function benchFleet(args) {
  const seeds = args.includes('--tune') ? TUNING : HELD_OUT;
  const chosen = args.find((arg) => arg.startsWith('--policies='))?.slice('--policies='.length);
  const policies = chosen?.split(',') ?? [...Object.keys(POLICIES), 'clairvoyant'];
  const parts = args.filter((arg) => !arg.startsWith('--'));
  const isReal = args.includes('--sockets');
  const scenes = (isReal ? REAL_SCENES : SCENES).filter(
    ({ name }) => parts.length === 0 || parts.some((part) => name.includes(part)),
  );
  if (isReal) return overSockets(scenes, seeds[0]);
  for (const scene of scenes) {
    console.log(`\n## ${scene.name} (${seeds.length} seeds)`);
    const rows = policies.map((policy) => {
      const lines = seeds.flatMap((seed) => play(scene, policy, seed));
      return [policy, summaryOf(lines, scene)];
    });
    console.table(Object.fromEntries(rows));
  }
}

/** Both tell of the same requests: once in simulated time and once, that much faster, over real sockets. */
async function overSockets(scenes, seed) {
  for (const scene of scenes) {
    console.log(`\n## ${scene.name}, simulated and over sockets (${FASTER} times as fast, one seed)`);
    const rows = [];
    for (const policy of IN_REAL_TIME) {
      rows.push([`${policy}, simulated`, summaryOf(play(scene, policy, seed), scene)]);
      rows.push([`${policy}, sockets`, summaryOf(await playOverSockets(scene, policy, seed), scene)]);
    }
    console.table(Object.fromEntries(rows));
  }
}
