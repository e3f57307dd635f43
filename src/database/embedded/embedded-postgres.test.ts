import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, cp, mkdir, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import pg from 'pg'
import { createDataFolder, type DataFolder, removeDataFolder } from '../../../test/support/data-folder.ts'
import { DatabaseProcess } from '../../../test/support/database-process.ts'
import { postgresProcesses, waitUntil } from '../../../test/support/processes.ts'
import { startEmbeddedPostgres } from './embedded-postgres.ts'
import { canAccess, isRoot, serverAccount } from './postgres-account.ts'
import { findBinaries, locateBinaryPackage, SYSTEM_FOLDER } from './postgres-binaries.ts'
import { readPostmaster } from './postmaster-file.ts'
import { assertPrivate } from './socket-folder.ts'

const NOBODY = 65534
const asRoot = isRoot() ? test : test.skip

let template: DataFolder
let folder: string
let dataDir: string
let started: DatabaseProcess[]

// initdb takes a second: tests of other subjects start from a copy.
beforeAll(async () => {
  template = await createDataFolder()
  await (await startEmbeddedPostgres({ dataDir: template.path })).stop()
})

afterAll(() => template.remove())

beforeEach(async () => {
  folder = (await createDataFolder()).path
  dataDir = join(folder, 'data')
  started = []
})

afterEach(async () => {
  const pgData = await realpath(join(dataDir, 'postgres-18')).catch(() => undefined)
  await Promise.all(started.map((process) => process.close()))
  await waitUntilStopped(folder)
  if (pgData) await waitUntilStopped(pgData)
  await removeDataFolder(dataDir)
  await removeDataFolder(folder)
})

async function open(uid?: number, env?: Record<string, string>): Promise<DatabaseProcess> {
  const process = new DatabaseProcess(dataDir, uid, env)
  started.push(process)
  await process.waitUntilOpen()
  return process
}

/** A data folder as after a start and a stop. */
async function initializeDataDir(): Promise<void> {
  await promisify(execFile)('cp', ['-Rp', template.path, dataDir])
}

async function waitUntilStopped(where: string): Promise<void> {
  await waitUntil(async () => (await postgresProcesses(where)).length === 0, `no Postgres left on ${where}`)
}

