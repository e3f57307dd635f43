import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { createDataFolder, type DataFolder } from '../../test/support/data-folder.ts'
import { postgresProcesses, waitUntil } from '../../test/support/processes.ts'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { Database } from './database.ts'
import { DatabaseUnavailableError } from './errors.ts'
import type { Queryable } from './statement.ts'

describe('Database', () => {
  let testDatabase: TestDatabase
  let database: Database

  beforeAll(async () => {
    testDatabase = await createTestDatabase()
    database = testDatabase.database
  })

  afterAll(() => testDatabase.drop())

  test('returns stored values in the types that the program uses', async () => {
    await database.query(
      'create table kinds (n bigint, at timestamptz, bytes bytea, data jsonb, words text[])',
    )
    const row = {
      n: 2 ** 53 - 1,
      at: new Date('2031-01-02T03:04:05.678Z'),
      bytes: Buffer.from([0, 1, 0x5c, 0xff]),
      data: { a: [1, null, 'ü'] },
      words: ['x', 'y z'],
    }
    const values = [row.n, row.at, new Uint8Array(row.bytes), row.data, row.words]
    await database.query('insert into kinds values ($1, $2, $3, $4, $5)', values)
    expect(await database.query('select * from kinds')).toEqual([row])
    await expect(database.query('select 9007199254740993::bigint as n')).rejects.toThrow(RangeError)
  })

  test('uses UTC and its own application name', async () => {
    const [row] = await database.query(
      `select current_setting('TimeZone') as zone, current_setting('application_name') as name`,
    )
    expect(row).toEqual({ zone: 'UTC', name: 'shipcast' })
  })

  test('uses neither JIT nor parallel workers, whatever the defaults of the database', async () => {
    const [{ name } = { name: '' }] = await database.query<{ name: string }>(
      'select current_database() as name',
    )
    for (const setting of ['jit = on', 'max_parallel_workers_per_gather = 8']) {
      await database.query(`alter database ${name} set ${setting}`)
    }
    const another = await Database.open({ url: testDatabase.url, dataDir: '' })
    expect(
      await another.query(
        `select current_setting('jit') as jit, current_setting('max_parallel_workers_per_gather') as workers`,
      ),
    ).toEqual([{ jit: 'off', workers: '0' }])
    await another.close()
    await database.query(`alter database ${name} reset all`)
  })

  test('commits a transaction that resolves, and rolls back one that rejects', async () => {
    await database.query('create table numbers (n int primary key)')
    const returned = await database.transaction(async (tx) => {
      await tx.query('insert into numbers values ($1)', [1])
      return 'kept'
    })
    expect(returned).toBe('kept')
    const failing = database.transaction(async (tx) => {
      await tx.query('insert into numbers values ($1)', [2])
      throw new Error('abandoned')
    })
    await expect(failing).rejects.toThrow('abandoned')
    expect(await database.query('select n from numbers')).toEqual([{ n: 1 }])
  })

  test('does not report a commit if a statement of the transaction failed', async () => {
    await database.query('create table swallowed (n int primary key)')
    const work = database.transaction(async (tx) => {
      await tx.query('insert into swallowed values (1)')
      await tx.query('insert into swallowed values (1)').catch(() => {})
    })
    await expect(work).rejects.toThrow('rolled back')
    expect(await database.query('select n from swallowed')).toEqual([])
  })

  test('passes on the errors of PostgreSQL', async () => {
    await database.query('create table guarded (n int constraint positive check (n > 0))')
    const violation = database.query('insert into guarded values ($1)', [-1])
    await expect(violation).rejects.toMatchObject({ code: '23514', constraint: 'positive' })
  })

  test('reads a table that was altered after its statement was prepared', async () => {
    await database.query('create table changing (n int)')
    await database.query('insert into changing values ($1)', [1])
    const read = () => database.query('select * from changing where n = $1', [1])
    expect(await read()).toEqual([{ n: 1 }])
    await database.query('alter table changing add column more text')
    expect(await read()).toEqual([{ n: 1, more: null }])
  })

  test('fails a statement when its connection is cut, then continues', async () => {
    const cut = database.query('select pg_terminate_backend(pg_backend_pid())')
    await expect(cut).rejects.toThrow(DatabaseUnavailableError)
    const cutInTransaction = database.transaction(async (tx) => {
      await tx.query('create table never (n int)')
      await tx.query('select pg_terminate_backend(pg_backend_pid())')
    })
    await expect(cutInTransaction).rejects.toThrow(DatabaseUnavailableError)
    expect(await database.query(`select to_regclass('never') as name`)).toEqual([{ name: null }])
  })

  test.each([
    ['53100', 'could not extend file: No space left on device'],
    ['53200', 'out of memory'],
    ['25006', 'cannot execute INSERT in a read-only transaction'],
  ])(
    'reports a temporary failure of the server (%s) as unavailability, then continues',
    async (code, message) => {
      const fail = `do $$ begin raise exception '${message}' using errcode = '${code}'; end $$`
      await expect(database.query(fail)).rejects.toThrow(DatabaseUnavailableError)
      await expect(database.query(fail)).rejects.toThrow(message)
      const inTransaction = database.transaction((tx) => tx.query(fail))
      await expect(inTransaction).rejects.toThrow(DatabaseUnavailableError)
      expect(await database.query('select 1 as n')).toEqual([{ n: 1 }])
    },
  )

  test('fails while all connections stay busy, then continues', async () => {
    const small = await Database.open({
      url: `${testDatabase.url}&pool_max=2&connect_timeout=1`,
      dataDir: '',
    })
    const busy = [1, 2].map(() => small.query('select pg_sleep(2)'))
    await expect(small.query('select 1')).rejects.toThrow(DatabaseUnavailableError)
    expect(await small.isAvailable()).toBe(true)
    await Promise.all(busy)
    expect(await small.query('select 1 as n')).toEqual([{ n: 1 }])
    await small.close()
  })

  test('reconnects a dedicated connection that was cut', async () => {
    const connection = database.openDedicatedConnection()
    const pid = async () =>
      (await connection.query<{ pid: number }>('select pg_backend_pid() as pid'))[0]?.pid
    const first = await pid()
    expect(await pid()).toBe(first)
    await expect(connection.query('select pg_terminate_backend(pg_backend_pid())')).rejects.toThrow(
      DatabaseUnavailableError,
    )
    expect(await pid()).not.toBe(first)

    await database.query('select pg_terminate_backend($1)', [await pid()])
    await waitUntil(async () => (await pid().catch(() => undefined)) !== undefined, 'the connection is back')
    await connection.close()
    await expect(pid()).rejects.toThrow('closed')
  })

  test('repeats work that the server rolled back because of a conflict, up to a limit', async () => {
    await database.query('create table conflicts (n int); insert into conflicts values (0)')
    for (const code of ['40001', '40P01', '55P03']) {
      await database.query('drop sequence if exists attempts; create sequence attempts')
      // nextval is not rolled back.
      const failTwice = `do $$ begin
        if nextval('attempts') < 3 then raise exception 'in the way' using errcode = '${code}'; end if;
        update conflicts set n = n + 1;
      end $$`
      await database.query(failTwice)
      await database.query('alter sequence attempts restart')
      await database.transaction(async (tx) => {
        await tx.query('update conflicts set n = n + 10')
        await tx.query(failTwice)
      })
      await database.query('alter sequence attempts restart')
      const connection = database.openDedicatedConnection()
      await connection.query(failTwice)
      await connection.close()
    }
    expect(await database.query('select n from conflicts')).toEqual([{ n: 3 * 13 }])

    const always = `do $$ begin perform nextval('attempts'); raise exception 'in the way' using errcode = '40001'; end $$`
    await database.query('alter sequence attempts restart')
    await expect(database.query(always)).rejects.toThrow(DatabaseUnavailableError)
    expect(await database.query('select last_value as n from attempts')).toEqual([{ n: 8 }])
  })

  test('repeats a prepared statement after another node migrated the table', async () => {
    await database.query('create table migrated (n int)')
    const small = await Database.open({ url: `${testDatabase.url}&pool_max=3`, dataDir: '' })
    const insert = (through: Queryable) => through.query('insert into migrated values ($1) returning *', [1])
    // Each connection has prepared it.
    await Promise.all([1, 2, 3].map(() => small.transaction(insert)))
    await database.query('alter table migrated add column m int')
    expect(await insert(small)).toEqual([{ n: 1, m: null }])
    expect(await small.transaction(insert)).toEqual([{ n: 1, m: null }])
    await small.close()
    expect(await database.query('select count(*)::int as n from migrated')).toEqual([{ n: 5 }])
  })

  test('reports that a pooler lost a prepared statement, and continues on another connection', async () => {
    const small = await Database.open({ url: `${testDatabase.url}&pool_max=2`, dataDir: '' })
    await small.query('select $1::int as n', [1])
    await small.query('deallocate all')
    await expect(small.query('select $1::int as n', [1])).rejects.toThrow(
      /a pooler does not keep prepared statements .*does not exist/,
    )
    expect(await small.query('select $1::int as n', [1])).toEqual([{ n: 1 }])
    await small.close()
  })

  test.each([
    [
      'encoding',
      `create database NAME encoding 'LATIN1' template template0`,
      '',
      /encoding is LATIN1\. Shipcast requires UTF8/,
    ],
    [
      'search path',
      'create database NAME',
      '&options=-c%20search_path%3Dabsent',
      /search_path, absent, names no schema/,
    ],
    [
      'search path',
      'create database NAME',
      '&options=-c%20search_path%3D%22%22',
      /search_path, .*names no schema/,
    ],
    [
      'search path',
      'create database NAME',
      '&options=-c%20search_path%3Dpg_catalog',
      /search_path, pg_catalog, names/,
    ],
  ])('is not opened with a wrong %s', async (_, create, parameters, sentence) => {
    const name = `test_${crypto.randomUUID().replaceAll('-', '')}`
    await database.query(create.replace('NAME', name))
    const url = testDatabase.url.replace(/\/\w+\?/, `/${name}?`) + parameters
    await expect(Database.open({ url, dataDir: '' })).rejects.toThrow(sentence)
    await database.query(`drop database ${name} with (force)`)
  })

  test('is available while all its connections are busy', async () => {
    const busy = Array.from({ length: 10 }, () => database.query('select pg_sleep(0.5)'))
    expect(await database.isAvailable()).toBe(true)
    await Promise.all(busy)
  })

  test('closes during a running statement, twice, and then reports that it is closed', async () => {
    const closing = await Database.open({ url: testDatabase.url, dataDir: '' })
    const cut = expect(closing.query('select pg_sleep(20)')).rejects.toThrow(DatabaseUnavailableError)
    await Promise.all([closing.close(), closing.close(), cut])
    await expect(closing.query('select 1')).rejects.toThrow(DatabaseUnavailableError)
    expect(await closing.isAvailable()).toBe(false)
  })

  test('reports the address without a database, and never the password', async () => {
    const opening = Database.open({ url: 'postgres://someone:s3cret@127.0.0.1:1/shipcast', dataDir: '' })
    const error = await opening.catch((error: unknown) => error)
    expect(error).toBeInstanceOf(DatabaseUnavailableError)
    expect(String(error)).toContain('127.0.0.1:1/shipcast')
    expect(JSON.stringify([String(error), error, Object(error).cause])).not.toContain('s3cret')
  })
})

