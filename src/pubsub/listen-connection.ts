import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'

/** Measured: if packets are dropped, a connection reports nothing for 20 s and more, even with keepalive. */
const HEARTBEAT_INTERVAL_MS = 5_000
const RESPONSE_TIMEOUT_MS = 3_000
const MIN_RETRY_DELAY_MS = 50
const MAX_RETRY_DELAY_MS = 5_000
/** Identifies the connection in pg_stat_activity. */
const SET_APPLICATION_NAME = `select set_config('application_name', current_setting('application_name') || ' listen', false)`

interface ListenConnectionOptions {
  readonly connect: () => Promise<pg.Client>
  /** Called for each connection. Must return an identifier without quotes: letters, digits, underscores. */
  readonly channel: () => Promise<string>
  readonly onNotification: (payload: string) => void
  /** Called when listening starts, also after a reconnect: earlier notifications may have been missed. */
  readonly onListening: () => void
  /** Called once for each loss of the connection. */
  readonly onLost: (error: unknown) => void
}

/**
 * One session that listens and notifies on a channel.
 *
 *   connecting ── LISTEN ──> listening ── `select 1` every 5 s ──> listening
 *       ^                        │ ended, or no response within 3 s
 *       └── 50 ms … 5 s ─────────┘
 *
 * Never idle in a transaction: the server could not truncate its notification queue.
 */
export class ListenConnection {
  private readonly options: ListenConnectionOptions
  private readonly closing = new AbortController()
  private client: pg.Client | undefined
  private channel = ''
  private running: Promise<void> | undefined
  /** Statements run one after another: heartbeats and notifications share the connection. */
  private lastStatement: Promise<unknown> = Promise.resolve()

  constructor(options: ListenConnectionOptions) {
    this.options = options
  }

  get isListening(): boolean {
    return this.client !== undefined
  }

  /** Resolves when listening, or when the first attempt has failed; then it keeps trying. */
  async start(): Promise<void> {
    const firstAttempt = Promise.withResolvers<void>()
    this.running = this.keepListening(firstAttempt.resolve)
    await firstAttempt.promise
  }

  /** Sends notifications in one statement. False: they were not sent, or the outcome is unknown. */
  async notify(payloads: readonly string[]): Promise<boolean> {
    const client = this.client
    if (!client) return false
    try {
      const values = [this.channel, [...payloads]]
      await this.runInOrder(client, queryConfig(NOTIFY, 'notify', values))
      return true
    } catch {
      // `monitor` notices and reconnects.
      disconnect(client)
      return false
    }
  }

  async close(): Promise<void> {
    this.closing.abort()
    await this.running
  }

  private async keepListening(onAttempt: () => void): Promise<void> {
    const { signal } = this.closing
    let delayMs = MIN_RETRY_DELAY_MS
    while (!signal.aborted) {
      let client: pg.Client | undefined
      try {
        client = await this.listen()
        delayMs = MIN_RETRY_DELAY_MS
        onAttempt()
        await this.monitor(client)
      } catch (error) {
        if (!signal.aborted && (client || delayMs === MIN_RETRY_DELAY_MS)) this.options.onLost(error)
      }
      this.client = undefined
      if (client) disconnect(client)
      onAttempt()
      // Random, so that nodes that lost their connections together do not reconnect together.
      await sleep(delayMs * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined)
      delayMs = Math.min(delayMs * 2, MAX_RETRY_DELAY_MS)
    }
  }

  private async listen(): Promise<pg.Client> {
    const { connect, onNotification, onListening } = this.options
    const channel = await this.options.channel()
    const client = await connect()
    try {
      // A pooler can hand over a session that also listens to other channels.
      client.on('notification', (message) => {
        if (message.channel === channel) onNotification(message.payload ?? '')
      })
      await client.query(queryConfig(`${SET_APPLICATION_NAME}; listen ${channel}`))
      this.closing.signal.throwIfAborted()
      this.channel = channel
      this.client = client
      onListening()
      return client
    } catch (error) {
      disconnect(client)
      throw error
    }
  }

  /** Rejects when the connection has ended or does not respond. */
  private async monitor(client: pg.Client): Promise<void> {
    const { signal } = this.closing
    const ended = new AbortController()
    client.once('end', () => ended.abort(new Error('The server ended the connection.')))
    const stopped = AbortSignal.any([signal, ended.signal])
    while (!stopped.aborted) {
      await sleep(HEARTBEAT_INTERVAL_MS, undefined, { signal: stopped }).catch(() => undefined)
      if (!stopped.aborted) await this.runInOrder(client, queryConfig('select 1'))
    }
    throw stopped.reason
  }

  private runInOrder(client: pg.Client, query: pg.QueryConfig): Promise<unknown> {
    const result = this.lastStatement.then(() => client.query(query))
    this.lastStatement = result.catch(() => undefined)
    return result
  }
}

// A notification need not survive a power failure, so its transaction does not wait for the disk. Not set for
// the session, which other clients of a pooler may use next.
const NOTIFY = `
  with setting as materialized (select set_config('synchronous_commit', 'off', true))
  select pg_notify($1, payload) from setting, unnest($2::text[]) payload`

function queryConfig(text: string, name?: string, values?: unknown[]) {
  return { text, ...(name && { name }), ...(values && { values }), query_timeout: RESPONSE_TIMEOUT_MS }
}

/** Does not wait: the server may never respond. */
function disconnect(client: pg.Client): void {
  client.removeAllListeners('notification')
  client.end().catch(() => undefined)
}
