import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { extendSchema, type GraphQLSchema, parse } from 'graphql'
import { WebSocket } from 'ws'
import { LiveNode } from '../../test/support/live/live-node.ts'
import { type Tick, TickSource } from '../../test/support/live/tick-source.ts'
import { waitUntil, withTimeout } from '../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { UnknownCursorError } from '../errors.ts'
import { EVENT_SUBSCRIPTION, EventStream } from '../events/event-stream.ts'

let database: TestDatabase
let node: LiveNode
let client: Client
let ticks: TickSource
/** What the resolver of `ticks` returns. */
let tickStream: PromiseWithResolvers<AsyncIterable<unknown>>
let resolverCalled: PromiseWithResolvers<void>

beforeAll(async () => {
  database = await createMigratedDatabase()
})

afterAll(() => database.drop())

beforeEach(async () => {
  ticks = new TickSource()
  tickStream = Promise.withResolvers()
  resolverCalled = Promise.withResolvers()
  node = await LiveNode.start(database.database, withTicks)
  client = new Client()
  await client.init()
})

afterEach(async () => {
  client.socket.terminate()
  await node.stop()
})

/** Adds a subscription whose resolver the tests control. */
function withTicks(schema: GraphQLSchema): GraphQLSchema {
  const extended = extendSchema(schema, parse('extend type Subscription { ticks: Int! }'))
  const subscribe = () => {
    resolverCalled.resolve()
    return tickStream.promise
  }
  const resolve = ({ count }: Tick) => {
    if (count === 2) throw new UnknownCursorError('2')
    return count
  }
  const field = extended.getSubscriptionType()?.getFields().ticks
  Object.assign(field!, { extensions: { [EVENT_SUBSCRIPTION]: true }, subscribe, resolve })
  return extended
}

const allTicks = () => new EventStream(ticks, 0)

class Client {
  readonly socket = new WebSocket(node.url, 'graphql-transport-ws')
  messages: { id?: string; type: string; payload?: unknown }[] = []
  readonly closed = once(this.socket, 'close').then(([code, reason]) => ({ code, reason: String(reason) }))

  constructor() {
    this.socket.on('message', (data) => this.messages.push(JSON.parse(String(data))))
  }

  async init(): Promise<void> {
    await withTimeout(once(this.socket, 'open'), 'the socket opens')
    this.send({ type: 'connection_init' })
    await this.until(() => this.messages.length > 0)
    this.messages = []
  }

  send(message: object): void {
    this.socket.send(JSON.stringify(message))
  }

  subscribe(query: string, id = '1', rest: object = {}): void {
    this.send({ id, type: 'subscribe', payload: { query, ...rest } })
  }

  complete(id = '1'): void {
    this.send({ id, type: 'complete' })
  }

  /** All messages that the server sends before it answers this ping. */
  async flush(): Promise<{ id?: string; type: string; payload?: unknown }[]> {
    this.send({ type: 'ping', payload: { last: true } })
    await this.until(() => this.messages.at(-1)?.type === 'pong')
    return this.messages.splice(0, this.messages.length).slice(0, -1)
  }

  async receive(count: number): Promise<{ id?: string; type: string; payload?: unknown }[]> {
    await this.until(() => this.messages.length >= count)
    return this.flush()
  }

  until(condition: () => boolean): Promise<void> {
    return waitUntil(
      condition,
      () => `a message; the last ones are ${JSON.stringify(this.messages.slice(-5))}`,
    )
  }
}

async function readGauge(gauge: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await gauge.get()).values[0]?.value ?? 0
}

describe('a query', () => {
  test('is answered with one result and a complete, after which its id is free again', async () => {
    for (let i = 0; i < 2; i++) {
      client.subscribe('{ __typename }')
      expect(await client.receive(2)).toEqual([
        { id: '1', type: 'next', payload: { data: { __typename: 'Query' } } },
        { id: '1', type: 'complete' },
      ])
    }
  })

  test('with an invalid document is answered with an error, after which its id is free again', async () => {
    client.subscribe('{ nope }')
    expect(await client.receive(1)).toMatchObject([
      { id: '1', type: 'error', payload: [{ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } }] },
    ])
    client.subscribe('subscription ($so: Boolean!) { ticks @include(if: $so) }', '1', {
      variables: { so: true },
    })
    expect(await client.receive(1)).toMatchObject([
      { id: '1', type: 'error', payload: [{ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } }] },
    ])
    client.subscribe('query one { __typename }', '1', { operationName: 'two' })
    expect(await client.receive(1)).toMatchObject([{ id: '1', type: 'error', payload: [{}] }])
    client.subscribe('{ __typename }')
    expect(await client.receive(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
  })

  test.each([
    ['missing', {}, { path: 'id', reason: 'is required (ID!)' }],
    ['null', { id: null }, { path: 'id', reason: 'must not be null' }],
    ['wrong', { id: [] }, { path: 'id', reason: 'must be of type ID, but is a list' }],
  ])('with a variable that is %s is answered with a result that reports it', async (_, variables, field) => {
    client.subscribe('query ($id: ID!) { deployment(id: $id) { id } }', '1', { variables })
    const error = { extensions: { code: 'BAD_USER_INPUT', fields: [field] } }
    expect(await client.receive(2)).toMatchObject([
      { id: '1', type: 'next', payload: { errors: [error] } },
      { id: '1', type: 'complete' },
    ])
  })
})

