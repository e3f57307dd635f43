import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { type GraphQLObjectType, GraphQLScalarType } from 'graphql'
import { v7 as uuidv7 } from 'uuid'
import { WebSocket } from 'ws'
import { LiveNode } from '../../test/support/live/live-node.ts'
import { waitUntil, withTimeout } from '../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { CredentialStore } from '../auth/credentials/credential-store.ts'

let test_: TestDatabase
let node: LiveNode
let clients: Client[]
let watchers: ManyWatcher[]

beforeAll(async () => {
  test_ = await createMigratedDatabase()
})

afterAll(() => test_.drop())

beforeEach(async () => {
  clients = []
  watchers = []
  node = await LiveNode.start(test_.database)
})

afterEach(async () => {
  for (const { socket } of [...clients, ...watchers]) socket.terminate()
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
    await withTimeout(holds(), () => `a condition holds: ${seen()}, closed with ${this.closeCode}`).finally(
      () => {
        isOver = true
      },
    )
  }

  async join(deploymentId: string | null, after: string | undefined = undefined): Promise<void> {
    if (this.socket.readyState !== WebSocket.OPEN)
      await withTimeout(once(this.socket, 'open'), 'the socket opens')
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
    node.checkSockets()
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
  clearInterval(Reflect.get(node.feed, 'pollTimer'))
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
    await node.appendWithoutNotification(id, EVENTS)
    const herd = upTo(100).map((i) => ({ client: new Client(), seen: 1 + ((i * 37) % (EVENTS - 1)) }))
    await Promise.all(herd.map(({ client, seen }) => client.join(null, node.feed.cursorOf(position + seen))))
    for (const { client, seen } of herd) await client.until(() => client.sequences.length >= EVENTS - seen)
    expect(statements.stop()).toBeLessThanOrEqual(20)
    for (const { client, seen } of herd) expect(client.sequences).toEqual(upTo(EVENTS).slice(seen))
  })
})

