import { StartupError } from '../errors.ts'
import type { Database, Queryable } from './database.ts'

/** One step of the schema. Its SQL may hold several statements; it runs in a transaction. */
export interface Migration {
  /** 1, 2, 3 … without a gap. */
  readonly version: number
  readonly name: string
  readonly sql: string
}

/** A newer Shipcast has migrated the database; this one would not understand what it finds there. */
export class SchemaTooNewError extends StartupError {
  override readonly name = 'SchemaTooNewError'

  constructor(current: number, newest: number) {
    super(
      `The database is at schema version ${current}, and this Shipcast knows versions up to ${newest}: a newer Shipcast has used it. ` +
        'Start that version or a newer one, or use another database.',
    )
  }
}

// Any constant will do; every node must use the same. With the schema's oid, it locks out the nodes of this
// installation only: others may be in other schemas of the database.
const LOCK_KEY = 7_447_228
const MIGRATION_TIMEOUT_MS = 3_600_000

/**
 * Brings the schema to the newest version. Each migration and its record commit together, under a lock for
 * which other nodes wait: they then find it done. Refuses a database that a newer program has migrated.
 */
export async function migrate(database: Database, migrations: readonly Migration[]): Promise<void> {
  assertSequential(migrations)
  for (const migration of migrations) {
    await database.transaction((tx) => applyMigration(tx, migration, migrations.length), {
      statementTimeoutMs: MIGRATION_TIMEOUT_MS,
    })
  }
}

async function applyMigration(
  tx: Queryable,
  { version, name, sql }: Migration,
  newest: number,
): Promise<void> {
  await tx.query(
    'select pg_advisory_xact_lock($1, oid::int) from pg_namespace where nspname = current_schema()',
    [LOCK_KEY],
  )
  const current = await currentVersion(tx)
  if (current > newest) {
    throw new SchemaTooNewError(current, newest)
  }
  if (current >= version) return
  await tx.query(sql)
  await tx.query('insert into schema_migrations (version, name) values ($1, $2)', [version, name])
}

async function currentVersion(tx: Queryable): Promise<number> {
  await tx.query(`
    create table if not exists schema_migrations (
      version int primary key,
      name text not null,
      applied_at timestamptz not null default clock_timestamp()
    )`)
  const [row] = await tx.query<{ version: number }>(
    'select coalesce(max(version), 0) as version from schema_migrations',
  )
  return row?.version ?? 0
}

function assertSequential(migrations: readonly Migration[]): void {
  for (const [index, { version, name }] of migrations.entries()) {
    if (version !== index + 1)
      throw new Error(`Migration "${name}" has version ${version} in place ${index + 1}.`)
  }
}
