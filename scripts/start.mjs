// npm start: makes the clone ready, then runs the server in this same process, so that signals reach it.
import { prepare } from './prepare.mjs';

await prepare();
const { main } = await import('../dist/server.js');
await main(process.argv.slice(2), process.env);
