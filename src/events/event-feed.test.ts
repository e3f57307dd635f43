import { getEventListeners } from 'node:events'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { PubSub } from 'graphql-subscriptions'
import { v7 as uuidv7 } from 'uuid'
import { waitUntil, withTimeout } from '../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { UnknownCursorError } from '../errors.ts'
import type { LoggedEvent } from './deployment-event.ts'
import { EventFeed } from './event-feed.ts'
import { DEPLOYMENTS_TOPIC, EventLog, type EventNotification, type EventRow, toEvent } from './event-log.ts'

let testDatabase: TestDatabase
const feeds: EventFeed[] = []

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
})

afterEach(async () => {
  for (const feed of feeds.splice(0)) await feed.beforeApplicationShutdown()
})

afterAll(() => testDatabase.drop())

/** Delivers only what a test passes on: lost, late, repeated, or out of order. */
class UnreliablePubSub extends PubSub {
  readonly held: EventNotification[] = []

  override async publish(_topic: string, notification: EventNotification): Promise<void> {
    this.held.push(notification)
  }

  async deliver(...notifications: (EventNotification | undefined)[]): Promise<void> {
    for (const notification of notifications) await super.publish(DEPLOYMENTS_TOPIC, notification)
  }
}

async function start(pubSub: PubSub = new PubSub(), log = new EventLog(testDatabase.database, pubSub)) {
  const feed = new EventFeed(log, pubSub)
  await feed.onModuleInit()
  feeds.push(feed)
  return { log, feed }
}

/** A deployment with its first event. */
function startDeployment(log: EventLog, id = uuidv7()): Promise<EventRow | undefined> {
  return append(
    log,
    `with changed as (
       insert into deployments (id, org, repo, visibility, branch, step, status, text, sequence, attempt, file_count,
         size_bytes, created_at, updated_at, input_digest, planned_commit, planned_tree, object_count, pack_bytes, run_at)
       values ($1::uuid, 'org', $1::uuid::text, 'PUBLIC', 'main', 'DEPLOY', 'RUNNING', 'Creating org', 1, 1, 0,
         0, now(), now(), '', '', '', 0, 0, now())
       returning *
     )
     select e.* from changed, lateral append_event(row(changed.*)::deployments, null) e`,
    id,
  )
}

function continueDeployment(log: EventLog, id: string): Promise<EventRow | undefined> {
  return append(
    log,
    `with changed as (update deployments set sequence = sequence + 1 where id = $1 returning *)
     select e.* from changed, lateral append_event(row(changed.*)::deployments, null) e`,
    id,
  )
}

function append(log: EventLog, sql: string, id: string): Promise<EventRow | undefined> {
  return log.append(async () => (await testDatabase.database.query<EventRow>(sql, [id]))[0])
}

async function read(events: AsyncIterable<LoggedEvent>, count: number): Promise<LoggedEvent[]> {
  const found: LoggedEvent[] = []
  if (count === 0) return found
  const collect = async () => {
    for await (const event of events) {
      found.push(event)
      if (found.length === count) break
    }
  }
  await withTimeout(collect(), () => `${count} events; there are ${found.length}`)
  return found
}

const positions = (events: readonly LoggedEvent[]) => events.map((event) => event.position)
const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i)

test('delivers concurrent appends once, with contiguous positions in commit order', async () => {
  const { log, feed } = await start()
  const head = feed.head
  const stream = await feed.follow({ sees: 'all', after: feed.cursorOf(head) })
  const ids = range(0, 8).map(() => uuidv7())
  await Promise.all(ids.map((id) => startDeployment(log, id)))
  await Promise.all(range(0, 24).map((i) => continueDeployment(log, ids[i % 8]!)))
  const events = await read(stream, 32)
  expect(positions(events)).toEqual(range(head + 1, 32))
  for (const own of Map.groupBy(events, (event) => event.deploymentId).values()) {
    expect(own.map((event) => event.sequence)).toEqual([1, 2, 3, 4])
  }
})

