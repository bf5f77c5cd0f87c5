// npm run bench: makes the clone ready, then measures beside nginx, haproxy and the bare upstream. Arguments name parts.
import { prepare } from './prepare.mjs';

await prepare();
const { bench } = await import('../bench/run.mjs');
await bench(process.argv.slice(2));
