#!/usr/bin/env node
import { randomUUID } from 'node:crypto';
import { existsSync, realpathSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Logger } from 'pino';
import type { Database } from 'sqlite';
import { waitFor } from 'xstate';
import { Accounts } from './access/accounts.js';
import { Changes } from './access/changes.js';
import { Directory } from './access/directory.js';
import { type FirstStart, firstStart, firstStartText } from './access/first-start.js';
import { Logins } from './access/logins.js';
import { passwordsOf } from './access/passwords.js';
import { RateLimits } from './access/rate-limits.js';
import { secretKey } from './access/secret-key.js';
import { Vault } from './access/vault.js';
import { Books } from './actors/books.js';
import { diskSpaceOf, type Space, spaceAt } from './actors/disk-space.js';
import { buildHouse, type HouseDeps } from './actors/house.js';
import { LeaseTable } from './actors/leases.js';
import { problemsOf } from './actors/problems.js';
import { registryOf } from './actors/registry.js';
import { restartsOf } from './actors/restarts.js';
import { seriesOf } from './actors/series.js';
import { treeOf } from './actors/tree.js';
import { troubleLogOf } from './actors/trouble-log.js';
import { saveUnsaved } from './actors/unsaved.js';
import { viewsOf } from './actors/view.js';
import { watchingOf } from './actors/watching.js';
import { writeOldest } from './actors/writing.js';
import { type Clock, pause, systemClock } from './clock.js';
import { isAccessCommand, runAccessCommand } from './commands.js';
import { type Config, ConfigError, isLoopback, readConfig, VERSION } from './config.js';
import { type Demo, startDemo } from './demo/demo.js';
import { type CheckResult, checkEndpoint } from './engines/check.js';
import { localEnginesOf, USUAL_PORTS } from './engines/local.js';
import { apiKeyRoutes } from './http/api-keys.js';
import { frontDoor } from './http/app.js';
import { auditLogRoutes } from './http/audit-logs.js';
import { authRoutes } from './http/auth.js';
import { corsOf } from './http/browser-headers.js';
import { readPair } from './http/certificate.js';
import { clientAddressOf, isSecure, isTrustedAddress, isTrustedProxy } from './http/client-address.js';
import { dashboardRoutes } from './http/dashboard.js';
import { type Candidate, detectRoutes } from './http/detect.js';
import { discoveryOf } from './http/discovery.js';
import { type Doorway, doorways } from './http/doorways.js';
import { endpointRoutes } from './http/endpoints.js';
import { ApiError } from './http/errors.js';
import { eventsOf } from './http/events.js';
import { gateOf } from './http/gate.js';
import { inferenceOf } from './http/inference.js';
import { keyUsageRoutes } from './http/key-usage.js';
import { checkHost, openDoor } from './http/listen.js';
import { livenessRoutes } from './http/liveness.js';
import { cachedLookup } from './http/lookup.js';
import { modelPlaceRoutes } from './http/model-places.js';
import { modelRoutes } from './http/models.js';
import { BUILT_PAGE, pageOf } from './http/page.js';
import { requestExportRoutes } from './http/request-export.js';
import { seriesRoutes } from './http/series.js';
import { settingsRoutes } from './http/settings.js';
import { Upstreams } from './http/upstreams.js';
import { userRoutes } from './http/users.js';
import { openLog } from './log.js';
import { lastAttempt } from './machines/records.js';
import { Throughput, type Writing } from './machines/throughput.js';
import { checkDataDir, dataDirAt, takeDataDir } from './persistence/data-dir.js';
import { SqliteStore } from './persistence/sqlite/sqlite-store.js';
import { type OpenReport, type Store, StoreError } from './persistence/store.js';

/** What tests may put in the place of the real thing. */
export interface Seams {
  clock?: Clock;
  random?: () => number;
  tamper?: HouseDeps['tamper'];
  /** Gets the writer handle of the database each time it is opened. */
  onWriter?: (writer: Database) => void;
  /** log2 of the cost of a password's hash. */
  passwordCost?: number;
  /** Gets what a first start tells once. */
  announce?: (first: FirstStart, url: string) => void;
  /** Where engines on this machine may be. */
  localPorts?: readonly number[];
  /** The space for the data. */
  space?: () => Promise<Space>;
}