/** One socket with any number of subscriptions, each with an alias that makes it different from all others. */
class ManyWatcher {
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
    watchers.push(this)
    this.socket.once('open', () => this.send({ type: 'connection_init', payload: { token } }))
  }

  static async open(token?: string): Promise<ManyWatcher> {
    const watcher = new ManyWatcher(token)
    await once(watcher.socket, 'message')
    return watcher
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
  const made = { kind: 'token', subjectId, name, grants, lifetimeMs: 3_600_000 } as const
  return (await new CredentialStore(test_.database).create(made)).secret
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

/** With 0 as if everything before had used up each turn. */
function setSlices(ms: number): void {
  const { scheduler } = Reflect.get(node.fanOut, 'context') as { scheduler: object }
  Reflect.set(scheduler, 'sliceMs', ms)
  Reflect.set(scheduler, 'limitMs', ms)
}

describe('many different subscriptions', () => {
  const PER_SOCKET = 100
  const aliases = (from: string) => upTo(PER_SOCKET).map((i) => `${from}${i}`)

  test('of one subject have a share, and leave the rest to others; what is given up may be taken again', async () => {
    const [greedy, other] = [await tokenOf('greedy'), await tokenOf('other')]
    const sockets = await Promise.all(upTo(5).map(() => ManyWatcher.open(greedy)))
    for (const [i, socket] of sockets.entries())
      for (const alias of aliases(`s${i}_`)) socket.subscribe(alias)
    const refusals = () => sockets.flatMap((socket) => socket.refusals)
    await members(200)
    await waitUntil(() => refusals().length >= 300, 'the rest has been refused')
    expect(refusals()).toHaveLength(300)
    for (const { code, message } of refusals()) {
      expect(code).toBe('RATE_LIMITED')
      expect(message).toMatch(/^You have 200 different subscriptions to the same events on this node\. /)
    }
    // What it follows already takes no further place, and neither does what others follow.
    const again = await ManyWatcher.open(greedy)
    const shared = [...sockets[0]!.sequences.keys()].find(
      (alias) => !sockets[0]!.refusals.some(({ id }) => id === alias),
    )!
    again.subscribe(shared)
    await members(201)
    const others = await ManyWatcher.open(other)
    for (const alias of aliases('o').slice(1)) others.subscribe(alias)
    others.subscribe(shared)
    await members(301)
    expect(others.refusals).toEqual([])
    expect(await metric(node.metrics.groups)).toBe(299)

    // Its last member has to leave for the place to be free.
    sockets[0]!.complete(shared)
    again.subscribe('one')
    await again.until(() => again.refusals.length === 1)
    again.complete(shared)
    again.subscribe('two')
    await members(300)
    expect(again.refusals).toHaveLength(1)
    for (const socket of [...sockets, again, others]) socket.socket.terminate()
    await members(0)
    expect(Reflect.get(Reflect.get(node.fanOut, 'quotas'), 'counts')).toMatchObject({ size: 0 })
  })

  test('are executed in turns: a popular subscription waits for none of them, and all get all', async () => {
    const EVENTS = 8
    const many = await Promise.all(
      upTo(20).map(async (i) => ManyWatcher.open(await tokenOf(`many-${Math.ceil(i / 2)}`))),
    )
    for (const [i, socket] of many.entries()) for (const alias of aliases(`m${i}_`)) socket.subscribe(alias)
    await members(20 * PER_SOCKET)
    // The last to come.
    const bystanders = await Promise.all(upTo(2).map(async (i) => ManyWatcher.open(await tokenOf(`by-${i}`))))
    for (const bystander of bystanders) bystander.subscribe('same')
    await members(20 * PER_SOCKET + 2)
    const before = await metric(node.metrics.executions)
    await node.append(uuidv7(), EVENTS, 10)
    await Promise.all(bystanders.map((bystander) => bystander.until(() => bystander.has(EVENTS))))
    const executions = (await metric(node.metrics.executions)) - before
    // Meanwhile some come, with a cursor from before, and some go.
    const late = await ManyWatcher.open(await tokenOf('late'))
    for (const alias of aliases('l')) late.subscribe(alias, null, node.feed.cursorOf(node.feed.head - EVENTS))
    for (const alias of aliases('m0_').slice(0, 50)) many[0]!.complete(alias)
    for (const socket of many.slice(1)) await socket.until(() => socket.has(EVENTS))
    await late.until(() => late.has(EVENTS))
    for (const socket of [...many.slice(1), ...bystanders, late]) {
      for (const sequences of socket.sequences.values()) expect(sequences).toEqual(upTo(EVENTS))
    }
    expect(executions).toBeLessThan((EVENTS * 20 * PER_SOCKET) / 4)
  })

  test('of one that comes back with an old cursor do not keep others from coming back', async () => {
    const EVENTS = 100
    const position = node.feed.head
    const cursor = node.feed.cursorOf(position)
    await node.append(uuidv7(), EVENTS, 10)
    await headAt(position + EVENTS)
    const sockets = await Promise.all(upTo(2).map(async () => ManyWatcher.open(await tokenOf('back'))))
    const bystander = await ManyWatcher.open(await tokenOf('bystander'))
    setSlices(0)
    for (const [i, socket] of sockets.entries()) {
      for (const alias of aliases(`b${i}_`)) socket.subscribe(alias, null, cursor)
    }
    await members(2 * PER_SOCKET)
    bystander.subscribe('same', null, cursor)
    await members(2 * PER_SOCKET + 1)
    setSlices(12)
    await bystander.until(() => bystander.has(EVENTS))
    expect(await metric(node.metrics.executions)).toBeLessThan((EVENTS * 2 * PER_SOCKET) / 4)
    for (const socket of sockets) await socket.until(() => socket.has(EVENTS))
    for (const socket of [...sockets, bystander]) {
      for (const sequences of socket.sequences.values()) expect(sequences).toEqual(upTo(EVENTS))
    }
  })
})

describe('while a group waits for its turn', () => {
  test('and falls too far behind, nobody is sent anything twice', async () => {
    const EVENTS = 1_001
    const id = uuidv7()
    const first = new Client()
    await first.join(null)
    await members(1)
    setSlices(0)
    const position = node.feed.head
    await node.append(id, 1, 10)
    await headAt(position + 1)
    const second = new Client()
    await second.join(null)
    await members(2)
    await node.append(id, EVENTS - 1, 10)
    await headAt(position + EVENTS)
    expect([first.sequences, second.sequences]).toEqual([[], []])
    setSlices(12)
    await node.append(id, 1, 10)
    await first.until(() => first.sequences.length > EVENTS)
    await second.until(() => second.sequences.length >= EVENTS)
    expect(first.sequences).toEqual(upTo(EVENTS + 1))
    expect(second.sequences).toEqual(upTo(EVENTS + 1).slice(1))
  })

  test('and the log is found to have lost what it waits for, that is never sent', async () => {
    const id = uuidv7()
    const before = node.feed.head
    await node.append(id, 1, 10)
    await headAt(before + 1)
    const client = new Client()
    await client.join(null)
    await members(1)
    const { head, logId } = node.feed
    setSlices(0)
    await node.append(id, 3, 10)
    await headAt(head + 3)
    await test_.database.transaction(async (tx) => {
      await tx.query(
        'update log set head = $1, (previous_event_id, event_id) = (select previous_event_id, event_id from events where position = $1)',
        [head],
      )
      await tx.query('delete from events where position > $1', [head])
    })
    // It does not answer the close, so that its group is there until it is cut off.
    client.socket.pause()
    node.feed.poll()
    await waitUntil(() => node.feed.logId !== logId, 'the log has got another id')
    const again = new Client()
    await again.join(null)
    await members(2)
    setSlices(12)
    await node.append(id, 1, 10)
    await again.until(() => again.sequences.length >= 1)
    expect(again.sequences).toEqual([2])
    expect(client.sequences).toEqual([])
  })
})

test('an event that cannot be encoded ends only the subscriptions that ask for the faulty field', async () => {
  await node.stop()
  node = await LiveNode.start(test_.database, (schema) => {
    const { org } = (schema.getType('Deployment') as GraphQLObjectType).getFields()
    // JSON has no such number.
    Object.assign(org!, { type: new GraphQLScalarType({ name: 'Anything' }), resolve: () => 1n })
    return schema
  })
  const asking = await Promise.all(upTo(3).map(() => ManyWatcher.open()))
  for (const watcher of asking) watcher.subscribe('same')
  const other = new Client()
  await other.join(null)
  await members(4)
  await node.append(uuidv7(), 2, 10)
  for (const watcher of asking) await watcher.until(() => watcher.refusals.length > 0)
  for (const { refusals } of asking) expect(refusals.map(({ code }) => code)).toEqual(['INTERNAL'])
  await other.until(() => other.sequences.length === 2)
  await members(1)
})

describe('sockets', () => {
  test('of one subject are at most 500; another subject and everybody on this machine have theirs', async () => {
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
        expect.stringMatching(/^You have 500 sockets open here; /),
      ])
    }
    for (const token of [await tokenOf('others'), undefined]) {
      const other = open(token)
      await answered(other)
      expect(other.closeCode).toBeUndefined()
    }
    many.find(({ closeCode }) => closeCode === undefined)?.socket.close()
    await waitUntil(() => node.connections.length <= 501, 'the others have been closed')
    const again = open(secret)
    await answered(again)
    expect(again.closeCode).toBeUndefined()
  })

  test('that have not authenticated take at most half of the places, from one network', async () => {
    // A fifth of the connections is for requests.
    node.server.maxConnections = 25
    const silent = upTo(10).map(() => new Client())
    for (const { socket } of silent) await once(socket, 'open')
    const [, response] = await once(new Client().socket, 'unexpected-response')
    expect(response.statusCode).toBe(503)
    await silent[0]!.join(null)
    await members(1)
    await once(new Client().socket, 'open')
    const elsewhere = new WebSocket(node.url, 'graphql-transport-ws', { localAddress: '127.0.0.2' })
    await once(elsewhere, 'open')
    elsewhere.terminate()
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
    Reflect.set(node.sessionMonitor, 'confirmedAt', performance.now() - 21_000)
    Reflect.apply(Reflect.get(node.sessionMonitor, 'tick') as () => void, node.sessionMonitor, [])
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
