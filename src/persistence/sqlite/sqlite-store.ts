import { access, constants, stat } from 'node:fs/promises';
import type { Database } from 'sqlite';
import type { Block, HealthState } from '../../actors/books.js';
import { type EndpointConfig, type OpenReport, type Store, StoreError } from '../store.js';
import { type BatchWriter, batchWriter } from './batch.js';
import { openAtRest, openReadOnly, openReadWrite, storeError } from './handle.js';
import { MIGRATIONS, migrate, schemaVersion } from './migrations.js';
import {
  readCursor,
  readDailyStats,
  readEndpoints,
  readMinutes,
  readModels,
  readRequest,
  readRequests,
  readSums,
} from './reads.js';
import { isSound, makeMissing, salvage, setAside } from './repair.js';

/** Files up to this size are read whole at the start; in a larger one damage shows when it is met. */
const CHECK_WHOLE_BYTES = 32 * 1024 * 1024;
/** How far back a new run looks for decisions that an earlier one did not come to trim; rows. */
const TRIM_BACKLOG = 50_000;

interface Handles {
  mode: OpenReport['mode'];
  /** Device and inode the handles belong to; null for a file that is not there. */
  identity: string | null;
  writer: Database | null;
  batch: BatchWriter | null;
  /** Seeds and single rows. */
  reader: Database | null;
  /** One heavy query at a time. */
  lists: Database | null;
  checkpointer: Database | null;
}

/** The embedded store: `troupe.db` in WAL mode, one writer behind a first-in first-out queue. */
export class SqliteStore implements Store {
  readonly #file: string;
  readonly #now: () => number;
  readonly #onWriter: (writer: Database) => void;
  #handles: Handles | null = null;
  /** What was open last: a file that vanished is waited for, never made anew. */
  #lastIdentity: string | null = null;
  #writes: Promise<unknown> = Promise.resolve();
  #heavy: Promise<unknown> = Promise.resolve();
  #trouble: StoreError | null = null;
  #dirty = false;
  /** Up to this row decisions are trimmed; null before the first time. */
  #trimmedTo: number | null = null;

  /** `onWriter` gets each writer handle as it is opened: tests make it misbehave. */
  constructor(file: string, now: () => number, onWriter: (writer: Database) => void = () => {}) {
    this.#file = file;
    this.#now = now;
    this.#onWriter = onWriter;
  }

  get trouble(): string | null {
    return this.#trouble?.message ?? null;
  }

  open(): Promise<OpenReport> {
    return this.#queued(() => this.#open(false));
  }

  recover(): Promise<void> {
    return this.#queued(async () => {
      const damaged = this.#trouble?.code === 'corrupt';
      // Such as a table that somebody dropped: opening makes it again.
      const odd = this.#trouble?.code === 'failed';
      const identity = await this.#identity();
      if (identity === null && this.#lastIdentity !== null) throw new StoreError('moved', MOVED);
      if (this.#handles !== null && !damaged && !odd && identity === this.#handles.identity) {
        if (this.#handles.mode === 'read-write' || !(await isWritable(this.#file))) return;
      }
      await this.#open(damaged);
    });
  }

