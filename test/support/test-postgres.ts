import type { EmbeddedPostgres } from '../../src/database/embedded/embedded-postgres.ts'
import type { DataFolder } from './data-folder.ts'

/** The environment variable in which Jest's workers find the connection, as JSON. */
export const TEST_POSTGRES = 'SHIPCAST_TEST_POSTGRES'

/** Passed from the test run's setup to its teardown. */
export const shared: { postgres?: EmbeddedPostgres; folder?: DataFolder } = {}
