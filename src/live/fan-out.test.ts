import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { v7 as uuidv7 } from 'uuid'
import { WebSocket } from 'ws'
import { waitUntil, within } from '../../test/support/processes.ts'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { CredentialStore } from '../auth/credential-store.ts'
import { MIGRATIONS } from '../database/schema.ts'
import { LiveNode } from './testing/live-node.ts'

let test_: TestDatabase
let node: LiveNode
let clients: Client[]

beforeAll(async () => {
  test_ = await createTestDatabase(MIGRATIONS)
})

afterAll(() => test_.drop())

beforeEach(async () => {
  clients = []
  node = await LiveNode.start(test_.database)
})

afterEach(async () => {
  for (const client of clients) client.socket.terminate()
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
    const seen = () => `${this.sequences.length} events, the last ${this.sequences.at(-1)}`
    await within(holds(), () => `a condition holds: ${seen()}, closed with ${this.closeCode}`).finally(() => {
      isOver = true
    })
  }

  async join(deploymentId: string | null, after: string | undefined = undefined): Promise<void> {
    if (this.socket.readyState !== WebSocket.OPEN) await within(once(this.socket, 'open'), 'the socket opens')
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
  await waitUntil(
    async () => (await node.metrics.members.get()).values[0]?.value === count,
    `there are ${count} subscriptions`,
  )
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
    if (!connection) throw new Error('There is no connection.')
    await waitUntil(() => connection.writer.isStalled, 'the writer is stalled')
    // As if half a minute had passed.
    connection.writer.lastProgressAt -= 31_000
    node.lookAtSockets()
    slow.socket.resume()
    await slow.until(() => slow.closeCode !== undefined)
    expect(slow.closeCode).toBe(1013)
    expect(slow.closeReason).toMatch(/^SLOW_CONSUMER: /)
    await members(0)
    const again = new Client()
    await again.join(null, slow.cursor)
    await again.until(() => slow.sequences.length + again.sequences.length >= EVENTS)
    expect([...slow.sequences, ...again.sequences]).toEqual(upTo(EVENTS))
  })
})

/** Counts statements until it is stopped; the feed's own looks would count as well, on a slow machine more often. */
function countStatements(): { stop: () => number } {
  clearInterval(Reflect.get(node.feed, 'safetyLook'))
  const query = test_.database.query.bind(test_.database)
  let statements = 0
  Reflect.set(test_.database, 'query', (...args: Parameters<typeof query>) => {
    statements++
    return query(...args)
  })
  return {
    stop: () => {
      Reflect.deleteProperty(test_.database, 'query')
      return statements
    },
  }
}

describe('a herd that comes back', () => {
  const EVENTS = 1_500

  test('each with a cursor of its own, is read for once', async () => {
    const id = uuidv7()
    const position = node.feed.head
    await node.append(id, EVENTS)
    await node.stop()
    // A node that has just started has nothing in memory.
    node = await LiveNode.start(test_.database)
    const statements = countStatements()
    const herd = upTo(100).map((i) => ({ client: new Client(), seen: (i * 37) % EVENTS }))
    await Promise.all(herd.map(({ client, seen }) => client.join(null, node.feed.cursorOf(position + seen))))
    for (const { client, seen } of herd) await client.until(() => client.sequences.length >= EVENTS - seen)
    expect(statements.stop()).toBeLessThanOrEqual(20)
    for (const { client, seen } of herd) expect(client.sequences).toEqual(upTo(EVENTS).slice(seen))
  })

  test('from a node that had seen more than this one, is read for once', async () => {
    const id = uuidv7()
    const position = node.feed.head
    const statements = countStatements()
    // Nobody tells this node.
    await node.appendUntold(id, EVENTS)
    const herd = upTo(100).map((i) => ({ client: new Client(), seen: 1 + ((i * 37) % (EVENTS - 1)) }))
    await Promise.all(herd.map(({ client, seen }) => client.join(null, node.feed.cursorOf(position + seen))))
    for (const { client, seen } of herd) await client.until(() => client.sequences.length >= EVENTS - seen)
    expect(statements.stop()).toBeLessThanOrEqual(20)
    for (const { client, seen } of herd) expect(client.sequences).toEqual(upTo(EVENTS).slice(seen))
  })
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