  apply(block: Block): Promise<void> {
    return this.#write(async ({ batch }) => {
      await batch.apply(block);
      this.#dirty = true;
    });
  }

  cursor = (run: string) => this.#read((db) => readCursor(db, run), 0);

  seedEndpoints = () => this.#read((db) => readEndpoints(db), []);
  seedModels = () => this.#read((db) => readModels(db), new Map());
  seedSums = (today: string) => this.#read((db) => readSums(db, today), []);
  seedMinutes = (from: number, to: number) => this.#read((db) => readMinutes(db, from, to), []);

  betweenWrites<T>(read: () => Promise<T>, then: (value: T) => void): Promise<void> {
    return this.#queued(async () => then(await read()));
  }

  insertEndpoint(config: EndpointConfig): Promise<void> {
    return this.#write(async ({ writer }) => {
      await writer.run(
        `INSERT INTO endpoints (id, name, base_url, api_key, headers, health_interval_ms, inference_timeout_secs,
           notes, max_concurrency, deadlines, registered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        ...configValues(config),
        config.registeredAt,
      );
      this.#dirty = true;
    });
  }

  updateEndpoint(config: EndpointConfig, reset: HealthState | null): Promise<void> {
    return this.#write(async ({ writer }) => {
      await writer.run(
        `UPDATE endpoints SET name = ?2, base_url = ?3, api_key = ?4, headers = ?5, health_interval_ms = ?6,
           inference_timeout_secs = ?7, notes = ?8, max_concurrency = ?9, deadlines = ?10,
           health = coalesce(?11, health),
           engine_type = CASE WHEN ?11 IS NULL THEN engine_type END,
           last_error = CASE WHEN ?11 IS NULL THEN last_error END,
           error_count = CASE WHEN ?11 IS NULL THEN error_count ELSE 0 END
         WHERE id = ?1`,
        ...configValues(config),
        reset?.health ?? null,
      );
      this.#dirty = true;
    });
  }

  deleteEndpoint(id: string): Promise<void> {
    return this.#write(async ({ writer }) => {
      await writer.run('DELETE FROM endpoints WHERE id = ?', id);
      this.#dirty = true;
    });
  }

  setDraining(id: string, draining: boolean): Promise<void> {
    return this.#write(async ({ writer }) => {
      await writer.run('UPDATE endpoints SET draining = ? WHERE id = ?', draining ? 1 : 0, id);
      this.#dirty = true;
    });
  }

  dailyStats: Store['dailyStats'] = (id, from, before) =>
    this.#list((db) => readDailyStats(db, id, from, before), []);

  requests: Store['requests'] = (page) =>
    this.#list((db) => readRequests(db, page), { records: [], total: 0, capped: false });

  request: Store['request'] = (id) => this.#read((db) => readRequest(db, id), undefined);

  expireRequests(before: number, limit: number): Promise<number> {
    return this.#write(async ({ writer }) => {
      const result = await writer.run(
        `DELETE FROM requests WHERE seq IN
           (SELECT seq FROM requests INDEXED BY requests_by_time WHERE completed_at < ? ORDER BY completed_at LIMIT ?)`,
        before,
        limit,
      );
      this.#dirty = true;
      return result.changes ?? 0;
    });
  }

  trimDecisions(keep: number, limit: number): Promise<number> {
    return this.#write(async ({ writer }) => {
      const newest = await writer.get<{ seq: number | null }>('SELECT max(seq) AS seq FROM requests');
      const last = (newest?.seq ?? 0) - keep;
      // Earlier runs have left little behind them.
      this.#trimmedTo ??= Math.max(0, last - TRIM_BACKLOG);
      const to = Math.min(last, this.#trimmedTo + limit);
      if (to <= this.#trimmedTo) return 0;
      await writer.run(
        `UPDATE requests SET decision = NULL
         WHERE seq > ? AND seq <= ? AND decision IS NOT NULL AND error IS NULL`,
        this.#trimmedTo,
        to,
      );
      const trimmed = to - this.#trimmedTo;
      this.#trimmedTo = to;
      this.#dirty = true;
      return trimmed;
    });
  }

  foldMinutes(before: number, limit: number): Promise<number> {
    return this.#write(async ({ writer }) => {
      const edge = await writer.get<{ minute: number }>(
        'SELECT max(minute) AS minute FROM (SELECT minute FROM request_minutes WHERE minute < ? ORDER BY minute LIMIT ?)',
        before,
        limit,
      );
      const last = edge?.minute ?? null;
      if (last === null) return 0;
      await writer.exec('BEGIN IMMEDIATE');
      try {
        await writer.run(FOLD_MINUTES, last);
        const result = await writer.run('DELETE FROM request_minutes WHERE minute <= ?', last);
        await writer.exec('COMMIT');
        this.#dirty = true;
        return result.changes ?? 0;
      } catch (error) {
        await writer.exec('ROLLBACK').catch(() => {});
        throw error;
      }
    });
  }

  async checkpoint(): Promise<void> {
    const checkpointer = this.#handles?.checkpointer;
    if (!this.#dirty || checkpointer === null || checkpointer === undefined) return;
    this.#dirty = false;
    await checkpointer.get('PRAGMA wal_checkpoint(PASSIVE)');
  }

  async close(): Promise<void> {
    await this.#queued(() => this.#closeHandles());
  }

  async #open(checkWhole: boolean): Promise<OpenReport> {
    await this.#closeHandles();
    try {
      const writable = await isWritable(this.#file);
      const report = writable ? await this.#openWritable(checkWhole) : await this.#openReadOnly();
      this.#lastIdentity = this.#handles?.identity ?? null;
      this.#trouble = report.mode === 'read-only' ? new StoreError('readonly', READ_ONLY) : null;
      return report;
    } catch (error) {
      await this.#closeHandles();
      this.#trouble = storeError(error);
      throw this.#trouble;
    }
  }

  async #openWritable(checkWhole: boolean): Promise<OpenReport> {
    const warnings: string[] = [];
    const writer = await this.#openSound(checkWhole, warnings);
    let recreated: string[];
    try {
      const version = await schemaVersion(writer);
      if (version > MIGRATIONS.length) {
        throw new StoreError('newer', `${this.#file} was written by a newer version of Troupe`);
      }
      // What is missing is made as it was, before the migrations change it.
      recreated = await makeMissing(writer, version);
      if (version < MIGRATIONS.length) await migrate(writer);
    } catch (error) {
      await writer.close().catch(() => {});
      throw error;
    }
    for (const table of recreated) warnings.push(`table ${table} was missing and was made again, empty`);
    this.#handles = {
      mode: 'read-write',
      identity: await this.#identity(),
      writer,
      batch: await batchWriter(writer),
      reader: await openReadOnly(this.#file),
      lists: await openReadOnly(this.#file),
      checkpointer: await openReadWrite(this.#file),
    };
    this.#onWriter(writer);
    return { mode: 'read-write', recreated, warnings };
  }

  /** A writer on a file that reads as it should; a damaged one is set aside, what is readable comes over. */
  async #openSound(checkWhole: boolean, warnings: string[]): Promise<Database> {
    let writer: Database | undefined;
    try {
      writer = await openReadWrite(this.#file);
      await writer.get('SELECT count(*) FROM sqlite_master');
      const size = (await stat(this.#file)).size;
      if ((!checkWhole && size > CHECK_WHOLE_BYTES) || (await isSound(writer))) return writer;
      await writer.close();
      writer = undefined;
      warnings.push(await this.#salvage());
    } catch (error) {
      await writer?.close().catch(() => {});
      if (storeError(error).code !== 'corrupt') throw error;
      const aside = await setAside(this.#file, this.#now());
      warnings.push(`the database could not be opened; it was set aside as ${aside} and a new one was made`);
    }
    return openReadWrite(this.#file);
  }

  async #salvage(): Promise<string> {
    const aside = await setAside(this.#file, this.#now());
    const told = await salvage(aside, this.#file);
    return `the database was damaged; it was set aside as ${aside}, what was readable was copied: ${told}`;
  }

  async #openReadOnly(): Promise<OpenReport> {
    const identity = await this.#identity();
    const warnings = [READ_ONLY];
    const handles: Handles = {
      mode: 'read-only',
      identity,
      writer: null,
      batch: null,
      reader: null,
      lists: null,
      checkpointer: null,
    };
    if (identity !== null) {
      handles.reader = await openAtRest(this.#file);
      handles.lists = await openAtRest(this.#file);
      const version = await schemaVersion(handles.reader);
      this.#handles = handles;
      if (version > MIGRATIONS.length) {
        throw new StoreError('newer', `${this.#file} was written by a newer version of Troupe`);
      }
    }
    this.#handles = handles;
    return { mode: 'read-only', recreated: [], warnings };
  }

  async #closeHandles(): Promise<void> {
    const handles = this.#handles;
    this.#handles = null;
    if (handles === null) return;
    await handles.batch?.finalize();
    for (const db of [handles.checkpointer, handles.lists, handles.reader, handles.writer]) {
      await db?.close().catch(() => {});
    }
  }

  /** One write at a time, in the order asked for; refused while the file is away. */
  #write<T>(run: (handles: { writer: Database; batch: BatchWriter }) => Promise<T>): Promise<T> {
    return this.#queued(async () => {
      try {
        const { writer, batch } = this.#handles ?? {};
        if (!writer || !batch) throw this.#trouble ?? new StoreError('closed', 'the database is closed');
        if ((await this.#identity()) !== this.#handles?.identity) {
          throw new StoreError('moved', MOVED);
        }
        const value = await run({ writer, batch });
        this.#trouble = null;
        return value;
      } catch (error) {
        const problem = storeError(error);
        if (problem.code !== 'conflict') this.#trouble = problem;
        throw problem;
      }
    });
  }

  async #read<T>(run: (db: Database) => Promise<T>, none: T): Promise<T> {
    const handles = this.#handles;
    if (handles === null) throw this.#trouble ?? new StoreError('closed', 'the database is closed');
    if (handles.reader === null) return none;
    try {
      return await run(handles.reader);
    } catch (error) {
      throw this.#noteDamage(storeError(error));
    }
  }

  #list<T>(run: (db: Database) => Promise<T>, none: T): Promise<T> {
    const result = this.#heavy.then(async () => {
      const handles = this.#handles;
      if (handles === null) throw this.#trouble ?? new StoreError('closed', 'the database is closed');
      if (handles.lists === null) return none;
      try {
        return await run(handles.lists);
      } catch (error) {
        throw this.#noteDamage(storeError(error));
      }
    });
    this.#heavy = result.catch(() => {});
    return result;
  }

  /** Damage met by a read is repaired by the ledger's next recovery, like damage met by a write. */
  #noteDamage(error: StoreError): StoreError {
    if (error.code === 'corrupt') this.#trouble = error;
    return error;
  }

  #queued<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#writes.then(run);
    this.#writes = result.catch(() => {});
    return result;
  }

  #identity(): Promise<string | null> {
    return stat(this.#file).then(
      ({ dev, ino }) => `${dev}:${ino}`,
      () => null,
    );
  }
}