describe('Database on the embedded Postgres', () => {
  let folder: DataFolder
  let database: Database
  let cluster: string

  beforeAll(async () => {
    folder = await createDataFolder()
    database = await Database.open({ dataDir: folder.path })
    cluster = await realpath(join(folder.path, 'postgres-18'))
    await database.query('create table kept (n int); insert into kept values (1)')
  })

  afterAll(async () => {
    await database.close()
    await waitUntil(async () => (await postgresProcesses(cluster)).length === 0, 'no Postgres left')
    await folder.remove()
  })

  test('restarts the server when it has died', async () => {
    const heartbeat = database.openDedicatedConnection()
    await heartbeat.query('select 1')
    const running = expect(database.query('select pg_sleep(20)')).rejects.toThrow(DatabaseUnavailableError)
    await waitUntil(
      async () =>
        (await database.query(`select 1 from pg_stat_activity where query = 'select pg_sleep(20)'`)).length >
        0,
      'the statement runs',
    )
    for (const pid of await postgresProcesses(cluster)) signal(pid, 'SIGKILL')
    await running
    // A connection that has not noticed yet can fail one more statement; nothing is repeated on the caller's
    // behalf.
    const readAll = () => Promise.all(Array.from({ length: 20 }, () => database.query('select n from kept')))
    const results = await readAll().catch(readAll)
    expect(results.flat()).toEqual(Array(20).fill({ n: 1 }))
    await waitUntil(
      async () => (await heartbeat.query('select 1').catch(() => [])).length === 1,
      'the heartbeat is back',
    )
    expect(await database.isAvailable()).toBe(true)
  })

  test('is unavailable while the server does not respond, and available afterwards', async () => {
    await database.isAvailable()
    const processes = await postgresProcesses(cluster)
    await database.query('select 1')
    for (const pid of processes) signal(pid, 'SIGSTOP')
    try {
      expect(await database.isAvailable()).toBe(false)
      // Callers do not wait for the statement timeout.
      await expect(database.query('select 1')).rejects.toThrow(DatabaseUnavailableError)
    } finally {
      for (const pid of processes) signal(pid, 'SIGCONT')
    }
    await waitUntil(() => database.isAvailable(), 'the database is available')
  })
})

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It has just ended.
  }
}
