import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createDataFolder, type DataFolder } from './support/data-folder.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { waitUntil } from './support/processes.ts'
import { RestartablePostgres } from './support/restartable-postgres.ts'
import { findFreePort, TestServer } from './support/test-server.ts'
import { Viewer } from './support/viewer.ts'

// Runs if PgBouncer is installed; PGBOUNCER selects a version other than the one in PATH.

const PROGRAM = process.env.PGBOUNCER ?? 'pgbouncer'
const PATH = `${process.env.PATH}:/usr/sbin`
const [, major, minor] = /PgBouncer (\d+)\.(\d+)/.exec(run('--version')) ?? []
const isInstalled = major !== undefined
const supportsPreparedStatements = Number(major) > 1 || Number(minor) >= 21
if (!isInstalled) console.info('PgBouncer is not installed: the tests of poolers are skipped.')
const withOldVersion = isInstalled && !supportsPreparedStatements ? test : test.skip
const withNewVersion = isInstalled && supportsPreparedStatements ? test : test.skip

let postgres: RestartablePostgres
let folder: DataFolder
let pooler: ChildProcess
let url: string
let direct: string

beforeAll(async () => {
  if (!isInstalled) return
  postgres = await RestartablePostgres.start()
  direct = postgres.url()
  folder = await createDataFolder()
  const port = await findFreePort()
  url = `postgres://shipcast@127.0.0.1:${port}/postgres`
  const server = new URL(direct)
  const file = join(folder.path, 'pgbouncer.ini')
  await writeFile(
    file,
    `[databases]
* = host=127.0.0.1 port=${server.port} user=shipcast password=${postgres.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
${supportsPreparedStatements ? 'max_prepared_statements = 200' : ''}
`,
  )
  // PgBouncer refuses to run as root.
  const other = process.getuid?.() === 0 ? { uid: 3, gid: 3 } : undefined
  if (other) await chown(file, other.uid, other.gid)
  await chmod(file, 0o600)
  pooler = spawn(PROGRAM, ['-q', file], { stdio: 'ignore', env: { ...process.env, PATH }, ...other })
  await waitUntil(() => isOpen(port), 'PgBouncer listens')
})

afterAll(async () => {
  if (!isInstalled) return
  const exited = once(pooler, 'exit')
  pooler.kill('SIGKILL')
  await exited
  await postgres.remove()
  await folder.remove()
})

const start = () =>
  TestServer.start({ dataDir: folder.path, env: { DATABASE_URL: url, DATABASE_LISTEN_URL: direct } })

withOldVersion('before 1.21 is refused at start, with what to do', async () => {
  await expect(start()).rejects.toThrow(/does not keep prepared statements .*Use PgBouncer 1\.21 or newer/)
})

withNewVersion(
  'in transaction mode: 20 concurrent deployments succeed and reach subscribers without a gap',
  async () => {
    const server = await start()
    const viewer = new Viewer(server.socketUrl)
    await viewer.connected()
    viewer.follow()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () =>
        server.request<DeployResult>(DEPLOY_MUTATION, { input: deployInput() }),
      ),
    )
    for (const { data } of answers) {
      expect((await viewer.waitForEnd(data.deploy.id)).at(-1)).toMatchObject({ status: 'SUCCEEDED' })
    }
    const positions = viewer.events.map((event) => Number(event.cursor.slice(4)))
    expect(positions).toEqual(positions.map((_, i) => i + 1))
    await viewer.close()
    await server.stop()
  },
)

withNewVersion(
  'in transaction mode is refused if a default of the database would break deployments',
  async () => {
    await postgres.query(`alter database postgres set default_transaction_isolation = 'serializable'`)
    await postgres.query(
      'select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and client_port is not null',
    )
    await expect(start()).rejects.toThrow(
      /cannot set default_transaction_isolation, which is "serializable"\. Run: alter role "shipcast"/,
    )
    await postgres.query('alter database postgres reset all')
  },
)

function run(...args: string[]): string {
  return spawnSync(PROGRAM, args, { encoding: 'utf8', env: { ...process.env, PATH } }).stdout ?? ''
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  }).finally(() => socket.destroy()) as Promise<boolean>
}
