import pg from 'pg'
import { SharedCalls } from '../runtime/coalesced-task.ts'
import { withTimeout } from '../runtime/with-timeout.ts'
import { type CopyRow, copyIn, copyOut } from './copy.ts'
import { type DatabaseSettings, DEFAULT_SETTINGS, parseDatabaseUrl } from './database-url.ts'
import { DedicatedConnection } from './dedicated-connection.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded/embedded-postgres.ts'
import { DatabaseUnavailableError, isConflict, isConnectionFailure, isTemporaryFailure } from './errors.ts'
import { assertUsable, prepareSession, retryConflicts } from './session.ts'
import { execute, type Queryable, runStatement } from './statement.ts'

/** Statements that take effect together. */
export interface Transaction extends Queryable {
  /** See `copyIn`. */
  copyIn(text: string, rows: AsyncIterable<CopyRow>): Promise<void>
}

interface DatabaseOptions {
  /** `postgres://…`; without it, an embedded Postgres runs in dataDir. */
  readonly url?: string | undefined
  /** The same database without the pooler in front of it: LISTEN requires a session. */
  readonly listenUrl?: string | undefined
  readonly dataDir: string
  readonly log?: (line: string) => void
}

interface TransactionOptions {
  readonly statementTimeoutMs?: number
}

const HEALTH_TIMEOUT_MS = 2_000
const CLOSE_GRACE_MS = 3_000
/** A statement that takes this long starts health checks; this many failures in a row end its connection. */
const LIVENESS_CHECK_INTERVAL_MS = 3_000
const MAX_FAILED_LIVENESS_CHECKS = 2

/**
 * Connections to PostgreSQL. Every wait has a bound: 10 s for a connection (`connect_timeout`), 30 s for a
 * statement (10 s if the server does not respond), 60 s for the embedded server to restart. Failed statements
 * are not repeated, since only the caller knows whether that is safe. Exceptions are those that the server
 * rolled back because of a conflict (up to 7 times).
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
  private readonly healthChecks = new SharedCalls<boolean>()
  private closing: Promise<void> | undefined

  /** Connects, after starting the embedded Postgres if `url` is not set. @throws DatabaseUnavailableError */
  static async open({ url, listenUrl, dataDir, log = () => {} }: DatabaseOptions): Promise<Database> {
    const settings = url === undefined ? embeddedSettings : parseDatabaseUrl(url)
    const listen = listenUrl === undefined ? settings : parseDatabaseUrl(listenUrl, 'DATABASE_LISTEN_URL')
    const embedded = url === undefined ? await startEmbeddedPostgres({ dataDir, log }) : undefined
    const database = new Database(settings, listen, embedded, log)
    try {
      // An embedded server whose owner has just died can respond once more before it ends; the second attempt
      // starts another.
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
    this.pool.on('error', (error) => this.log(`Database connection lost: ${error.message}`))
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
   * Commits when `work` resolves; rolls back and rethrows when it rejects. After a conflict it runs again: it
   * must have no effects outside the database.
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
      const rethrow = (error: unknown): never => {
        const isUnavailable = isConnectionFailure(error) || (isTemporaryFailure(error) && !isConflict(error))
        throw isUnavailable ? this.toUnavailableError(error) : error
      }
      const tx: Transaction = {
        query: <Row>(text: string, values?: readonly unknown[]) =>
          runStatement<Row>(client, text, values, timeoutMs).catch(rethrow),
        copyIn: (text, rows) => copyIn(client, text, rows).catch(rethrow),
      }
      try {
        const result = await work(tx)
        const { command } = await execute(client, 'commit')
        if (command !== 'COMMIT')
          throw new Error('The transaction was rolled back: one of its statements had failed.')
        return result
      } catch (error) {
        // Ending a connection that cannot roll back has the same effect; the pool then drops it.
        if (!isConnectionFailure(error)) await execute(client, 'rollback').catch(() => client.end())
        throw error
      }
    })
  }

  /** A connection for one long-lived purpose, such as heartbeats; not part of the pool. */
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
   * A raw connection for LISTEN, which the caller monitors (`error`, `end`) and ends. Uses `listenUrl` if
   * set. Restarts the embedded server if it has died.
   * @throws DatabaseUnavailableError
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

  /** Whether the database responds within 2 s, on a dedicated connection: a busy pool is not an outage. */
  async isAvailable(): Promise<boolean> {
    const response = this.healthChecks.run('select 1', () =>
      this.healthConnection.query('select 1').then(
        () => true,
        () => false,
      ),
    )
    return withTimeout(response, HEALTH_TIMEOUT_MS, false)
  }

  /** Waits up to 3 s for operations, ends all connections and our embedded server. Idempotent. */
  close(): Promise<void> {
    this.closing ??= this.shutDown()
    return this.closing
  }

  private async shutDown(): Promise<void> {
    for (const connection of this.dedicatedConnections) await connection.close()
    await withTimeout(Promise.allSettled(this.pendingOperations), CLOSE_GRACE_MS, undefined)
    for (const client of this.clientsInUse) void client.end() // Ends the statement that runs on it.
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
    const stopMonitoring = this.monitorResponsiveness(client)
    let isBroken = false
    try {
      return await work(client)
    } catch (error) {
      isBroken = isConnectionFailure(error)
      throw isBroken || isTemporaryFailure(error) ? this.toUnavailableError(error) : error
    } finally {
      stopMonitoring()
      this.clientsInUse.delete(client)
      client.release(isBroken)
    }
  }

  /**
   * Ends a connection if a statement takes long and health checks fail as well: callers would otherwise wait
   * for the whole statement timeout of a server that is frozen or silently disconnected.
   */
  private monitorResponsiveness(client: pg.PoolClient): () => void {
    let failedChecks = 0
    const timer = setInterval(async () => {
      failedChecks = (await this.isAvailable()) ? 0 : failedChecks + 1
      if (failedChecks >= MAX_FAILED_LIVENESS_CHECKS && this.clientsInUse.has(client)) void client.end()
    }, LIVENESS_CHECK_INTERVAL_MS)
    return () => clearInterval(timer)
  }

  /** Connects; on failure ensures that the embedded server runs and retries once. */
  private async connectWithRestart<T>(connect: () => Promise<T>): Promise<T> {
    if (this.closing) throw this.toUnavailableError(new Error('it is closed'))
    try {
      return await connect()
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      const isBusy =
        message.startsWith('timeout exceeded when trying to connect') || isTemporaryFailure(error)
      if (!this.embedded || this.closing || isBusy) throw this.toUnavailableError(error)
      this.log(`Embedded Postgres does not respond (${message}); restarting it if necessary`)
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

/** Without a listener Node ends the process. The running or next statement fails and reports the error. */
function ignoreErrorEvents(client: pg.ClientBase): void {
  client.on('error', () => {})
}

/** For messages: no user, no password. */
function describeAddress(config: pg.ClientConfig): string {
  const { host, port, database } = new pg.Client(config)
  return `${host}:${port}/${database}`
}

/**
 * How results become JavaScript values: int8 is a number (RangeError beyond 2^53), timestamptz a Date, jsonb
 * an object, bytea a Buffer; the rest as in `pg` (numeric stays a string).
 */
const resultTypes: pg.CustomTypesConfig = {
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
