import { readdir, readFile } from 'node:fs/promises'
import { StartupError } from '../errors.ts'
import type { Database } from './database.ts'
import type { Queryable } from './statement.ts'

/** `0001-initial.sql`, `0002-…`: may hold several statements; runs in a transaction. */
interface Migration {
  readonly version: number
  readonly name: string
  readonly sql: string
}

interface AppliedMigration {
  readonly version: number
  readonly name: string
}

/** Another version of Shipcast has migrated the schema. */
export class IncompatibleSchemaError extends StartupError {
  override readonly name = 'IncompatibleSchemaError'
}

const MIGRATIONS_FOLDER = new URL('./migrations/', import.meta.url)

// Any constant works, as long as all nodes use the same. Combined with the schema's oid, it locks out only
// the nodes of this installation: other installations can use other schemas of the database.
const LOCK_KEY = 7_447_228
const MIGRATION_TIMEOUT_MS = 3_600_000

/**
 * Brings the schema to the newest version. Each migration and its record commit together, under a lock: other
 * nodes wait for it, then find the work done.
 * @throws IncompatibleSchemaError if a newer or an unreleased version of Shipcast has migrated the schema
 */
export async function migrate(database: Database, folder = MIGRATIONS_FOLDER): Promise<void> {
  const migrations = await readMigrations(folder)
  for (const migration of migrations) {
    await database.transaction((tx) => applyMigration(tx, migration, migrations), {
      statementTimeoutMs: MIGRATION_TIMEOUT_MS,
    })
  }
}

async function readMigrations(folder: URL): Promise<Migration[]> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort()
  return Promise.all(
    files.map(async (file, index) => {
      const [, digits, name] = /^(\d{4})-(.+)\.sql$/.exec(file) ?? []
      const version = index + 1
      if (name === undefined || Number(digits) !== version) {
        throw new Error(`Migration "${file}" must be named ${String(version).padStart(4, '0')}-….sql.`)
      }
      return { version, name, sql: await readFile(new URL(file, folder), 'utf8') }
    }),
  )
}

async function applyMigration(
  tx: Queryable,
  { version, name, sql }: Migration,
  migrations: readonly Migration[],
): Promise<void> {
  await tx.query(
    'select pg_advisory_xact_lock($1, oid::int) from pg_namespace where nspname = current_schema()',
    [LOCK_KEY],
  )
  const applied = await readApplied(tx)
  assertCompatible(applied, migrations)
  if (applied.some((done) => done.version === version)) return
  await tx.query(sql)
  await tx.query('insert into schema_migrations (version, name) values ($1, $2)', [version, name])
}

async function readApplied(tx: Queryable): Promise<AppliedMigration[]> {
  await tx.query(`
    create table if not exists schema_migrations (
      version int primary key,
      name text not null,
      applied_at timestamptz not null default clock_timestamp()
    )`)
  return tx.query('select version, name from schema_migrations order by version')
}

function assertCompatible(applied: readonly AppliedMigration[], known: readonly Migration[]): void {
  if (applied.some(({ version, name }) => version <= known.length && known[version - 1]?.name !== name)) {
    throw new IncompatibleSchemaError(
      'An unreleased version of Shipcast created the tables in the database, and this version cannot upgrade them. ' +
        'Use an empty schema or database (DATABASE_URL), or a new folder (DATA_DIR) for the embedded Postgres. ' +
        'Nothing was changed or deleted.',
    )
  }
  const current = applied.at(-1)?.version ?? 0
  if (current > known.length) {
    throw new IncompatibleSchemaError(
      `The database is at schema version ${current}, and this Shipcast supports versions up to ${known.length}: ` +
        'a newer Shipcast has used it. Start that version or a newer one, or use another database.',
    )
  }
}
