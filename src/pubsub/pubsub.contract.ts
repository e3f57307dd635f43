import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import type { PubSubEngine } from 'graphql-subscriptions'
import { waitUntil } from '../../test/support/processes.ts'

/** Two ends of one PubSub: a message published at one reaches both. In one process, they are the same. */
interface PubSubEnds {
  here: PubSubEngine
  there: PubSubEngine
  close(): Promise<void>
}

/** The contract of every PubSub provider. Empty payloads, which announce losses, can arrive at any time. */
export function describePubSub(name: string, open: () => Promise<PubSubEnds>): void {
  describe(name, () => {
    let ends: PubSubEnds

    beforeEach(async () => {
      ends = await open()
    })

    afterEach(() => ends.close())

    /** Collects what a subscriber receives, without empty payloads. */
    async function collect(at: PubSubEngine, topic: string) {
      const received: unknown[] = []
      const onMessage = (payload: object) => {
        if (Object.keys(payload).length > 0) received.push(payload)
      }
      const id = await at.subscribe(topic, onMessage, {})
      return { received, id }
    }

    test('reaches local subscribers before publish resolves, and remote ones soon', async () => {
      const here = await collect(ends.here, 'topic')
      const there = await collect(ends.there, 'topic')
      await ends.here.publish('topic', { n: 1, text: 'ünï "quoted" \\ \n\u0000 🎉', deep: [{ a: null }] })
      expect(here.received).toHaveLength(1)
      await waitUntil(() => there.received.length === 1, 'the message arrives')
      expect(there.received).toEqual(here.received)
    })

    test('delivers only the messages of the subscribed topic', async () => {
      const other = await collect(ends.there, 'other')
      const own = await collect(ends.there, 'own')
      await ends.here.publish('own', { n: 1 })
      await ends.here.publish('other', { n: 2 })
      await waitUntil(() => own.received.length === 1 && other.received.length === 1, 'both arrive')
      expect([own.received, other.received]).toEqual([[{ n: 1 }], [{ n: 2 }]])
    })

    test('delivers equal messages as often as published, each to every subscriber', async () => {
      const first = await collect(ends.there, 'topic')
      const second = await collect(ends.there, 'topic')
      for (let i = 0; i < 5; i++) await ends.here.publish('topic', { n: 1 })
      await waitUntil(
        () => first.received.length === 5 && second.received.length === 5,
        'all five arrive twice',
      )
    })

    test('delivers the messages of one end in order of publication, to both ends', async () => {
      const here = await collect(ends.here, 'topic')
      const there = await collect(ends.there, 'topic')
      const sent = Array.from({ length: 100 }, (_, n) => ({ n }))
      for (const [i, message] of sent.entries()) {
        await ends.here.publish('topic', message)
        if (i % 10 === 0) await new Promise(setImmediate)
      }
      await waitUntil(() => there.received.length === 100, 'all arrive')
      expect(there.received).toEqual(sent)
      expect(here.received).toEqual(sent)
    })

    test('delivers nothing after unsubscribe', async () => {
      const unsubscribed = await collect(ends.there, 'topic')
      const subscribed = await collect(ends.there, 'topic')
      ends.there.unsubscribe(unsubscribed.id)
      await ends.here.publish('topic', { n: 1 })
      await waitUntil(() => subscribed.received.length === 1, 'it arrives')
      expect(unsubscribed.received).toEqual([])
    })

    test('provides an async iterator for GraphQL', async () => {
      const messages = ends.there.asyncIterableIterator<{ n: number }>('topic')
      const next = messages.next()
      await ends.here.publish('topic', { n: 7 })
      expect(await next).toEqual({ done: false, value: { n: 7 } })
      await messages.return?.()
    })
  })
}
