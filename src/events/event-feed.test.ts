import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { PubSub } from 'graphql-subscriptions'
import { v7 as uuidv7 } from 'uuid'
import { waitUntil, withTimeout } from '../../test/support/processes.ts'
import { createTestDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { MIGRATIONS } from '../database/schema.ts'
import { EventFeed } from './event-feed.ts'
import { DEPLOYMENTS_TOPIC, EventLog, type EventNotification, type EventRow, toEvent } from './event-log.ts'
import type { LoggedEvent } from './logged-event.ts'

let test_: TestDatabase
const feeds: EventFeed[] = []

beforeAll(async () => {
  test_ = await createTestDatabase(MIGRATIONS)
})

afterEach(async () => {
  for (const feed of feeds.splice(0)) await feed.beforeApplicationShutdown()
})

afterAll(() => test_.drop())

/** Publishes only what a test passes on: lost, late, twice, or in another order. */
class UnreliablePubSub extends PubSub {
  readonly held: EventNotification[] = []

  override async publish(_topic: string, hint: EventNotification): Promise<void> {
    this.held.push(hint)
  }

  async pass(...hints: (EventNotification | undefined)[]): Promise<void> {
    for (const hint of hints) await super.publish(DEPLOYMENTS_TOPIC, hint)
  }
}

async function start(pubSub: PubSub = new PubSub()) {
  const log = new EventLog(test_.database, pubSub)
  const feed = new EventFeed(log, pubSub)
  await feed.onModuleInit()
  feeds.push(feed)
  return { log, feed }
}

/** A deployment with its first event. */
function begin(log: EventLog, id = uuidv7()): Promise<EventRow | undefined> {
  return append(
    log,
    `with moved as (
       insert into deployments (id, org, repo, visibility, branch, step, status, text, sequence, attempt, file_count,
         size_bytes, created_at, updated_at, input_digest, planned_commit, planned_tree, object_count, pack_bytes, run_at)
       values ($1::uuid, 'org', $1::uuid::text, 'PUBLIC', 'main', 'DEPLOY', 'RUNNING', 'Creating org', 1, 1, 0,
         0, now(), now(), '', '', '', 0, 0, now())
       returning *
     )
     select e.* from moved, lateral append_event(row(moved.*)::deployments, null) e`,
    id,
  )
}

function goOn(log: EventLog, id: string): Promise<EventRow | undefined> {
  return append(
    log,
    `with moved as (update deployments set sequence = sequence + 1 where id = $1 returning *)
     select e.* from moved, lateral append_event(row(moved.*)::deployments, null) e`,
    id,
  )
}

function append(log: EventLog, sql: string, id: string): Promise<EventRow | undefined> {
  return log.append(async () => (await test_.database.query<EventRow>(sql, [id]))[0])
}

async function take(events: AsyncIterable<LoggedEvent>, count: number): Promise<LoggedEvent[]> {
  const taken: LoggedEvent[] = []
  if (count === 0) return taken
  const read = async () => {
    for await (const event of events) {
      taken.push(event)
      if (taken.length === count) break
    }
  }
  await withTimeout(read(), () => `${count} events; there are ${taken.length}`)
  return taken
}

const positions = (events: readonly LoggedEvent[]) => events.map((event) => event.position)
const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i)

test('passes on what is appended: contiguous positions in commit order, however many append at once', async () => {
  const { log, feed } = await start()
  const head = feed.head
  const follower = await feed.follow({ sees: 'all', waitForEventAfter: feed.cursorOf(head) })
  const ids = range(0, 8).map(() => uuidv7())
  await Promise.all(ids.map((id) => begin(log, id)))
  await Promise.all(range(0, 24).map((i) => goOn(log, ids[i % 8]!)))
  const events = await take(follower, 32)
  expect(positions(events)).toEqual(range(head + 1, 32))
  for (const own of Map.groupBy(events, (event) => event.deploymentId).values()) {
    expect(own.map((event) => event.sequence)).toEqual([1, 2, 3, 4])
  }
})

