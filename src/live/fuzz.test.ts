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

/** `FUZZ_SECONDS=180 npm test -- src/live/fuzz` for three minutes of it, `FUZZ_SEED` for the same again. */
const FUZZ_SECONDS = Number(process.env.FUZZ_SECONDS ?? 0)
const MIN_ROUNDS = 3
const SEED = Number(process.env.FUZZ_SEED ?? 4711)
const CLIENTS = 12
const STEPS = 150
const DEPLOYMENTS = 3
const SHORT = 10
/** The feed keeps 8,192 events at most: from then on nothing of what it keeps grows. */
const KEPT_EVENTS = 8_192
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

/** The alias tells which use of an id an event is for: there are never so many under way. */
const USES = 64
const query = (use: number) => `subscription ($after: String, $deploymentId: ID) {
  use${use % USES}: deploymentStatus(after: $after, deploymentId: $deploymentId) { deploymentId cursor }
}`

/** What closes a socket, and with which code: by this end's own doing, or as PROTOCOL.md and the subprotocol say. */
const OFFENCES: { code: number; commit(socket: WebSocket): void }[] = [
  ...[
    '',
    '{',
    '[]',
    'null',
    '"{}"',
    '{"type":"next","id":"x","payload":{}}',
    '{"type":"subscribe"}',
    '\u0000',
  ].map((text) => ({ code: 4400, commit: (socket: WebSocket) => socket.send(text) })),
  { code: 4429, commit: (socket) => socket.send('{"type":"connection_init"}') },
  { code: 1007, commit: (socket) => socket.send(Buffer.from([0xff]), { binary: false }) },
  { code: 1009, commit: (socket) => socket.send(`{"x":"${'x'.repeat(1024 * 1024)}"}`) },
  // A frame without a mask.
  { code: 1002, commit: (socket) => rawSocket(socket).write(Buffer.from([0x81, 1, 0x61])) },
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
  /** Where it is: the position that it began after, or of its last event. */
  position: number
  isOver: boolean
}

/** A client that knows what it may be answered, and notes whatever else it gets. */
class FuzzClient {
  readonly faults: string[] = []
  readonly closed: Promise<void>
  private readonly socket = new WebSocket(node.url, 'graphql-transport-ws')
  /** Each use of each id; frames of an earlier one may still come behind its `complete`. */
  private readonly uses = new Map<string, Operation[]>()
  private readonly oneShots = new Set<string>()
  private hasInitialised = false
  private isAcknowledged = false
  private mayClose: number[] | undefined
  private pings = 0
  private nextId = 0

