import { POLICIES } from './machines/policies.js';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

export const HELP = `Usage: node dist/server.js [options]

One OpenAI-compatible front door for every inference box you own.

Options (and their environment variables)
  --host ADDRESS        TROUPE_HOST          bind address (127.0.0.1)
  --port NUMBER         TROUPE_PORT          port (7180); 0 picks a free one
  --data-dir DIR        TROUPE_DATA_DIR      where troupe.db lives (./data)
  --endpoint NAME=URL   TROUPE_ENDPOINTS     registered at start; repeatable, comma separated in the variable
  --demo                TROUPE_DEMO=1        three simulated engines on a fresh temporary data dir
  --policy NAME         TROUPE_POLICY        ${Object.keys(POLICIES).join(', ')} (adaptive)
  --overflow-ms NUMBER  TROUPE_OVERFLOW_MS   predicted wait past which the next priority serves (1000)
  --log-level LEVEL     TROUPE_LOG_LEVEL     ${LOG_LEVELS.join(', ')} (info)
  --tls-cert FILE       TROUPE_TLS_CERT      serve HTTPS with this certificate (PEM); read again when it changes
  --tls-key FILE        TROUPE_TLS_KEY       and this private key
  --trust-proxy LIST    TROUPE_TRUST_PROXY   addresses or networks whose X-Forwarded-* headers are believed
  --no-auth             ask nobody for a key; on loopback only
  --check               validate options and data dir, then exit
  --help, --version     print and exit

Environment only
  TROUPE_ADMIN_USERNAME (admin)           TROUPE_ADMIN_PASSWORD (generated), both for the first start only
  TROUPE_API_KEY                          a key with every permission, as long as it is set
  TROUPE_SECRET_KEY                       seals the keys of endpoints; else secret.key in the data dir does
  TROUPE_CORS_ORIGINS                     origins whose pages may use /v1, comma separated
  TROUPE_HEALTH_INTERVAL_MS (10000)       TROUPE_HEALTH_TIMEOUT_MS (5000)
  TROUPE_CONNECT_TIMEOUT_MS (5000)        TROUPE_FIRST_BYTE_TIMEOUT_MS (120000; 600000 without streaming)
  TROUPE_IDLE_TIMEOUT_MS (60000)          TROUPE_TOTAL_TIMEOUT_MS (0 = none)
  TROUPE_QUEUE_MAX (1000)                 TROUPE_QUEUE_TIMEOUT_MS (60000)
  TROUPE_QUEUE_MAX_PER_KEY (half of it, at least 100)
  TROUPE_HISTORY_RETENTION_DAYS (30)      TROUPE_SHUTDOWN_GRACE_MS (30000)

Commands on the data dir of a server that is not running (--data-dir, TROUPE_DATA_DIR)
  admin reset-password [NAME]             a new password for an admin, told once
  keys create NAME [--permissions LIST] [--models LIST] [--expires-at TIME]
  keys list
  keys revoke ID
`;
