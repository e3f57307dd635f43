import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type CopyRow, copyIn, copyOut } from './copy.ts'
import { type DatabaseSettings, DEFAULT_SETTINGS, parseDatabaseUrl } from './database-url.ts'
import { DedicatedConnection } from './dedicated-connection.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded/embedded-postgres.ts'
import { DatabaseUnavailableError, isConflict, isConnectionFailure, isTemporaryFailure } from './errors.ts'
import { assertUsable, prepareSession, retryConflicts } from './session.ts'
import { execute, runStatement } from './statement.ts'

/** Whatever runs statements: the database, a transaction, a dedicated connection. */
export interface Queryable {
  /**
   * Rows of one statement with values $1, $2 …; without values the text may hold several statements. An array
   * is sent as a Postgres array: stringify one that is meant as jsonb. Fails with DatabaseUnavailable, or
   * with pg's DatabaseError (`code`, `constraint`).
   */
  query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]>
}

/** Statements that take effect together. */
export interface Transaction extends Queryable {
  /** See `copyIn`. */
  copyIn(text: string, rows: AsyncIterable<CopyRow>): Promise<void>
}

export interface DatabaseOptions {
  /** `postgres://…`; without it an embedded Postgres runs in dataDir. */
  readonly url?: string | undefined
  /** The same database without the pooler that stands in front of it: LISTEN needs a session of its own. */
  readonly listenUrl?: string | undefined
  readonly dataDir: string
  readonly log?: (line: string) => void
}

export interface TransactionOptions {
  readonly statementTimeoutMs?: number
}

const HEALTH_TIMEOUT_MS = 2_000
const CLOSE_GRACE_MS = 3_000
/** How long a statement may take before we look whether the server is there; and how often it may then be silent. */
const LIVENESS_CHECK_INTERVAL_MS = 3_000
const MAX_FAILED_LIVENESS_CHECKS = 2

/**
 * Connections to Postgres. No call waits without a bound: 10 s for a connection (`connect_timeout`), 30 s for a statement (10 s when the server is silent), 60 s
 * for the embedded server to come back. It does NOT repeat a statement that failed, since the caller knows whether
 * that is right; except, up to 7 times, what the server has undone as a whole because of a conflict with others.
 */
export class Database implements Queryable {
  private readonly embedded: EmbeddedPostgres | undefined
  private readonly log: (line: string) => void
  private readonly config: pg.ClientConfig
  private readonly listenConfig: pg.ClientConfig
  private readonly address: string
  private readonly pool: pg.Pool
  private readonly clientsInUse = new Set<pg.PoolClient>()
  private readonly pendingOperations = new Set<Promise<unknown>>()
  private readonly dedicatedConnections = new Set<DedicatedConnection>()
  private readonly healthConnection: DedicatedConnection
  private pendingHealthCheck: Promise<boolean> | undefined
  private closing: Promise<void> | undefined

  /** Connects, after starting the embedded Postgres where no url is given. Fails with DatabaseUnavailable. */
  static async open({ url, listenUrl, dataDir, log = () => {} }: DatabaseOptions): Promise<Database> {
    const settings = url === undefined ? embeddedSettings : parseDatabaseUrl(url)
    const listen = listenUrl === undefined ? settings : parseDatabaseUrl(listenUrl, 'DATABASE_LISTEN_URL')
    const embedded = url === undefined ? await startEmbeddedPostgres({ dataDir, log }) : undefined
    const database = new Database(settings, listen, embedded, log)
    try {
      // An embedded server whose owner has just died may answer once more and then go; the second try starts
      // another.
      await database.query('select 1').catch(() => database.query('select 1'))
      await assertUsable([
        (text, values) => database.query(text, values),
        (text, values) => database.healthConnection.query(text, values),
      ])
      return database
    } catch (error) {
      await database.close()
      throw error
    }
  }