test('an append that is rolled back leaves no hole', async () => {
  const { log, feed } = await start()
  const head = feed.head
  const failing = test_.database.transaction(async (tx) => {
    await tx.query('update log set head = head + 1')
    throw new Error('rolled back')
  })
  await expect(failing).rejects.toThrow('rolled back')
  expect((await begin(log))?.position).toBe(head + 1)
})

describe('hints', () => {
  test('out of order, twice and late: every event once, in order', async () => {
    const pubSub = new UnreliablePubSub()
    const { log, feed } = await start(pubSub)
    const head = feed.head
    const follower = await feed.follow({ sees: 'all', waitForEventAfter: feed.cursorOf(head) })
    for (let i = 0; i < 6; i++) await begin(log)
    const [a, b, c, d, e, f] = pubSub.held
    await pubSub.pass(b, a, a, d, c, f, e, b)
    expect(positions(await take(follower, 6))).toEqual(range(head + 1, 6))
  })

  test('lost: the next one that arrives brings all of them', async () => {
    const pubSub = new UnreliablePubSub()
    const { log, feed } = await start(pubSub)
    const head = feed.head
    const follower = await feed.follow({ sees: 'all', waitForEventAfter: feed.cursorOf(head) })
    for (let i = 0; i < 700; i++) await begin(log)
    await pubSub.pass(pubSub.held.at(-1))
    expect(positions(await take(follower, 700))).toEqual(range(head + 1, 700))
  })

  test('all lost: a look at the log finds the events all the same', async () => {
    const { log, feed } = await start(new UnreliablePubSub())
    const head = feed.head
    const follower = await feed.follow({ sees: 'all', waitForEventAfter: feed.cursorOf(head) })
    await begin(log)
    expect(positions(await take(follower, 1))).toEqual([head + 1])
    await waitUntil(() => feed.missedNotificationCount === 1, 'it is counted')
  })

  test('that arrive, however late within a look, are not counted as lost', async () => {
    const pubSub = new UnreliablePubSub()
    const { log, feed } = await start(pubSub)
    const look = () => (Reflect.get(feed, 'pollForMissed') as () => Promise<void>).call(feed)
    await begin(log)
    await look()
    await pubSub.pass(pubSub.held.at(-1))
    await begin(log)
    await pubSub.pass({})
    await look()
    await look()
    expect(feed.missedNotificationCount).toBe(0)
    await begin(log)
    await look()
    await look()
    await look()
    expect(feed.missedNotificationCount).toBe(1)
  })

  test('that come before the feed has started are not lost', async () => {
    const pubSub = new PubSub()
    const log = new EventLog(test_.database, pubSub)
    const feed = new EventFeed(log, pubSub)
    feeds.push(feed)
    const [, first] = await Promise.all([feed.onModuleInit(), begin(log)])
    const follower = await feed.follow({ sees: 'all', waitForEventAfter: feed.cursorOf(first!.position - 1) })
    expect(positions(await take(follower, 1))).toEqual([first!.position])
  })
})

