import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { Database } from './database.ts'
import { IncompatibleSchemaError, migrate } from './migrate.ts'

const FIRST = { '0001-things.sql': 'create table things (n int); insert into things values (1)' }
const SECOND = { '0002-sizes.sql': 'alter table things add column size int' }

describe('migrate', () => {
  let empty: TestDatabase
  let folders: string[]

  beforeEach(async () => {
    empty = await createTestDatabase()
    folders = []
  })

  afterEach(async () => {
    await empty.drop()
    for (const folder of folders) await rm(folder, { recursive: true })
  })

  async function folderOf(files: Readonly<Record<string, string>>): Promise<URL> {
    const folder = await mkdtemp(join(tmpdir(), 'shipcast-migrations-'))
    folders.push(folder)
    for (const [name, sql] of Object.entries(files)) await writeFile(join(folder, name), sql)
    return pathToFileURL(`${folder}/`)
  }

  const run = async (files: Readonly<Record<string, string>>) =>
    migrate(empty.database, await folderOf(files))
  const applied = () => empty.database.query('select version, name from schema_migrations order by version')

  test('upgrades an empty and an older database; each migration runs once', async () => {
    await run(FIRST)
    await run({ ...FIRST, ...SECOND })
    await run({ ...FIRST, ...SECOND })
    expect(await applied()).toEqual([
      { version: 1, name: 'things' },
      { version: 2, name: 'sizes' },
    ])
    expect(await empty.database.query('select * from things')).toEqual([{ n: 1, size: null }])
  })

  test('migrates an empty database once, although four nodes start at the same time', async () => {
    const folder = await folderOf({ ...FIRST, ...SECOND })
    const nodes = await Promise.all(
      Array.from({ length: 4 }, () => Database.open({ url: empty.url, dataDir: '' })),
    )
    await Promise.all(nodes.map((node) => migrate(node, folder)))
    await Promise.all(nodes.map((node) => node.close()))
    expect(await empty.database.query('select n from things')).toEqual([{ n: 1 }])
  })

  test('rolls back a migration that fails', async () => {
    const broken = { '0002-broken.sql': 'alter table things add column size int; select nonsense' }
    await expect(run({ ...FIRST, ...broken })).rejects.toThrow('nonsense')
    expect(await applied()).toEqual([{ version: 1, name: 'things' }])
    await run({ ...FIRST, ...SECOND })
  })

  test('refuses a database that a newer version has used', async () => {
    await run({ ...FIRST, ...SECOND })
    const refused = run(FIRST)
    await expect(refused).rejects.toThrow(IncompatibleSchemaError)
    await expect(refused).rejects.toThrow(/at schema version 2.*supports versions up to 1/)
  })

  test('refuses a database that an unreleased version created, and suggests what to do', async () => {
    await run({
      '0001-deployments and their log.sql': 'create table deployments (id uuid)',
      '0002-turns of organizations.sql': 'alter table deployments add column turn bigint',
    })
    const before = await applied()
    const refused = migrate(empty.database)
    await expect(refused).rejects.toThrow(IncompatibleSchemaError)
    await expect(refused).rejects.toThrow(
      /unreleased version of Shipcast created .* Use an empty schema or database \(DATABASE_URL\), or a new folder \(DATA_DIR\).* Nothing was changed or deleted\./,
    )
    expect(await applied()).toEqual(before)
  })

  test('refuses a folder with a gap or a misnamed file', async () => {
    await expect(run(SECOND)).rejects.toThrow('"0002-sizes.sql" must be named 0001-….sql')
    await expect(run({ ...FIRST, '2-sizes.sql': '' })).rejects.toThrow('must be named 0002-….sql')
  })
})
