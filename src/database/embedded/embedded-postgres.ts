import { stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { ConfigError } from '../../config/config.ts'
import { createPgData, findPgData } from './data-directory.ts'
import {
  canAccess,
  changeOwner,
  initdbAccount,
  isDedicatedUid,
  isRoot,
  type SystemAccount,
  serverAccount,
} from './postgres-account.ts'
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

/** How to reach it: a Unix socket and a password. */
export interface EmbeddedConnection {
  /** The folder that holds the socket. It changes when the server is started anew. */
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  // Given although they are the defaults: pg otherwise asks the environment (PGOPTIONS, PGSSLMODE …).
  readonly ssl: false
  readonly sslnegotiation: 'postgres'
  readonly options: string
  readonly replication: 'false'
}

/**
 * A Postgres of our own on `<dataDir>/postgres-18`; one server per folder, whoever of its users has started
 * it.
 */
export interface EmbeddedPostgres {
  readonly connection: EmbeddedConnection
  /** Returns at once when a server answers; otherwise starts one. Fails after 60 s. */
  ensureRunning(): Promise<EmbeddedConnection>
  /** Ends the server if this process has started it. Others who use the folder then start it again. */
  stop(): Promise<void>
}

export interface EmbeddedPostgresOptions {
  readonly dataDir: string
  readonly signal?: AbortSignal
  readonly log?: (line: string) => void
  /** Server settings beside ours; the tests use it. */
  readonly settings?: Readonly<Record<string, string>>
}

const PORT = 5432
const SUPERUSER = 'shipcast'
const DATABASE = 'postgres'
const START_TIMEOUT_MS = 60_000
const START_POLL_INTERVAL_MS = 15
/**
 * Postgres says one of these when another server has the folder, or when the last of a killed one is still
 * going.
 */
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
  // Rejected statements are the caller's to report, and their text holds people's contents.
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
 * ensureRunning looks and acts until somebody's server answers:
 *
 *     no data folder ── initdb ──> no postmaster.pid ── start ──> starting ──> ready: connect
 *                                   ^                               │ lost the race, or
 *     server died, pid reused ──────┘ (remove the file)             └ predecessor still stopping: look again
 */
class EmbeddedPostgresServer implements EmbeddedPostgres {
  private readonly dataDir: string
  private readonly settings: Readonly<Record<string, string>>
  private readonly log: (line: string) => void
  private readonly stopping = new AbortController()
  private readonly signal: AbortSignal
  private process: SupervisedProcess | undefined
  private currentConnection: EmbeddedConnection | undefined
  private pendingStart: Promise<EmbeddedConnection> | undefined
  /** The server that we have started does not ask for the password yet. */
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
    this.pendingStart ??= this.findOrStart().finally(() => {
      this.pendingStart = undefined
    })
    return this.pendingStart
  }

  async stop(): Promise<void> {
    this.stopping.abort(new Error('The embedded Postgres is being stopped.'))
    await this.pendingStart?.catch(() => {})
    await this.process?.stop()
  }

  private async findOrStart(): Promise<EmbeddedConnection> {
    const cluster = (await findPgData(this.dataDir)) ?? (await this.createData())
    const password = await ensurePassword(this.dataDir)
    if (!this.process?.isRunning) this.process = undefined
    let failedStarts = 0
    const deadline = performance.now() + START_TIMEOUT_MS
    while (performance.now() < deadline) {
      this.signal.throwIfAborted()
      const ownerUid = (await stat(cluster)).uid
      const postmaster = await readPostmaster(cluster)
      const connection = postmaster && toConnection(postmaster, password)
      if (postmaster?.status === 'ready' && connection && (await acceptsConnections(connection, ownerUid))) {
        if (this.isUnprotected && this.process?.isRunning) await requirePassword(cluster, connection)
        this.isUnprotected = false
        this.currentConnection = connection
        return connection
      }
      const starting =
        this.process?.isRunning || (postmaster && (await isPostmasterAlive(postmaster, cluster)))
      if (!starting) {
        if (this.process && !LOCK_CONFLICT.test(this.process.lastLines())) failedStarts++
        if (failedStarts >= MAX_START_ATTEMPTS) throw this.startError(cluster, 'does not start')
        if (postmaster) {
          await removeIfStale(cluster, postmaster)
          await removeSocketFolder(postmaster.socketDir, postmaster.port, ownerUid)
        } else if (isRoot()) {
          await this.takeOwnership(cluster, ownerUid)
        }
        this.isUnprotected = !(await requiresPassword(cluster, password))
        if (this.isUnprotected) await trustLocalConnections(cluster)
        await this.start(cluster)
      }
      await sleep(START_POLL_INTERVAL_MS)
    }
    throw this.startError(cluster, `did not answer within ${START_TIMEOUT_MS / 1000} s`)
  }

  private async createData(): Promise<string> {
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

  /**
   * Earlier versions ran root's Postgres under an account that other programs may have (postgres, nobody). Not where the
   * folder is another user's own, whose database root only happens to start; nor after a crash, of which processes may
   * be left.
   */
  private async takeOwnership(cluster: string, ownerUid: number): Promise<void> {
    const account = await serverAccount(this.dataDir)
    const isOwn = (await stat(this.dataDir)).uid === 0
    if (ownerUid === 0 || isDedicatedUid(ownerUid) || !isOwn || !(await canAccess(dirname(cluster), account)))
      return
    await changeOwner(account, cluster)
    this.log(`The database in ${cluster} now belongs to ${account.name}, which is its own.`)
  }

  private async start(cluster: string): Promise<void> {
    const account = isRoot() ? await accountOf(cluster) : undefined
    const binaries = await findBinaries(account)
    this.signal.throwIfAborted()
    const socketDir = await createSocketFolder(this.dataDir, PORT, account)
    const settings = Object.entries({ ...this.settings, unix_socket_directories: socketDir })
    const args = [
      '-D',
      cluster,
      '-p',
      String(PORT),
      ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ]
    this.process = new SupervisedProcess(join(binaries, 'bin', 'postgres'), args, account, socketDir)
  }

  private startError(cluster: string, what: string): Error {
    const lines = this.process?.lastLines() || 'It wrote nothing; another process may hold the folder.'
    return new Error(`The embedded Postgres on ${cluster} ${what}. Its last lines:\n${lines}`)
  }
}

/** The data folder's owner: Postgres insists on running as that account. */
async function accountOf(cluster: string): Promise<SystemAccount> {
  const { uid, gid } = await stat(cluster)
  const account = { name: `uid ${uid}`, uid, gid }
  if (uid === 0)
    throw new Error(
      `${cluster} belongs to root, and Postgres does not run as root. Give it to another account.`,
    )
  if (await canAccess(cluster, account)) return account
  throw new Error(
    `${cluster} belongs to ${account.name}, which cannot enter a folder on the way there. Open that way (chmod o+x), or move DATA_DIR.`,
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
  client.on('error', () => {}) // It may die while we look; then it does not answer.
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
