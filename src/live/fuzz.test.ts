import { once } from 'node:events'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { v7 as uuidv7 } from 'uuid'
import { WebSocket } from 'ws'
import { LiveNode } from '../../test/support/live/live-node.ts'
import { MAX_WAIT_MS, waitUntil, withTimeout } from '../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'

/** `FUZZ_SECONDS=180 npm test -- src/live/fuzz` runs for three minutes; `FUZZ_SEED` repeats a run. */
const FUZZ_SECONDS = Number(process.env.FUZZ_SECONDS ?? 0)
const MIN_ROUNDS = 3
const SEED = Number(process.env.FUZZ_SEED ?? 4711)
const CLIENTS = 12
const STEPS = 150
const DEPLOYMENTS = 3
const SHORT = 10
/** The feed keeps at most 8,192 events in memory: from then on its memory does not grow. */
const MAX_RECENT_EVENTS = 8_192
const MAX_GROWTH_BYTES = 4 * 1024 * 1024

let database: TestDatabase
let node: LiveNode

beforeAll(async () => {
  database = await createMigratedDatabase()
})

afterAll(() => database.drop())

beforeEach(async () => {
  node = await LiveNode.start(database.database)
})

afterEach(() => node.stop())

/** The alias identifies the use of an operation id; fewer than this many are active at a time. */
const USES = 64
const query = (use: number) => `subscription ($after: String, $deploymentId: ID) {
  use${use % USES}: deploymentStatus(after: $after, deploymentId: $deploymentId) { deploymentId cursor }
}`

/** What closes a socket, and with which code, according to PROTOCOL.md and the subprotocol. */
const VIOLATIONS: { code: number; send(socket: WebSocket): void }[] = [
  ...[
    '',
    '{',
    '[]',
    'null',
    '"{}"',
    '{"type":"next","id":"x","payload":{}}',
    '{"type":"subscribe"}',
    '\u0000',
  ].map((text) => ({ code: 4400, send: (socket: WebSocket) => socket.send(text) })),
  { code: 4429, send: (socket) => socket.send('{"type":"connection_init"}') },
  { code: 1007, send: (socket) => socket.send(Buffer.from([0xff]), { binary: false }) },
  { code: 1009, send: (socket) => socket.send(`{"x":"${'x'.repeat(1024 * 1024)}"}`) },
  // A frame without a mask.
  { code: 1002, send: (socket) => rawSocket(socket).write(Buffer.from([0x81, 1, 0x61])) },
]

interface Message {
  id?: string
  type: string
  payload?: {
    data?: Record<string, { deploymentId: string; cursor: string }>
    connectionId?: string
    cursor?: string
  }
}

/** One use of an operation id. */
interface Operation {
  deploymentId: string | null
  /** Of its last event, or of the cursor that it started from. */
  position: number
  isOver: boolean
}

/** A client that knows which messages it may receive, and records all others. */
class FuzzClient {
  readonly violations: string[] = []
  readonly closed: Promise<void>
  private readonly socket = new WebSocket(node.url, 'graphql-transport-ws')
  /** Each use of each operation id; frames of an earlier use may still arrive after its `complete`. */
  private readonly uses = new Map<string, Operation[]>()
  private readonly oneShots = new Set<string>()
  private hasInitialised = false
  private isAcknowledged = false
  private expectedCloseCodes: number[] | undefined
  private pings = 0
  private nextId = 0