  constructor(readonly number: number) {
    this.socket.on('message', (data) => this.take(JSON.parse(String(data))))
    this.socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      this.socket.once('close', (code) => {
        const allowed = [...(this.mayClose ?? []), ...(this.isAcknowledged ? [] : [4408])]
        if (!allowed.includes(code)) this.fault(`closed with ${code}, expected ${allowed.join(' or ')}`)
        resolve()
      })
    })
  }

  async open(): Promise<void> {
    await once(this.socket, 'open')
  }

  /** Whether anything may still be sent, so that an answer can be expected. */
  get isSound(): boolean {
    return this.socket.readyState === WebSocket.OPEN && this.mayClose === undefined
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
    if (!this.isAcknowledged) this.mayClose = [4401]
    else if (isLive) this.mayClose = [4409]
    const position = node.feed.head
    if (!this.mayClose) {
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
  ask(query: string, variables: object = {}): void {
    if (!this.hasInitialised) return
    const id = `ask-${this.nextId++}`
    this.oneShots.add(id)
    this.send({ id, type: 'subscribe', payload: { query, variables } })
  }

  ping(): void {
    this.pings++
    this.send({ type: 'ping', payload: { from: this.number } })
  }

  offend(number: number): void {
    const offence = OFFENCES[number % OFFENCES.length]!
    if (offence.code === 4429 && !this.hasInitialised) return
    offence.commit(this.socket)
    this.mayClose = [offence.code]
  }

  close(): void {
    this.mayClose = [1000]
    this.socket.close(1000)
  }

  /** As when a cable is pulled: our end says nothing any more, not even that it has gone. */
  freeze(): void {
    this.mayClose = [1006]
    rawSocket(this.socket).pause()
    rawSocket(this.socket).write = () => true
  }

  terminate(): void {
    this.mayClose = [...(this.mayClose ?? []), 1006]
    this.socket.terminate()
  }

  /** Stops reading for a while. */
  pause(): void {
    this.socket.pause()
    setTimeout(() => this.socket.resume(), 20)
  }

  /** Before that nothing may be asked. */
  async acknowledged(): Promise<void> {
    const isWaiting = () => this.hasInitialised && !this.isAcknowledged && this.isSound
    await waitUntil(() => !isWaiting(), `client ${this.number} is acknowledged`, MAX_WAIT_MS)
  }

  /** Resolves once the server has answered everything before. */
  async settle(): Promise<void> {
    if (!this.isSound) return
    const pong = once(this.socket, 'pong')
    this.socket.ping()
    await withTimeout(Promise.race([pong, this.closed]), `client ${this.number} is answered`)
  }

  /** Those that were not completed have had everything. */
  lagging(): string[] {
    return [...this.uses].flatMap(([id, uses]) => {
      const operation = uses.at(-1)
      const isBehind =
        operation?.deploymentId === null && !operation.isOver && operation.position < node.feed.head
      return isBehind ? [`${id} is at ${operation.position} of ${node.feed.head}`] : []
    })
  }

  private take({ id = '', type, payload }: Message): void {
    if (type === 'connection_ack') {
      if (this.isAcknowledged || !payload?.connectionId || !payload.cursor)
        this.fault('a strange acknowledgement')
      this.isAcknowledged = true
    } else if (type === 'pong') {
      if (this.pings-- === 0) this.fault('a pong too many')
    } else if (this.oneShots.has(id)) {
      if (type === 'error' || type === 'complete') this.oneShots.delete(id)
      else if (type !== 'next') this.fault(`${type} for ${id}`)
    } else if (type === 'next' && payload?.data) {
      for (const [alias, event] of Object.entries(payload.data)) this.takeEvent(id, alias, event)
    } else {
      this.fault(`${type} for ${id}: ${JSON.stringify(payload)}`)
    }
  }

  private takeEvent(id: string, alias: string, event: { deploymentId: string; cursor: string }): void {
    const position = Number(event.cursor.slice(4))
    const use = this.uses.get(id)?.findLast((_, i) => alias === `use${i % USES}`)
    const isNext =
      use?.deploymentId === null
        ? position === use.position + 1
        : use && position > use.position && event.deploymentId === use.deploymentId
    if (use && isNext) use.position = position
    else this.fault(`event ${position} of ${alias} for ${id}, which is at ${use?.position}`)
  }

  private send(message: object): void {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message))
  }

  private fault(what: string): void {
    this.faults.push(`client ${this.number}: ${what}`)
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
    { weight: 2, arbitrary: fc.constantFrom('ask', 'ask wrongly', 'ping', 'pause', 'turn', 'settle') },
    { weight: 1, arbitrary: fc.constantFrom('offend', 'close', 'terminate', 'freeze') },
  ),
  client: fc.nat(CLIENTS - 1),
  number: fc.nat(1000),
})
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

