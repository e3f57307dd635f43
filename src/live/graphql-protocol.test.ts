import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { extendSchema, type GraphQLSchema, parse } from 'graphql'
import { WebSocket } from 'ws'
import { LiveNode } from '../../test/support/live/live-node.ts'
import { waitUntil, withTimeout } from '../../test/support/processes.ts'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { MIGRATIONS } from '../database/schema.ts'
import { UnknownCursorError } from '../errors.ts'

let database: TestDatabase
let node: LiveNode
let client: Client
/** What `ticks` resolves to, once that is known. */
let ticks: PromiseWithResolvers<AsyncIterable<unknown>>
let hasBegun: PromiseWithResolvers<void>

beforeAll(async () => {
  database = await createTestDatabase(MIGRATIONS)
})

afterAll(() => database.drop())

beforeEach(async () => {
  ticks = Promise.withResolvers()
  hasBegun = Promise.withResolvers()
  node = await LiveNode.start(database.database, withTicks)
  client = new Client()
  await client.join()
})

afterEach(async () => {
  client.socket.terminate()
  await node.stop()
})

/** A subscription that cannot be shared: its stream is nobody's but the subscriber's. */
function withTicks(schema: GraphQLSchema): GraphQLSchema {
  const extended = extendSchema(schema, parse('extend type Subscription { ticks: Int! }'))
  const field = extended.getSubscriptionType()?.getFields().ticks
  if (!field) throw new Error('The schema could not be extended.')
  field.subscribe = () => {
    hasBegun.resolve()
    return ticks.promise
  }
  field.resolve = (tick) => {
    if (tick === 'bad') throw new UnknownCursorError('bad')
    return tick
  }
  return extended
}

/** A stream that is fed by the test. */
class Stream implements AsyncIterableIterator<unknown> {
  returns = 0
  readonly returned = Promise.withResolvers<void>()
  private readonly results: Promise<IteratorResult<unknown>>[] = []
  private readonly asked: ((result: Promise<IteratorResult<unknown>>) => void)[] = []

  push(value: unknown): void {
    this.give(Promise.resolve({ done: false, value }))
  }

  end(): void {
    this.give(Promise.resolve({ done: true, value: undefined }))
  }

  fail(error: Error): void {
    const failed = Promise.reject(error)
    failed.catch(() => undefined)
    this.give(failed)
  }

  next(): Promise<IteratorResult<unknown>> {
    const result = this.results.shift()
    return result ?? new Promise((resolve) => this.asked.push(resolve))
  }

  async return(): Promise<IteratorResult<unknown>> {
    this.returns++
    this.returned.resolve()
    this.end()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  private give(result: Promise<IteratorResult<unknown>>): void {
    const ask = this.asked.shift()
    if (ask) ask(result)
    else this.results.push(result)
  }
}

class Client {
  readonly socket = new WebSocket(node.url, 'graphql-transport-ws')
  messages: { id?: string; type: string; payload?: unknown }[] = []
  readonly closed = once(this.socket, 'close').then(([code, reason]) => ({ code, reason: String(reason) }))

  constructor() {
    this.socket.on('message', (data) => this.messages.push(JSON.parse(String(data))))
  }