  constructor(readonly number: number) {
    this.socket.on('message', (data) => this.receive(JSON.parse(String(data))))
    this.socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      this.socket.once('close', (code) => {
        const allowed = [...(this.expectedCloseCodes ?? []), ...(this.isAcknowledged ? [] : [4408])]
        if (!allowed.includes(code))
          this.recordViolation(`closed with ${code}, expected ${allowed.join(' or ')}`)
        resolve()
      })
    })
  }

  async open(): Promise<void> {
    await once(this.socket, 'open')
  }

  /** Whether the client can still send, and expects answers. */
  get isUsable(): boolean {
    return this.socket.readyState === WebSocket.OPEN && this.expectedCloseCodes === undefined
  }

  initialise(): void {
    if (this.hasInitialised) return
    this.hasInitialised = true
    this.send({ type: 'connection_init' })
  }

  subscribe(slot: number, deploymentId: string | null): void {
    const id = `slot-${slot}`
    const uses = this.uses.get(id) ?? []
    const isLive = uses.at(-1)?.isOver === false
    if (!this.isAcknowledged) this.expectedCloseCodes = [4401]
    else if (isLive) this.expectedCloseCodes = [4409]
    const position = node.feed.head
    if (!this.expectedCloseCodes) {
      uses.push({ deploymentId, position, isOver: false })
      this.uses.set(id, uses)
    }
    const variables = { after: node.feed.cursorOf(position), deploymentId }
    this.send({ id, type: 'subscribe', payload: { query: query(uses.length - 1), variables } })
  }

  complete(slot: number): void {
    const operation = this.uses.get(`slot-${slot}`)?.at(-1)
    if (operation) operation.isOver = true
    this.send({ id: `slot-${slot}`, type: 'complete' })
  }

  /** An operation that ends at once: with a result, or with an error. */
  execute(query: string, variables: object = {}): void {
    if (!this.hasInitialised) return
    const id = `once-${this.nextId++}`
    this.oneShots.add(id)
    this.send({ id, type: 'subscribe', payload: { query, variables } })
  }

  ping(): void {
    this.pings++
    this.send({ type: 'ping', payload: { from: this.number } })
  }

  violate(number: number): void {
    const violation = VIOLATIONS[number % VIOLATIONS.length]!
    if (violation.code === 4429 && !this.hasInitialised) return
    violation.send(this.socket)
    this.expectedCloseCodes = [violation.code]
  }

  close(): void {
    this.expectedCloseCodes = [1000]
    this.socket.close(1000)
  }

  /** Like a pulled cable: this end sends nothing more, not even a close. */
  freeze(): void {
    this.expectedCloseCodes = [1006]
    rawSocket(this.socket).pause()
    rawSocket(this.socket).write = () => true
  }

  terminate(): void {
    this.expectedCloseCodes = [...(this.expectedCloseCodes ?? []), 1006]
    this.socket.terminate()
  }

  /** Stops reading for a while. */
  pause(): void {
    this.socket.pause()
    setTimeout(() => this.socket.resume(), 20)
  }

  /** Resolves once operations may be sent. */
  async acknowledged(): Promise<void> {
    const isWaiting = () => this.hasInitialised && !this.isAcknowledged && this.isUsable
    await waitUntil(() => !isWaiting(), `client ${this.number} is acknowledged`, MAX_WAIT_MS)
  }

  /** Resolves once the server has handled everything sent so far. */
  async settle(): Promise<void> {
    if (!this.isUsable) return
    const pong = once(this.socket, 'pong')
    this.socket.ping()
    await withTimeout(Promise.race([pong, this.closed]), `client ${this.number} is answered`)
  }

  /** Subscriptions to all deployments that have not received all events. */
  lagging(): string[] {
    return [...this.uses].flatMap(([id, uses]) => {
      const operation = uses.at(-1)
      const isBehind =
        operation?.deploymentId === null && !operation.isOver && operation.position < node.feed.head
      return isBehind ? [`${id} is at ${operation.position} of ${node.feed.head}`] : []
    })
  }

  private receive({ id = '', type, payload }: Message): void {
    if (type === 'connection_ack') {
      if (this.isAcknowledged || !payload?.connectionId || !payload.cursor)
        this.recordViolation('an unexpected acknowledgement')
      this.isAcknowledged = true
    } else if (type === 'pong') {
      if (this.pings-- === 0) this.recordViolation('a surplus pong')
    } else if (this.oneShots.has(id)) {
      if (type === 'error' || type === 'complete') this.oneShots.delete(id)
      else if (type !== 'next') this.recordViolation(`${type} for ${id}`)
    } else if (type === 'next' && payload?.data) {
      for (const [alias, event] of Object.entries(payload.data)) this.receiveEvent(id, alias, event)
    } else {
      this.recordViolation(`${type} for ${id}: ${JSON.stringify(payload)}`)
    }
  }

  private receiveEvent(id: string, alias: string, event: { deploymentId: string; cursor: string }): void {
    const position = Number(event.cursor.slice(4))
    const use = this.uses.get(id)?.findLast((_, i) => alias === `use${i % USES}`)
    const isNext =
      use?.deploymentId === null
        ? position === use.position + 1
        : use && position > use.position && event.deploymentId === use.deploymentId
    if (use && isNext) use.position = position
    else this.recordViolation(`event ${position} of ${alias} for ${id}, which is at ${use?.position}`)
  }

  private send(message: object): void {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message))
  }

  private recordViolation(description: string): void {
    this.violations.push(`client ${this.number}: ${description}`)
  }
}

