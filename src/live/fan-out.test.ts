import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { HttpAdapterHost } from '@nestjs/core'
import { GraphQLSchemaHost } from '@nestjs/graphql'
import { buildSchema, type GraphQLSchema } from 'graphql'
import { PubSub } from 'graphql-subscriptions'
import { v7 as uuidv7 } from 'uuid'
import { WebSocket } from 'ws'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { Authenticator } from '../auth/authenticator.ts'
import { CredentialStore } from '../auth/credential-store.ts'
import { Limits } from '../auth/limits.ts'
import { Config } from '../config.ts'
import { MIGRATIONS } from '../database/schema.ts'
import { toDeploymentEvent } from '../deployments/deployment-translation.ts'
import { EventFeed } from '../events/event-feed.ts'
import { EventLog } from '../events/event-log.ts'
import type { LoggedEvent } from '../events/logged-event.ts'
import { Metrics } from '../metrics/metrics.ts'
import { originOf, type RequestContext } from '../request-context.ts'
import { AccessWatch } from './access-watch.ts'
import { type Connection } from './connection.ts'
import { FanOut } from './fan-out.ts'
import { GraphQLProtocol } from './graphql-protocol.ts'
import { LiveMetrics } from './live-metrics.ts'
import { SubscriptionSocket } from './subscription-socket.ts'

let test_: TestDatabase
let node: LiveNode
let clients: Client[]

beforeAll(async () => {
  test_ = await createTestDatabase(MIGRATIONS)
})

afterAll(() => test_.drop())

beforeEach(async () => {
  clients = []
  node = await LiveNode.start()
})

afterEach(async () => {
  for (const client of clients) client.socket.terminate()
  await node.stop()
})

/** The live side of a node: log, feed, fan-out and socket, put together as the modules do it. */
class LiveNode {
  readonly log = new EventLog(test_.database, new PubSub())
  readonly feed = new EventFeed(this.log, new PubSub())
  readonly metrics = new LiveMetrics(new Metrics())
  readonly fanOut = new FanOut(this.feed, this.metrics)
  readonly watch = new AccessWatch(test_.database, new PubSub())
  readonly server: Server = createServer()
  readonly socket: SubscriptionSocket

  private constructor() {
    const adapterHost = { httpAdapter: { getHttpServer: () => this.server } } as unknown as HttpAdapterHost
    const schemaHost = Object.assign(new GraphQLSchemaHost(), { schema: this.schema() })
    const config = new Config({ DRAIN_MS: '0' })
    const authenticator = new Authenticator(config, test_.database, new Limits(config))
    const protocol = new GraphQLProtocol(this.feed, this.fanOut, authenticator, this.watch, this.metrics)
    this.socket = new SubscriptionSocket(
      config,
      adapterHost,
      schemaHost,
      protocol,
      this.watch,
      this.metrics,
      this.feed,
    )
  }