  async join(): Promise<void> {
    await withTimeout(once(this.socket, 'open'), 'the socket opens')
    this.send({ type: 'connection_init' })
    await this.has(() => this.messages.length > 0)
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

  /** All that the server has said until it has answered this. */
  async heard(): Promise<{ id?: string; type: string; payload?: unknown }[]> {
    this.send({ type: 'ping', payload: { last: true } })
    await this.has(() => this.messages.at(-1)?.type === 'pong')
    return this.messages.splice(0, this.messages.length).slice(0, -1)
  }

  async hear(count: number): Promise<{ id?: string; type: string; payload?: unknown }[]> {
    await this.has(() => this.messages.length >= count)
    return this.heard()
  }

  has(condition: () => boolean): Promise<void> {
    return waitUntil(
      condition,
      () => `a message; the last ones are ${JSON.stringify(this.messages.slice(-5))}`,
    )
  }
}

async function gauged(of: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await of.get()).values[0]?.value ?? 0
}

describe('an operation that is answered', () => {
  test('gets one result and its end, and its id is free again', async () => {
    for (let i = 0; i < 2; i++) {
      client.subscribe('{ __typename }')
      expect(await client.hear(2)).toEqual([
        { id: '1', type: 'next', payload: { data: { __typename: 'Query' } } },
        { id: '1', type: 'complete' },
      ])
    }
  })

  test('with a document that is wrong gets an error instead, and its id is free again', async () => {
    client.subscribe('{ nope }')
    expect(await client.hear(1)).toMatchObject([
      { id: '1', type: 'error', payload: [{ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } }] },
    ])
    client.subscribe('subscription ($so: Boolean!) { ticks @include(if: $so) }', '1', {
      variables: { so: true },
    })
    expect(await client.hear(1)).toMatchObject([
      { id: '1', type: 'error', payload: [{ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } }] },
    ])
    client.subscribe('query one { __typename }', '1', { operationName: 'two' })
    expect(await client.hear(1)).toMatchObject([{ id: '1', type: 'error', payload: [{}] }])
    client.subscribe('{ __typename }')
    expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
  })

  test('with a name that no operation has does not spoil the document for others, or fill the memory', async () => {
    for (const operationName of ['\n', 'x'.repeat(500_000)]) {
      client.subscribe('{ __typename }', '1', { operationName })
      expect(await client.hear(1)).toMatchObject([{ type: 'error' }])
    }
    client.subscribe('{ __typename }')
    expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
    const { protocol } = node.socket as unknown as { protocol: { documentCache: { cache: { size: number } } } }
    expect(protocol.documentCache.cache.size).toBe(1)
  })

  test.each([
    ['missing', {}, { path: 'id', reason: 'is required, of type ID!' }],
    ['null', { id: null }, { path: 'id', reason: 'must not be null' }],
    ['wrong', { id: [] }, { path: 'id', reason: 'must be of type ID, but is a list' }],
  ])('with a variable that is %s is told so in a result', async (_, variables, field) => {
    client.subscribe('query ($id: ID!) { deployment(id: $id) { id } }', '1', { variables })
    const error = { extensions: { code: 'BAD_USER_INPUT', fields: [field] } }
    expect(await client.hear(2)).toMatchObject([
      { id: '1', type: 'next', payload: { errors: [error] } },
      { id: '1', type: 'complete' },
    ])
  })
})

describe('a subscription', () => {
  const EVENTS = 'subscription ($after: String) { deploymentStatus(after: $after) { sequence } }'

  test('that is refused is told so in a result, and has ended', async () => {
    client.subscribe(EVENTS, '1', { variables: { after: 'x' } })
    expect(await client.hear(2)).toMatchObject([
      { id: '1', type: 'next', payload: { errors: [{ extensions: { code: 'CURSOR_UNKNOWN' } }] } },
      { id: '1', type: 'complete' },
    ])
  })

  test('under an id that is in use closes the socket, however long the id is', async () => {
    for (const id of ['1', '€'.repeat(200)]) {
      const other = new Client()
      await other.join()
      other.subscribe(EVENTS, id)
      other.subscribe(EVENTS, id)
      const { code, reason } = await other.closed
      expect([code, reason]).toEqual([4409, expect.stringMatching(/^Subscriber for .* already exists$/)])
    }
  })

  test('with an id that is too long to be kept closes the socket', async () => {
    client.subscribe(EVENTS, 'x'.repeat(257))
    expect((await client.closed).code).toBe(4400)
  })

  test('that is completed before its resolver has answered is never begun', async () => {
    const stream = new Stream()
    client.subscribe('subscription { ticks }')
    await withTimeout(hasBegun.promise, 'the subscription begins')
    client.complete()
    await client.heard()
    stream.push(1)
    ticks.resolve(stream)
    await withTimeout(stream.returned.promise, 'the stream is ended')
    expect(await client.heard()).toEqual([])
  })

  test('whose id is used again meanwhile is not taken for the new one', async () => {
    client.subscribe('subscription { ticks }')
    await withTimeout(hasBegun.promise, 'the subscription begins')
    client.complete()
    client.subscribe('{ __typename }')
    expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
    client.subscribe(EVENTS)
    const stream = new Stream()
    stream.push(1)
    ticks.resolve(stream)
    await withTimeout(stream.returned.promise, 'the stream is ended')
    expect(await client.heard()).toEqual([])
    expect(await gauged(node.metrics.members)).toBe(1)
  })

  test('whose socket closes before its resolver has answered is never begun', async () => {
    const stream = new Stream()
    client.subscribe('subscription { ticks }')
    await withTimeout(hasBegun.promise, 'the subscription begins')
    client.socket.terminate()
    await waitUntil(() => node.connections.length === 0, 'the connections have ended')
    ticks.resolve(stream)
    await withTimeout(stream.returned.promise, 'the stream is ended')
  })
})