test('leaves no gap for an append that is rolled back', async () => {
  const { log, feed } = await start()
  const head = feed.head
  const failing = testDatabase.database.transaction(async (tx) => {
    await tx.query('update log set head = head + 1')
    throw new Error('rolled back')
  })
  await expect(failing).rejects.toThrow('rolled back')
  expect((await startDeployment(log))?.position).toBe(head + 1)
})

describe('notifications', () => {
  test('out of order, repeated and late: delivers every event once and in order', async () => {
    const pubSub = new UnreliablePubSub()
    const { log, feed } = await start(pubSub)
    const head = feed.head
    const stream = await feed.follow({ sees: 'all', after: feed.cursorOf(head) })
    for (let i = 0; i < 6; i++) await startDeployment(log)
    const [a, b, c, d, e, f] = pubSub.held
    await pubSub.deliver(b, a, a, d, c, f, e, b)
    expect(positions(await read(stream, 6))).toEqual(range(head + 1, 6))
  })

  test('lost: the next one to arrive brings all missing events', async () => {
    const pubSub = new UnreliablePubSub()
    const { log, feed } = await start(pubSub)
    const head = feed.head
    const stream = await feed.follow({ sees: 'all', after: feed.cursorOf(head) })
    for (let i = 0; i < 700; i++) await startDeployment(log)
    await pubSub.deliver(pubSub.held.at(-1))
    expect(positions(await read(stream, 700))).toEqual(range(head + 1, 700))
  })

  test('all lost: a poll finds the events', async () => {
    const { log, feed } = await start(new UnreliablePubSub())
    const head = feed.head
    const stream = await feed.follow({ sees: 'all', after: feed.cursorOf(head) })
    await startDeployment(log)
    expect(positions(await read(stream, 1))).toEqual([head + 1])
    await waitUntil(() => feed.missedNotificationCount === 1, 'it is counted')
  })

  test('that arrive before the next poll do not count as missed', async () => {
    const pubSub = new UnreliablePubSub()
    const { log, feed } = await start(pubSub)
    await startDeployment(log)
    await feed.pollForMissed()
    await pubSub.deliver(pubSub.held.at(-1))
    await startDeployment(log)
    await pubSub.deliver({})
    await feed.pollForMissed()
    await feed.pollForMissed()
    expect(feed.missedNotificationCount).toBe(0)
    await startDeployment(log)
    for (let i = 0; i < 3; i++) await feed.pollForMissed()
    expect(feed.missedNotificationCount).toBe(1)
  })

  test('that arrive while the feed starts are not lost', async () => {
    const pubSub = new PubSub()
    const log = new EventLog(testDatabase.database, pubSub)
    const feed = new EventFeed(log, pubSub)
    feeds.push(feed)
    const [, first] = await Promise.all([feed.onModuleInit(), startDeployment(log)])
    const stream = await feed.follow({ sees: 'all', after: feed.cursorOf(first!.position - 1) })
    expect(positions(await read(stream, 1))).toEqual([first!.position])
  })
})

