import type { Database } from 'sqlite';
import { Umzug } from 'umzug';
import { transaction } from './transaction.js';

interface Migration {
  name: string;
  sql: string;
}

/** In order, append only: a released migration never changes. */
export const MIGRATIONS: Migration[] = [
  {
    name: '0001-first-tables',
    sql: `
      CREATE TABLE endpoints (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL UNIQUE,
        base_url TEXT NOT NULL UNIQUE,
        api_key TEXT,
        headers TEXT NOT NULL DEFAULT '{}',
        health_interval_ms INTEGER,
        inference_timeout_secs INTEGER NOT NULL DEFAULT 0,
        notes TEXT,
        registered_at INTEGER NOT NULL,
        draining INTEGER NOT NULL DEFAULT 0,
        health TEXT NOT NULL DEFAULT 'pending',
        engine_type TEXT,
        latency_ms INTEGER,
        last_seen INTEGER,
        last_error TEXT,
        error_count INTEGER NOT NULL DEFAULT 0,
        successful_requests INTEGER NOT NULL DEFAULT 0,
        failed_requests INTEGER NOT NULL DEFAULT 0
      ) STRICT;

      CREATE TABLE endpoint_models (
        endpoint_id TEXT NOT NULL REFERENCES endpoints(id) ON DELETE CASCADE,
        model_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        capabilities TEXT,
        max_tokens INTEGER,
        PRIMARY KEY (endpoint_id, model_id)
      ) STRICT;

      CREATE TABLE endpoint_daily_stats (
        endpoint_id TEXT NOT NULL REFERENCES endpoints(id) ON DELETE CASCADE,
        date TEXT NOT NULL,
        model_id TEXT NOT NULL,
        api_kind TEXT NOT NULL,
        successful_requests INTEGER NOT NULL,
        failed_requests INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        sample_tokens INTEGER NOT NULL,
        sample_ms INTEGER NOT NULL,
        PRIMARY KEY (endpoint_id, date, model_id, api_kind)
      ) STRICT;

      CREATE TABLE requests (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        request_id TEXT NOT NULL,
        api_kind TEXT NOT NULL,
        request_type TEXT NOT NULL,
        model TEXT NOT NULL,
        endpoint_id TEXT,
        client_ip TEXT,
        accepted_at INTEGER NOT NULL,
        completed_at INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL,
        ttft_ms INTEGER,
        outcome TEXT NOT NULL,
        timeline TEXT NOT NULL,
        error TEXT,
        status_code INTEGER NOT NULL,
        tokens_estimated INTEGER NOT NULL,
        attempts TEXT NOT NULL
      ) STRICT;
      CREATE INDEX requests_by_time ON requests (completed_at);
      CREATE INDEX requests_by_endpoint ON requests (endpoint_id, completed_at);
      CREATE INDEX requests_by_model ON requests (model, completed_at);
      CREATE INDEX requests_by_request_id ON requests (request_id);
      CREATE INDEX requests_failed ON requests (completed_at) WHERE error IS NOT NULL;

      CREATE TABLE request_minutes (
        minute INTEGER NOT NULL,
        endpoint_id TEXT NOT NULL,
        model_id TEXT NOT NULL,
        api_kind TEXT NOT NULL,
        success INTEGER NOT NULL,
        error INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        measured INTEGER NOT NULL,
        measured_ms INTEGER NOT NULL,
        PRIMARY KEY (minute, endpoint_id, model_id, api_kind)
      ) STRICT;

      CREATE TABLE request_hours (
        hour INTEGER NOT NULL,
        endpoint_id TEXT NOT NULL,
        model_id TEXT NOT NULL,
        api_kind TEXT NOT NULL,
        success INTEGER NOT NULL,
        error INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        measured INTEGER NOT NULL,
        measured_ms INTEGER NOT NULL,
        PRIMARY KEY (hour, endpoint_id, model_id, api_kind)
      ) STRICT;

      CREATE TABLE ledger_cursors (
        run TEXT PRIMARY KEY NOT NULL,
        seq INTEGER NOT NULL
      ) STRICT;
    `,
  },
  {
    name: '0002-limits-and-decisions',
    sql: `
      ALTER TABLE endpoints ADD COLUMN max_concurrency INTEGER;
      ALTER TABLE endpoints ADD COLUMN deadlines TEXT NOT NULL DEFAULT '{}';
      ALTER TABLE requests ADD COLUMN decision TEXT;
    `,
  },
  {
    name: '0003-access',
    // `api_key` and `headers` of endpoints stay empty from here on: what was in them is sealed in `secrets`.
    sql: `
      CREATE TABLE users (
        id TEXT PRIMARY KEY NOT NULL,
        username TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        password_hash TEXT NOT NULL,
        must_change_password INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        last_login INTEGER
      ) STRICT;

      CREATE TABLE api_keys (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        key_prefix TEXT NOT NULL,
        key_hash TEXT NOT NULL UNIQUE,
        created_by TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        revoked_at INTEGER,
        permissions TEXT NOT NULL,
        models TEXT,
        rate_limit TEXT NOT NULL,
        priority INTEGER NOT NULL
      ) STRICT;

      CREATE TABLE sessions (
        token_hash TEXT PRIMARY KEY NOT NULL,
        user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
      ) STRICT;

      CREATE TABLE audit_log (
        id INTEGER PRIMARY KEY NOT NULL,
        at INTEGER NOT NULL,
        actor TEXT NOT NULL,
        actor_type TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT,
        client_ip TEXT,
        detail TEXT NOT NULL,
        hash TEXT NOT NULL
      ) STRICT;
      CREATE INDEX audit_log_by_time ON audit_log (at);
      CREATE TRIGGER audit_log_unchanged BEFORE UPDATE ON audit_log
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
      CREATE TRIGGER audit_log_kept BEFORE DELETE ON audit_log
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

      CREATE TABLE audit_head (
        one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
        id INTEGER NOT NULL,
        hash TEXT NOT NULL
      ) STRICT;

      CREATE TABLE usage_daily (
        owner_id TEXT NOT NULL,
        date TEXT NOT NULL,
        requests INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        last_used_at INTEGER NOT NULL,
        PRIMARY KEY (owner_id, date)
      ) STRICT;

      ALTER TABLE endpoints ADD COLUMN secrets TEXT;
      ALTER TABLE endpoints ADD COLUMN tls_ca TEXT;
      ALTER TABLE requests ADD COLUMN key_id TEXT;
      ALTER TABLE requests ADD COLUMN user_id TEXT;
    `,
  },
  {
    name: '0004-choosing',
    sql: `
      ALTER TABLE endpoints ADD COLUMN weight REAL NOT NULL DEFAULT 1;
      ALTER TABLE endpoints ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
      ALTER TABLE endpoints ADD COLUMN max_context INTEGER;
    `,
  },
  {
    name: '0005-histograms',
    // `sum` is in thousandths. Hour 0 is over all hours: a start reads these rows alone, however many hours there are.
    sql: `
      CREATE TABLE endpoint_histograms (
        endpoint_id TEXT NOT NULL REFERENCES endpoints(id) ON DELETE CASCADE,
        model_id TEXT NOT NULL,
        hour INTEGER NOT NULL,
        metric TEXT NOT NULL,
        bucket INTEGER NOT NULL,
        count INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        PRIMARY KEY (endpoint_id, model_id, hour, metric, bucket)
      ) STRICT;
      CREATE INDEX endpoint_histograms_by_hour ON endpoint_histograms (hour);
    `,
  },
  {
    name: '0006-models-offered',
    sql: `
      ALTER TABLE endpoints ADD COLUMN models_allow TEXT;
      ALTER TABLE endpoints ADD COLUMN models_deny TEXT;
      ALTER TABLE endpoints ADD COLUMN model_settings TEXT NOT NULL DEFAULT '{}';
    `,
  },
  {
    name: '0007-series',
    sql: ['request_minutes', 'request_hours']
      .flatMap((table) =>
        ['ttft_count', 'ttft_ms', 'sample_tokens', 'sample_ms'].map(
          (column) => `ALTER TABLE ${table} ADD COLUMN ${column} INTEGER NOT NULL DEFAULT 0;`,
        ),
      )
      .join('\n'),
  },
  {
    name: '0008-stored-responses',
    sql: `
      CREATE TABLE stored_responses (
        id TEXT PRIMARY KEY NOT NULL,
        endpoint_id TEXT NOT NULL,
        completed_at INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX stored_responses_by_time ON stored_responses (completed_at);
    `,
  },
];

/**
 * Brings the file to the newest schema, or to that of an earlier version. `user_version` is the number of migrations
 * it has seen.
 */
export async function migrate(db: Database, version = MIGRATIONS.length): Promise<void> {
  const umzug = new Umzug({
    migrations: MIGRATIONS.slice(0, version).map(({ name, sql }, index) => ({
      name,
      up: () => step(db, sql, index + 1),
    })),
    storage: {
      executed: async () => MIGRATIONS.slice(0, await schemaVersion(db)).map(({ name }) => name),
      // The step itself moves `user_version`, in the transaction of its tables.
      logMigration: async () => {},
      unlogMigration: async () => {
        throw new Error('migrations only go forward');
      },
    },
    logger: undefined,
  });
  await umzug.up();
}

export async function schemaVersion(db: Database): Promise<number> {
  const row = await db.get<{ user_version: number }>('PRAGMA user_version');
  return row?.user_version ?? 0;
}

async function step(db: Database, sql: string, version: number): Promise<void> {
  await transaction(db, async () => {
    await db.exec(sql);
    await db.exec(`PRAGMA user_version = ${version}`);
  });
}