/** Some clients come, do whatever comes to mind, and are gone. */
async function round(steps: readonly Step[], deployments: readonly string[]): Promise<string[]> {
  const all: FuzzClient[] = []
  const present = new Map<number, FuzzClient>()
  for (const { action, client: place, number } of steps) {
    let client = present.get(place)
    if (!client?.isSound) {
      client = new FuzzClient(all.length)
      all.push(client)
      present.set(place, client)
      await client.open()
      // Most introduce themselves.
      if (number % 8 > 0) client.initialise()
    }
    const slot = number % 4
    const about = number % 3 === 0 ? null : (deployments[number % DEPLOYMENTS] ?? null)
    const actions: Record<string, () => unknown> = {
      initialise: () => client.initialise(),
      // Mostly one that is free; otherwise the socket is closed.
      subscribe: () => client.subscribe(number % 16 === 0 ? slot : 4 + number, about),
      complete: () => client.complete(slot),
      'complete and subscribe': () => {
        for (let i = 0; i < 3 && client.isSound; i++) {
          client.complete(slot)
          client.subscribe(slot, about)
        }
      },
      ask: () => client.ask('{ __typename }'),
      'ask wrongly': () =>
        [
          () => client.ask('{ nope }'),
          () => client.ask('{'),
          () => client.ask(query(0), { after: 'x' }),
          () => client.ask(query(0), { after: node.feed.cursorOf(node.feed.head + 1000) }),
        ][number % 4]?.(),
      ping: () => client.ping(),
      pause: () => client.pause(),
      offend: () => client.offend(number),
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
  const sound = all.filter((client) => client.isSound)
  await waitUntil(
    () => sound.every((client) => !client.isSound || client.lagging().length === 0),
    () => `nobody lags: ${sound.flatMap((client) => client.lagging()).slice(0, 5)}`,
    MAX_WAIT_MS,
  )
  for (const client of sound) client.close()
  await withTimeout(Promise.all(sound.map(({ closed }) => closed)), 'the clients are closed')
  // Those that are frozen answer no ping, and are cut.
  for (let second = 0; second < 48; second++) node.checkSockets()
  await waitUntil(() => node.connections.length === 0, 'the connections have ended', MAX_WAIT_MS)
  for (const client of all) if (!client.isSound) client.terminate()
  await Promise.all(all.map(({ closed }) => closed))
  // Encoded events are kept up to a bound of their own.
  const { encodedEvents } = Reflect.get(node.fanOut, 'context') as { encodedEvents: { clear(): void } }
  encodedEvents.clear()
  return all.flatMap(({ faults }) => faults)
}

/** Of next to nothing, so that most of what is executed waits for a turn of its own; or as it is. */
function setSlices(isShort: boolean): void {
  const { scheduler } = Reflect.get(node.fanOut, 'context') as { scheduler: object }
  Reflect.set(scheduler, 'sliceMs', isShort ? 0.05 : 12)
  Reflect.set(scheduler, 'limitMs', isShort ? 0.05 : 12)
}

interface Left {
  sockets: number
  members: number
  groups: number
  listeners: number
  handles: Record<string, number>
}

async function left(): Promise<Left> {
  const { metrics, feed, server } = node
  const gauge = async (of: { get(): Promise<{ values: { value: number }[] }> }) =>
    (await of.get()).values[0]?.value ?? 0
  const handles = process.getActiveResourcesInfo().filter((name) => /TCPSocketWrap|Timeout/.test(name))
  return {
    sockets: await gauge(metrics.sockets),
    members: await gauge(metrics.members),
    groups: await gauge(metrics.groups),
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
  'whatever clients do, they are answered as the protocol says, and leave nothing behind',
  async () => {
    const deployments = Array.from({ length: DEPLOYMENTS }, () => uuidv7())
    for (const id of deployments) await node.append(id, KEPT_EVENTS / 2, SHORT)
    await waitUntil(() => node.feed.head >= KEPT_EVENTS, 'the feed has the events', MAX_WAIT_MS)
    const rounds = fc.sample(fc.array(step, { minLength: STEPS, maxLength: STEPS }), {
      seed: SEED,
      numRuns: MIN_ROUNDS + FUZZ_SECONDS * 5,
    })
    const ends = performance.now() + FUZZ_SECONDS * 1000
    // The first one compiles and fills what is kept for good.
    expect(await round(rounds[0]!, deployments)).toEqual([])
    const before = await left()
    expect(before).toMatchObject({ sockets: 0, members: 0, groups: 0, listeners: 1 })
    const heapBefore = await heapBytes()
    let done = 1
    for (const steps of rounds.slice(1)) {
      if (done >= MIN_ROUNDS && performance.now() > ends) break
      setSlices(done % 2 === 1)
      expect({ seed: SEED, round: done, faults: await round(steps, deployments) }).toMatchObject({
        faults: [],
      })
      done++
    }
    await waitUntil(
      () => count(process.getActiveResourcesInfo(), 'TCPSocketWrap') <= (before.handles.TCPSocketWrap ?? 0),
      'the sockets are gone',
      MAX_WAIT_MS,
    )
    const after = await left()
    // The database's pool has one for each connection that is idle.
    expect(after.handles.Timeout).toBeLessThanOrEqual((before.handles.Timeout ?? 0) + 10)
    expect({ ...after, handles: {} }).toEqual({ ...before, handles: {} })
    const grown = (await heapBytes()) - heapBefore
    expect(grown).toBeLessThan(MAX_GROWTH_BYTES)
    if (FUZZ_SECONDS > 0) console.log(`${done} rounds, heap grown by ${Math.round(grown / 1024)} KiB`)
  },
  120_000 + FUZZ_SECONDS * 1000,
)
