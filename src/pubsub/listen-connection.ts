import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'

/** A connection that was black-holed says nothing, not even with TCP keepalive (20 s and more; measured). */
const HEARTBEAT_INTERVAL_MS = 5_000
const ANSWER_TIMEOUT_MS = 3_000
const MIN_RETRY_DELAY_MS = 50
const MAX_RETRY_DELAY_MS = 5_000
/** By which it is found in pg_stat_activity. */
const SET_APPLICATION_NAME = `select set_config('application_name', current_setting('application_name') || ' listen', false)`

export interface ListenConnectionOptions {
  readonly connect: () => Promise<pg.Client>
  /** Asked for at each connection. A quoted identifier would need quotes: letters, digits and underscores only. */
  readonly channel: () => Promise<string>
  readonly onNotification: (payload: string) => void
  /** It listens (again): what was said before may have been missed. */
  readonly onListening: () => void
  /** For people; once for each time that the connection is lost. */
  readonly onLost: (error: unknown) => void
}

/**
 * One session that hears and speaks on a channel.
 *
 *   connecting ── LISTEN ──> listening ── `select 1` every 5 s ──> listening
 *       ^                        │ ended, or no answer within 3 s
 *       └── 50 ms … 5 s ─────────┘
 *
 * It is never inside a transaction: a listener idle in one would stop the server from clearing its queue.
 */
export class ListenConnection {
  private readonly options: ListenConnectionOptions
  private readonly closing = new AbortController()
  private client: pg.Client | undefined
  private channel = ''
  private running: Promise<void> | undefined
  /** Statements go one after the other: the heartbeat and what is said share the connection. */
  private lastStatement: Promise<unknown> = Promise.resolve()

  constructor(options: ListenConnectionOptions) {
    this.options = options
  }

  get isListening(): boolean {
    return this.client !== undefined
  }

  /** Resolves when it listens, or when the first try has failed; it goes on trying. */
  async start(): Promise<void> {
    const tried = Promise.withResolvers<void>()
    this.running = this.keepListening(tried.resolve)
    await tried.promise
  }

  /** Says these on the channel, in one short statement of its own. False: it did not get through, or nobody knows. */
  async notify(payloads: readonly string[]): Promise<boolean> {
    const client = this.client
    if (!client) return false
    try {
      const values = [this.channel, [...payloads]]
      await this.runInOrder(client, queryConfig(NOTIFY, 'notify', values))
      return true
    } catch {
      // Whoever keeps the connection notices too.
      disconnect(client)
      return false
    }
  }

  async close(): Promise<void> {
    this.closing.abort()
    await this.running
  }

  private async keepListening(tried: () => void): Promise<void> {
    const { signal } = this.closing
    let pauseMs = MIN_RETRY_DELAY_MS
    while (!signal.aborted) {
      let client: pg.Client | undefined
      try {
        client = await this.listen()
        pauseMs = MIN_RETRY_DELAY_MS
        tried()
        await this.monitor(client)
      } catch (error) {
        if (!signal.aborted && (client || pauseMs === MIN_RETRY_DELAY_MS)) this.options.onLost(error)
      }
      this.client = undefined
      if (client) disconnect(client)
      tried()
      // Nodes that lost their connections together do not come back together.
      await sleep(pauseMs * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined)
      pauseMs = Math.min(pauseMs * 2, MAX_RETRY_DELAY_MS)
    }
  }

  private async listen(): Promise<pg.Client> {
    const { connect, onNotification, onListening } = this.options
    const channel = await this.options.channel()
    const client = await connect()
    try {
      // A pooler may hand over a session in which somebody else listens to something else.
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

  /** Resolves or rejects when the connection is of no use any more. */
  private async monitor(client: pg.Client): Promise<void> {
    const { signal } = this.closing
    const ended = new AbortController()
    client.once('end', () => ended.abort(new Error('The server has ended the connection.')))
    const either = AbortSignal.any([signal, ended.signal])
    while (!either.aborted) {
      await sleep(HEARTBEAT_INTERVAL_MS, undefined, { signal: either }).catch(() => undefined)
      if (!either.aborted) await this.runInOrder(client, queryConfig('select 1'))
    }
    throw either.reason
  }

  private runInOrder(client: pg.Client, query: pg.QueryConfig): Promise<unknown> {
    const result = this.lastStatement.then(() => client.query(query))
    this.lastStatement = result.catch(() => undefined)
    return result
  }
}

// A hint need not survive a power cut: this one transaction does not wait for the disk. Not the session: through a
// pooler others may use it next.
const NOTIFY = `
  with hurry as materialized (select set_config('synchronous_commit', 'off', true))
  select pg_notify($1, said) from hurry, unnest($2::text[]) said`

function queryConfig(text: string, name?: string, values?: unknown[]) {
  return { text, ...(name && { name }), ...(values && { values }), query_timeout: ANSWER_TIMEOUT_MS }
}

/** Ends it without waiting for a server that may never answer. */
function disconnect(client: pg.Client): void {
  client.removeAllListeners('notification')
  client.end().catch(() => undefined)
}
