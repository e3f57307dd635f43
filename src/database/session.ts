import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { ConfigError } from '../config/config.ts'
import { isConflict } from './errors.ts'
import { execute, STATEMENT_TIMEOUT_MS } from './statement.ts'

const IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000
const MIN_MAJOR_VERSION = 15

/**
 * Settings that our statements rely on. A database, a role, PGOPTIONS or the server's configuration can have
 * other defaults (PostgreSQL manual, chapter 19). The search path and tablespaces are the operator's choice.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  client_encoding: 'UTF8',
  datestyle: 'ISO, MDY',
  intervalstyle: 'postgres',
  timezone: 'UTC',
  bytea_output: 'hex',
  extra_float_digits: '1',
  standard_conforming_strings: 'on',
  backslash_quote: 'safe_encoding',
  array_nulls: 'on',
  transform_null_equals: 'off',
  default_transaction_isolation: 'read committed',
  default_transaction_read_only: 'off',
  default_transaction_deferrable: 'off',
  statement_timeout: String(STATEMENT_TIMEOUT_MS),
  idle_in_transaction_session_timeout: String(IDLE_IN_TRANSACTION_TIMEOUT_MS),
  idle_session_timeout: '0',
  lock_timeout: '0',
  row_security: 'on',
  default_table_access_method: 'heap',
  check_function_bodies: 'on',
  exit_on_error: 'off',
  client_min_messages: 'warning',
  // Compiling our short statements takes longer than running them: with unusual cost settings, 0.5 s each.
  jit: 'off',
  max_parallel_workers_per_gather: '0',
}

// Statements instead of startup parameters, which poolers such as PgBouncer refuse. Set only if different:
// parameters that are new in 17 or that only a superuser can set, and synchronous_commit, which can be
// stricter than "on".
const SESSION_SETUP = `
  ${Object.entries(SETTINGS)
    .map(([name, value]) => `set ${name} = '${value}';`)
    .join('\n  ')}
  select set_config(name, value, false)
  from (values
    ('transaction_timeout', '0', array['0']),
    ('session_replication_role', 'origin', array['origin']),
    ('synchronous_commit', 'on', array['on', 'remote_write', 'remote_apply'])
  ) wanted (name, value, accepted)
  where current_setting(name, true) <> all(accepted)`

/** Must run on every new connection. */
export async function prepareSession(client: pg.ClientBase): Promise<void> {
  await execute(client, SESSION_SETUP)
}

/** Settings that cannot be changed through a pooler that shares sessions, with the values that work. */
const SELECT_WRONG_DEFAULTS = `
  select s.name, s.reset_val as value, wanted.value as wanted
  from (values
    ('default_transaction_isolation', 'read committed', array['read committed']),
    ('default_transaction_read_only', 'off', array['off']),
    ('lock_timeout', '0', array['0']),
    ('session_replication_role', 'origin', array['origin']),
    ('synchronous_commit', 'on', array['on', 'remote_write', 'remote_apply'])
  ) wanted (name, value, accepted)
  join pg_settings s on s.name = wanted.name and s.reset_val <> all(wanted.accepted)`

const SELECT_SERVER_INFO = `
  select current_setting('server_version') as version, current_setting('server_version_num')::int / 10000 as major,
    current_setting('server_encoding') as encoding, current_schema() as schema,
    has_schema_privilege(current_schema(), 'create') as "canCreate", current_setting('search_path') as "searchPath",
    current_user as role, current_database() as database`

interface ServerInfo {
  version: string
  major: number
  encoding: string
  schema: string | null
  canCreate: boolean | null
  searchPath: string
  role: string
  database: string
}

type Query = <Row>(text: string, values?: readonly unknown[]) => Promise<Row[]>

/**
 * Refuses, at start, a database on which statements would fail later.
 * @param connections two connections that are open at the same time
 * @throws ConfigError, or DatabaseUnavailableError if prepared statements do not last
 */
export async function assertUsable(connections: readonly [Query, Query]): Promise<void> {
  const [query] = connections
  const [server] = await query<ServerInfo>(SELECT_SERVER_INFO)
  const incompatibility = server && findIncompatibility(server)
  if (incompatibility) throw new ConfigError(`DATABASE_URL points to ${incompatibility}`)
  if (!(await usesTransactionPooling(connections))) return
  for (const { name, value, wanted } of await query<{ name: string; value: string; wanted: string }>(
    SELECT_WRONG_DEFAULTS,
  )) {
    throw new ConfigError(
      `DATABASE_URL goes through a pooler that shares connections, so Shipcast cannot set ${name}, which is "${value}". ` +
        `Run: alter role "${server?.role}" in database "${server?.database}" set ${name} = '${wanted}'; then restart the pooler's connections.`,
    )
  }
}

function findIncompatibility({
  version,
  major,
  encoding,
  schema,
  canCreate,
  searchPath,
  role,
}: ServerInfo): string | undefined {
  if (major < MIN_MAJOR_VERSION) {
    return `PostgreSQL ${version}. Shipcast requires version ${MIN_MAJOR_VERSION} or newer.`
  }
  if (encoding !== 'UTF8') {
    return `a database whose encoding is ${encoding}. Shipcast requires UTF8: create database shipcast encoding 'UTF8' template template0;`
  }
  if (schema === null || /^(pg_|information_schema$)/.test(schema)) {
    return `a session whose search_path, ${searchPath || 'empty'}, names no schema for Shipcast's tables. Create that schema, or select another: alter role … set search_path = shipcast; or options=-c%20search_path%3Dshipcast in the URL.`
  }
  if (!canCreate) {
    return `the schema "${schema}", in which its user cannot create tables. Run: grant create on schema "${schema}" to "${role}"; or create schema shipcast authorization "${role}"; and select it: options=-c%20search_path%3Dshipcast in the URL.`
  }
  return undefined
}

/**
 * Whether a pooler assigns a session to each transaction. Alternates a prepared statement between two
 * connections, which also shows whether prepared statements last: PgBouncer before 1.21 confuses them.
 */
async function usesTransactionPooling(connections: readonly [Query, Query]): Promise<boolean> {
  const pids: (number | undefined)[] = []
  for (const query of [...connections, ...connections]) {
    const [row] = await query<{ pid: number }>('select pg_backend_pid() as pid', [])
    pids.push(row?.pid)
  }
  const [first, second, firstAgain, secondAgain] = pids
  return first === second || first !== firstAgain || second !== secondAgain
}

const MAX_ATTEMPTS = 8
const INITIAL_BACKOFF_MS = 10

/** Repeats work that the server rolled back because of a conflict. `work` must have no other effects. */
export async function retryConflicts<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (!isConflict(error) || attempt === MAX_ATTEMPTS) throw error
      // Random, so that the same callers do not conflict again.
      await sleep(INITIAL_BACKOFF_MS * 2 ** attempt * Math.random())
    }
  }
}