test('one that fails after it was completed is nobody’s concern', async () => {
  client.subscribe('subscription { ticks }')
  await withTimeout(hasBegun.promise, 'the subscription begins')
  client.complete()
  await client.heard()
  ticks.resolve('nothing that can be followed' as never)
  expect(await client.heard()).toEqual([])
  client.subscribe('{ __typename }')
  expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
})

test('operations that are completed count until they have been executed', async () => {
  for (let i = 0; i < 110; i++) {
    client.subscribe('subscription { ticks }', `${i}`)
    client.complete(`${i}`)
  }
  const refused = await client.hear(10)
  expect(refused).toHaveLength(10)
  for (const { type, payload } of refused) {
    expect([type, payload]).toMatchObject(['error', [{ extensions: { code: 'RATE_LIMITED' } }]])
  }
  ticks.resolve(new Stream())
  await client.heard()
  client.subscribe('{ __typename }')
  expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
})

test('an operation that fails by our fault is told so without a secret, and the socket stays', async () => {
  client.subscribe('subscription { ticks }')
  ticks.resolve('a secret' as never)
  const [message] = await client.hear(1)
  expect(message).toMatchObject({ id: '1', type: 'error', payload: [{ extensions: { code: 'INTERNAL' } }] })
  expect(JSON.stringify(message)).not.toContain('secret')
  client.subscribe('{ __typename }')
  expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
})

describe('a subscription that cannot be shared', () => {
  let stream: Stream

  beforeEach(() => {
    stream = new Stream()
    ticks.resolve(stream)
    client.subscribe('subscription { ticks }')
  })

  test('is executed for each event, and counted', async () => {
    for (const tick of [1, 2, 3]) stream.push(tick)
    expect(await client.hear(3)).toEqual(
      [1, 2, 3].map((tick) => ({ id: '1', type: 'next', payload: { data: { ticks: tick } } })),
    )
    expect(await gauged(node.metrics.unshared)).toBe(1)
    stream.push('bad')
    stream.push(5)
    expect(await client.hear(2)).toMatchObject([
      { payload: { errors: [{ path: ['ticks'], extensions: { code: 'CURSOR_UNKNOWN' } }], data: null } },
      { payload: { data: { ticks: 5 } } },
    ])
  })

  test('ends when its stream does, and its id is free again', async () => {
    stream.push(1)
    stream.end()
    expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { id: '1', type: 'complete' }])
    client.subscribe('{ __typename }')
    expect(await client.hear(2)).toMatchObject([{ type: 'next' }, { type: 'complete' }])
  })

  test('ends with an error when its stream fails', async () => {
    stream.push(1)
    stream.fail(new Error('a secret'))
    expect(await client.hear(2)).toMatchObject([
      { type: 'next' },
      { id: '1', type: 'error', payload: [{ extensions: { code: 'INTERNAL' } }] },
    ])
  })

  test('is over when it is completed: its stream is told, and nothing follows', async () => {
    stream.push(1)
    await client.hear(1)
    client.complete()
    await client.heard()
    expect(stream.returns).toBe(1)
    stream.push(2)
    expect(await client.heard()).toEqual([])
  })

  test('is over when its socket closes', async () => {
    stream.push(1)
    await client.hear(1)
    client.socket.terminate()
    await withTimeout(stream.returned.promise, 'the stream is ended')
    await waitUntil(() => node.connections.length === 0, 'the connections have ended')
    expect(stream.returns).toBe(1)
  })
})