export interface RunningServer {
  url: string;
  port: number;
  /** Refuses, drains, flushes, closes; answers the exit code. */
  stop(): Promise<number>;
  /** Resolves with the exit code if the supervisor gives up by itself. */
  failed: Promise<number>;
  /** Every way in that there is. */
  doorways: Doorway[];
}

const FLUSH_MS = 10_000;
const LAST_REPLIES_MS = 1000;
const ESCALATION_GRACE_MS = 5000;
const CAUGHT_UP_MS = 300;
const LOCAL_LOOK_MS = 1000;
const TROUBLE_LOOK_MS = 1000;

/** The whole life of a server: port → data dir → store → actors → ready; and back. */
export async function startServer(config: Config, log: Logger, seams: Seams = {}): Promise<RunningServer> {
  const clock = seams.clock ?? systemClock;
  const random = seams.random ?? Math.random;
  const dir = dataDirAt(config.dataDir);
  const books = new Books(randomUUID());
  const leases = new LeaseTable(() => clock.mono());
  const store = new SqliteStore(dir.database, () => clock.now(), seams.onWriter);
  const { access } = config;
  const directory = new Directory(access.apiKey);
  const rateLimits = new RateLimits();
  const passwords = passwordsOf(seams.passwordCost === undefined ? {} : { cost: seams.passwordCost });
  const changes = new Changes({ store: store.access, clock, log });
  const known = { store: store.access, directory, passwords, changes, clock };
  const accounts = new Accounts({ ...known, newId: randomUUID });
  const logins = new Logins({ ...known, log });
  const addressOf = clientAddressOf(access.trustedProxies);
  const isFromProxy = isTrustedProxy(access.trustedProxies);
  const overTls = (req: IncomingMessage) => isSecure(req, isFromProxy);
  const upstreams = new Upstreams(
    cachedLookup(() => clock.mono()),
    config.deadlines.connectMs,
  );
  let opened: OpenReport | null = null;
  let phase: 'starting' | 'serving' | 'draining' = 'starting';

  const gate = gateOf({ directory, clock, isOpen: access.isOpen, addressOf, isSecure: overTls });
  const vault = new Vault();
  const check: HouseDeps['check'] = async ({ id, baseUrl, tlsCa }, engineType, signal) =>
    vault.isLost(id)
      ? LOCKED
      : checkEndpoint(
          { baseUrl, ...vault.get(id), engineType },
          {
            timeoutMs: config.healthTimeoutMs,
            dispatcher: upstreams.checksFor(tlsCa),
            mono: () => clock.mono(),
            ...(signal === undefined ? {} : { signal }),
          },
        );
  const house = buildHouse({
    clock,
    random,
    books,
    leases,
    store,
    directory,
    vault,
    sweep: () => logins.sweep(),
    policy: config.policy,
    overflowMs: config.overflowMs,
    healthIntervalMs: config.healthIntervalMs,
    retentionDays: config.retentionDays,
    unsavedFile: dir.unsaved,
    recreated: () => opened?.recreated ?? [],
    check,
    log,
    ...(seams.tamper === undefined ? {} : { tamper: seams.tamper }),
  });
  const registry = registryOf({
    house,
    books,
    leases,
    store,
    vault,
    changes,
    clock,
    newId: randomUUID,
    check,
    dropConnections: (id) => upstreams.drop(id),
    log,
  });
  const disk = diskSpaceOf(seams.space ?? (() => spaceAt(dir.path)), () => clock.mono());
  const problems = problemsOf({ house, books, vault, store, clock, disk });
  const noteTrouble = troubleLogOf({
    problems: () => problems.all(),
    statusOf: (id) => (house.roster.config(id) === undefined ? null : house.roster.status(id)),
    log,
  });
  const views = viewsOf({
    house,
    books,
    leases,
    clock,
    healthIntervalMs: config.healthIntervalMs,
    problems: () => problems.all(),
    outputTps: () => throughput.tokensPerSecond(clock.mono(), beingWritten()),
  });
  const throughput = new Throughput();
  books.onAppend((record) => {
    const endedAt = clock.mono();
    throughput.note({
      startedAt: endedAt - record.durationMs,
      endedAt,
      tokens: lastAttempt(record)?.outputTokens ?? 0,
    });
  });
  const tree = treeOf({ house, books, leases });
  const discovery = discoveryOf(house, clock);
  const inference = inferenceOf({
    house,
    books,
    leases,
    upstreams,
    vault,
    rateLimits,
    addressOf,
    recheck: (principal, access) => gate.recheck(principal, access),
    discovery,
    clock,
    random,
    deadlines: config.deadlines,
    queue: config.queue,
    log,
    closed: () =>
      phase === 'draining' ? new ApiError('shutting_down', 'the server is shutting down') : null,
  });

  const events = eventsOf({
    directory,
    clock,
    house,
    books,
    leases,
    views,
    tree,
    watching: watchingOf(
      () => house.system,
      () => clock.now(),
    ),
    problems,
    live: () => inference.live(),
    log,
  });

  function beingWritten(): Writing[] {
    const endedAt = clock.mono();
    return inference
      .live()
      .map(({ age_ms, output_tokens }) => ({ startedAt: endedAt - age_ms, endedAt, tokens: output_tokens }));
  }

  /** A look at what is no endpoint yet. */
  const look = ({ tlsCa, ...target }: Candidate, timeoutMs = config.healthTimeoutMs) =>
    checkEndpoint(
      { ...target, engineType: null },
      { timeoutMs, dispatcher: upstreams.checksFor(tlsCa), mono: () => clock.mono() },
    );
  const local = localEnginesOf(
    () => (seams.localPorts ?? USUAL_PORTS).filter((port) => port !== door.port),
    (baseUrl) => look({ baseUrl, apiKey: null, headers: {}, tlsCa: null }, LOCAL_LOOK_MS),
  );

  /** True once everything up to now is in the store; false if that takes longer than a reader should wait. */
  async function caughtUp(): Promise<boolean> {
    const until = clock.mono() + CAUGHT_UP_MS;
    const { lastSeq } = books.pending;
    while ((books.pendingBlocks()[0]?.firstSeq ?? Number.POSITIVE_INFINITY) <= lastSeq) {
      if (store.trouble !== null || clock.mono() > until) return false;
      await pause(2);
    }
    return true;
  }

  const routes = [
    ...livenessRoutes({ phase: () => phase, house, store }),
    ...endpointRoutes({ house, registry, views, store, clock, caughtUp }),
    ...detectRoutes({ house, check: (candidate) => look(candidate), local }),
    ...dashboardRoutes({
      house,
      books,
      store,
      views,
      tree,
      restarts: restartsOf({ house, tree, changes }),
      caughtUp,
      live: () => inference.live(),
    }),
    ...modelRoutes(house, discovery),
    ...modelPlaceRoutes({ house, views }),
    ...authRoutes({ logins, directory, addressOf }),
    ...userRoutes({ accounts, directory }),
    ...apiKeyRoutes({ accounts, directory, rateLimits }),
    ...keyUsageRoutes({ books, directory, store: store.access, clock, caughtUp }),
    ...requestExportRoutes({ books, store, clock, caughtUp, log }),
    ...settingsRoutes(config, () => door.port),
    ...seriesRoutes({ series: seriesOf({ books, store, clock }), clock }),
    ...auditLogRoutes(store.access),
  ];
  const handler = frontDoor({
    routes,
    inference,
    page: pageOf(BUILT_PAGE, access.isOpen),
    events,
    starting: () => phase === 'starting',
    gate,
    isOpen: access.isOpen,
    cors: corsOf(access.corsOrigins),
    addressOf,
    isSecure: overTls,
    log,
  });
  const door = await openDoor(handler, config.host, config.port, {
    tls: access.tls ?? undefined,
    trusted: isTrustedAddress(access.trustedProxies),
    log,
  });

  let lock: Awaited<ReturnType<typeof takeDataDir>>;
  try {
    lock = await takeDataDir(dir);
    vault.unlock(await secretKey(access.secretKey, dir.secretKey, log));
    opened = await openStore(store, log);
  } catch (error) {
    await door.close(0);
    throw error;
  }
  house.root.start();
  await waitFor(house.root, (snapshot) => snapshot.matches('running'), { timeout: Number.POSITIVE_INFINITY });
  for (const { name, url } of config.endpoints) await registry.registerAtStart(name, url);
  const { unseeded } = house.root.getSnapshot().context;
  const first = await firstStart({
    accounts,
    directory,
    store: store.access,
    isSeeded: !unseeded.includes('users') && store.trouble === null,
    username: access.adminUsername,
    password: access.adminPassword,
    log,
  });
  if (first !== null) seams.announce?.(first, door.url);
  warnOfOpenDoors(config, log);
  for (const name of config.unknownVariables) log.warn({ variable: name }, unknown(name));
  phase = 'serving';
  const trouble = setInterval(noteTrouble, TROUBLE_LOOK_MS).unref();
  const seeded = house.root.getSnapshot().context.unseeded.length === 0;
  // Said at every level but silent: it is how an operator, and a script, learns the port.
  const loud = log.level === 'silent' ? log : log.child({}, { level: 'info' });
  const count = books.configs().length;
  loud.info(
    { address: door.url, data_dir: dir.path, endpoints: count, seeded },
    `Troupe ${VERSION} is ready on ${door.url}, data in ${dir.path}, ${count} endpoints, ${seeded ? 'seeded' : 'not seeded'}`,
  );

  /** Everything that waits, into the store or at last into a file. True if nothing is lost. */
  async function flush(): Promise<boolean> {
    const until = clock.mono() + FLUSH_MS;
    while (books.pending.blocks > 0) {
      try {
        await writeOldest(books, store);
      } catch (error) {
        if (clock.mono() > until) return saveInstead(error as Error);
        await pause(100);
        await store.recover().catch(() => {});
      }
    }
    return true;
  }

  async function saveInstead(reason: Error): Promise<false> {
    const { rows } = books.pending;
    try {
      await saveUnsaved(dir.unsaved, books);
      log.error(
        { rows, file: dir.unsaved, reason: reason.message },
        'the store is away: records were saved to a file',
      );
    } catch (error) {
      log.fatal(
        { rows, reason: reason.message, err: error },
        'records could be written nowhere and are lost',
      );
    }
    return false;
  }

  async function close(graceMs: number): Promise<number> {
    phase = 'draining';
    clearInterval(trouble);
    house.root.send({ type: 'drain' });
    const until = clock.mono() + graceMs;
    while ((leases.total > 0 || inference.open > 0) && clock.mono() < until) await pause(10);
    inference.endAll('the server is shutting down');
    events.closeAll();
    await door.close(LAST_REPLIES_MS);
    const whole = await flush();
    house.root.send({ type: 'stop' });
    await store.checkpoint().catch(() => {});
    await store.close();
    await upstreams.destroy();
    await lock?.release();
    return whole ? 0 : 1;
  }

  let stopping: Promise<number> | null = null;
  const stopOnce = (graceMs: number) => {
    stopping ??= close(graceMs);
    return stopping;
  };
  const failed = new Promise<number>((resolve) => {
    house.root.subscribe({
      error: (error) => {
        log.fatal({ err: error }, 'the supervisor gave up: ending');
        stopOnce(ESCALATION_GRACE_MS).then(() => resolve(1));
      },
    });
  });

  return {
    url: door.url,
    port: door.port,
    stop: () => stopOnce(config.shutdownGraceMs),
    failed,
    doorways: doorways(routes),
  };
}