function rawSocket(socket: WebSocket): import('node:net').Socket {
  return Reflect.get(socket, '_socket') as import('node:net').Socket
}

const step = fc.record({
  action: fc.oneof(
    { weight: 6, arbitrary: fc.constant('subscribe') },
    { weight: 5, arbitrary: fc.constant('complete') },
    { weight: 5, arbitrary: fc.constant('complete and subscribe') },
    { weight: 4, arbitrary: fc.constant('initialise') },
    { weight: 3, arbitrary: fc.constant('append') },
    { weight: 2, arbitrary: fc.constantFrom('execute', 'fail', 'ping', 'pause', 'turn', 'settle') },
    { weight: 1, arbitrary: fc.constantFrom('violate', 'close', 'terminate', 'freeze') },
  ),
  client: fc.nat(CLIENTS - 1),
  number: fc.nat(1000),
})
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

/** Some clients connect, take random actions, and disconnect. */
async function round(steps: readonly Step[], deployments: readonly string[]): Promise<string[]> {
  const all: FuzzClient[] = []
  const current = new Map<number, FuzzClient>()
  for (const { action, client: slotNumber, number } of steps) {
    let client = current.get(slotNumber)
    if (!client?.isUsable) {
      client = new FuzzClient(all.length)
      all.push(client)
      current.set(slotNumber, client)
      await client.open()
      // Most send connection_init.
      if (number % 8 > 0) client.initialise()
    }
    const slot = number % 4
    const about = number % 3 === 0 ? null : (deployments[number % DEPLOYMENTS] ?? null)
    const actions: Record<string, () => unknown> = {
      initialise: () => client.initialise(),
      // Usually with a free id: an id in use closes the socket.
      subscribe: () => client.subscribe(number % 16 === 0 ? slot : 4 + number, about),
      complete: () => client.complete(slot),
      'complete and subscribe': () => {
        for (let i = 0; i < 3 && client.isUsable; i++) {
          client.complete(slot)
          client.subscribe(slot, about)
        }
      },
      execute: () => client.execute('{ __typename }'),
      fail: () =>
        [
          () => client.execute('{ nope }'),
          () => client.execute('{'),
          () => client.execute(query(0), { after: 'x' }),
          () => client.execute(query(0), { after: node.feed.cursorOf(node.feed.head + 1000) }),
        ][number % 4]?.(),
      ping: () => client.ping(),
      pause: () => client.pause(),
      violate: () => client.violate(number),
      close: () => client.close(),
      terminate: () => client.terminate(),
      freeze: () => client.freeze(),
      append: () => node.append(deployments[number % DEPLOYMENTS] ?? '', 1 + (number % 20), SHORT),
      turn: () => new Promise(setImmediate),
      settle: () => client.settle(),
    }
    await client.acknowledged()
    await actions[action]?.()
  }
  await node.append(deployments[0] ?? '', 1, SHORT)
  const usable = all.filter((client) => client.isUsable)
  await waitUntil(
    () => usable.every((client) => !client.isUsable || client.lagging().length === 0),
    () => `no subscription lags: ${usable.flatMap((client) => client.lagging()).slice(0, 5)}`,
    MAX_WAIT_MS,
  )
  for (const client of usable) client.close()
  await withTimeout(Promise.all(usable.map(({ closed }) => closed)), 'the clients are closed')
  // Frozen clients answer no ping, and are terminated.
  for (let second = 0; second < 48; second++) node.clock.tick()
  await waitUntil(() => node.connections.length === 0, 'the connections have ended', MAX_WAIT_MS)
  for (const client of all) if (!client.isUsable) client.terminate()
  await Promise.all(all.map(({ closed }) => closed))
  // The cache has its own bound, which is larger than the growth allowed here.
  node.encodedEvents.clear()
  return all.flatMap(({ violations }) => violations)
}

