import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { ConfigError } from '../config/config.ts'
import { isConflict } from './errors.ts'
import { execute, STATEMENT_TIMEOUT_MS } from './statement.ts'

const IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000
const MIN_MAJOR_VERSION = 15

/**
 * What our statements rely on. A database, a role, PGOPTIONS or the server's own configuration may have other defaults
 * (PostgreSQL manual, chapter 19). The search path and tablespaces are the operator's choice.
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
  // Our statements are short. Where costs are set oddly, compiling them takes longer than running them: 0.5 s each.
  jit: 'off',
  max_parallel_workers_per_gather: '0',
}

// Statements and not startup parameters, which poolers such as PgBouncer refuse. Set only where it differs: what is new
// in 17; what only a superuser may set; and synchronous_commit, which may be stricter than "on".
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

/** To be done on every new connection. */
export async function prepareSession(client: pg.ClientBase): Promise<void> {
  await execute(client, SESSION_SETUP)
}

/** What a pooler that shares sessions keeps from being set, with the values under which we can work all the same. */
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
    has_schema_privilege(current_schema(), 'create') as "mayCreate", current_setting('search_path') as "searchPath",
    current_user as role, current_database() as database`

interface ServerInfo {
  version: string
  major: number
  encoding: string
  schema: string | null
  mayCreate: boolean | null
  searchPath: string
  role: string
  database: string
}

type Query = <Row>(text: string, values?: readonly unknown[]) => Promise<Row[]>

/**
 * Refuses at start a database on which something would fail later.
 * @param connections two of them, which are open at the same time
 * @throws ConfigError; or DatabaseUnavailable where prepared statements do not last
 */
export async function assertUsable(connections: readonly [Query, Query]): Promise<void> {
  const [query] = connections
  const [server] = await query<ServerInfo>(SELECT_SERVER_INFO)
  const fault = server && findIncompatibility(server)
  if (fault) throw new ConfigError(`DATABASE_URL leads to ${fault}`)
  if (!(await usesTransactionPooling(connections))) return
  for (const { name, value, wanted } of await query<{ name: string; value: string; wanted: string }>(
    SELECT_WRONG_DEFAULTS,
  )) {
    throw new ConfigError(
      `DATABASE_URL leads through a pooler that shares connections, so that Shipcast cannot set ${name} for itself; it is "${value}". ` +
        `Run: alter role "${server?.role}" in database "${server?.database}" set ${name} = '${wanted}'; and let the pooler connect anew.`,
    )
  }
}

function findIncompatibility({
  version,
  major,
  encoding,
  schema,
  mayCreate,
  searchPath,
  role,
}: ServerInfo): string | undefined {
  if (major < MIN_MAJOR_VERSION) {
    return `PostgreSQL ${version}. Shipcast needs version ${MIN_MAJOR_VERSION} or newer.`
  }
  if (encoding !== 'UTF8') {
    return `a database whose encoding is ${encoding}. Shipcast needs UTF8: create database shipcast encoding 'UTF8' template template0;`
  }
  if (schema === null || /^(pg_|information_schema$)/.test(schema)) {
    return `a session whose search_path, ${searchPath || 'empty'}, names no schema for Shipcast's tables. Create that schema, or name another: alter role … set search_path = shipcast; or options=-c%20search_path%3Dshipcast in the URL.`
  }
  if (!mayCreate) {
    return `the schema "${schema}", in which its user may create no tables. Run: grant create on schema "${schema}" to "${role}"; or create schema shipcast authorization "${role}"; and name that one: options=-c%20search_path%3Dshipcast in the URL.`
  }
  return undefined
}

/**
 * Whether a pooler hands out another session for each transaction. Runs a prepared statement on both connections in
 * turn, which also tells whether those last: PgBouncer before 1.21 confuses them.
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

/** Repeats what the server has undone as a whole because of others. `work` must have no other effects. */
export async function retryConflicts<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (!isConflict(error) || tries === MAX_ATTEMPTS) throw error
      // Those that met do not meet again.
      await sleep(INITIAL_BACKOFF_MS * 2 ** tries * Math.random())
    }
  }
}