/** What a health check finds where the endpoint's key cannot be read. */
const LOCKED: CheckResult = {
  ok: false,
  reason: 'key_refused',
  error:
    'its stored key and headers cannot be read with this secret key: set them again, or bring the right key back',
};

function unknown(variable: string): string {
  return `${variable} sets nothing: there is no such variable`;
}

function warnOfOpenDoors({ host, access }: Config, log: Logger): void {
  if (access.isOpen) {
    log.warn({}, '--no-auth: everybody on this machine may use and change everything, without a key');
  }
  if (!isLoopback(host) && access.tls === null) {
    log.warn(
      { host },
      'keys and passwords cross the network in clear: use --tls-cert, or a proxy that speaks TLS',
    );
  }
}

/** Opens the store; what makes it unusable ends the start, everything else is waited out. */
async function openStore(store: Store, log: Logger): Promise<OpenReport | null> {
  try {
    const report = await store.open();
    for (const warning of report.warnings) log.warn({}, warning);
    return report;
  } catch (error) {
    const { code, message } = error as StoreError;
    if (code === 'newer' || code === 'unusable' || code === 'failed') throw error;
    log.warn({ reason: message }, 'the store cannot be used yet: starting without');
    return null;
  }
}

/** Runs the command line; answers the exit code, null for a process that is to go on. */
export async function main(argv: string[], env: NodeJS.ProcessEnv): Promise<void> {
  try {
    process.umask(0o077);
    if (isAccessCommand(argv)) {
      process.stdout.write(await runAccessCommand(argv, env));
      return;
    }
    const command = readConfig(argv, env);
    if (command.run === 'print') {
      process.stdout.write(command.text);
      return;
    }
    if (command.run === 'check') {
      // A demo makes a data dir of its own.
      const { tls } = command.config.access;
      if (tls !== null) readPair(tls);
      await checkHost(command.config.host);
      if (!command.config.demo) await checkDataDir(dataDirAt(command.config.dataDir));
      for (const name of command.config.unknownVariables) process.stderr.write(`${unknown(name)}\n`);
      process.stdout.write('the options and the data dir are fine\n');
      return;
    }
    await serve(command.config);
  } catch (error) {
    if (!isToldOnly(error)) throw error;
    process.stderr.write(`troupe: ${error.message}\n`);
    process.exit(2);
  }
}

