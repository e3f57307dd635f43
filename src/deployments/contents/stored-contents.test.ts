import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { packContents } from '../../../test/support/github/pack-contents.ts'
import { EDGE_CASE_FILES, SAMPLE_PLAN } from '../../../test/support/github/sample-contents.ts'
import { createTestDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import { MIGRATIONS } from '../../database/schema.ts'
import { prepareContents } from '../../github/git/commit-pack.ts'
import { closePackingThreads } from '../../github/git/packing-threads.ts'
import { insertContents, storedContents } from './stored-contents.ts'

const signal = new AbortController().signal
let testDatabase: TestDatabase

beforeAll(async () => {
  testDatabase = await createTestDatabase(MIGRATIONS)
  // These tests store contents without a deployment.
  await testDatabase.database.query(
    'alter table deployment_contents drop constraint deployment_contents_deployment_id_fkey',
  )
})

afterAll(async () => {
  await testDatabase.drop()
  await closePackingThreads()
})

test.each([
  ['of one part', EDGE_CASE_FILES],
  // Eight parts of 32 KiB are written and read at once.
  ['of many parts', [{ path: 'noise', content: randomBytes(3_000_000), executable: false }]],
])('a pack %s is read back from the database byte for byte, with its index', async (_, files) => {
  const { database } = testDatabase
  const { packParts, packBytes, index, ...facts } = await packContents(files, SAMPLE_PLAN)
  const id = crypto.randomUUID()
  const stored = await prepareContents(files, SAMPLE_PLAN, { signal }, ({ pack }) =>
    database.transaction((tx) => insertContents(tx, id, pack())),
  )
  expect(stored).toBe(packBytes)
  const contents = storedContents(database, {
    id,
    plannedCommit: facts.commit,
    plannedTree: facts.tree,
    objectCount: facts.objectCount,
    packBytes,
  })
  for (let times = 0; times < 2; times++) {
    const read = await Array.fromAsync(contents.pack())
    expect(Buffer.concat(read).equals(Buffer.concat(packParts))).toBe(true)
  }
  expect(Buffer.from(await contents.index()).equals(index)).toBe(true)
})
