import { stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { ConfigError } from '../../config/config.ts'
import { SharedCalls } from '../../runtime/coalesced-task.ts'
import { createPgData, findPgData } from './data-directory.ts'
import { canAccess, initdbAccount, isRoot, type SystemAccount, serverAccount } from './postgres-account.ts'
import { findBinaries } from './postgres-binaries.ts'
import { isPostmasterAlive, type Postmaster, readPostmaster, removeIfStale } from './postmaster-file.ts'
import { assertPrivate, createSocketFolder, removeSocketFolder } from './socket-folder.ts'
import {
  ensurePassword,
  requirePassword,
  requiresPassword,
  trustLocalConnections,
} from './superuser-password.ts'
import { SupervisedProcess } from './supervised-process.ts'

/** For pg: a Unix socket and a password. */
export interface EmbeddedConnection {
  /** The socket's folder, which changes with each start of the server. */
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  // Defaults, but pg would otherwise read them from the environment (PGOPTIONS, PGSSLMODE …).
  readonly ssl: false
  readonly sslnegotiation: 'postgres'
  readonly options: string
  readonly replication: 'false'
}

/** A Postgres server on `<dataDir>/postgres-18`. All processes that use the folder share one server. */
export interface EmbeddedPostgres {
  readonly connection: EmbeddedConnection
  /** Resolves at once if a server responds; otherwise starts one. Fails after 60 s. */
  ensureRunning(): Promise<EmbeddedConnection>
  /**
   * Stops the server if this process has started it. Other processes that use the folder then start it again.
   */
  stop(): Promise<void>
}

interface EmbeddedPostgresOptions {
  readonly dataDir: string
  readonly signal?: AbortSignal
  readonly log?: (line: string) => void
  /** Further server settings, for tests. */
  readonly settings?: Readonly<Record<string, string>>
}

const PORT = 5432
const SUPERUSER = 'shipcast'
const DATABASE = 'postgres'
const START_TIMEOUT_MS = 60_000
const START_POLL_INTERVAL_MS = 15
/** In the output of a server that found another one on the folder, or processes of a killed one. */
const LOCK_CONFLICT = /lock file|shared memory block/
const MAX_START_ATTEMPTS = 3

const SETTINGS = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: '100',
  shared_buffers: '32MB',
  max_wal_size: '256MB',
  jit: 'off',
  log_checkpoints: 'off',
  // The caller reports rejected statements, whose text can contain users' contents.
  log_min_messages: 'log',
  log_min_error_statement: 'panic',
}

export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const server = new EmbeddedPostgresServer(options)
  try {
    await server.ensureRunning()
    return server
  } catch (error) {
    await server.stop()
    throw error
  }
}

/**
 * ensureRunning repeats these steps until a server of any process responds:
 *
 *     no data folder ── initdb ──> no postmaster.pid ── start ──> starting ──> ready: connect
 *                                   ^                               │ lost the race, or
 *     server died, pid reused ──────┘ (remove the file)             └ predecessor still stopping: repeat
 */
class EmbeddedPostgresServer implements EmbeddedPostgres {
  private readonly dataDir: string
  private readonly settings: Readonly<Record<string, string>>
  private readonly log: (line: string) => void
  private readonly stopping = new AbortController()
  private readonly signal: AbortSignal
  private process: SupervisedProcess | undefined
  private currentConnection: EmbeddedConnection | undefined
  private readonly starts = new SharedCalls<EmbeddedConnection>()
  /** The server that this process started does not require the password yet. */
  private isUnprotected = false

  constructor({ dataDir, signal, log, settings }: EmbeddedPostgresOptions) {
    this.dataDir = resolve(dataDir)
    this.settings = { ...SETTINGS, ...settings }
    this.log = log ?? (() => {})
    this.signal = signal ? AbortSignal.any([signal, this.stopping.signal]) : this.stopping.signal
  }

  get connection(): EmbeddedConnection {
    if (!this.currentConnection) throw new Error('The embedded Postgres has not started yet.')
    return this.currentConnection
  }

  ensureRunning(): Promise<EmbeddedConnection> {
    return this.starts.run(this.dataDir, () => this.findOrStart())
  }

  async stop(): Promise<void> {
    this.stopping.abort(new Error('The embedded Postgres is stopping.'))
    await this.starts.settled()
    await this.process?.stop()
  }

