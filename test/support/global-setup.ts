import { startEmbeddedPostgres } from '../../src/database/embedded/embedded-postgres.ts'
import { createDataFolder } from './data-folder.ts'
import { shared, TEST_POSTGRES } from './test-postgres.ts'

/** One Postgres for the whole run; each test file makes a database of its own in it. */
export default async function globalSetup(): Promise<void> {
  shared.folder = await createDataFolder()
  shared.postgres = await startEmbeddedPostgres({
    dataDir: shared.folder.path,
    // Nothing here outlives the run, so nothing has to survive a power cut.
    settings: { fsync: 'off', max_connections: '200' },
  })
  process.env[TEST_POSTGRES] = JSON.stringify(shared.postgres.connection)
}
