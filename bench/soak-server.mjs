// A Troupe in a process that answers `weigh` messages with what it holds: for the soak run.
import { setTimeout as pause } from 'node:timers/promises';
import { pino } from 'pino';
import { readConfig } from '../dist/config.js';
import { startServer } from '../dist/server.js';

const command = readConfig(process.argv.slice(2), process.env);
const server = await startServer(command.config, pino({ level: 'silent' }));
process.send({ url: server.url });
process.on('message', async (message) => {
  if (message === 'stop') {
    await server.stop();
    process.exit(0);
  }
  for (let i = 0; i < 3; i += 1) {
    globalThis.gc();
    await pause(50);
  }
  const resources = {};
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
  process.send({ heapMb: process.memoryUsage().heapUsed / 2 ** 20, resources });
});
