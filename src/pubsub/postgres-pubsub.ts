import { randomUUID } from 'node:crypto'
import { Logger } from '@nestjs/common'
import { PubSub } from 'graphql-subscriptions'
import type { Database } from '../database/database.ts'
import { ListeningConnection } from './listening-connection.ts'
import { Outbox } from './outbox.ts'

/**
 * The installation's own channel: several may be in one database, whose channels are everybody's. Who cannot read the
 * installation's secret does not find it. With the table's oid, a copy of the data in another schema has another one.
 */
export const CHANNEL = `
  select 'shipcast_' || left(encode(sha256(convert_to(id || ' ' || tableoid, 'UTF8')), 'hex'), 32) as channel
  from installation`
/** How long an own message may take back to us before we say that LISTEN does not work here. */
const ECHO_MS = 5_000
/** How long a stop waits for the last messages to get out. */
const LAST_WORDS_MS = 1_000

/**
 * PubSub across nodes, over LISTEN and NOTIFY: subscribers of this process are served at once, as by the in-process
 * one; other nodes get the payload as JSON makes it. What this adapter adds to the contract: a subscriber is also given
 * an empty payload, `{}`, which says "look": where a payload was too large to be carried (7.5 kB), where more was said
 * than could be, and after a time in which this node was deaf. Nothing is promised to arrive, or in order.
 */
export class PostgresPubSub extends PubSub {
  readonly #logger = new Logger('PubSub')
  readonly #database: Database
  readonly #node = randomUUID().slice(0, 8)
  readonly #topics = new Map<number, string>()
  readonly #connection: ListeningConnection
  readonly #outbox: Outbox
  #notifications = 0
  #channel = ''
  #echo: NodeJS.Timeout | undefined

  constructor(database: Database) {
    super()
    this.#database = database
    this.#connection = new ListeningConnection({
      connect: () => database.connectToListen(),
      channel: () => this.#findChannel(),
      onNotification: (payload) => this.#hear(payload),
      onListening: () => this.#lookEverywhere(),
      onLost: (error) =>
        this.#logger.warn('Does not hear other nodes at the moment; connecting again', { error }),
    })
    this.#outbox = new Outbox((parts) => this.#connection.notify(parts.map((part) => this.#envelope(part))))
  }

  /** Resolves when it listens, or when a first try has failed and it goes on trying. */
  async start(): Promise<void> {
    await this.#connection.start()
  }

  /** Whether other nodes are heard at the moment. */
  get isListening(): boolean {
    return this.#connection.isListening
  }

  /** Resolves when this process's subscribers have been called; it does not wait for other nodes. */
  override async publish(topic: string, payload: object): Promise<void> {
    await super.publish(topic, payload)
    this.#outbox.add(topic, payload)
  }

  override async subscribe(topic: string, onMessage: Parameters<PubSub['subscribe']>[1]): Promise<number> {
    const id = await super.subscribe(topic, onMessage)
    this.#topics.set(id, topic)
    return id
  }

  override unsubscribe(id: number): void {
    if (this.#topics.delete(id)) super.unsubscribe(id)
  }

  /** Sends what waits, for a second at most. */
  async flush(): Promise<void> {
    const timer = Promise.withResolvers<void>()
    const giveUp = setTimeout(timer.resolve, LAST_WORDS_MS)
    await Promise.race([this.#outbox.flush(), timer.promise])
    clearTimeout(giveUp)
  }

  async close(): Promise<void> {
    clearTimeout(this.#echo)
    await this.flush()
    this.#outbox.close()
    await this.#connection.close()
  }

  /** Equal payloads would arrive once: the number makes each one different. */
  #envelope(messages: string): string {
    return `{"node":"${this.#node}","n":${++this.#notifications},"said":[${messages}]}`
  }

  #hear(text: string): void {
    const envelope = parse(text)
    if (!envelope) {
      this.#logger.debug('Ignored a notification that another program sent on our channel')
      return
    }
    if (envelope.node === this.#node) {
      clearTimeout(this.#echo)
      return
    }
    for (const [topic, payload] of envelope.said) void super.publish(topic, payload ?? {})
  }

  async #findChannel(): Promise<string> {
    const [found] = await this.#database.query<{ channel: string }>(CHANNEL)
    if (!found) {
      throw new Error('The table "installation" is empty; it must have one row. Restore it from a backup.')
    }
    this.#channel = found.channel
    return found.channel
  }

  #lookEverywhere(): void {
    this.#outbox.schedule()
    for (const topic of new Set(this.#topics.values())) void super.publish(topic, {})
    void this.#expectEcho()
  }

  /** Says something by the way that statements go, to hear it by the way that hints come: they may differ. */
  async #expectEcho(): Promise<void> {
    clearTimeout(this.#echo)
    this.#echo = setTimeout(() => {
      this.#logger.error(
        'Notifications do not arrive: other nodes are heard of within seconds only. Either DATABASE_URL leads through a pooler that keeps no sessions, then set DATABASE_LISTEN_URL to the database itself; or DATABASE_LISTEN_URL is another database.',
      )
    }, ECHO_MS)
    await this.#database
      .query('select pg_notify($1, $2)', [this.#channel, this.#envelope('')])
      // Then it is the database that is away, and others tell.
      .catch(() => clearTimeout(this.#echo))
  }
}

interface Envelope {
  node: string
  said: [topic: string, payload?: object][]
}

function parse(text: string): Envelope | undefined {
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
