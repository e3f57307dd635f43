import { randomUUID } from 'node:crypto'
import { Logger } from '@nestjs/common'
import { PubSub } from 'graphql-subscriptions'
import type { Database } from '../database/database.ts'
import { withTimeout } from '../runtime/with-timeout.ts'
import { ListenConnection } from './listen-connection.ts'
import { NotificationBatcher } from './notification-batcher.ts'

/**
 * The name of the installation's channel. All users of a database share its channels, so the name is derived
 * from a secret. It includes the table's oid: a copy of the data in another schema has another channel.
 */
export const SELECT_CHANNEL = `
  select 'shipcast_' || left(encode(sha256(convert_to(id || ' ' || tableoid, 'UTF8')), 'hex'), 32) as channel
  from installation`
/** How long our own notification can take to return before we report that LISTEN does not work. */
const ECHO_TIMEOUT_MS = 5_000
/** How long a shutdown waits for the last messages to be sent. */
const FLUSH_TIMEOUT_MS = 1_000

/**
 * PubSub across nodes over LISTEN and NOTIFY. Subscribers of this process are called at once; other nodes
 * receive the payload as parsed JSON. Delivery and order are not guaranteed. Subscribers also receive an
 * empty payload, `{}`, which means "messages were lost, read the state": after a reconnect, for a payload
 * above 7.5 kB, and under overload.
 */
export class PostgresPubSub extends PubSub {
  private readonly logger = new Logger('PubSub')
  private readonly database: Database
  private readonly nodeId = randomUUID().slice(0, 8)
  private readonly topicsBySubscription = new Map<number, string>()
  private readonly listenConnection: ListenConnection
  private readonly batcher: NotificationBatcher
  private notificationCount = 0
  private channel = ''
  private echoTimer: NodeJS.Timeout | undefined

  constructor(database: Database) {
    super()
    this.database = database
    this.listenConnection = new ListenConnection({
      connect: () => database.connectToListen(),
      channel: () => this.readChannel(),
      onNotification: (payload) => this.onNotification(payload),
      onListening: () => this.notifyAllTopics(),
      onLost: (error) => this.logger.warn('LISTEN connection lost; reconnecting', { error }),
    })
    this.batcher = new NotificationBatcher((lists) =>
      this.listenConnection.notify(lists.map((list) => this.toEnvelope(list))),
    )
  }

  /** Resolves when listening, or when the first attempt has failed; then it keeps trying. */
  async start(): Promise<void> {
    await this.listenConnection.start()
  }

  /** Whether this node receives the notifications of other nodes. */
  get isListening(): boolean {
    return this.listenConnection.isListening
  }

  /** Resolves when the subscribers of this process have been called; does not wait for other nodes. */
  override async publish(topic: string, payload: object): Promise<void> {
    await super.publish(topic, payload)
    this.batcher.add(topic, payload)
  }

  override async subscribe(topic: string, onMessage: Parameters<PubSub['subscribe']>[1]): Promise<number> {
    const id = await super.subscribe(topic, onMessage)
    this.topicsBySubscription.set(id, topic)
    return id
  }

  override unsubscribe(id: number): void {
    if (this.topicsBySubscription.delete(id)) super.unsubscribe(id)
  }

  /** Sends pending messages; waits at most a second. */
  async flush(): Promise<void> {
    await withTimeout(this.batcher.flush(), FLUSH_TIMEOUT_MS, undefined)
  }

  async close(): Promise<void> {
    clearTimeout(this.echoTimer)
    await this.flush()
    this.batcher.close()
    await this.listenConnection.close()
  }

  /** PostgreSQL merges equal payloads: the number makes each one unique. */
  private toEnvelope(messages: string): string {
    return `{"node":"${this.nodeId}","n":${++this.notificationCount},"messages":[${messages}]}`
  }

  private onNotification(text: string): void {
    const envelope = parseEnvelope(text)
    if (!envelope) {
      this.logger.debug('Ignored a notification from another program on our channel')
      return
    }
    if (envelope.node === this.nodeId) {
      clearTimeout(this.echoTimer)
      return
    }
    for (const [topic, payload] of envelope.messages) void super.publish(topic, payload ?? {})
  }

  private async readChannel(): Promise<string> {
    const [row] = await this.database.query<{ channel: string }>(SELECT_CHANNEL)
    if (!row) {
      throw new Error('The table "installation" is empty; it must have one row. Restore it from a backup.')
    }
    this.channel = row.channel
    return row.channel
  }

  private notifyAllTopics(): void {
    this.batcher.schedule()
    for (const topic of new Set(this.topicsBySubscription.values())) void super.publish(topic, {})
    void this.verifyEcho()
  }

  /** Notifies over the statement connection, to verify that the LISTEN connection receives it. */
  private async verifyEcho(): Promise<void> {
    clearTimeout(this.echoTimer)
    this.echoTimer = setTimeout(() => {
      this.logger.error(
        'Notifications do not arrive: events of other nodes are delayed by up to 2 s. If DATABASE_URL goes through a pooler in transaction mode, set DATABASE_LISTEN_URL to the database itself; if DATABASE_LISTEN_URL is set, make sure that it is the same database.',
      )
    }, ECHO_TIMEOUT_MS)
    await this.database
      .query('select pg_notify($1, $2)', [this.channel, this.toEnvelope('')])
      // The database is unavailable, which is reported elsewhere.
      .catch(() => clearTimeout(this.echoTimer))
  }
}

interface Envelope {
  node: string
  messages: [topic: string, payload?: object][]
}

function parseEnvelope(text: string): Envelope | undefined {
  try {
    const value: Partial<Envelope> | null = JSON.parse(text)
    const isEnvelope =
      typeof value?.node === 'string' &&
      Array.isArray(value.messages) &&
      value.messages.every((message) => Array.isArray(message) && typeof message[0] === 'string')
    return isEnvelope ? (value as Envelope) : undefined
  } catch {
    return undefined
  }
}
