import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { packContents } from '../../../test/support/github/pack-contents.ts'
import { EDGE_CASE_FILES, SAMPLE_PLAN } from '../../../test/support/github/sample-contents.ts'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import { prepareContents } from '../../github/git/commit-pack.ts'
import { insertContents, storedContents } from './stored-contents.ts'

const signal = new AbortController().signal
let testDatabase: TestDatabase

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
  // These tests need no deployments.
  await testDatabase.database.query(
    'alter table deployment_contents drop constraint deployment_contents_deployment_id_fkey',
  )
})

afterAll(async () => {
  await testDatabase.drop()
})

test.each([
  ['of one part', EDGE_CASE_FILES],
  // Eight parts of 32 KiB are written and read at once.
  ['of many parts', [{ path: 'noise', content: randomBytes(3_000_000), executable: false }]],
])('a pack %s is read from the database byte for byte, with its index', async (_, files) => {
  const { database } = testDatabase
  const { packParts, packBytes, index, ...summary } = await packContents(files, SAMPLE_PLAN)
  const id = crypto.randomUUID()
  using prepared = await prepareContents(files, SAMPLE_PLAN, { signal })
  const stored = await database.transaction((tx) => insertContents(tx, id, prepared.pack()))
  expect(stored).toBe(packBytes)
  const contents = storedContents(database, {
    id,
    plannedCommit: summary.commit,
    plannedTree: summary.tree,
    objectCount: summary.objectCount,
    packBytes,
  })
  for (let times = 0; times < 2; times++) {
    const read = await Array.fromAsync(contents.pack())
    expect(Buffer.concat(read).equals(Buffer.concat(packParts))).toBe(true)
  }
  expect(Buffer.from(await contents.index()).equals(index)).toBe(true)
})
