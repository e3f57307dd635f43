import type pg from 'pg'
import { isConnectionFailure, isTemporaryFailure } from './errors.ts'
import { retryConflicts } from './session.ts'
import { type Queryable, runStatement } from './statement.ts'

/**
 * One connection outside the pool, for one purpose. Runs statements one after another. Connects on first use,
 * and reconnects on the next use after a loss: the statement that encounters the loss fails, and session
 * state (locks, settings) is gone.
 */
export class DedicatedConnection implements Queryable {
  private readonly connect: () => Promise<pg.Client>
  private readonly toUnavailableError: (cause: unknown) => Error
  private readonly statementTimeoutMs: number | undefined
  private client: pg.Client | undefined
  private lastQuery: Promise<unknown> = Promise.resolve()
  private isClosed = false

  constructor(
    connect: () => Promise<pg.Client>,
    toUnavailableError: (cause: unknown) => Error,
    statementTimeoutMs?: number,
  ) {
    this.connect = connect
    this.toUnavailableError = toUnavailableError
    this.statementTimeoutMs = statementTimeoutMs
  }

  query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    const result = this.lastQuery.then(() => retryConflicts(() => this.queryNow<Row>(text, values)))
    this.lastQuery = result.catch(() => {})
    return result
  }

  /** Ends the connection and the statement that runs on it. Idempotent. */
  async close(): Promise<void> {
    this.isClosed = true
    await this.drop(this.client)
  }

  private async queryNow<Row>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    const client = this.client ?? (await this.open())
    try {
      return await runStatement<Row>(client, text, values, this.statementTimeoutMs)
    } catch (error) {
      if (isConnectionFailure(error)) void this.drop(client)
      else if (!isTemporaryFailure(error)) throw error
      throw this.toUnavailableError(error)
    }
  }

  private async open(): Promise<pg.Client> {
    if (this.isClosed) throw this.toUnavailableError(new Error('the connection is closed'))
    const client = await this.connect()
    this.client = client
    client.once('end', () => void this.drop(client))
    if (this.isClosed) await this.drop(client)
    return client
  }

  private async drop(client: pg.Client | undefined): Promise<void> {
    if (this.client === client) this.client = undefined
    await client?.end().catch(() => {})
  }
}
