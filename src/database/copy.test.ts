import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { waitUntil } from '../../test/support/processes.ts'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { type CopyRow, encodeInt4 } from './copy.ts'
import type { Database } from './database.ts'
import { DatabaseUnavailableError } from './errors.ts'

const MEBIBYTE = 1024 * 1024
const INTO_PIECES = 'copy pieces (n, bytes) from stdin (format binary)'

let testDatabase: TestDatabase
let database: Database

beforeAll(async () => {
  testDatabase = await createTestDatabase()
  database = testDatabase.database
  await database.query('create table pieces (n int primary key, bytes bytea not null)')
})

beforeEach(() => database.query('truncate pieces'))

afterAll(() => testDatabase.drop())

const copyIn = (rows: AsyncIterable<CopyRow>) => database.transaction((tx) => tx.copyIn(INTO_PIECES, rows))
const count = async () => (await database.query<{ n: number }>('select count(*)::int as n from pieces'))[0]?.n

test('copies rows that reuse the same memory', async () => {
  const bytes = new Uint8Array(MEBIBYTE)
  await copyIn(
    (async function* () {
      for (let n = 0; n < 30; n++) yield [encodeInt4(n), bytes.fill(n)]
    })(),
  )
  const wrong = await database.query(
    `select n from pieces where bytes <> decode(repeat(lpad(to_hex(n), 2, '0'), ${MEBIBYTE}), 'hex')`,
  )
  expect(wrong).toEqual([])
  expect(await count()).toBe(30)
})

test('returns a value complete, in pieces; null has none', async () => {
  const bytes = Buffer.from(Array.from({ length: 3 * MEBIBYTE }, (_, i) => (i * i) % 251))
  await copyIn(
    (async function* () {
      yield [encodeInt4(1), bytes]
    })(),
  )
  const read = (where: string) =>
    database.copyOut(
      `copy (select string_agg(bytes, '') from pieces where ${where}) to stdout (format binary)`,
    )
  const pieces = await read('n = 1')
  expect(pieces.length).toBeGreaterThan(1)
  expect(Buffer.concat(pieces).equals(bytes)).toBe(true)
  expect(await read('n = 2')).toEqual([])
})

test('stores nothing and reports the reason if a row cannot be read', async () => {
  const copied = copyIn(
    (async function* () {
      yield [encodeInt4(1), new Uint8Array(1)]
      throw new Error('unreadable row')
    })(),
  )
  await expect(copied).rejects.toThrow('unreadable row')
  expect(await count()).toBe(0)
})

test('stores nothing and requests no more rows if the server refuses one', async () => {
  let isClosed = false
  const copied = copyIn(
    (async function* () {
      try {
        for (;;) yield [encodeInt4(1)]
      } finally {
        isClosed = true
      }
    })(),
  )
  await expect(copied).rejects.toMatchObject({ code: '22P04' })
  expect(isClosed).toBe(true)
  expect(await count()).toBe(0)
})

test('reports why a statement fails, then runs the next one', async () => {
  await expect(database.copyOut('copy (select 1 / 0) to stdout (format binary)')).rejects.toMatchObject({
    code: '22012',
  })
  expect(await count()).toBe(0)
})

test.each(['in', 'out'])('reports a connection that is lost during copy %s', async (direction) => {
  const kill = `select pg_terminate_backend(pid) from pg_stat_activity
    where pid <> pg_backend_pid() and datname = current_database() and query like 'copy %'`
  const copied =
    direction === 'in'
      ? copyIn(
          (async function* () {
            for (let n = 0; n < 100; n++) {
              yield [encodeInt4(n), new Uint8Array(1)]
              if (n === 10) await database.query(kill)
            }
          })(),
        )
      : Promise.all([
          database.copyOut('copy (select pg_sleep(20)::text) to stdout (format binary)'),
          killWhenRunning(kill),
        ])
  await expect(copied).rejects.toThrow(DatabaseUnavailableError)
  expect(await count()).toBe(0)
})

async function killWhenRunning(kill: string): Promise<void> {
  await waitUntil(async () => (await database.query(kill)).length > 0, 'the copy runs')
}