  private constructor(
    settings: DatabaseSettings,
    listen: DatabaseSettings,
    embedded: EmbeddedPostgres | undefined,
    log: (line: string) => void,
  ) {
    this.embedded = embedded
    this.log = log
    this.config = { ...clientConfig(settings), ...embedded?.connection }
    this.listenConfig = { ...clientConfig(listen), ...embedded?.connection }
    this.address = embedded ? 'embedded' : describeAddress(this.config)
    this.pool = new pg.Pool({ ...this.config, max: settings.poolSize, onConnect: prepareSession })
    this.pool.on('error', (error) => this.log(`A database connection was lost: ${error.message}`))
    this.pool.on('connect', ignoreErrorEvents)
    this.healthConnection = this.openDedicatedConnection(HEALTH_TIMEOUT_MS)
  }

  async query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    return retryConflicts(() => this.withClient((client) => runStatement<Row>(client, text, values)))
  }

  /** See `copyOut`. */
  async copyOut(text: string): Promise<Uint8Array[]> {
    return this.withClient((client) => copyOut(client, text))
  }

  /**
   * Commits when work returns; rolls back and passes the error on when it throws. After a conflict with others all of
   * it is done again: work must have no effects but on the database.
   */
  async transaction<T>(work: (tx: Transaction) => Promise<T>, options: TransactionOptions = {}): Promise<T> {
    return retryConflicts(() => this.runTransaction(work, options.statementTimeoutMs))
  }

  private runTransaction<T>(
    work: (tx: Transaction) => Promise<T>,
    timeoutMs: number | undefined,
  ): Promise<T> {
    return this.withClient(async (client) => {
      const begin = 'begin isolation level read committed'
      await execute(
        client,
        timeoutMs === undefined ? begin : `${begin}; set local statement_timeout = ${timeoutMs}`,
      )
      const refuse = (error: unknown): never => {
        const isGone = isConnectionFailure(error) || (isTemporaryFailure(error) && !isConflict(error))
        throw isGone ? this.toUnavailableError(error) : error
      }
      const tx: Transaction = {
        query: <Row>(text: string, values?: readonly unknown[]) =>
          runStatement<Row>(client, text, values, timeoutMs).catch(refuse),
        copyIn: (text, rows) => copyIn(client, text, rows).catch(refuse),
      }
      try {
        const result = await work(tx)
        const { command } = await execute(client, 'commit')
        if (command !== 'COMMIT')
          throw new Error('The transaction was rolled back: one of its statements had failed.')
        return result
      } catch (error) {
        // A connection that cannot even roll back is ended, which rolls back too; the pool then drops it.
        if (!isConnectionFailure(error)) await execute(client, 'rollback').catch(() => client.end())
        throw error
      }
    })
  }

  /** A connection of its own for one long-lived purpose, such as heartbeats. It counts beside the pool. */
  openDedicatedConnection(statementTimeoutMs?: number): DedicatedConnection {
    const connection = new DedicatedConnection(
      () => this.connect(this.config),
      (cause) => this.toUnavailableError(cause),
      statementTimeoutMs,
    )
    this.dedicatedConnections.add(connection)
    return connection
  }

  /**
   * A raw connection for LISTEN, which the caller watches (`error`, `end`) and ends. Goes to `listenUrl` where there is
   * one. Fails with DatabaseUnavailable; starts the embedded server anew when it has died.
   */
  connectToListen(): Promise<pg.Client> {
    return this.connect(this.listenConfig)
  }

  private connect(config: pg.ClientConfig): Promise<pg.Client> {
    return this.connectWithRestart(async () => {
      const client = new pg.Client({ ...config, ...this.embedded?.connection })
      ignoreErrorEvents(client)
      await client.connect()
      await prepareSession(client)
      return client
    })
  }

  /**
   * Whether the database answers within 2 s. Has a connection of its own: a busy pool is not an absent
   * database.
   */
  async isAvailable(): Promise<boolean> {
    this.pendingHealthCheck ??= this.healthConnection
      .query('select 1')
      .then(
        () => true,
        () => false,
      )
      .finally(() => {
        this.pendingHealthCheck = undefined
      })
    return withTimeout(HEALTH_TIMEOUT_MS, this.pendingHealthCheck, false)
  }

  /**
   * Waits up to 3 s for what is under way, ends all connections, then the embedded server if it is ours.
   * Idempotent.
   */
  close(): Promise<void> {
    this.closing ??= this.shutDown()
    return this.closing
  }

  private async shutDown(): Promise<void> {
    for (const connection of this.dedicatedConnections) await connection.close()
    await withTimeout(CLOSE_GRACE_MS, Promise.allSettled(this.pendingOperations), [])
    for (const client of this.clientsInUse) void client.end() // Breaks the statement that runs on it.
    await this.pool.end()
    await this.embedded?.stop()
  }

  private withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const result = this.useClient(work)
    this.pendingOperations.add(result)
    const forget = () => this.pendingOperations.delete(result)
    result.then(forget, forget)
    return result
  }

  private async useClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const client = await this.connectWithRestart(() => this.pool.connect())
    this.clientsInUse.add(client)
    const endWatch = this.watchForSilence(client)
    let isBroken = false
    try {
      return await work(client)
    } catch (error) {
      isBroken = isConnectionFailure(error)
      throw isBroken || isTemporaryFailure(error) ? this.toUnavailableError(error) : error
    } finally {
      endWatch()
      this.clientsInUse.delete(client)
      client.release(isBroken)
    }
  }

  /**
   * Breaks a connection off when a statement takes long and the server gives no other sign of life either: one that is
   * frozen, or cut off without a word, would keep callers waiting for as long as a statement may take.
   */
  private watchForSilence(client: pg.PoolClient): () => void {
    let silences = 0
    const timer = setInterval(async () => {
      silences = (await this.isAvailable()) ? 0 : silences + 1
      if (silences >= MAX_FAILED_LIVENESS_CHECKS && this.clientsInUse.has(client)) void client.end()
    }, LIVENESS_CHECK_INTERVAL_MS)
    return () => clearInterval(timer)
  }

  /** Connects; when that fails and the server is embedded, makes sure that it runs and tries once more. */
  private async connectWithRestart<T>(connect: () => Promise<T>): Promise<T> {
    if (this.closing) throw this.toUnavailableError(new Error('it has been closed'))
    try {
      return await connect()
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      const isBusy =
        message.startsWith('timeout exceeded when trying to connect') || isTemporaryFailure(error)
      if (!this.embedded || this.closing || isBusy) throw this.toUnavailableError(error)
      this.log(`The embedded Postgres does not answer (${message}); looking after it.`)
    }
    try {
      Object.assign(this.pool.options, await this.embedded.ensureRunning())
      return await connect()
    } catch (error) {
      throw this.toUnavailableError(error)
    }
  }

  private toUnavailableError(cause: unknown): DatabaseUnavailableError {
    return cause instanceof DatabaseUnavailableError
      ? cause
      : new DatabaseUnavailableError(this.address, cause)
  }
}