describe('a subscription', () => {
  const EVENTS = 'subscription ($after: String) { deploymentStatus(after: $after) { sequence } }'

  test('that its resolver refuses is answered with a result, and ends', async () => {
    client.subscribe(EVENTS, '1', { variables: { after: 'x' } })
    expect(await client.receive(2)).toMatchObject([
      { id: '1', type: 'next', payload: { errors: [{ extensions: { code: 'CURSOR_UNKNOWN' } }] } },
      { id: '1', type: 'complete' },
    ])
  })

  test('under an id that is in use closes the socket, however long the id is', async () => {
    for (const id of ['1', '€'.repeat(200)]) {
      const other = new Client()
      await other.init()
      other.subscribe(EVENTS, id)
      other.subscribe(EVENTS, id)
      const { code, reason } = await other.closed
      expect([code, reason]).toEqual([4409, expect.stringMatching(/^Subscriber for .* already exists$/)])
    }
  })

  test('with an id that is too long closes the socket', async () => {
    client.subscribe(EVENTS, 'x'.repeat(257))
    expect((await client.closed).code).toBe(4400)
  })

  test('that is completed before its resolver has answered never starts', async () => {
    client.subscribe('subscription { ticks }')
    await withTimeout(resolverCalled.promise, 'the resolver is called')
    client.complete()
    await client.flush()
    ticks.tick()
    tickStream.resolve(allTicks())
    expect(await client.flush()).toEqual([])
    expect(ticks.listenerCount).toBe(0)
  })

  test('whose id is reused before its resolver has answered is not mistaken for the new operation', async () => {
    client.subscribe('subscription { ticks }')
    await withTimeout(resolverCalled.promise, 'the resolver is called')
    client.complete()
    client.subscribe('{ __typename }')
    expect(await client.receive(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
    client.subscribe(EVENTS)
    ticks.tick()
    tickStream.resolve(allTicks())
    expect(await client.flush()).toEqual([])
    expect(await readGauge(node.metrics.subscribers)).toBe(1)
  })

  test('whose socket closes before its resolver has answered never starts', async () => {
    client.subscribe('subscription { ticks }')
    await withTimeout(resolverCalled.promise, 'the resolver is called')
    client.socket.terminate()
    await waitUntil(() => node.connections.length === 0, 'the connection is closed')
    tickStream.resolve(allTicks())
    await new Promise(setImmediate)
    expect(ticks.listenerCount).toBe(0)
  })

  test('that fails after it was completed affects nothing', async () => {
    client.subscribe('subscription { ticks }')
    await withTimeout(resolverCalled.promise, 'the resolver is called')
    client.complete()
    await client.flush()
    tickStream.reject(new Error('a secret'))
    expect(await client.flush()).toEqual([])
    client.subscribe('{ __typename }')
    expect(await client.receive(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
  })

  test('that fails to read its events after it was completed sends no error, also under a reused id', async () => {
    const reading = Promise.withResolvers<never>()
    ticks.tick()
    ticks.readAfter = () => reading.promise
    tickStream.resolve(allTicks())
    client.subscribe('subscription { ticks }')
    await waitUntil(async () => (await readGauge(node.metrics.subscribers)) === 1, 'it is subscribed')
    client.complete()
    client.subscribe(EVENTS)
    await waitUntil(() => ticks.listenerCount === 0, 'it has ended')
    reading.reject(new Error('a secret'))
    expect(await client.flush()).toEqual([])
    expect(node.connections[0]?.operations.has('1')).toBe(true)
  })

  test('that fails to read its events is answered with an error, after which its id is free again', async () => {
    ticks.tick()
    ticks.readAfter = () => Promise.reject(new Error('a secret'))
    tickStream.resolve(allTicks())
    client.subscribe('subscription { ticks }')
    const [message] = await client.receive(1)
    expect(message).toMatchObject({ id: '1', type: 'error', payload: [{ extensions: { code: 'INTERNAL' } }] })
    expect(JSON.stringify(message)).not.toContain('secret')
    client.subscribe('{ __typename }')
    expect(await client.receive(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
  })

  test('receives the errors of an event in its result, and continues', async () => {
    tickStream.resolve(allTicks())
    client.subscribe('subscription { ticks }')
    for (let i = 0; i < 3; i++) ticks.tick()
    expect(await client.receive(3)).toMatchObject([
      { id: '1', type: 'next', payload: { data: { ticks: 1 } } },
      { payload: { errors: [{ path: ['ticks'], extensions: { code: 'CURSOR_UNKNOWN' } }], data: null } },
      { id: '1', type: 'next', payload: { data: { ticks: 3 } } },
    ])
  })

  test('receives nothing after its complete', async () => {
    tickStream.resolve(allTicks())
    client.subscribe('subscription { ticks }')
    ticks.tick()
    await client.receive(1)
    client.complete()
    await client.flush()
    expect(ticks.listenerCount).toBe(0)
    ticks.tick()
    expect(await client.flush()).toEqual([])
  })

  test('ends when its socket closes', async () => {
    tickStream.resolve(allTicks())
    client.subscribe('subscription { ticks }')
    ticks.tick()
    await client.receive(1)
    client.socket.terminate()
    await waitUntil(() => node.connections.length === 0, 'the connection is closed')
    expect(ticks.listenerCount).toBe(0)
  })
})

describe('a subscription field that the fan-out cannot serve', () => {
  test('is an error at start, which names the field', async () => {
    const withForeignField = (schema: GraphQLSchema) =>
      extendSchema(schema, parse('extend type Subscription { foreign: Int! }'))
    await expect(LiveNode.start(database.database, withForeignField)).rejects.toThrow(
      'The fan-out cannot serve Subscription.foreign. ',
    )
  })

  test('because its resolver returns another stream, fails each operation', async () => {
    tickStream.resolve((async function* () {})())
    client.subscribe('subscription { ticks }')
    expect(await client.receive(1)).toMatchObject([
      { id: '1', type: 'error', payload: [{ extensions: { code: 'INTERNAL' } }] },
    ])
  })
})

test('operations that were completed count until their execution has ended', async () => {
  for (let i = 0; i < 110; i++) {
    client.subscribe('subscription { ticks }', `${i}`)
    client.complete(`${i}`)
  }
  const refused = await client.receive(10)
  expect(refused).toHaveLength(10)
  for (const { type, payload } of refused) {
    expect([type, payload]).toMatchObject(['error', [{ extensions: { code: 'RATE_LIMITED' } }]])
  }
  tickStream.resolve(allTicks())
  await client.flush()
  client.subscribe('{ __typename }')
  expect(await client.receive(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
})

test('an operation that fails internally is answered without details, and the socket stays open', async () => {
  client.subscribe('subscription { ticks }')
  tickStream.reject(new Error('a secret'))
  const messages = await client.receive(1)
  expect(JSON.stringify(messages)).toContain('INTERNAL')
  expect(JSON.stringify(messages)).not.toContain('secret')
  client.subscribe('{ __typename }')
  expect(await client.receive(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
})

test('a ping is answered with its payload; a message that only servers send closes the socket', async () => {
  client.send({ type: 'ping', payload: { from: 'here' } })
  await client.until(() => client.messages.length > 0)
  expect(client.messages).toEqual([{ type: 'pong', payload: { from: 'here' } }])
  client.send({ type: 'pong' })
  client.send({ type: 'connection_ack' })
  expect(await client.closed).toEqual({ code: 4400, reason: 'Invalid message received' })
})

test('a ping with a large payload closes the socket', async () => {
  client.send({ type: 'ping', payload: { text: 'x'.repeat(5_000) } })
  expect(await client.closed).toEqual({ code: 4400, reason: 'Ping payload exceeds 4096 characters' })
  expect(client.messages).toEqual([])
})

describe('an incomplete message', () => {
  const unfinished = () => node.connections.reduce((sum, { unfinishedBytes }) => sum + unfinishedBytes, 0)

  test('closes its socket after thirty seconds, whatever else arrives until then', async () => {
    client.socket.send('x'.repeat(5_000), { fin: false })
    await waitUntil(() => unfinished() >= 5_000, 'the fragment has arrived')
    for (let second = 0; second < 30; second++) {
      node.clock.tick()
      client.socket.ping()
      await withTimeout(once(client.socket, 'pong'), 'the socket is open')
    }
    expect(client.socket.readyState).toBe(WebSocket.OPEN)
    node.clock.tick()
    expect(await client.closed).toMatchObject({ code: 1013, reason: expect.stringContaining('too long') })
  })

  test('closes its socket when those of all sockets exceed the limit: the oldest first', async () => {
    const send = (from: Client, bytes: number) => from.socket.send('x'.repeat(bytes), { fin: false })
    send(client, 5_000)
    await waitUntil(() => unfinished() >= 5_000, 'the first fragment has arrived')
    node.clock.tick()
    const others = Array.from({ length: 70 }, () => new Client())
    await Promise.all(others.map((other) => other.init()))
    for (const other of others) send(other, 1_000_000)
    await waitUntil(() => unfinished() >= 70_000_000, 'all fragments have arrived')
    node.clock.tick()
    expect(await client.closed).toMatchObject({ code: 1013 })
    await waitUntil(() => node.connections.length <= 67, 'those beyond the limit are closed')
    expect(node.connections).toHaveLength(67)
    expect(unfinished()).toBeLessThanOrEqual(64 * 1024 * 1024)
    for (const other of others) other.socket.terminate()
  })
})
