import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals'
import { extendSchema, type GraphQLObjectType, GraphQLScalarType, parse } from 'graphql'
import { v7 as uuidv7 } from 'uuid'
import { WebSocket } from 'ws'
import { LiveNode } from '../../test/support/live/live-node.ts'
import { type Tick, TickSource } from '../../test/support/live/tick-source.ts'
import { waitUntil, withTimeout } from '../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { CredentialStore } from '../auth/credentials/credential-store.ts'
import { EventLog } from '../events/event-log.ts'
import { EVENT_SUBSCRIPTION, EventStream } from '../events/event-stream.ts'

let database: TestDatabase
let node: LiveNode
let clients: Client[]
let multiClients: MultiClient[]

beforeAll(async () => {
  database = await createMigratedDatabase()
})

afterAll(() => database.drop())

beforeEach(async () => {
  clients = []
  multiClients = []
  node = await LiveNode.start(database.database)
})

afterEach(async () => {
  for (const { socket } of [...clients, ...multiClients]) socket.terminate()
  await node.stop()
})

const QUERY = `subscription ($after: String, $deploymentId: ID) {
  deploymentStatus(after: $after, deploymentId: $deploymentId) { sequence cursor deployment { description } }
}`

class Client {
  readonly socket: WebSocket
  readonly sequences: number[] = []
  cursor: string | undefined
  closeCode: number | undefined
  closeReason = ''
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
    this.socket.once('close', (code, reason) => {
      this.closeCode = code
      this.closeReason = String(reason)
      this.change()
    })
    clients.push(this)
  }

  async until(condition: () => boolean): Promise<void> {
    let isOver = false
    const holds = async () => {
      while (!isOver && !condition()) await this.changed.promise
    }
    const received = () => `${this.sequences.length} events, the last ${this.sequences.at(-1)}`
    await withTimeout(
      holds(),
      () => `a condition holds: ${received()}, closed with ${this.closeCode}`,
    ).finally(() => {
      isOver = true
    })
  }

  async subscribe(deploymentId: string | null, after: string | undefined = undefined): Promise<void> {
    if (this.socket.readyState !== WebSocket.OPEN) {
      await withTimeout(once(this.socket, 'open'), 'the socket opens')
    }
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

async function subscribers(count: number): Promise<void> {
  await waitUntil(
    async () => (await node.metrics.subscribers.get()).values[0]?.value === count,
    `there are ${count} subscriptions`,
  )
}

describe('a client that stops reading', () => {
  const EVENTS = 8_000

  test('is buffered up to a bound, delays no other client, and receives every event once it reads again', async () => {
    const id = uuidv7()
    const slow = new Client()
    const others = upTo(5).map(() => new Client())
    for (const client of [slow, ...others]) await client.subscribe(null)
    await subscribers(6)
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

  test('for too long is closed with 1013, and resumes from its cursor on another socket', async () => {
    const id = uuidv7()
    const slow = new Client()
    await slow.subscribe(null)
    await subscribers(1)
    slow.socket.pause()
    await node.append(id, EVENTS)
    const [connection] = node.connections
    await waitUntil(() => connection?.writer.isStalled === true, 'the writer is stalled')
    node.clock.advance(31_000)
    node.clock.tick()
    slow.socket.resume()
    await slow.until(() => slow.closeCode !== undefined)
    expect(slow.closeCode).toBe(1013)
    expect(slow.closeReason).toMatch(/^SLOW_CONSUMER: /)
    await subscribers(0)
    const again = new Client()
    await again.subscribe(null, slow.cursor)
    await again.until(() => slow.sequences.length + again.sequences.length >= EVENTS)
    expect([...slow.sequences, ...again.sequences]).toEqual(upTo(EVENTS))
  })
})

/** From now on, counts reads of older events from the log. The feed's own polls do not count. */
function countReads(): () => number {
  const read = jest.spyOn(EventLog.prototype, 'read')
  const readHead = jest.spyOn(EventLog.prototype, 'readHead')
  return () => {
    const count = read.mock.calls.length + readHead.mock.calls.length
    read.mockRestore()
    readHead.mockRestore()
    return count
  }
}

describe('many clients that reconnect at once', () => {
  const EVENTS = 1_500
  const MAX_READS = 20

  test('with different cursors, share the reads of the log', async () => {
    const id = uuidv7()
    const position = node.feed.head
    await node.append(id, EVENTS)
    await node.stop()
    // A node that has just started has no events in memory.
    node = await LiveNode.start(database.database)
    const readCount = countReads()
    const reconnecting = upTo(100).map((i) => ({ client: new Client(), seen: (i * 37) % EVENTS }))
    await Promise.all(
      reconnecting.map(({ client, seen }) => client.subscribe(null, node.feed.cursorOf(position + seen))),
    )
    for (const { client, seen } of reconnecting)
      await client.until(() => client.sequences.length >= EVENTS - seen)
    expect(readCount()).toBeLessThanOrEqual(MAX_READS)
    for (const { client, seen } of reconnecting) expect(client.sequences).toEqual(upTo(EVENTS).slice(seen))
  })

  test('from a node that was ahead of this one, share the reads of the log', async () => {
    const id = uuidv7()
    const position = node.feed.head
    const readCount = countReads()
    await node.appendWithoutNotification(id, EVENTS)
    const reconnecting = upTo(100).map((i) => ({ client: new Client(), seen: 1 + ((i * 37) % (EVENTS - 1)) }))
    await Promise.all(
      reconnecting.map(({ client, seen }) => client.subscribe(null, node.feed.cursorOf(position + seen))),
    )
    for (const { client, seen } of reconnecting)
      await client.until(() => client.sequences.length >= EVENTS - seen)
    expect(readCount()).toBeLessThanOrEqual(MAX_READS)
    for (const { client, seen } of reconnecting) expect(client.sequences).toEqual(upTo(EVENTS).slice(seen))
  })
})

/** One socket with any number of subscriptions, each with an alias that makes it distinct. */
class MultiClient {
  readonly socket: WebSocket
  readonly sequences = new Map<string, number[]>()
  readonly refusals: { id: string; code: string; message: string }[] = []
  private changed = Promise.withResolvers<void>()

  private constructor(token: string | undefined) {
    this.socket = new WebSocket(node.url, 'graphql-transport-ws')
    this.socket.on('message', (data) => {
      const { id, type, payload } = JSON.parse(String(data))
      if (type === 'next') {
        const [event] = Object.values<{ sequence: number }>(payload.data)
        this.sequences.get(id)?.push(event?.sequence ?? 0)
      } else if (type === 'error') {
        this.refusals.push({ id, code: payload[0].extensions.code, message: payload[0].message })
      }
      this.changed.resolve()
      this.changed = Promise.withResolvers<void>()
    })
    this.socket.on('error', () => undefined)
    multiClients.push(this)
    this.socket.once('open', () => this.send({ type: 'connection_init', payload: { token } }))
  }

  static async open(token?: string): Promise<MultiClient> {
    const client = new MultiClient(token)
    await once(client.socket, 'message')
    return client
  }

  subscribe(
    alias: string,
    deploymentId: string | null = null,
    after = node.feed.cursorOf(node.feed.head),
  ): void {
    this.sequences.set(alias, [])
    const query = `subscription N${alias}($after: String, $deploymentId: ID) {
      ${alias}: deploymentStatus(after: $after, deploymentId: $deploymentId) { sequence deployment { id org } }
    }`
    this.send({ id: alias, type: 'subscribe', payload: { query, variables: { after, deploymentId } } })
  }

  complete(alias: string): void {
    this.send({ id: alias, type: 'complete' })
  }

  has(count: number): boolean {
    return [...this.sequences.values()].every((sequences) => sequences.length >= count)
  }

  async until(condition: () => boolean): Promise<void> {
    let isOver = false
    const holds = async () => {
      while (!isOver && !condition()) await this.changed.promise
    }
    await withTimeout(holds(), 'a condition holds').finally(() => {
      isOver = true
    })
  }

  private send(message: object): void {
    this.socket.send(JSON.stringify(message))
  }
}

async function tokenOf(name: string): Promise<string> {
  const grants = [{ role: 'viewer', orgs: 'all' }] as const
  const subjectId = `service:${name}`
  const credential = { kind: 'token', subjectId, name, grants, lifetimeMs: 3_600_000 } as const
  return (await new CredentialStore(database.database).create(credential)).secret
}

async function metric(gauge: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await gauge.get()).values[0]?.value ?? 0
}

async function headAt(position: number): Promise<void> {
  await waitUntil(
    () => node.feed.head >= position,
    () => `the feed is at ${position}: ${node.feed.head}`,
  )
}

describe('many distinct subscriptions', () => {
  const PER_SOCKET = 100
  const aliases = (from: string) => upTo(PER_SOCKET).map((i) => `${from}${i}`)

  test('of one subject are limited, and leave room for others; completing one makes room for another', async () => {
    const [greedy, other] = [await tokenOf('greedy'), await tokenOf('other')]
    const sockets = await Promise.all(upTo(5).map(() => MultiClient.open(greedy)))
    for (const [i, socket] of sockets.entries())
      for (const alias of aliases(`s${i}_`)) socket.subscribe(alias)
    const refusals = () => sockets.flatMap((socket) => socket.refusals)
    await subscribers(200)
    await waitUntil(() => refusals().length >= 300, 'the rest is refused')
    expect(refusals()).toHaveLength(300)
    for (const { code, message } of refusals()) {
      expect(code).toBe('RATE_LIMITED')
      expect(message).toMatch(
        /^You already have 200 distinct subscriptions to the same events on this node\. /,
      )
    }
    // A subscription that the subject, or another subject, already shares is not counted again.
    const again = await MultiClient.open(greedy)
    const shared = [...sockets[0]!.sequences.keys()].find(
      (alias) => !sockets[0]!.refusals.some(({ id }) => id === alias),
    )!
    again.subscribe(shared)
    await subscribers(201)
    const others = await MultiClient.open(other)
    for (const alias of aliases('o').slice(1)) others.subscribe(alias)
    others.subscribe(shared)
    await subscribers(301)
    expect(others.refusals).toEqual([])
    expect(await metric(node.metrics.sharedSubscriptions)).toBe(299)

    // There is room only after the last subscriber has left.
    sockets[0]!.complete(shared)
    again.subscribe('one')
    await again.until(() => again.refusals.length === 1)
    again.complete(shared)
    again.subscribe('two')
    await subscribers(300)
    expect(again.refusals).toHaveLength(1)
    for (const socket of [...sockets, again, others]) socket.socket.terminate()
    await subscribers(0)
    expect(await metric(node.metrics.sharedSubscriptions)).toBe(0)
    const afterwards = await Promise.all([MultiClient.open(greedy), MultiClient.open(greedy)])
    for (const [i, socket] of afterwards.entries())
      for (const alias of aliases(`t${i}_`)) socket.subscribe(alias)
    await subscribers(200)
  })

  test('are executed fairly: a popular subscription does not wait for them, and all receive all events', async () => {
    const EVENTS = 8
    const many = await Promise.all(
      upTo(20).map(async (i) => MultiClient.open(await tokenOf(`many-${Math.ceil(i / 2)}`))),
    )
    for (const [i, socket] of many.entries()) for (const alias of aliases(`m${i}_`)) socket.subscribe(alias)
    await subscribers(20 * PER_SOCKET)
    // They subscribe last.
    const bystanders = await Promise.all(upTo(2).map(async (i) => MultiClient.open(await tokenOf(`by-${i}`))))
    for (const bystander of bystanders) bystander.subscribe('same')
    await subscribers(20 * PER_SOCKET + 2)
    const before = await metric(node.metrics.executions)
    await node.append(uuidv7(), EVENTS, 10)
    await Promise.all(bystanders.map((bystander) => bystander.until(() => bystander.has(EVENTS))))
    const executions = (await metric(node.metrics.executions)) - before
    // While they wait, some clients join with an older cursor, and some leave.
    const late = await MultiClient.open(await tokenOf('late'))
    for (const alias of aliases('l')) late.subscribe(alias, null, node.feed.cursorOf(node.feed.head - EVENTS))
    for (const alias of aliases('m0_').slice(0, 50)) many[0]!.complete(alias)
    for (const socket of many.slice(1)) await socket.until(() => socket.has(EVENTS))
    await late.until(() => late.has(EVENTS))
    for (const socket of [...many.slice(1), ...bystanders, late]) {
      for (const sequences of socket.sequences.values()) expect(sequences).toEqual(upTo(EVENTS))
    }
    expect(executions).toBeLessThan((EVENTS * 20 * PER_SOCKET) / 4)
  })

  test('of one client that resumes from an old cursor do not delay other clients that resume', async () => {
    const EVENTS = 100
    const position = node.feed.head
    const cursor = node.feed.cursorOf(position)
    await node.append(uuidv7(), EVENTS, 10)
    await headAt(position + EVENTS)
    const sockets = await Promise.all(upTo(2).map(async () => MultiClient.open(await tokenOf('back'))))
    const bystander = await MultiClient.open(await tokenOf('bystander'))
    node.slice.sliceMs = 0
    for (const [i, socket] of sockets.entries()) {
      for (const alias of aliases(`b${i}_`)) socket.subscribe(alias, null, cursor)
    }
    await subscribers(2 * PER_SOCKET)
    bystander.subscribe('same', null, cursor)
    await subscribers(2 * PER_SOCKET + 1)
    node.slice.sliceMs = 12
    await bystander.until(() => bystander.has(EVENTS))
    expect(await metric(node.metrics.executions)).toBeLessThan((EVENTS * 2 * PER_SOCKET) / 4)
    for (const socket of sockets) await socket.until(() => socket.has(EVENTS))
    for (const socket of [...sockets, bystander]) {
      for (const sequences of socket.sequences.values()) expect(sequences).toEqual(upTo(EVENTS))
    }
  })
})

describe('while a shared subscription waits for its turn', () => {
  test('and falls too far behind, no event is sent twice', async () => {
    const EVENTS = 1_001
    const id = uuidv7()
    const first = new Client()
    await first.subscribe(null)
    await subscribers(1)
    node.slice.sliceMs = 0
    const position = node.feed.head
    await node.append(id, 1, 10)
    await headAt(position + 1)
    const second = new Client()
    await second.subscribe(null)
    await subscribers(2)
    await node.append(id, EVENTS - 1, 10)
    await headAt(position + EVENTS)
    expect([first.sequences, second.sequences]).toEqual([[], []])
    node.slice.sliceMs = 12
    await node.append(id, 1, 10)
    await first.until(() => first.sequences.length > EVENTS)
    await second.until(() => second.sequences.length >= EVENTS)
    expect(first.sequences).toEqual(upTo(EVENTS + 1))
    expect(second.sequences).toEqual(upTo(EVENTS + 1).slice(1))
  })

  test('and the database loses the events that it waits for, those are never sent', async () => {
    const id = uuidv7()
    const before = node.feed.head
    await node.append(id, 1, 10)
    await headAt(before + 1)
    const client = new Client()
    await client.subscribe(null)
    await subscribers(1)
    const { head, logId } = node.feed
    node.slice.sliceMs = 0
    await node.append(id, 3, 10)
    await headAt(head + 3)
    await database.database.transaction(async (tx) => {
      await tx.query(
        'update log set head = $1, (previous_event_id, event_id) = (select previous_event_id, event_id from events where position = $1)',
        [head],
      )
      await tx.query('delete from events where position > $1', [head])
    })
    // The client does not answer the close, so its subscription stays until the socket is terminated.
    client.socket.pause()
    node.feed.poll()
    await waitUntil(() => node.feed.logId !== logId, 'the log has another id')
    const again = new Client()
    await again.subscribe(null)
    await subscribers(2)
    node.slice.sliceMs = 12
    await node.append(id, 1, 10)
    await again.until(() => again.sequences.length >= 1)
    expect(again.sequences).toEqual([2])
    expect(client.sequences).toEqual([])
  })
})

test('an event that cannot be encoded ends only the subscriptions that select the failing field', async () => {
  await node.stop()
  node = await LiveNode.start(database.database, (schema) => {
    const { org } = (schema.getType('Deployment') as GraphQLObjectType).getFields()
    // JSON has no big integers.
    Object.assign(org!, { type: new GraphQLScalarType({ name: 'Anything' }), resolve: () => 1n })
    return schema
  })
  const failing = await Promise.all(upTo(3).map(() => MultiClient.open()))
  for (const client of failing) client.subscribe('same')
  const other = new Client()
  await other.subscribe(null)
  await subscribers(4)
  await node.append(uuidv7(), 2, 10)
  for (const client of failing) await client.until(() => client.refusals.length > 0)
  for (const { refusals } of failing) expect(refusals.map(({ code }) => code)).toEqual(['INTERNAL'])
  await other.until(() => other.sequences.length === 2)
  await subscribers(1)
})

describe('sockets', () => {
  test('are limited to 500 for one subject; other subjects, and the local one, have their own', async () => {
    const secret = await tokenOf('sockets')
    const open = (token?: string) => {
      const client = new Client(token)
      client.socket.once('open', () => client.socket.send(initialise(token)))
      return client
    }
    const initialise = (token?: string) => JSON.stringify({ type: 'connection_init', payload: { token } })
    const answered = (client: Client) =>
      client.until(() => client.cursor !== undefined || client.closeCode !== undefined)
    const many = upTo(505).map(() => open(secret))
    for (const client of many) await answered(client)
    const refused = many.filter(({ closeCode }) => closeCode !== undefined)
    expect(refused).toHaveLength(5)
    for (const { closeCode, closeReason } of refused) {
      expect([closeCode, closeReason]).toEqual([
        1013,
        expect.stringMatching(/^You already have 500 sockets on this node; /),
      ])
    }
    for (const token of [await tokenOf('others'), undefined]) {
      const other = open(token)
      await answered(other)
      expect(other.closeCode).toBeUndefined()
    }
    many.find(({ closeCode }) => closeCode === undefined)?.socket.close()
    await waitUntil(() => node.connections.length <= 501, 'the others are closed')
    const again = open(secret)
    await answered(again)
    expect(again.closeCode).toBeUndefined()
  })

  test('from one network that have not authenticated take up at most half of the node', async () => {
    // A fifth of the connections is reserved for requests.
    node.server.maxConnections = 25
    const silent = upTo(10).map(() => new Client())
    for (const { socket } of silent) await once(socket, 'open')
    const [, response] = await once(new Client().socket, 'unexpected-response')
    expect(response.statusCode).toBe(503)
    await silent[0]!.subscribe(null)
    await subscribers(1)
    await once(new Client().socket, 'open')
    const elsewhere = new WebSocket(node.url, 'graphql-transport-ws', { localAddress: '127.0.0.2' })
    await once(elsewhere, 'open')
    elsewhere.terminate()
  })
})

test('the clock of the database decides whether a token has expired, not that of the node', async () => {
  const credentials = new CredentialStore(database.database)
  const [valid, revoked] = await Promise.all(
    ['valid', 'revoked'].map(async (name) => {
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
      await client.subscribe(null)
      return client
    }),
  )
  await subscribers(2)
  const { now } = Date
  Date.now = () => now() + 86_400_000
  try {
    await credentials.revokeTokens('revoked')
    await revoked?.until(() => revoked.closeCode !== undefined)
  } finally {
    Date.now = now
  }
  await node.append(uuidv7(), 1)
  await valid?.until(() => valid.sequences.length === 1 || valid.closeCode !== undefined)
  expect([revoked?.closeCode, valid?.closeCode]).toEqual([4401, undefined])
})

describe('while the database cannot confirm that a token is valid', () => {
  test('its sockets receive nothing new; afterwards they receive everything, once', async () => {
    const credentials = new CredentialStore(database.database)
    const { secret } = await credentials.create({
      kind: 'token',
      subjectId: 'service:wall',
      name: 'wall',
      grants: [{ role: 'viewer', orgs: ['org'] }],
      lifetimeMs: 3_600_000,
    })
    const id = uuidv7()
    const [withToken, local] = [new Client(secret), new Client()]
    for (const client of [withToken, local]) await client.subscribe(null)
    await subscribers(2)
    await node.append(id, 1)
    for (const client of [withToken, local]) await client.until(() => client.sequences.length === 1)

    await database.database.query('alter table access_credentials rename to gone')
    // As if the last confirmation were a while ago.
    Reflect.set(node.sessionMonitor, 'confirmedAt', performance.now() - 21_000)
    Reflect.apply(Reflect.get(node.sessionMonitor, 'tick') as () => void, node.sessionMonitor, [])
    await node.append(id, 5)
    await local.until(() => local.sequences.length === 6)
    await node.append(id, 5)
    await local.until(() => local.sequences.length === 11)
    expect(withToken.sequences).toEqual([1])

    await database.database.query('alter table gone rename to access_credentials')
    await withToken.until(() => withToken.sequences.length === 11)
    expect(withToken.sequences).toEqual(upTo(11))
  })
})

test('any ordered source of any subscription field is followed, shared and resumed', async () => {
  await node.stop()
  const ticks = new TickSource()
  node = await LiveNode.start(database.database, (schema) => {
    const extension =
      'extend type Subscription { ticks(kind: ID!, after: Int): Tick! } type Tick { count: Int! }'
    const extended = extendSchema(schema, parse(extension))
    const field = extended.getSubscriptionType()?.getFields().ticks
    Object.assign(field!, {
      extensions: { [EVENT_SUBSCRIPTION]: true },
      subscribe: (_: unknown, { after }: { after: number | null }) =>
        new EventStream(ticks, after ?? undefined, 'mine'),
      resolve: (tick: Tick) => tick,
    })
    return extended
  })
  const counts = new Map<string, number[]>()
  const client = await MultiClient.open()
  client.socket.on('message', (data) => {
    const { id, type, payload } = JSON.parse(String(data))
    if (type === 'next') counts.get(id)?.push(payload.data.ticks.count)
  })
  const subscribe = (id: string, after: number | null) => {
    counts.set(id, [])
    const query = `subscription ${id}($after: Int) { ...F }
      fragment F on Subscription { ticks(kind: "all", after: $after) { count } }`
    client.socket.send(JSON.stringify({ id, type: 'subscribe', payload: { query, variables: { after } } }))
  }
  const deployments = new Client()
  await deployments.subscribe(null)
  for (const id of ['a', 'b', 'c']) subscribe(id, 0)
  await subscribers(4)
  expect(await metric(node.metrics.sharedSubscriptions)).toBe(2)

  for (let i = 0; i < 5; i++) ticks.tick()
  await client.until(() => [...counts.values()].every(({ length }) => length === 5))
  subscribe('resumed', 2)
  subscribe('snapshot', null)
  await subscribers(6)
  ticks.tick()
  ticks.tick('mine')
  ticks.tick()
  await client.until(() => [...counts.values()].every((received) => received.at(-1) === 8))
  expect(Object.fromEntries(counts)).toEqual({
    a: [1, 2, 3, 4, 5, 6, 8],
    b: [1, 2, 3, 4, 5, 6, 8],
    c: [1, 2, 3, 4, 5, 6, 8],
    resumed: [3, 4, 5, 6, 8],
    snapshot: [5, 6, 8],
  })
  expect(await metric(node.metrics.executions)).toBe(8)
  expect(await metric(node.metrics.sharedSubscriptions)).toBe(2)

  await node.append(uuidv7(), 1, 10)
  await deployments.until(() => deployments.sequences.length === 1)
  client.socket.terminate()
  await subscribers(1)
  expect(ticks.listenerCount).toBe(0)
})