interface Usage {
  sockets: number
  subscribers: number
  sharedSubscriptions: number
  listeners: number
  handles: Record<string, number>
}

async function measureUsage(): Promise<Usage> {
  const { metrics, feed, server } = node
  const value = async (gauge: { get(): Promise<{ values: { value: number }[] }> }) =>
    (await gauge.get()).values[0]?.value ?? 0
  const handles = process.getActiveResourcesInfo()
  return {
    sockets: await value(metrics.sockets),
    subscribers: await value(metrics.subscribers),
    sharedSubscriptions: await value(metrics.sharedSubscriptions),
    listeners: feed.listenerCount + server.listenerCount('upgrade'),
    handles: Object.fromEntries(['TCPSocketWrap', 'Timeout'].map((name) => [name, count(handles, name)])),
  }
}

function count(all: readonly string[], name: string): number {
  return all.filter((each) => each === name).length
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

async function heapBytes(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    collect()
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return process.memoryUsage().heapUsed
}

test(
  'the server follows the protocol and leaks no resource, whatever clients do',
  async () => {
    const deployments = Array.from({ length: DEPLOYMENTS }, () => uuidv7())
    for (const id of deployments) await node.append(id, MAX_RECENT_EVENTS / 2, SHORT)
    await waitUntil(() => node.feed.head >= MAX_RECENT_EVENTS, 'the feed has the events', MAX_WAIT_MS)
    const rounds = fc.sample(fc.array(step, { minLength: STEPS, maxLength: STEPS }), {
      seed: SEED,
      numRuns: MIN_ROUNDS + FUZZ_SECONDS * 5,
    })
    const ends = performance.now() + FUZZ_SECONDS * 1000
    // The first round compiles code, and fills caches that stay.
    expect(await round(rounds[0]!, deployments)).toEqual([])
    const before = await measureUsage()
    expect(before).toMatchObject({ sockets: 0, subscribers: 0, sharedSubscriptions: 0 })
    const heapBefore = await heapBytes()
    let done = 1
    for (const steps of rounds.slice(1)) {
      if (done >= MIN_ROUNDS && performance.now() > ends) break
      // A tiny slice, so that most executions wait for a turn.
      node.slice.sliceMs = done % 2 === 1 ? 0.05 : 12
      expect({ seed: SEED, round: done, violations: await round(steps, deployments) }).toMatchObject({
        violations: [],
      })
      done++
    }
    await waitUntil(
      () => count(process.getActiveResourcesInfo(), 'TCPSocketWrap') <= (before.handles.TCPSocketWrap ?? 0),
      'the sockets are closed',
      MAX_WAIT_MS,
    )
    const after = await measureUsage()
    // The database's pool has a timer for each idle connection.
    expect(after.handles.Timeout).toBeLessThanOrEqual((before.handles.Timeout ?? 0) + 10)
    expect({ ...after, handles: {} }).toEqual({ ...before, handles: {} })
    const growth = (await heapBytes()) - heapBefore
    expect(growth).toBeLessThan(MAX_GROWTH_BYTES)
    if (FUZZ_SECONDS > 0) console.log(`${done} rounds, heap grown by ${Math.round(growth / 1024)} KiB`)
  },
  120_000 + FUZZ_SECONDS * 1000,
)
