import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { Database } from './database.ts'
import { type Migration, migrate } from './migrate.ts'

const FIRST: Migration = {
  version: 1,
  name: 'things',
  sql: 'create table things (n int); insert into things values (1)',
}
const SECOND: Migration = { version: 2, name: 'sizes', sql: 'alter table things add column size int' }

describe('migrate', () => {
  let empty: TestDatabase

  beforeEach(async () => {
    empty = await createTestDatabase()
  })

  afterEach(() => empty.drop())

  const applied = () => empty.database.query('select version, name from schema_migrations order by version')

  test('brings an empty database up to date, and one that is behind; each migration runs once', async () => {
    await migrate(empty.database, [FIRST])
    await migrate(empty.database, [FIRST, SECOND])
    await migrate(empty.database, [FIRST, SECOND])
    expect(await applied()).toEqual([
      { version: 1, name: 'things' },
      { version: 2, name: 'sizes' },
    ])
    expect(await empty.database.query('select * from things')).toEqual([{ n: 1, size: null }])
  })

  test('lets four nodes start at once on an empty database', async () => {
    const nodes = await Promise.all(
      Array.from({ length: 4 }, () => Database.open({ url: empty.url, dataDir: '' })),
    )
    await Promise.all(nodes.map((node) => migrate(node, [FIRST, SECOND])))
    await Promise.all(nodes.map((node) => node.close()))
    expect(await empty.database.query('select n from things')).toEqual([{ n: 1 }])
  })

  test('leaves no half migration behind', async () => {
    const broken = {
      version: 2,
      name: 'broken',
      sql: 'alter table things add column size int; select nonsense',
    }
    await expect(migrate(empty.database, [FIRST, broken])).rejects.toThrow('nonsense')
    expect(await applied()).toEqual([{ version: 1, name: 'things' }])
    await migrate(empty.database, [FIRST, SECOND])
  })

  test('refuses a database that a newer program has used', async () => {
    await migrate(empty.database, [FIRST, SECOND])
    await expect(migrate(empty.database, [FIRST])).rejects.toThrow(
      /at schema version 2.*knows versions up to 1/,
    )
  })

  test('refuses a list with a gap', async () => {
    await expect(migrate(empty.database, [SECOND])).rejects.toThrow('version 2 in place 1')
  })
})