describe('after the database has lost its last events', () => {
  /** As after a failover to a replica that was behind. */
  const loseAfter = (position: number) =>
    testDatabase.database.transaction(async (tx) => {
      await tx.query(
        `update log set head = $1, (previous_event_id, event_id) =
           (select previous_event_id, event_id from events where position = $1)`,
        [position],
      )
      await tx.query('delete from events where position > $1', [position])
    })

  async function startNode() {
    const pubSub = new UnreliablePubSub()
    const node = { ...(await start(pubSub)), pubSub, rotations: 0 }
    node.feed.onLogRotated(() => node.rotations++)
    return node
  }

  /** Two nodes have delivered three events that the database has lost since. */
  async function loseEvents() {
    const nodes = [await startNode(), await startNode()] as const
    const [{ log, feed }] = nodes
    const id = uuidv7()
    await startDeployment(log, id)
    const kept = (await continueDeployment(log, id))!.position
    for (let i = 0; i < 3; i++) await continueDeployment(log, id)
    for (const node of nodes) await node.feed.poll()
    expect(nodes.map((node) => node.feed.head)).toEqual([kept + 3, kept + 3])
    const before = { cursors: nodes.map((node) => node.feed.cursorOf(kept + 3)), logId: feed.logId }
    await loseAfter(kept)
    await testDatabase.database.query('update deployments set sequence = 2 where id = $1', [id])
    return { nodes, log, id, kept, before }
  }

  test.each([
    ['fewer new ones', 1],
    ['as many new ones', 3],
    ['more new ones', 5],
  ])('and has %s: each node starts over once and refuses earlier cursors', async (_, count) => {
    const { nodes, log, id, kept, before } = await loseEvents()
    const stream = await nodes[0].feed.follow({ sees: 'all', after: before.cursors[0] })
    const pending = stream[Symbol.asyncIterator]().next()
    for (let i = 0; i < count; i++) await continueDeployment(log, id)
    for (const { feed } of nodes) {
      await waitUntil(
        () => feed.logId !== before.logId && feed.head === kept + count,
        'the feed has started over',
      )
    }
    expect(new Set(nodes.map(({ feed }) => feed.logId)).size).toBe(1)
    expect(nodes.map(({ rotations }) => rotations)).toEqual([1, 1])
    expect(await pending).toMatchObject({ done: true })
    for (const [i, { feed }] of nodes.entries()) {
      await expect(feed.follow({ sees: 'all', after: before.cursors[i] })).rejects.toThrow(UnknownCursorError)
      expect(feed.activeByStatus.get('RUNNING')).toBeGreaterThan(0)
      const events = await read(await feed.follow({ sees: 'all', after: feed.cursorOf(kept - 2) }), count + 2)
      expect(positions(events)).toEqual(range(kept - 1, count + 2))
      expect(events.map((event) => event.sequence)).toEqual(range(1, count + 2))
    }
  })

  test('does not accept the event that follows in the new history', async () => {
    const { nodes, log, id, kept, before } = await loseEvents()
    const [, { feed, pubSub }] = nodes
    for (let i = 0; i < 3; i++) await continueDeployment(log, id)
    const last = (await continueDeployment(log, id))!
    expect(last.position).toBe(kept + 4)
    const accepted: LoggedEvent[] = []
    feed.onEvent((event) => accepted.push(event))
    await pubSub.deliver({ event: toEvent(last) })
    expect(accepted).toEqual([])
    await waitUntil(() => feed.logId !== before.logId, 'the feed has started over')
  })

  test('does not accept the next event from a notification of another log', async () => {
    const { log, feed, pubSub } = await startNode()
    const first = (await startDeployment(log))!
    await feed.poll()
    const position = first.position + 1
    const event = { ...toEvent(first), position, previousEventId: first.event_id, eventId: 1 }
    await pubSub.deliver({ logId: feed.logId + 1, event }, { event })
    await feed.poll()
    expect(feed.head).toBe(first.position)
    await pubSub.deliver({ logId: feed.logId, event })
    expect(feed.head).toBe(position)
  })

  test('continues if only a replica has not received them yet', async () => {
    class LogWithReplica extends EventLog {
      isReplicaBehind = false

      override readNext(...args: Parameters<EventLog['readNext']>): ReturnType<EventLog['readNext']> {
        if (!this.isReplicaBehind) return super.readNext(...args)
        this.isReplicaBehind = false
        return Promise.resolve(undefined)
      }
    }
    const pubSub = new UnreliablePubSub()
    const log = new LogWithReplica(testDatabase.database, pubSub)
    const { feed } = await start(pubSub, log)
    const head = (await startDeployment(log))!.position
    await feed.poll()
    const { logId } = feed
    let rotations = 0
    feed.onLogRotated(() => rotations++)
    log.isReplicaBehind = true
    await feed.poll()
    expect(log.isReplicaBehind).toBe(false)
    expect({ logId: feed.logId, head: feed.head, rotations }).toEqual({ logId, head, rotations: 0 })
    expect((await log.readHead()).logId).toBe(logId)
  })
})

