import pg from 'pg'
import { Database } from '../../src/database/database.ts'
import type { EmbeddedConnection } from '../../src/database/embedded/embedded-postgres.ts'
import { migrate } from '../../src/database/migrate.ts'
import { TEST_POSTGRES } from './test-postgres.ts'

export interface TestDatabase {
  readonly database: Database
  /** For DATABASE_URL of a server process that a test starts. */
  readonly url: string
  /** Ends all connections to the database and removes it. */
  drop(): Promise<void>
}

/** A database with Shipcast's tables, on the test run's Postgres. */
export async function createMigratedDatabase(): Promise<TestDatabase> {
  const created = await createTestDatabase()
  await migrate(created.database)
  return created
}

/** An empty database on the test run's Postgres. `options` belong to `create database`. */
export async function createTestDatabase(options = ''): Promise<TestDatabase> {
  const connection = testConnection()
  const name = `test_${crypto.randomUUID().replaceAll('-', '')}`
  await runOnServer(`create database ${name} ${options}`)
  const url = urlOf({ ...connection, database: name })
  const database = await Database.open({ url, dataDir: '' })
  return {
    database,
    url,
    async drop() {
      await database.close()
      await runOnServer(`drop database if exists ${name} with (force)`)
    },
  }
}

/** The run's Postgres, for tests of connections themselves. */
export function testConnection(): EmbeddedConnection {
  const json = process.env[TEST_POSTGRES]
  if (!json) throw new Error('No test Postgres: run the tests with Jest, whose globalSetup starts it.')
  return JSON.parse(json)
}

/** A URL with a Unix socket for pg and psql: without a host, the user must be a parameter. */
export function urlOf({ host, port, user, password, database }: EmbeddedConnection): string {
  return `postgres:///${database}?host=${encodeURIComponent(host)}&port=${port}&user=${encodeURIComponent(user)}&password=${password}`
}

async function runOnServer(statement: string): Promise<void> {
  const client = new pg.Client({ ...testConnection(), ssl: false })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
