import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { PubSub } from 'graphql-subscriptions'
import { waitUntil } from '../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { Database } from '../database/database.ts'
import { migrate } from '../database/migrate.ts'
import { PostgresPubSub, SELECT_CHANNEL } from './postgres-pubsub.ts'
import { describePubSub } from './pubsub.contract.ts'

let testDatabase: TestDatabase

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
})

afterAll(() => testDatabase.drop())

interface Node {
  pubSub: PostgresPubSub
  database: Database
  close(): Promise<void>
}

async function start(options: { url?: string; listenUrl?: string } = {}): Promise<Node> {
  const database = await Database.open({ url: testDatabase.url, dataDir: '', ...options })
  await migrate(database)
  const pubSub = new PostgresPubSub(database)
  await pubSub.start()
  const close = async () => {
    await pubSub.close()
    await database.close()
  }
  return { pubSub, database, close }
}

describePubSub('PubSub in one process', async () => {
  const pubSub = new PubSub()
  return { here: pubSub, there: pubSub, close: async () => undefined }
})

describePubSub('PubSub over Postgres', async () => {
  const [here, there] = await Promise.all([start(), start()])
  return {
    here: here.pubSub,
    there: there.pubSub,
    close: async () => void (await Promise.all([here.close(), there.close()])),
  }
})

describe('PubSub over Postgres', () => {
  async function withTwoNodes<T>(work: (here: Node, there: Node) => Promise<T>): Promise<T> {
    const [here, there] = await Promise.all([start(), start()])
    try {
      return await work(here, there)
    } finally {
      await Promise.all([here.close(), there.close()])
    }
  }

  async function collect(pubSub: PostgresPubSub, topic: string): Promise<object[]> {
    const received: object[] = []
    await pubSub.subscribe(topic, (payload: object) => received.push(payload))
    return received
  }

  /** Ends the LISTEN connections; resolves to their number. */
  async function cutListeners(): Promise<number> {
    const cut = await testDatabase.database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and application_name = 'shipcast listen'`,
    )
    return cut.length
  }

  test('replaces a message that is too large by an empty one, then continues', async () => {
    await withTwoNodes(async (here, there) => {
      const received = await collect(there.pubSub, 'topic')
      await here.pubSub.publish('topic', { text: 'ü'.repeat(5_000) })
      await waitUntil(() => received.length === 1, 'an empty message arrives')
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => received.length === 2, 'the next message arrives')
      expect(received).toEqual([{}, { n: 1 }])
    })
  })

  test('replaces messages by empty ones under overload, and omits no topic', async () => {
    await withTwoNodes(async (here, there) => {
      const busy = await collect(there.pubSub, 'busy')
      const quiet = await collect(there.pubSub, 'quiet')
      for (let n = 0; n < 500; n++) void here.pubSub.publish('busy', { n, text: 'x'.repeat(500) })
      void here.pubSub.publish('quiet', { n: 1 })
      await waitUntil(() => quiet.length === 1 && busy.some((payload) => !('n' in payload)), 'both arrive')
      expect(quiet).toEqual([{ n: 1 }])
    })
  })

  test('reconnects after its connection was cut, and then delivers an empty message', async () => {
    await withTwoNodes(async (here, there) => {
      const received = await collect(there.pubSub, 'topic')
      expect(await cutListeners()).toBe(2)
      await waitUntil(
        () => received.length === 1,
        'an empty message arrives, since messages may have been missed',
      )
      await waitUntil(() => here.pubSub.isListening && there.pubSub.isListening, 'both listen')
      received.length = 0
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => received.length > 0, 'messages arrive again')
    })
  })

  test('delivers messages, or an empty one, after both connections were cut', async () => {
    await withTwoNodes(async (here, there) => {
      const received = await collect(there.pubSub, 'topic')
      await cutListeners()
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => received.length > 0, 'a message arrives')
    })
  })

  test('uses DATABASE_LISTEN_URL to listen and to notify', async () => {
    const url = new URL(testDatabase.url.replace('@/', '@localhost/'))
    const listenUrl = `${url.href.replace('@localhost/', '@/')}&options=-c%20geqo_threshold%3D7`
    const here = await start({ listenUrl })
    const there = await start()
    const received = await collect(there.pubSub, 'topic')
    await here.pubSub.publish('topic', { n: 1 })
    await waitUntil(() => received.length === 1, 'it arrives')
    await Promise.all([here.close(), there.close()])
  })

  test('ignores the notifications of other programs on its channel', async () => {
    await withTwoNodes(async (here, there) => {
      const received = await collect(there.pubSub, 'topic')
      for (const text of ['', 'nonsense', 'null', '{"node":"x"}', '{"node":"x","messages":[[1]]}']) {
        await testDatabase.database.query(`select pg_notify(channel, $1) from (${SELECT_CHANNEL}) ours`, [
          text,
        ])
      }
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => received.length === 1, 'the message arrives')
      expect(received).toEqual([{ n: 1 }])
    })
  })

  test('receives nothing from another installation in the same database, even one with a copy of the data', async () => {
    await testDatabase.database.query('create schema copy; create schema other')
    const inSchema = (schema: string) =>
      start({ url: `${testDatabase.url}&options=-c%20search_path%3D${schema}` })
    const [here, there, copy, other] = await Promise.all([
      start(),
      start(),
      inSchema('copy'),
      inSchema('other'),
    ])
    await testDatabase.database.query(
      'update copy.installation set id = (select id from public.installation)',
    )
    const restarted = await inSchema('copy')
    const received = await Promise.all(
      [there, copy, restarted, other].map(({ pubSub }) => collect(pubSub, 'topic')),
    )
    for (const node of [here, copy, restarted, other]) {
      await node.pubSub.publish('topic', { from: [here, copy, restarted, other].indexOf(node) })
    }
    await here.pubSub.publish('topic', { from: 'the last' })
    await waitUntil(() => received[0]!.length === 2, 'the last message arrives')
    expect(received[0]).toEqual([{ from: 0 }, { from: 'the last' }])
    expect(received[1]).toEqual([{ from: 1 }])
    expect(received[2]).toEqual([{ from: 2 }])
    expect(received[3]).toEqual([{ from: 3 }])
    await Promise.all([here, there, copy, restarted, other].map((node) => node.close()))
  })

  test('keeps its channel when its schema is renamed', async () => {
    await testDatabase.database.query('create schema before')
    const early = await start({ url: `${testDatabase.url}&options=-c%20search_path%3Dbefore` })
    await testDatabase.database.query('alter schema before rename to afterwards')
    const late = await start({ url: `${testDatabase.url}&options=-c%20search_path%3Dafterwards` })
    const received = await collect(late.pubSub, 'topic')
    await early.pubSub.publish('topic', { n: 1 })
    await waitUntil(() => received.length === 1, 'it arrives')
    await Promise.all([early.close(), late.close()])
  })
})