describe('a stream', () => {
  test('delivers the same from memory and from the log, from any cursor, of one deployment and of all', async () => {
    const { log, feed } = await start()
    const head = feed.head
    const ids = range(0, 3).map(() => uuidv7())
    for (const id of ids) await startDeployment(log, id)
    for (let i = 0; i < 240; i++) await continueDeployment(log, ids[i % 3]!)
    const total = 243
    // A feed that starts now has nothing in memory.
    const { feed: cold } = await start()
    for (const each of [feed, cold]) {
      for (const seen of [0, 1, 99, 100, 101, 200, total - 1]) {
        const after = each.cursorOf(head + seen)
        expect(positions(await read(await each.follow({ sees: 'all', after }), total - seen))).toEqual(
          range(head + seen + 1, total - seen),
        )
        const own = await read(
          await each.follow({ sees: 'all', after, deploymentId: ids[0] }),
          Math.floor((total - seen) / 3),
        )
        expect(own.every((event) => event.deploymentId === ids[0])).toBe(true)
        expect(own.map((event) => event.sequence)).toEqual(range(own[0]?.sequence ?? 0, own.length))
      }
    }
  })

  test('misses and repeats no event if it starts while events are appended', async () => {
    const { log, feed } = await start()
    const head = feed.head
    const id = uuidv7()
    await startDeployment(log, id)
    const appending = (async () => {
      for (let i = 0; i < 300; i++) await continueDeployment(log, id)
    })()
    const reads: Promise<LoggedEvent[]>[] = []
    for (let i = 0; i < 30; i++) {
      const from = head + Math.floor(Math.random() * (feed.head - head))
      reads.push(
        feed.follow({ sees: 'all', after: feed.cursorOf(from) }).then((it) => read(it, head + 301 - from)),
      )
      const now = await feed.follow({ sees: 'all' })
      reads.push(readUntil(now, head + 301))
      await new Promise(setImmediate)
    }
    await appending
    for (const events of await Promise.all(reads)) {
      expect(positions(events)).toEqual(range(events[0]!.position, events.length))
      expect(events.at(-1)?.position).toBe(head + 301)
    }
  })

  test('ends at once when it is closed while waiting, and leaves no listener', async () => {
    const { feed } = await start()
    const stream = await feed.follow({ sees: 'all', after: feed.cursorOf(feed.head) })
    const iterator = stream[Symbol.asyncIterator]()
    const pending = iterator.next()
    await new Promise(setImmediate)
    expect(feed.listenerCount).toBe(1)
    expect(await iterator.return()).toEqual({ done: true, value: undefined })
    expect(await pending).toEqual({ done: true, value: undefined })
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
    expect(feed.listenerCount).toBe(0)
  })

  test('omits events of organizations that are not visible, and those of its own requests', async () => {
    const { log, feed } = await start()
    const after = feed.cursorOf(feed.head)
    const first = (await startDeployment(log))!
    const [hidden, own] = [
      await feed.follow({ sees: ['other'], after }),
      await feed.follow({ sees: ['org'], after, origin: 'mine' }),
    ]
    expect(positions(await read(own, 1))).toEqual([first.position])
    expect(own.isEcho({ ...toEvent(first), origin: 'mine' })).toBe(true)
    expect(own.isEcho({ ...toEvent(first), origin: 'another' })).toBe(false)
    expect((await hidden.source.readAfter(first.position - 1)).events).toEqual([])
    expect((await hidden.source.snapshot()).events).toEqual([])
  })

  test('a wait that has ended leaves no listener', async () => {
    const { log, feed } = await start()
    const controller = new AbortController()
    const { signal } = controller
    const waits = [feed.waitForEventAfter(feed.head, signal), feed.waitForEventAfter(feed.head, signal)]
    await startDeployment(log)
    await Promise.all(waits)
    expect(getEventListeners(signal, 'abort')).toEqual([])
    expect(feed.listenerCount).toBe(0)
    const aborted = feed.waitForEventAfter(feed.head, signal)
    controller.abort()
    await expect(aborted).rejects.toThrow('aborted')
  })
})

async function readUntil(events: AsyncIterable<LoggedEvent>, position: number): Promise<LoggedEvent[]> {
  const found: LoggedEvent[] = []
  const collect = async () => {
    for await (const event of events) {
      found.push(event)
      if (event.position >= position) break
    }
  }
  await withTimeout(collect(), () => `the event at ${position}; the last one is at ${found.at(-1)?.position}`)
  // The current state comes first and contains other tests' deployments.
  const own = found.at(-1)?.deploymentId
  return found.filter((event) => event.deploymentId === own)
}
