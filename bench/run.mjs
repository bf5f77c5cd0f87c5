// The parts in order; each prints a table of its own and cleans up after itself.
import { choosing } from './choosing.mjs';
import { cpuPerRequest } from './cpu-per-request.mjs';
import { keyCheck } from './key-check.mjs';
import { leave } from './leave.mjs';
import { overview } from './overview.mjs';
import { page } from './page.mjs';
import { peer } from './peer.mjs';
import { soak } from './soak.mjs';
import { start } from './start.mjs';
import { streams } from './streams.mjs';

const PARTS = { requests: cpuPerRequest, streams, start, overview, leave, keys: keyCheck, choosing, peer };
/** Take five to ten minutes each: only by their names. */
const LONG_PARTS = { page, soak };

export async function bench(names) {
  const wanted = names.length === 0 ? Object.keys(PARTS) : names;
  const all = { ...PARTS, ...LONG_PARTS };
  const unknown = wanted.filter((name) => !(name in all));
  if (unknown.length > 0) {
    console.error(`no part is called ${unknown.join(', ')}; there are ${Object.keys(all).join(', ')}`);
    process.exit(2);
  }
  for (const name of wanted) await all[name]();
  process.exit(0);
}