/** In the order of the columns, from `id` to `deadlines`. */
function configValues(config: EndpointConfig): (string | number | null)[] {
  return [
    config.id,
    config.name,
    config.baseUrl,
    config.apiKey,
    JSON.stringify(config.headers),
    config.healthIntervalMs,
    config.inferenceTimeoutSecs,
    config.notes,
    config.maxConcurrency,
    JSON.stringify(config.deadlines),
  ];
}

const MOVED = 'the database file was moved away';
const READ_ONLY = 'the data directory cannot be written: nothing is saved until it can';

const FOLD_MINUTES = `
  INSERT INTO request_hours (hour, endpoint_id, model_id, api_kind, success, error, input_tokens, output_tokens,
    measured, measured_ms)
  SELECT minute / 60, endpoint_id, model_id, api_kind, sum(success), sum(error), sum(input_tokens),
    sum(output_tokens), sum(measured), sum(measured_ms)
  FROM request_minutes WHERE minute <= ? GROUP BY minute / 60, endpoint_id, model_id, api_kind
  ON CONFLICT (hour, endpoint_id, model_id, api_kind) DO UPDATE SET
    success = success + excluded.success,
    error = error + excluded.error,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    measured = measured + excluded.measured,
    measured_ms = measured_ms + excluded.measured_ms`;

/** A directory that is there but refuses writing, or a file that does. Root is refused nothing by modes. */
async function isWritable(file: string): Promise<boolean> {
  const directory = file.slice(0, file.lastIndexOf('/')) || '/';
  try {
    await access(directory, constants.W_OK);
    await access(file, constants.W_OK);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}
