import { randomUUID } from 'node:crypto'
import { Logger } from '@nestjs/common'
import { PubSub } from 'graphql-subscriptions'
import type { Database } from '../database/database.ts'
import { ListenConnection } from './listen-connection.ts'
import { NotificationBatcher } from './notification-batcher.ts'

/**
 * The installation's own channel: several may be in one database, whose channels are everybody's. Who cannot read the
 * installation's secret does not find it. With the table's oid, a copy of the data in another schema has another one.
 */
export const SELECT_CHANNEL = `
  select 'shipcast_' || left(encode(sha256(convert_to(id || ' ' || tableoid, 'UTF8')), 'hex'), 32) as channel
  from installation`
/** How long an own message may take back to us before we say that LISTEN does not work here. */
const ECHO_TIMEOUT_MS = 5_000
/** How long a stop waits for the last messages to get out. */
const FLUSH_TIMEOUT_MS = 1_000

/**
 * PubSub across nodes, over LISTEN and NOTIFY: subscribers of this process are served at once, as by the in-process
 * one; other nodes get the payload as JSON makes it. What this adapter adds to the contract: a subscriber is also given
 * an empty payload, `{}`, which says "look": where a payload was too large to be carried (7.5 kB), where more was said
 * than could be, and after a time in which this node was deaf. Nothing is promised to arrive, or in order.
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
      onLost: (error) =>
        this.logger.warn('Does not hear other nodes at the moment; connecting again', { error }),
    })
    this.batcher = new NotificationBatcher((parts) =>
      this.listenConnection.notify(parts.map((part) => this.toEnvelope(part))),
    )
  }

  /** Resolves when it listens, or when a first try has failed and it goes on trying. */
  async start(): Promise<void> {
    await this.listenConnection.start()
  }

  /** Whether other nodes are heard at the moment. */
  get isListening(): boolean {
    return this.listenConnection.isListening
  }

  /** Resolves when this process's subscribers have been called; it does not wait for other nodes. */
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

  /** Sends what waits, for a second at most. */
  async flush(): Promise<void> {
    const timer = Promise.withResolvers<void>()
    const giveUp = setTimeout(timer.resolve, FLUSH_TIMEOUT_MS)
    await Promise.race([this.batcher.flush(), timer.promise])
    clearTimeout(giveUp)
  }

  async close(): Promise<void> {
    clearTimeout(this.echoTimer)
    await this.flush()
    this.batcher.close()
    await this.listenConnection.close()
  }

  /** Equal payloads would arrive once: the number makes each one different. */
  private toEnvelope(messages: string): string {
    return `{"node":"${this.nodeId}","n":${++this.notificationCount},"said":[${messages}]}`
  }

  private onNotification(text: string): void {
    const envelope = parseEnvelope(text)
    if (!envelope) {
      this.logger.debug('Ignored a notification that another program sent on our channel')
      return
    }
    if (envelope.node === this.nodeId) {
      clearTimeout(this.echoTimer)
      return
    }
    for (const [topic, payload] of envelope.said) void super.publish(topic, payload ?? {})
  }

  private async readChannel(): Promise<string> {
    const [found] = await this.database.query<{ channel: string }>(SELECT_CHANNEL)
    if (!found) {
      throw new Error('The table "installation" is empty; it must have one row. Restore it from a backup.')
    }
    this.channel = found.channel
    return found.channel
  }

  private notifyAllTopics(): void {
    this.batcher.schedule()
    for (const topic of new Set(this.topicsBySubscription.values())) void super.publish(topic, {})
    void this.verifyEcho()
  }

  /** Says something by the way that statements go, to hear it by the way that hints come: they may differ. */
  private async verifyEcho(): Promise<void> {
    clearTimeout(this.echoTimer)
    this.echoTimer = setTimeout(() => {
      this.logger.error(
        'Notifications do not arrive: other nodes are heard of within seconds only. Either DATABASE_URL leads through a pooler that keeps no sessions, then set DATABASE_LISTEN_URL to the database itself; or DATABASE_LISTEN_URL is another database.',
      )
    }, ECHO_TIMEOUT_MS)
    await this.database
      .query('select pg_notify($1, $2)', [this.channel, this.toEnvelope('')])
      // Then it is the database that is away, and others tell.
      .catch(() => clearTimeout(this.echoTimer))
  }
}

interface Envelope {
  node: string
  said: [topic: string, payload?: object][]
}

function parseEnvelope(text: string): Envelope | undefined {
  try {
    const value: Partial<Envelope> | null = JSON.parse(text)
    const isEnvelope =
      typeof value?.node === 'string' &&
      Array.isArray(value.said) &&
      value.said.every((message) => Array.isArray(message) && typeof message[0] === 'string')
    return isEnvelope ? (value as Envelope) : undefined
  } catch {
    return undefined
  }
}
