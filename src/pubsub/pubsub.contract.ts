import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import type { PubSubEngine } from 'graphql-subscriptions'
import { waitUntil } from '../../test/support/processes.ts'

/** Two ends of one PubSub: what is published at one reaches the subscribers of both. In one process they are the same. */
export interface PubSubEnds {
  here: PubSubEngine
  there: PubSubEngine
  close(): Promise<void>
}

/** What every PubSub provider does; an empty payload, which says "look", may come at any time. */
export function describePubSub(name: string, open: () => Promise<PubSubEnds>): void {
  describe(name, () => {
    let ends: PubSubEnds

    beforeEach(async () => {
      ends = await open()
    })

    afterEach(() => ends.close())

    /** What a subscriber has been given, without the looks. */
    async function collect(at: PubSubEngine, topic: string) {
      const heard: unknown[] = []
      const take = (payload: object) => {
        if (Object.keys(payload).length > 0) heard.push(payload)
      }
      const id = await at.subscribe(topic, take, {})
      return { heard, id }
    }

    test('reaches subscribers here before publish resolves, and those elsewhere soon', async () => {
      const here = await collect(ends.here, 'topic')
      const there = await collect(ends.there, 'topic')
      await ends.here.publish('topic', { n: 1, text: 'ünï "quoted" \\ \n\u0000 🎉', deep: [{ a: null }] })
      expect(here.heard).toHaveLength(1)
      await waitUntil(() => there.heard.length === 1, 'the message arrives')
      expect(there.heard).toEqual(here.heard)
    })

    test('keeps topics apart', async () => {
      const other = await collect(ends.there, 'other')
      const own = await collect(ends.there, 'own')
      await ends.here.publish('own', { n: 1 })
      await ends.here.publish('other', { n: 2 })
      await waitUntil(() => own.heard.length === 1 && other.heard.length === 1, 'both arrive')
      expect([own.heard, other.heard]).toEqual([[{ n: 1 }], [{ n: 2 }]])
    })

    test('delivers equal messages as often as they were sent, and each to every subscriber', async () => {
      const first = await collect(ends.there, 'topic')
      const second = await collect(ends.there, 'topic')
      for (let i = 0; i < 5; i++) await ends.here.publish('topic', { n: 1 })
      await waitUntil(() => first.heard.length === 5 && second.heard.length === 5, 'all five arrive twice')
    })

    test('delivers what one end says in the order in which it says it, to both ends alike', async () => {
      const here = await collect(ends.here, 'topic')
      const there = await collect(ends.there, 'topic')
      const sent = Array.from({ length: 100 }, (_, n) => ({ n }))
      for (const [i, message] of sent.entries()) {
        await ends.here.publish('topic', message)
        if (i % 10 === 0) await new Promise(setImmediate)
      }
      await waitUntil(() => there.heard.length === 100, 'all arrive')
      expect(there.heard).toEqual(sent)
      expect(here.heard).toEqual(sent)
    })

    test('is silent after unsubscribe', async () => {
      const left = await collect(ends.there, 'topic')
      const stays = await collect(ends.there, 'topic')
      ends.there.unsubscribe(left.id)
      await ends.here.publish('topic', { n: 1 })
      await waitUntil(() => stays.heard.length === 1, 'it arrives')
      expect(left.heard).toEqual([])
    })

    test('serves GraphQL as an async iterator', async () => {
      const messages = ends.there.asyncIterableIterator<{ n: number }>('topic')
      const next = messages.next()
      await ends.here.publish('topic', { n: 7 })
      expect(await next).toEqual({ done: false, value: { n: 7 } })
      await messages.return?.()
    })
  })
}