  static async start(): Promise<LiveNode> {
    const node = new LiveNode()
    await node.feed.onModuleInit()
    node.fanOut.onModuleInit()
    await node.watch.onModuleInit()
    node.socket.onApplicationBootstrap()
    node.server.listen(0, '127.0.0.1')
    await once(node.server, 'listening')
    return node
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}/graphql`
  }

  get connections(): Connection[] {
    return [...(Reflect.get(this.socket, 'connections') as Set<Connection>)]
  }

  /** Appends events of one deployment, in one transaction, and lets the feed look. */
  async append(id: string, count: number): Promise<void> {
    await test_.database.query(APPEND, [id, count])
    this.feed.look()
  }

  async stop(): Promise<void> {
    await this.socket.beforeApplicationShutdown()
    this.server.close()
    this.fanOut.onModuleDestroy()
    await this.watch.onModuleDestroy()
    await this.feed.onModuleDestroy()
  }

  private schema(): GraphQLSchema {
    const schema = buildSchema(readFileSync('schema.gql', 'utf8'))
    const field = schema.getSubscriptionType()?.getFields().deploymentStatus
    if (!field) throw new Error('schema.gql has no deploymentStatus.')
    field.subscribe = (_root, { after, deploymentId }, context: RequestContext) =>
      this.feed.follow({
        sees: context.subject.rights.sees,
        after,
        deploymentId: deploymentId ?? undefined,
        origin: originOf(context),
      })
    field.resolve = (event: LoggedEvent) => toDeploymentEvent(event, this.feed.cursorOf(event.position))
    return schema
  }
}

// Three kilobytes each, so that a few thousand are more than the operating system takes for a socket.
const APPEND = `
  with base as (
    select coalesce(max(sequence), 0) as last from events where deployment_id = $1::uuid
  ), first as (
    insert into deployments (id, org, repo, visibility, description, branch, step, status, text, sequence, attempt,
      file_count, size_bytes, created_at, updated_at, input_digest, planned_commit, planned_tree, object_count,
      pack_bytes, run_at)
    values ($1::uuid, 'org', $1::uuid::text, 'PUBLIC', repeat('x', 3000), 'main', 'DEPLOY', 'RUNNING', 'Creating org',
      1, 1, 0, 0, now(), now(), '', '', '', 0, 0, now())
    on conflict (id) do update set updated_at = now()
    returning *
  ), head as (
    update log set head = head + $2 returning head - $2 as before
  )
  insert into events
  select head.before + n, first.id, base.last + n, now(), null, deployment_snapshot(row(first.*)::deployments)
  from first, base, head, generate_series(1, $2::int) n`

const QUERY = `subscription ($after: String, $deploymentId: ID) {
  deploymentStatus(after: $after, deploymentId: $deploymentId) { sequence cursor deployment { description } }
}`

class Client {
  readonly socket: WebSocket
  readonly sequences: number[] = []
  cursor: string | undefined
  closeCode: number | undefined
  private changed = Promise.withResolvers<void>()

  constructor(private readonly token?: string) {
    this.socket = new WebSocket(node.url, 'graphql-transport-ws')
    this.socket.on('message', (data) => {
      const { type, payload } = JSON.parse(String(data))
      if (type === 'connection_ack') this.cursor = payload.cursor
      if (type === 'next') {
        this.sequences.push(payload.data.deploymentStatus.sequence)
        this.cursor = payload.data.deploymentStatus.cursor
      }
      this.change()
    })
    this.socket.on('error', () => undefined)
    this.socket.once('close', (code) => {
      this.closeCode = code
      this.change()
    })
    clients.push(this)
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.changed.promise
  }

  async join(deploymentId: string | null, after: string | undefined = undefined): Promise<void> {
    if (this.socket.readyState !== WebSocket.OPEN) await once(this.socket, 'open')
    this.socket.send(JSON.stringify({ type: 'connection_init', payload: { token: this.token } }))
    await this.until(() => this.cursor !== undefined)
    const variables = { after: after ?? this.cursor, deploymentId }
    this.socket.send(
      JSON.stringify({ id: crypto.randomUUID(), type: 'subscribe', payload: { query: QUERY, variables } }),
    )
  }

  private change(): void {
    this.changed.resolve()
    this.changed = Promise.withResolvers<void>()
  }
}

const upTo = (length: number) => Array.from({ length }, (_, i) => i + 1)

async function members(count: number): Promise<void> {
  while ((await node.metrics.members.get()).values[0]?.value !== count) await new Promise(setImmediate)
}

describe('a viewer that stops reading', () => {
  const EVENTS = 8_000

  test('is kept nothing for beyond a bound, holds up nobody, and gets everything once when it reads again', async () => {
    const id = uuidv7()
    const slow = new Client()
    const others = upTo(5).map(() => new Client())
    for (const client of [slow, ...others]) await client.join(null)
    await members(6)
    slow.socket.pause()
    for (let appended = 0; appended < EVENTS; appended += 500) {
      await node.append(id, 500)
      for (const other of others) await other.until(() => other.sequences.length === appended + 500)
      for (const { writer } of node.connections) expect(writer.unsentBytes).toBeLessThan(1024 * 1024)
    }
    expect(node.connections.filter(({ writer }) => writer.isStalled)).toHaveLength(1)
    expect(slow.sequences.length).toBeLessThan(EVENTS)
    slow.socket.resume()
    await slow.until(() => slow.sequences.length === EVENTS)
    for (const client of [slow, ...others]) expect(client.sequences).toEqual(upTo(EVENTS))
  })

  test('for too long is closed with 1013, and goes on with its cursor on another socket', async () => {
    const id = uuidv7()
    const slow = new Client()
    await slow.join(null)
    await members(1)
    slow.socket.pause()
    await node.append(id, EVENTS)
    const [connection] = node.connections
    while (!connection?.writer.isStalled) await new Promise(setImmediate)
    // As if half a minute had passed.
    connection.writer.lastProgressAt -= 31_000
    Reflect.apply(Reflect.get(node.socket, 'look') as () => void, node.socket, [])
    slow.socket.resume()
    await slow.until(() => slow.closeCode !== undefined)
    expect(slow.closeCode).toBe(1013)
    await members(0)
    const again = new Client()
    await again.join(null, slow.cursor)
    await again.until(() => slow.sequences.length + again.sequences.length >= EVENTS)
    expect([...slow.sequences, ...again.sequences]).toEqual(upTo(EVENTS))
  })
})

test('a herd that comes back, each with a cursor of its own, is read for once', async () => {
  const EVENTS = 1_500
  const id = uuidv7()
  const start = node.feed.cursorOf(node.feed.head)
  await node.append(id, EVENTS)
  await node.stop()
  // A node that has just started has nothing in memory.
  node = await LiveNode.start()
  // Its look every two seconds would count as well, on a slow machine more often.
  clearInterval(Reflect.get(node.feed, 'safetyLook'))
  const query = test_.database.query.bind(test_.database)
  let statements = 0
  Reflect.set(test_.database, 'query', (...args: Parameters<typeof query>) => {
    statements++
    return query(...args)
  })
  const position = Number(start)
  const herd = upTo(100).map((i) => ({ client: new Client(), seen: (i * 37) % EVENTS }))
  await Promise.all(herd.map(({ client, seen }) => client.join(null, String(position + seen))))
  for (const { client, seen } of herd) await client.until(() => client.sequences.length >= EVENTS - seen)
  Reflect.deleteProperty(test_.database, 'query')
  for (const { client, seen } of herd) expect(client.sequences).toEqual(upTo(EVENTS).slice(seen))
  expect(statements).toBeLessThanOrEqual(20)
})

test('whether a token has ended is said by the clock of the database, whatever our own does', async () => {
  const credentials = new CredentialStore(test_.database)
  const [valid, ended] = await Promise.all(
    ['valid', 'ended'].map(async (name) => {
      const subjectId = `service:${name}`
      const grants = [{ role: 'viewer', orgs: ['org'] }] as const
      const { secret } = await credentials.create({
        kind: 'token',
        subjectId,
        name,
        grants,
        lifetimeMs: 3_600_000,
      })
      const client = new Client(secret)
      await client.join(null)
      return client
    }),
  )
  await members(2)
  const { now } = Date
  Date.now = () => now() + 86_400_000
  try {
    await credentials.revokeTokens('ended')
    await ended?.until(() => ended.closeCode !== undefined)
  } finally {
    Date.now = now
  }
  await node.append(uuidv7(), 1)
  await valid?.until(() => valid.sequences.length === 1 || valid.closeCode !== undefined)
  expect([ended?.closeCode, valid?.closeCode]).toEqual([4401, undefined])
})

describe('while the database does not tell whether a token is still valid', () => {
  test('nothing new is told to whoever came with it; afterwards everything, once', async () => {
    const credentials = new CredentialStore(test_.database)
    const { secret } = await credentials.create({
      kind: 'token',
      subjectId: 'service:wall',
      name: 'wall',
      grants: [{ role: 'viewer', orgs: ['org'] }],
      lifetimeMs: 3_600_000,
    })
    const id = uuidv7()
    const [withToken, local] = [new Client(secret), new Client()]
    for (const client of [withToken, local]) await client.join(null)
    await members(2)
    await node.append(id, 1)
    for (const client of [withToken, local]) await client.until(() => client.sequences.length === 1)

    await test_.database.query('alter table access_credentials rename to gone')
    // As if the last answer had come a while ago.
    Reflect.set(node.watch, 'confirmedAt', performance.now() - 21_000)
    Reflect.apply(Reflect.get(node.watch, 'tick') as () => void, node.watch, [])
    await node.append(id, 5)
    await local.until(() => local.sequences.length === 6)
    await node.append(id, 5)
    await local.until(() => local.sequences.length === 11)
    expect(withToken.sequences).toEqual([1])

    await test_.database.query('alter table gone rename to access_credentials')
    await withToken.until(() => withToken.sequences.length === 11)
    expect(withToken.sequences).toEqual(upTo(11))
  })
})