/** What the operator can mend: the message says it all. */
function isToldOnly(error: unknown): error is Error {
  return error instanceof ConfigError || error instanceof StoreError || error instanceof ApiError;
}

async function serve(config: Config): Promise<void> {
  const { logger, flush } = openLog(config.logLevel);
  const stops: Record<string, number> = { SIGINT: 130, SIGTERM: 143 };
  let server: RunningServer | null = null;
  let demo: Demo | null = null;
  let asked = false;
  let key = config.access.apiKey ?? '';

  async function finish(code: number): Promise<never> {
    await demo?.stop();
    if (config.demo) await rm(config.dataDir, { recursive: true, force: true });
    logger.info({ exit_code: code }, 'stopped');
    flush();
    process.exit(code);
  }
  for (const [signal, code] of Object.entries(stops)) {
    process.on(signal, () => {
      if (asked) {
        flush();
        process.exit(code);
      }
      asked = true;
      logger.info({ signal }, 'shutting down: running requests finish');
      // A start that is under way is finished first.
      server?.stop().then(finish);
    });
  }
  if (config.demo) {
    config.dataDir = await mkdtemp(join(tmpdir(), 'troupe-demo-'));
    demo = await startDemo();
    config.endpoints = [...demo.endpoints, ...config.endpoints];
  }
  try {
    server = await startServer(config, logger, {
      announce: (told, url) => {
        key = told.key ?? key;
        process.stdout.write(firstStartText(told, url));
      },
    });
  } catch (error) {
    await demo?.stop();
    if (config.demo) await rm(config.dataDir, { recursive: true, force: true });
    throw error;
  }
  flush();
  if (asked) {
    await finish(await server.stop());
    return;
  }
  demo?.trickle(server.url, key);
  server.failed.then(finish);
}

/** Also through a link, as an installed command is one. */
function isEntry(): boolean {
  const [, entry] = process.argv;
  return (
    entry !== undefined && existsSync(entry) && import.meta.url === pathToFileURL(realpathSync(entry)).href
  );
}

if (isEntry()) await main(process.argv.slice(2), process.env);
