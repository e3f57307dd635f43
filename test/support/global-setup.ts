import { startEmbeddedPostgres } from '../../src/database/embedded/embedded-postgres.ts'
import { createDataFolder } from './data-folder.ts'
import { shared, TEST_POSTGRES } from './test-postgres.ts'

/** One Postgres for the whole run, in which each test file creates its databases. */
export default async function globalSetup(): Promise<void> {
  shared.folder = await createDataFolder()
  shared.postgres = await startEmbeddedPostgres({
    dataDir: shared.folder.path,
    // Its data does not outlive the run, so it need not survive a power failure.
    settings: { fsync: 'off', max_connections: '200' },
  })
  process.env[TEST_POSTGRES] = JSON.stringify(shared.postgres.connection)
}
