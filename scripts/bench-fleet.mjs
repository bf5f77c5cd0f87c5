// npm run bench:fleet: makes the clone ready, then plays every policy on the same simulated fleets.
import { prepare } from './prepare.mjs';

await prepare();
const { benchFleet } = await import('../bench/fleet.mjs');
await benchFleet(process.argv.slice(2));
