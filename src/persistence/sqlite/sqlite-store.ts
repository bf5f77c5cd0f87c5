import { access, constants, stat } from 'node:fs/promises';
import type { Database } from 'sqlite';
import { auditEntry } from '../../access/changes.js';
import { SYSTEM } from '../../access/principal.js';
import type { Block } from '../../actors/blocks.js';
import type { AccessStore, AuditEntry } from '../access-store.js';
import { type EndpointConfig, type OpenReport, type Store, StoreError } from '../store.js';
import {
  addSession,
  putKey,
  putUser,
  readKeys,
  readMonthlyUsage,
  readOwners,
  readSessions,
  readUsers,
  removeUser,
  revokeKey,
} from './access-tables.js';
import { appendAudit, readAudits, verifyAudits } from './audit-log.js';
import { type BatchWriter, batchWriter } from './batch.js';
import { openAtRest, openReadOnly, openReadWrite, storeError } from './handle.js';
import { expireHistograms, readHistograms } from './histogram-table.js';
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
  readUsage,
} from './reads.js';
import { isSound, makeMissing, salvage, setAside, tablesOf } from './repair.js';
import { readRequestSlice } from './request-slices.js';
import { expireResponses, forgetResponses, readResponses } from './response-table.js';
import { readSeries } from './series-table.js';
import { transaction } from './transaction.js';

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
  /** The file is from a version that stored secrets as they were. */
  #heldClearSecrets = false;
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
  seedHistograms = () => this.#read((db) => readHistograms(db), []);
  seedResponses = () => this.#read((db) => readResponses(db), []);
  seedUsage = (today: string) => this.#read((db) => readUsage(db, today), []);
  seedMinutes = (from: number, to: number) => this.#read((db) => readMinutes(db, from, to), []);

  betweenWrites<T>(read: () => Promise<T>, then: (value: T) => void): Promise<void> {
    return this.#queued(async () => then(await read()));
  }

  insertEndpoint: Store['insertEndpoint'] = (config, sealed, audit) =>
    this.#change(audit, (writer) =>
      writer.run(
        `INSERT INTO endpoints (id, name, base_url, secrets, health_interval_ms, inference_timeout_secs, notes,
           max_concurrency, deadlines, tls_ca, weight, priority, max_context, models_allow, models_deny,
           model_settings, registered_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        ...configValues(config, sealed),
        config.registeredAt,
      ),
    );

  updateEndpoint: Store['updateEndpoint'] = (config, sealed, reset, audit) =>
    this.#change(audit, (writer) =>
      writer.run(
        `UPDATE endpoints SET name = ?2, base_url = ?3, secrets = CASE WHEN ?18 THEN ?4 ELSE secrets END,
           api_key = CASE WHEN ?18 THEN NULL ELSE api_key END, headers = CASE WHEN ?18 THEN '{}' ELSE headers END,
           health_interval_ms = ?5,
           inference_timeout_secs = ?6, notes = ?7, max_concurrency = ?8, deadlines = ?9, tls_ca = ?10, weight = ?11,
           priority = ?12, max_context = ?13, models_allow = ?14, models_deny = ?15, model_settings = ?16,
           health = coalesce(?17, health),
           engine_type = CASE WHEN ?17 IS NULL THEN engine_type END,
           last_error = CASE WHEN ?17 IS NULL THEN last_error END,
           error_count = CASE WHEN ?17 IS NULL THEN error_count ELSE 0 END
         WHERE id = ?1`,
        ...configValues(config, sealed?.text ?? null),
        reset?.health ?? null,
        sealed === null ? 0 : 1,
      ),
    );

  deleteEndpoint: Store['deleteEndpoint'] = (id, audit) =>
    this.#change(audit, async (writer) => {
      await forgetResponses(writer, id);
      await writer.run('DELETE FROM endpoints WHERE id = ?', id);
    });

  setDraining: Store['setDraining'] = (id, draining, audit) =>
    this.#change(audit, (writer) =>
      writer.run('UPDATE endpoints SET draining = ? WHERE id = ?', draining ? 1 : 0, id),
    );

  async sealSecrets(sealed: Map<string, string>): Promise<void> {
    if (sealed.size === 0 && !this.#heldClearSecrets) return;
    await this.#write(({ writer }) =>
      transaction(writer, async () => {
        for (const [id, text] of sealed) {
          await writer.run(
            "UPDATE endpoints SET secrets = ?2, api_key = NULL, headers = '{}' WHERE id = ?1",
            id,
            text,
          );
        }
      }),
    );
    await this.#write(async ({ writer }) => {
      // Pages that were freed before they were overwritten still hold secrets, and so does the log of writes.
      await writer.exec('VACUUM');
      const result = await writer.get<{ busy: number }>('PRAGMA wal_checkpoint(TRUNCATE)');
      if (result?.busy === 1) throw new StoreError('busy', 'the database is being read');
      this.#heldClearSecrets = false;
    });
  }

  dailyStats: Store['dailyStats'] = (id, from, before) =>
    this.#list((db) => readDailyStats(db, id, from, before), []);

  requests: Store['requests'] = (page) =>
    this.#list((db) => readRequests(db, page), { records: [], total: 0, capped: false });

  readonly access: AccessStore = {
    seedUsers: () => this.#read((db) => readUsers(db), []),
    seedKeys: () => this.#read((db) => readKeys(db), []),
    seedSessions: (now) => this.#read((db) => readSessions(db, now), []),
    putUser: (user, endSessions, audit) =>
      this.#change(audit, async (writer) => {
        await putUser(writer, user);
        if (endSessions) await writer.run('DELETE FROM sessions WHERE user_id = ?', user.id);
      }),
    removeUser: (id, now, audit) => this.#change(audit, (writer) => removeUser(writer, id, now)),
    putKey: (key, audit) => this.#change(audit, (writer) => putKey(writer, key)),
    revokeKey: (id, now, audit) => this.#change(audit, (writer) => revokeKey(writer, id, now)),
    addSession: (session, audit) => this.#change(audit, (writer) => addSession(writer, session)),
    removeSession: (tokenHash, audit) =>
      this.#change(audit, (writer) => writer.run('DELETE FROM sessions WHERE token_hash = ?', tokenHash)),
    dropSessions: (now) =>
      this.#change(null, (writer) => writer.run('DELETE FROM sessions WHERE expires_at <= ?', now)),
    note: (audit) => this.#change(audit, async () => {}),
    audits: (filter, limit, offset) =>
      this.#list((db) => readAudits(db, filter, limit, offset), { items: [], total: 0 }),
    verifyAudits: () => this.#list((db) => verifyAudits(db), { valid: true, checked: 0, firstBad: null }),
    monthlyUsage: (from, to) => this.#list((db) => readMonthlyUsage(db, from, to), []),
    owners: () => this.#list((db) => readOwners(db), []),
  };

  requestSlice: Store['requestSlice'] = (filter, after, limit) =>
    this.#list((db) => readRequestSlice(db, filter, after, limit), { records: [], next: null });

  series: Store['series'] = (query) =>
    this.#list((db) => readSeries(db, query), { seq: 0, steps: new Map() });

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
      return transaction(writer, async () => {
        await writer.run(FOLD_MINUTES, last);
        const result = await writer.run('DELETE FROM request_minutes WHERE minute <= ?', last);
        this.#dirty = true;
        return result.changes ?? 0;
      });
    });
  }

  expireHistograms(before: number, limit: number): Promise<number> {
    return this.#write(async ({ writer }) => {
      this.#dirty = true;
      return expireHistograms(writer, before, limit);
    });
  }

  expireResponses(before: number, limit: number): Promise<number> {
    return this.#write(async ({ writer }) => {
      this.#dirty = true;
      return expireResponses(writer, before, limit);
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
    const { writer, isLost } = await this.#openSound(checkWhole, warnings);
    const salvaged = warnings.length > 0;
    let recreated: string[];
    try {
      const version = await schemaVersion(writer);
      if (version > MIGRATIONS.length) {
        throw new StoreError('newer', `${this.#file} was written by a newer version of Troupe`);
      }
      // What is missing is made as it was, before the migrations change it.
      recreated = await makeMissing(writer, version);
      if (version < MIGRATIONS.length) await migrate(writer);
      if (version > 0 && version < FIRST_SEALED) this.#heldClearSecrets = true;
      if (salvaged || recreated.some((table) => OF_USERS.has(table))) await this.#tellOfLoss(writer);
    } catch (error) {
      await writer.close().catch(() => {});
      throw error;
    }
    for (const table of recreated) warnings.push(`table ${table} was missing and was made again, empty`);
    if (isLost) recreated = await tablesOf(writer);
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

  /** A store that had users and may have lost them is no new one, now or later. */
  async #tellOfLoss(writer: Database): Promise<void> {
    const entry = auditEntry(this.#now(), SYSTEM, 'store.users_lost', null, {});
    await transaction(writer, () => appendAudit(writer, entry));
  }

  /** A writer on a file that reads as it should; a damaged one is set aside, what is readable comes over. */
  async #openSound(checkWhole: boolean, warnings: string[]): Promise<{ writer: Database; isLost: boolean }> {
    let writer: Database | undefined;
    try {
      writer = await openReadWrite(this.#file);
      await writer.get('SELECT count(*) FROM sqlite_master');
      const size = (await stat(this.#file)).size;
      if ((!checkWhole && size > CHECK_WHOLE_BYTES) || (await isSound(writer))) {
        return { writer, isLost: false };
      }
      await writer.close();
      writer = undefined;
      warnings.push(await this.#salvage());
      return { writer: await openReadWrite(this.#file), isLost: false };
    } catch (error) {
      await writer?.close().catch(() => {});
      if (storeError(error).code !== 'corrupt') throw error;
      const aside = await setAside(this.#file, this.#now());
      warnings.push(`the database could not be opened; it was set aside as ${aside} and a new one was made`);
      return { writer: await openReadWrite(this.#file), isLost: true };
    }
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

  /** A change by somebody, and its line in the audit log: both or neither. */
  #change(audit: AuditEntry | null, change: (writer: Database) => Promise<unknown>): Promise<void> {
    return this.#write(({ writer }) =>
      transaction(writer, async () => {
        await change(writer);
        if (audit !== null) await appendAudit(writer, audit);
        this.#dirty = true;
      }),
    );
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

/** In the order of the columns, from `id` to `model_settings`. */
function configValues(config: EndpointConfig, sealed: string | null): (string | number | null)[] {
  return [
    config.id,
    config.name,
    config.baseUrl,
    sealed,
    config.healthIntervalMs,
    config.inferenceTimeoutSecs,
    config.notes,
    config.maxConcurrency,
    JSON.stringify(config.deadlines),
    config.tlsCa,
    config.weight,
    config.priority,
    config.maxContext,
    jsonOrNull(config.modelsAllow),
    jsonOrNull(config.modelsDeny),
    JSON.stringify(config.modelSettings),
  ];
}

function jsonOrNull(value: object | null): string | null {
  return value === null ? null : JSON.stringify(value);
}

/** The first version of the file in which secrets are sealed. */
const FIRST_SEALED = 3;
const OF_USERS = new Set(['users', 'audit_log', 'audit_head']);
const MOVED = 'the database file was moved away';
const READ_ONLY = 'the data directory cannot be written: nothing is saved until it can';

const FOLD_MINUTES = `
  INSERT INTO request_hours (hour, endpoint_id, model_id, api_kind, success, error, input_tokens, output_tokens,
    measured, measured_ms, ttft_count, ttft_ms, sample_tokens, sample_ms)
  SELECT minute / 60, endpoint_id, model_id, api_kind, sum(success), sum(error), sum(input_tokens),
    sum(output_tokens), sum(measured), sum(measured_ms), sum(ttft_count), sum(ttft_ms), sum(sample_tokens),
    sum(sample_ms)
  FROM request_minutes WHERE minute <= ? GROUP BY minute / 60, endpoint_id, model_id, api_kind
  ON CONFLICT (hour, endpoint_id, model_id, api_kind) DO UPDATE SET
    success = success + excluded.success,
    error = error + excluded.error,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    measured = measured + excluded.measured,
    measured_ms = measured_ms + excluded.measured_ms,
    ttft_count = ttft_count + excluded.ttft_count,
    ttft_ms = ttft_ms + excluded.ttft_ms,
    sample_tokens = sample_tokens + excluded.sample_tokens,
    sample_ms = sample_ms + excluded.sample_ms`;

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