describe('a database that has lost its last events', () => {
  /** As a failover to a replica that was behind leaves it. */
  const loseAfter = (position: number) =>
    test_.database.transaction(async (tx) => {
      await tx.query(
        `update log set head = $1, (follows, link) = (select follows, link from events where position = $1)`,
        [position],
      )
      await tx.query('delete from events where position > $1', [position])
    })

  /** Both have told three events more than the database still has. */
  async function lose() {
    const nodes = [await start(new UnreliablePubSub()), await start(new UnreliablePubSub())]
    const [{ log, feed }] = nodes as [(typeof nodes)[0]]
    const id = uuidv7()
    await begin(log, id)
    const kept = (await goOn(log, id))!.position
    for (let i = 0; i < 3; i++) await goOn(log, id)
    for (const each of nodes) {
      each.feed.poll()
      await waitUntil(() => each.feed.head === kept + 3, 'all is told')
    }
    const restarts = nodes.map(({ feed }) => {
      let count = 0
      feed.onLogRotated(() => count++)
      return () => count
    })
    const told = { cursors: nodes.map((each) => each.feed.cursorOf(kept + 3)), logId: feed.logId }
    await loseAfter(kept)
    await test_.database.query('update deployments set sequence = 2 where id = $1', [id])
    return { nodes, log, id, kept, told, restarts }
  }

  test.each([
    ['fewer', 1],
    ['as many', 3],
    ['more', 5],
  ])(
    'and has got %s others since: each node starts over once, and cursors of before are unknown',
    async (_, since) => {
      const { nodes, log, id, kept, told, restarts } = await lose()
      const follower = await nodes[0]!.feed.follow({ sees: 'all', waitForEventAfter: told.cursors[0]! })
      const waiting = follower[Symbol.asyncIterator]().next()
      for (let i = 0; i < since; i++) await goOn(log, id)
      for (const { feed } of nodes) {
        await waitUntil(() => feed.logId !== told.logId && feed.head === kept + since, 'it has started over')
      }
      expect(new Set(nodes.map(({ feed }) => feed.logId)).size).toBe(1)
      expect(restarts.map((count) => count())).toEqual([1, 1])
      expect(await waiting).toMatchObject({ done: true })
      for (const [i, { feed }] of nodes.entries()) {
        await expect(feed.follow({ sees: 'all', waitForEventAfter: told.cursors[i]! })).rejects.toThrow(
          'Unknown or expired cursor',
        )
        expect(feed.activeByStatus.get('RUNNING')).toBeGreaterThan(0)
        const events = await take(
          await feed.follow({ sees: 'all', waitForEventAfter: feed.cursorOf(kept - 2) }),
          since + 2,
        )
        expect(positions(events)).toEqual(range(kept - 1, since + 2))
        expect(events.map((event) => event.sequence)).toEqual(range(1, since + 2))
      }
    },
  )

  test('a hint of what follows there is not taken for what follows here', async () => {
    const { nodes, log, id, kept, told } = await lose()
    for (let i = 0; i < 3; i++) await goOn(log, id)
    const last = (await goOn(log, id))!
    expect(last.position).toBe(kept + 4)
    const pubSub = Reflect.get(nodes[1]!.feed, 'pubSub') as UnreliablePubSub
    const heard: LoggedEvent[] = []
    nodes[1]!.feed.onEvent((event) => heard.push(event))
    await pubSub.pass({ event: { ...toEvent(last) } })
    expect(heard).toEqual([])
    await waitUntil(() => nodes[1]!.feed.logId !== told.logId, 'it has started over')
  })

  test('and ignores a hint of another log, although its event would follow here', async () => {
    const { log, feed } = await start(new UnreliablePubSub())
    const id = uuidv7()
    const first = (await begin(log, id))!
    feed.poll()
    await waitUntil(() => feed.head === first.position, 'it is told')
    const pubSub = Reflect.get(feed, 'pubSub') as UnreliablePubSub
    const event = { ...toEvent(first), position: first.position + 1, previousEventId: first.link, eventId: 1 }
    await pubSub.pass({ logId: feed.logId + 1, event }, { event })
    await (Reflect.get(feed, 'pollUntilIdle') as () => Promise<void>).call(feed)
    expect(feed.head).toBe(first.position)
    await pubSub.pass({ logId: feed.logId, event })
    expect(feed.head).toBe(first.position + 1)
  })

  test('that only seems so, since somebody reads from a replica, is no other log', async () => {
    const { log, feed } = await start(new UnreliablePubSub())
    const head = (await begin(log))!.position
    feed.poll()
    await waitUntil(() => feed.head === head, 'it is told')
    const { logId } = feed
    let restarts = 0
    feed.onLogRotated(() => restarts++)
    const { readNext: readOn } = log
    Reflect.set(log, 'readNext', async () => {
      Reflect.set(log, 'readNext', readOn)
    })
    await (Reflect.get(feed, 'pollUntilIdle') as () => Promise<void>).call(feed)
    expect({ logId: feed.logId, head: feed.head, restarts }).toEqual({ logId, head, restarts: 0 })
    expect((await log.readHead()).logId).toBe(logId)
  })
})