test('a ping is answered with what it carried; what only servers say closes the socket', async () => {
  client.send({ type: 'ping', payload: { from: 'here' } })
  await client.has(() => client.messages.length > 0)
  expect(client.messages).toEqual([{ type: 'pong', payload: { from: 'here' } }])
  client.send({ type: 'pong' })
  client.send({ type: 'connection_ack' })
  expect(await client.closed).toEqual({ code: 4400, reason: 'Invalid message received' })
})

test('a ping that is larger than any need is not sent back', async () => {
  client.send({ type: 'ping', payload: { text: 'x'.repeat(5_000) } })
  expect(await client.closed).toEqual({ code: 4400, reason: 'A ping may be 4096 characters long' })
  expect(client.messages).toEqual([])
})

// The last one: its event stays in the log.
test('a subscription that fails after it was completed is told nothing, and ends no other of its id', async () => {
  await node.append(crypto.randomUUID(), 1)
  await waitUntil(() => node.feed.head > 0, 'the feed has the event')
  const reading = Promise.withResolvers<never>()
  node.feed.readAfter = () => reading.promise
  const query = 'subscription ($after: String) { deploymentStatus(after: $after) { sequence } }'
  client.subscribe(query, '1', { variables: { after: node.feed.cursorOf(0) } })
  await client.heard()
  client.complete()
  client.subscribe('subscription { ticks }')
  await withTimeout(hasBegun.promise, 'the subscription begins')
  reading.reject(new Error('a read that fails for good'))
  expect(await client.heard()).toEqual([])
  expect(node.connections[0]?.operations.has('1')).toBe(true)
})

describe('a message that does not come to its end', () => {
  const unfinished = () => node.connections.reduce((sum, { unfinishedBytes }) => sum + unfinishedBytes, 0)

  beforeEach(() => node.stopSocketChecks())

  test('ends its socket after thirty seconds, whatever else comes meanwhile', async () => {
    client.socket.send('x'.repeat(5_000), { fin: false })
    await waitUntil(() => unfinished() >= 5_000, 'the fragment has come')
    for (let second = 0; second < 30; second++) {
      node.checkSockets()
      client.socket.ping()
      await withTimeout(once(client.socket, 'pong'), 'the socket is still there')
    }
    expect(client.socket.readyState).toBe(WebSocket.OPEN)
    node.checkSockets()
    expect(await client.closed).toMatchObject({ code: 1013, reason: expect.stringContaining('too long') })
  })

  test('is one of as many as fit, of all sockets together: the oldest go first', async () => {
    const send = (from: Client, bytes: number) => from.socket.send('x'.repeat(bytes), { fin: false })
    send(client, 5_000)
    await waitUntil(() => unfinished() >= 5_000, 'the first fragment has come')
    node.checkSockets()
    const others = Array.from({ length: 70 }, () => new Client())
    await Promise.all(others.map((other) => other.join()))
    for (const other of others) send(other, 1_000_000)
    await waitUntil(() => unfinished() >= 70_000_000, 'all fragments have come')
    node.checkSockets()
    expect(await client.closed).toMatchObject({ code: 1013 })
    await waitUntil(() => node.connections.length <= 67, 'those that do not fit are closed')
    expect(node.connections).toHaveLength(67)
    expect(unfinished()).toBeLessThanOrEqual(64 * 1024 * 1024)
    for (const other of others) other.socket.terminate()
  })
})