describe('the embedded Postgres', () => {
  test('starts on an empty folder, and keeps its data', async () => {
    const first = await open()
    await first.query('create table t (n int); insert into t values (1)')
    await first.close()
    await waitUntilStopped(dataDir)

    const second = await open()
    expect(await second.query('select n from t')).toEqual([{ n: 1 }])
    expect(await second.query('show fsync')).toEqual([{ fsync: 'on' }])
  })

  test('listens only on a private socket, and removes its folder', async () => {
    await initializeDataDir()
    const postgres = await startEmbeddedPostgres({ dataDir })
    const { host } = postgres.connection
    expect((await stat(host)).mode & 0o777).toBe(0o700)
    expect((await stat(join(dataDir, 'postgres-18'))).mode & 0o777).toBe(0o700)
    await postgres.stop()
    await expect(stat(host)).rejects.toThrow('ENOENT')
  })

  test('requires a password that only the owner of the folder can read', async () => {
    await initializeDataDir()
    const postgres = await startEmbeddedPostgres({ dataDir })
    const { password, ...without } = postgres.connection
    await waitUntil(async () => (await connect(without)) !== 'connected', 'the server requires the password')
    expect(await connect({ ...without, password: 'wrong' })).toBe('28P01')
    expect(await connect(postgres.connection)).toBe('connected')
    const file = join(dataDir, 'postgres-password')
    expect((await readFile(file, 'utf8')).trim()).toBe(password)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect((await stat(file)).uid).toBe(process.getuid?.())
    expect(await readFile(join(dataDir, 'postgres-18', 'pg_hba.conf'), 'utf8')).not.toContain('trust')
    await postgres.stop()
  })

  test('creates a new password after its file was lost, and keeps the data', async () => {
    await initializeDataDir()
    const first = await open()
    await first.query('create table t (n int); insert into t values (1)')
    await first.close()
    await rm(join(dataDir, 'postgres-password'))
    expect(await (await open()).query('select n from t')).toEqual([{ n: 1 }])
  })

  test('reports what to do if the password was replaced while the server runs', async () => {
    await initializeDataDir()
    await open()
    await writeFile(join(dataDir, 'postgres-password'), 'x'.repeat(43))
    await expect(startEmbeddedPostgres({ dataDir })).rejects.toThrow(
      /replaced after it started\. Stop all processes/,
    )
  })

  test('ignores the environment variables of libpq', async () => {
    await initializeDataDir()
    const process = await open(undefined, {
      PGOPTIONS: '-c default_transaction_read_only=on -c search_path=nowhere',
      PGHOST: '192.0.2.1',
      PGPORT: '1',
      PGUSER: 'nobody',
      PGPASSWORD: 'wrong',
      PGDATABASE: 'nowhere',
      PGSSLMODE: 'verify-full',
      PGSSLNEGOTIATION: 'direct',
      PGREPLICATION: 'database',
      PGAPPNAME: 'other',
      PGPASSFILE: '/nowhere',
    })
    await process.query('create table t (n int)')
    expect(await process.query(`select current_setting('application_name') as name`)).toEqual([
      { name: 'shipcast' },
    ])
  })

  test('is not used if another account could have created its socket', async () => {
    await chmod(folder, 0o755)
    await expect(assertPrivate(folder, process.getuid?.() ?? 0)).rejects.toThrow('not a private folder')
    await chmod(folder, 0o700)
    await expect(assertPrivate(folder, NOBODY)).rejects.toThrow('not a private folder')
  })

  test('is shared by two processes that start on one empty folder', async () => {
    const [first, second] = await Promise.all([open(), open()])
    await first.query('create table t (n int); insert into t values (1)')
    expect(await second.query('select n from t')).toEqual([{ n: 1 }])
    expect(await readdir(dataDir)).toEqual(['postgres-18', 'postgres-password'])
  })

  test('is restarted by an attached process when its owner dies', async () => {
    await initializeDataDir()
    const owner = await open()
    await owner.query('create table t (n int); insert into t values (1)')
    const attached = await open()
    const pidBefore = await postmasterPid()
    await owner.kill()
    const another = async () => {
      await attached.query('select 1').catch(() => {})
      return (await postmasterPid().catch(() => pidBefore)) !== pidBefore
    }
    await waitUntil(another, 'the attached process has started another server')
    expect(await attached.query('select n from t').catch(() => attached.query('select n from t'))).toEqual([
      { n: 1 },
    ])
  })

  test('is restarted by an attached process when its owner stops', async () => {
    await initializeDataDir()
    const owner = await open()
    const attached = await open()
    await owner.close()
    await waitUntil(
      async () => (await attached.query('select 1 as n').catch(() => [])).length === 1,
      'the attached process reads again',
    )
  })

  test('ends with a Node process that is killed, and starts with the next one', async () => {
    await initializeDataDir()
    for (let round = 0; round < 4; round++) {
      const process = await open()
      await process.query(`create table t${round} (n int)`)
      expect((await postgresProcesses(dataDir)).length).toBeGreaterThan(3)
      await process.kill()
      // Every second round starts while the last server is still shutting down.
      if (round % 2) await waitUntilStopped(dataDir)
    }
    const last = await open()
    expect(await last.query(`select count(*) as n from pg_tables where tablename ~ '^t[0-9]'`)).toEqual([
      { n: 4 },
    ])
  })

  test('keeps every acknowledged row when Node and all of Postgres are killed', async () => {
    await initializeDataDir()
    const acknowledged: number[] = []
    await (await open()).query('create table t (n int)')
    await started.pop()?.close()
    for (let round = 0; round < 3; round++) {
      const process = await open()
      const pgData = await realpath(join(dataDir, 'postgres-18'))
      const writing = (async () => {
        for (let n = round * 100_000; ; n++) {
          await process.query(`insert into t values (${n})`)
          acknowledged.push(n)
        }
      })().catch(() => {})
      const before = acknowledged.length
      await waitUntil(() => acknowledged.length > before + 40 + round * 13, 'rows are acknowledged')
      process.child.kill('SIGKILL')
      for (const pid of await postgresProcesses(pgData)) kill(pid)
      await writing
    }
    const last = await open()
    const rows = await last.query('select n from t order by n')
    const stored = new Set(rows.map(({ n }) => n))
    expect(acknowledged.filter((n) => !stored.has(n))).toEqual([])
  })

  test('starts after initdb was killed, and leaves nothing behind', async () => {
    for (const moment of ['postgresql.conf', 'base/5']) {
      const process = new DatabaseProcess(dataDir)
      started.push(process)
      const opened = process.waitUntilOpen().catch(() => {})
      await waitUntil(() => initdbHas(moment), `initdb has created ${moment}`)
      await process.kill()
      await opened
    }
    const process = await open()
    expect(await process.query('select 1 as n')).toEqual([{ n: 1 }])
    await process.close()
    await open()
    expect(await readdir(dataDir)).toEqual(['postgres-18', 'postgres-password'])
  })

  test('starts if another process has the pid of a dead server', async () => {
    await initializeDataDir()
    const account = isRoot() ? await serverAccount(dataDir) : undefined
    const other = spawn('sleep', ['60'], { ...(account && { uid: account.uid, gid: account.gid }) })
    try {
      await once(other, 'spawn')
      const file = join(dataDir, 'postgres-18', 'postmaster.pid')
      await writeFile(
        file,
        `${other.pid}\n${dataDir}/postgres-18\n1700000000\n5432\n/tmp\n\n 1 1\nready   \n`,
      )
      if (account) await chown(file, account.uid, account.gid)
      expect(await (await open()).query('select 1 as n')).toEqual([{ n: 1 }])
    } finally {
      await end(other)
    }
  })

  test("quotes the server's output if it does not start", async () => {
    await initializeDataDir()
    const version = join(dataDir, 'postgres-18', 'PG_VERSION')
    await writeFile(version, '9\n')
    await expect(open()).rejects.toThrow(/does not start.*\n.*initialized by PostgreSQL version 9/s)
  })

  test('suggests DATABASE_URL if there is no binary for the machine', () => {
    expect(() => locateBinaryPackage('plan9', 'mips')).toThrow('set DATABASE_URL')
  })
})