describe('a follower', () => {
  test('from any cursor, from memory or from the log, of one deployment or of all, gets the same', async () => {
    const { log, feed } = await start()
    const head = feed.head
    const ids = range(0, 3).map(() => uuidv7())
    for (const id of ids) await begin(log, id)
    for (let i = 0; i < 240; i++) await goOn(log, ids[i % 3]!)
    const total = 243
    // A feed that starts now has nothing in memory.
    const { feed: cold } = await start()
    for (const each of [feed, cold]) {
      for (const seen of [0, 1, 99, 100, 101, 200, total - 1]) {
        const after = each.cursorOf(head + seen)
        expect(
          positions(await take(await each.follow({ sees: 'all', waitForEventAfter: after }), total - seen)),
        ).toEqual(range(head + seen + 1, total - seen))
        const own = await take(
          await each.follow({ sees: 'all', waitForEventAfter: after, deploymentId: ids[0] }),
          Math.floor((total - seen) / 3),
        )
        expect(own.every((event) => event.deploymentId === ids[0])).toBe(true)
        expect(own.map((event) => event.sequence)).toEqual(range(own[0]?.sequence ?? 0, own.length))
      }
    }
  })

  test('joining while events pour in misses none and repeats none', async () => {
    const { log, feed } = await start()
    const head = feed.head
    const id = uuidv7()
    await begin(log, id)
    const pouring = (async () => {
      for (let i = 0; i < 300; i++) await goOn(log, id)
    })()
    const joined: Promise<LoggedEvent[]>[] = []
    for (let i = 0; i < 30; i++) {
      const from = head + Math.floor(Math.random() * (feed.head - head))
      joined.push(
        feed
          .follow({ sees: 'all', waitForEventAfter: feed.cursorOf(from) })
          .then((it) => take(it, head + 301 - from)),
      )
      const now = await feed.follow({ sees: 'all' })
      joined.push(takeUntil(now, head + 301))
      await new Promise(setImmediate)
    }
    await pouring
    for (const events of await Promise.all(joined)) {
      expect(positions(events)).toEqual(range(events[0]!.position, events.length))
      expect(events.at(-1)?.position).toBe(head + 301)
    }
  })

  test('that is ended while it waits ends at once, and leaves nothing', async () => {
    const { feed } = await start()
    const follower = (await feed.follow({ sees: 'all', waitForEventAfter: feed.cursorOf(feed.head) }))[
      Symbol.asyncIterator
    ]()
    const pending = follower.next()
    await new Promise(setImmediate)
    expect(await follower.return()).toEqual({ done: true, value: undefined })
    expect(await pending).toEqual({ done: true, value: undefined })
    expect(await follower.next()).toEqual({ done: true, value: undefined })
    expect(Reflect.get(feed, 'waiters')).toHaveProperty('size', 0)
  })
})

async function takeUntil(events: AsyncIterable<LoggedEvent>, position: number): Promise<LoggedEvent[]> {
  const taken: LoggedEvent[] = []
  const read = async () => {
    for await (const event of events) {
      taken.push(event)
      if (event.position >= position) break
    }
  }
  await withTimeout(read(), () => `the event at ${position}; the last one is at ${taken.at(-1)?.position}`)
  // The state now comes first; other tests' deployments are in it.
  const own = taken.at(-1)?.deploymentId
  return taken.filter((event) => event.deploymentId === own)
}
