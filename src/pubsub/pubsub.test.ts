import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { PubSub } from 'graphql-subscriptions'
import { waitUntil } from '../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../test/support/test-database.ts'
import { Database } from '../database/database.ts'
import { migrate } from '../database/migrate.ts'
import { PostgresPubSub, SELECT_CHANNEL } from './postgres-pubsub.ts'
import { describePubSub } from './pubsub.contract.ts'

let test_: TestDatabase

beforeAll(async () => {
  test_ = await createMigratedDatabase()
})

afterAll(() => test_.drop())

interface Node {
  pubSub: PostgresPubSub
  database: Database
  close(): Promise<void>
}

async function start(options: { url?: string; listenUrl?: string } = {}): Promise<Node> {
  const database = await Database.open({ url: test_.url, dataDir: '', ...options })
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
  async function two<T>(work: (here: Node, there: Node) => Promise<T>): Promise<T> {
    const [here, there] = await Promise.all([start(), start()])
    try {
      return await work(here, there)
    } finally {
      await Promise.all([here.close(), there.close()])
    }
  }

  async function collect(pubSub: PostgresPubSub, topic: string): Promise<object[]> {
    const heard: object[] = []
    await pubSub.subscribe(topic, (payload: object) => heard.push(payload))
    return heard
  }

  /** Ends the connections by which nodes hear each other; resolves to how many there were. */
  async function cutListeners(): Promise<number> {
    const cut = await test_.database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and application_name = 'shipcast listen'`,
    )
    return cut.length
  }

  test('says "look" where a message is too large, and goes on afterwards', async () => {
    await two(async (here, there) => {
      const heard = await collect(there.pubSub, 'topic')
      await here.pubSub.publish('topic', { text: 'ü'.repeat(5_000) })
      await waitUntil(() => heard.length === 1, 'a look arrives')
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => heard.length === 2, 'the next message arrives')
      expect(heard).toEqual([{}, { n: 1 }])
    })
  })

  test('says "look" where more is said at once than can be carried, and forgets no topic', async () => {
    await two(async (here, there) => {
      const loud = await collect(there.pubSub, 'loud')
      const quiet = await collect(there.pubSub, 'quiet')
      for (let n = 0; n < 500; n++) void here.pubSub.publish('loud', { n, text: 'x'.repeat(500) })
      void here.pubSub.publish('quiet', { n: 1 })
      await waitUntil(() => quiet.length === 1 && loud.some((payload) => !('n' in payload)), 'both arrive')
      expect(quiet).toEqual([{ n: 1 }])
    })
  })

  test('listens again by itself after its connection was cut, and says "look" then', async () => {
    await two(async (here, there) => {
      const heard = await collect(there.pubSub, 'topic')
      expect(await cutListeners()).toBe(2)
      await waitUntil(() => heard.length === 1, 'a look, since something may have been missed')
      await waitUntil(() => here.pubSub.isListening && there.pubSub.isListening, 'both listen')
      heard.length = 0
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => heard.length > 0, 'messages arrive again')
    })
  })

  test('what is said while nobody can hear it is said later, or is a look', async () => {
    await two(async (here, there) => {
      const heard = await collect(there.pubSub, 'topic')
      await cutListeners()
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => heard.length > 0, 'it is told of')
    })
  })

  test('goes by DATABASE_LISTEN_URL for hearing and saying', async () => {
    const url = new URL(test_.url.replace('@/', '@localhost/'))
    const listenUrl = `${url.href.replace('@localhost/', '@/')}&options=-c%20geqo_threshold%3D7`
    const here = await start({ listenUrl })
    const there = await start()
    const heard = await collect(there.pubSub, 'topic')
    await here.pubSub.publish('topic', { n: 1 })
    await waitUntil(() => heard.length === 1, 'it arrives')
    await Promise.all([here.close(), there.close()])
  })

  test('leaves alone what others say on its channel', async () => {
    await two(async (here, there) => {
      const heard = await collect(there.pubSub, 'topic')
      for (const text of ['', 'nonsense', 'null', '{"node":"x"}', '{"node":"x","said":[[1]]}']) {
        await test_.database.query(`select pg_notify(channel, $1) from (${SELECT_CHANNEL}) ours`, [text])
      }
      await here.pubSub.publish('topic', { n: 1 })
      await waitUntil(() => heard.length === 1, 'the message arrives')
      expect(heard).toEqual([{ n: 1 }])
    })
  })

  test('receives nothing from another installation in the same database, even one with a copy of the data', async () => {
    await test_.database.query('create schema copy; create schema other')
    const inSchema = (schema: string) => start({ url: `${test_.url}&options=-c%20search_path%3D${schema}` })
    const [here, there, copy, other] = await Promise.all([
      start(),
      start(),
      inSchema('copy'),
      inSchema('other'),
    ])
    await test_.database.query('update copy.installation set id = (select id from public.installation)')
    const restarted = await inSchema('copy')
    const heard = await Promise.all(
      [there, copy, restarted, other].map(({ pubSub }) => collect(pubSub, 'topic')),
    )
    for (const node of [here, copy, restarted, other]) {
      await node.pubSub.publish('topic', { from: [here, copy, restarted, other].indexOf(node) })
    }
    await here.pubSub.publish('topic', { from: 'the last' })
    await waitUntil(() => heard[0]!.length === 2, 'the last message arrives')
    expect(heard[0]).toEqual([{ from: 0 }, { from: 'the last' }])
    expect(heard[1]).toEqual([{ from: 1 }])
    expect(heard[2]).toEqual([{ from: 2 }])
    expect(heard[3]).toEqual([{ from: 3 }])
    await Promise.all([here, there, copy, restarted, other].map((node) => node.close()))
  })

  test('stays together when its schema is renamed, and finds nodes that start afterwards', async () => {
    await test_.database.query('create schema before')
    const early = await start({ url: `${test_.url}&options=-c%20search_path%3Dbefore` })
    await test_.database.query('alter schema before rename to afterwards')
    const late = await start({ url: `${test_.url}&options=-c%20search_path%3Dafterwards` })
    const heard = await collect(late.pubSub, 'topic')
    await early.pubSub.publish('topic', { n: 1 })
    await waitUntil(() => heard.length === 1, 'it arrives')
    await Promise.all([early.close(), late.close()])
  })
})