describe('the embedded Postgres and accounts', () => {
  asRoot('runs under an unprivileged account when root starts it', async () => {
    await initializeDataDir()
    await open()
    const pid = await postmasterPid()
    expect(await readFile(`/proc/${pid}/status`, 'utf8')).not.toMatch(/^Uid:\s+0\b/m)
  })

  asRoot('runs under a dedicated uid without an account', async () => {
    const process = await open()
    await process.query('create table t (n int)')
    const { uid } = await stat(join(dataDir, 'postgres-18', 'base'))
    expect(uid).toBe((await serverAccount(dataDir)).uid)
    await expect(promisify(execFile)('id', [String(uid)])).rejects.toThrow('no such user')
    expect(await readFile(`/proc/${await postmasterPid()}/status`, 'utf8')).toContain(`Uid:\t${uid}\t${uid}`)
  })

  asRoot('runs under an ordinary account that owns the folder', async () => {
    if (!(await canNobodyReachBinaries())) return
    await mkdir(dataDir)
    await chown(dataDir, NOBODY, NOBODY)
    const process = await open(NOBODY)
    expect(await process.query('select 1 as n')).toEqual([{ n: 1 }])
    expect((await stat(join(dataDir, 'postgres-18'))).uid).toBe(NOBODY)
    await process.close()
    // Root then runs it as the owner of the data.
    expect(await (await open()).query('select 1 as n')).toEqual([{ n: 1 }])
  })

  asRoot('works below a folder that only root can enter', async () => {
    await chmod(folder, 0o700)
    const first = await open()
    await first.query('create table t (n int); insert into t values (1)')
    await first.close()
    expect(await (await open()).query('select n from t')).toEqual([{ n: 1 }])
    expect(await realpath(join(dataDir, 'postgres-18'))).toMatch(`${SYSTEM_FOLDER}/postgres-18-`)
  })

  asRoot('copies binaries that the account cannot reach, with the symlinks that npm omits', async () => {
    const version = `0.0.0-test-${process.pid}`
    const hidden = join(folder, 'hidden')
    await mkdir(hidden, { mode: 0o700 })
    await cp(locateBinaryPackage(process.platform, process.arch), hidden, {
      recursive: true,
      verbatimSymlinks: true,
    })
    await writeFile(join(hidden, 'package.json'), JSON.stringify({ version }))
    const links: { target: string }[] = JSON.parse(
      await readFile(join(hidden, 'native/pg-symlinks.json'), 'utf8'),
    )
    await Promise.all(links.map(({ target }) => rm(join(hidden, target))))

    const account = await serverAccount(folder)
    const copies = await Promise.all([findBinaries(account, hidden), findBinaries(account, hidden)])
    try {
      expect(new Set(copies).size).toBe(1)
      const [copy] = copies
      expect(await canAccess(join(copy, 'bin', 'postgres'), account)).toBe(true)
      const postgres = spawn(join(copy, 'bin', 'postgres'), ['--version'], {
        uid: account.uid,
        gid: account.gid,
      })
      expect(await once(postgres, 'exit')).toEqual([0, null])
    } finally {
      await rm(copies[0], { recursive: true, force: true })
    }
  })

  test('explains a folder that it cannot write to', async () => {
    if (isRoot() && !(await canNobodyReachBinaries())) return
    await mkdir(dataDir, { mode: 0o555 })
    await expect(open(isRoot() ? NOBODY : undefined)).rejects.toThrow(
      /cannot write to .*data .*DATA_DIR.*DATABASE_URL/,
    )
  })

  asRoot('explains a uid that has no account', async () => {
    if (!(await canNobodyReachBinaries())) return
    await mkdir(dataDir)
    await chown(dataDir, 54_321, 54_321)
    await expect(open(54_321)).rejects.toThrow('The uid 54321 has no account on this machine')
  })
})

/** "connected", or the code of the error. */
async function connect(connection: pg.ClientConfig): Promise<string> {
  const client = new pg.Client(connection)
  client.on('error', () => {})
  try {
    await client.connect()
    return 'connected'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  } finally {
    await client.end()
  }
}

async function postmasterPid(): Promise<number> {
  const postmaster = await readPostmaster(join(dataDir, 'postgres-18'))
  if (!postmaster) throw new Error('no postmaster.pid')
  return postmaster.pid
}

async function canNobodyReachBinaries(): Promise<boolean> {
  const binaries = join(locateBinaryPackage(process.platform, process.arch), 'native', 'bin', 'postgres')
  return canAccess(binaries, { name: 'nobody', uid: NOBODY, gid: NOBODY })
}

async function initdbHas(path: string): Promise<boolean> {
  for (const name of await readdir(dataDir).catch(() => [])) {
    if (await stat(join(dataDir, name, path)).catch(() => undefined)) return true
  }
  return false
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}
