// The parts in order; each prints a table of its own and cleans up after itself.
import { cpuPerRequest } from './cpu-per-request.mjs';
import { overview } from './overview.mjs';
import { start } from './start.mjs';
import { streams } from './streams.mjs';

const PARTS = { requests: cpuPerRequest, streams, start, overview };

export async function bench(names) {
  const wanted = names.length === 0 ? Object.keys(PARTS) : names;
  const unknown = wanted.filter((name) => !(name in PARTS));
  if (unknown.length > 0) {
    console.error(`no part is called ${unknown.join(', ')}; there are ${Object.keys(PARTS).join(', ')}`);
    process.exit(2);
  }
  for (const name of wanted) await PARTS[name]();
  process.exit(0);
}