  private async findOrStart(): Promise<EmbeddedConnection> {
    const pgData = (await findPgData(this.dataDir)) ?? (await this.createPgData())
    const password = await ensurePassword(this.dataDir)
    if (!this.process?.isRunning) this.process = undefined
    let failedStarts = 0
    const deadline = performance.now() + START_TIMEOUT_MS
    while (performance.now() < deadline) {
      this.signal.throwIfAborted()
      const ownerUid = (await stat(pgData)).uid
      const postmaster = await readPostmaster(pgData)
      const connection = postmaster && toConnection(postmaster, password)
      if (postmaster?.status === 'ready' && connection && (await acceptsConnections(connection, ownerUid))) {
        if (this.isUnprotected && this.process?.isRunning) await requirePassword(pgData, connection)
        this.isUnprotected = false
        this.currentConnection = connection
        return connection
      }
      const isStarting =
        this.process?.isRunning || (postmaster && (await isPostmasterAlive(postmaster, pgData)))
      if (!isStarting) {
        if (this.process && !LOCK_CONFLICT.test(this.process.lastLines())) failedStarts++
        if (failedStarts >= MAX_START_ATTEMPTS) throw this.startError(pgData, 'does not start')
        if (postmaster) {
          await removeIfStale(pgData, postmaster)
          await removeSocketFolder(postmaster.socketDir, postmaster.port, ownerUid)
        }
        this.isUnprotected = !(await requiresPassword(pgData, password))
        if (this.isUnprotected) await trustLocalConnections(pgData)
        await this.start(pgData)
      }
      await sleep(START_POLL_INTERVAL_MS)
    }
    throw this.startError(pgData, `did not respond within ${START_TIMEOUT_MS / 1000} s`)
  }

  private async createPgData(): Promise<string> {
    const account = isRoot() ? await serverAccount(this.dataDir) : undefined
    const initdb = isRoot() ? await initdbAccount() : undefined
    return createPgData({
      dataDir: this.dataDir,
      account,
      initdbAccount: initdb,
      binaries: await findBinaries(initdb),
      superuser: SUPERUSER,
      signal: this.signal,
      log: this.log,
    })
  }

  private async start(pgData: string): Promise<void> {
    const account = isRoot() ? await accountOf(pgData) : undefined
    const binaries = await findBinaries(account)
    this.signal.throwIfAborted()
    const socketDir = await createSocketFolder(this.dataDir, PORT, account)
    const settings = Object.entries({ ...this.settings, unix_socket_directories: socketDir })
    const args = [
      '-D',
      pgData,
      '-p',
      String(PORT),
      ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ]
    this.process = new SupervisedProcess(join(binaries, 'bin', 'postgres'), args, account, socketDir)
  }

  private startError(pgData: string, problem: string): Error {
    const lines = this.process?.lastLines() || '(none; another process may be using the folder)'
    return new Error(`The embedded Postgres on ${pgData} ${problem}. Its last output:\n${lines}`)
  }
}

/** The data folder's owner, as which Postgres must run. */
async function accountOf(pgData: string): Promise<SystemAccount> {
  const { uid, gid } = await stat(pgData)
  const account = { name: `uid ${uid}`, uid, gid }
  if (uid === 0)
    throw new Error(
      `${pgData} belongs to root, but Postgres does not run as root. Change its owner to another account.`,
    )
  if (await canAccess(pgData, account)) return account
  throw new Error(
    `${pgData} belongs to ${account.name}, which cannot enter a folder above it. Allow it to (chmod o+x), or move DATA_DIR.`,
  )
}

function toConnection({ socketDir, port }: Postmaster, password: string): EmbeddedConnection {
  return {
    host: socketDir,
    port,
    user: SUPERUSER,
    password,
    database: DATABASE,
    ssl: false,
    sslnegotiation: 'postgres',
    options: '-c search_path=public',
    replication: 'false',
  }
}

async function acceptsConnections(connection: EmbeddedConnection, ownerUid: number): Promise<boolean> {
  const client = new pg.Client({ ...connection, connectionTimeoutMillis: 5_000 })
  client.on('error', () => {}) // The server can die in between.
  try {
    await assertPrivate(connection.host, ownerUid)
    await client.connect()
    return true
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code === '28P01') {
      throw new ConfigError(
        'The running embedded Postgres does not accept the password in DATA_DIR, which was replaced after it started. Stop all processes that use this DATA_DIR, then start again.',
        { cause: error },
      )
    }
    return false
  } finally {
    await client.end().catch(() => {})
  }
}