const embeddedSettings: DatabaseSettings = { config: {}, ...DEFAULT_SETTINGS }

function clientConfig({ config, connectTimeoutMs }: DatabaseSettings): pg.ClientConfig {
  return {
    ...config,
    application_name: 'shipcast',
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    types: resultTypes,
  }
}

/** Without a listener Node ends the process. The statement under way, or the next one, fails and tells. */
function ignoreErrorEvents(client: pg.ClientBase): void {
  client.on('error', () => {})
}

/** For messages: without user and password. */
function describeAddress(config: pg.ClientConfig): string {
  const { host, port, database } = new pg.Client(config)
  return `${host}:${port}/${database}`
}

/** What the promise brings, or the other value when it takes longer. */
async function withTimeout<T>(ms: number, promise: Promise<T>, otherwise: T): Promise<T> {
  const timer = new AbortController()
  const late = sleep(ms, otherwise, { signal: timer.signal }).catch(() => otherwise)
  try {
    return await Promise.race([promise, late])
  } finally {
    timer.abort()
  }
}

/**
 * How results become JavaScript values: int8 is a number (a RangeError beyond 2^53), timestamptz a Date,
 * jsonb an object, bytea a Buffer; the rest is as `pg` does it (numeric stays a string).
 */
export const resultTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format: 'text' | 'binary' = 'text') =>
    oid === pg.types.builtins.INT8 && format === 'text'
      ? parseInt8
      : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
}

function parseInt8(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError(`${text} is too large for a JavaScript number`)
  return value
}
