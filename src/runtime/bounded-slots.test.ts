import { setImmediate } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { BoundedSlots } from './bounded-slots.ts'

const neverAborted = new AbortController().signal

/** Acquires a slot for each key; returns the keys in order of admission, and those that were refused. */
async function enterAll(slots: BoundedSlots, keys: readonly string[]) {
  const entered: string[] = []
  const leaving: (() => void)[] = []
  const refused: string[] = []
  for (const key of keys) {
    void slots.acquire(neverAborted, key).then((leave) => {
      if (leave === null) refused.push(key)
      else {
        entered.push(key)
        leaving.push(leave)
      }
    })
    await setImmediate()
  }
  return { entered, leaving, refused }
}

test('admits keys in turn, however long their queues are', async () => {
  const slots = new BoundedSlots(1, 100)
  const { entered, leaving } = await enterAll(slots, ['a', 'a', 'a', 'a', 'b', 'c', 'b'])
  for (let i = 0; i < 7; i++) {
    leaving[i]?.()
    await setImmediate()
  }
  expect(entered).toEqual(['a', 'b', 'c', 'a', 'b', 'a', 'a'])
})

test('reserves slots for other keys, however many callers of one key wait', async () => {
  const slots = new BoundedSlots(3, 100, { maxSlots: 2, maxWaiting: 2 })
  const { entered, leaving, refused } = await enterAll(slots, ['a', 'a', 'a', 'a', 'a', 'b', 'b'])
  expect([entered, refused]).toEqual([['a', 'a', 'b'], ['a']])
  leaving[2]?.()
  await setImmediate()
  expect(entered).toEqual(['a', 'a', 'b', 'b'])
  leaving[0]?.()
  await setImmediate()
  expect(entered).toEqual(['a', 'a', 'b', 'b', 'a'])
})

test('makes room in the queue when a caller aborts', async () => {
  const slots = new BoundedSlots(1, 1, { maxSlots: 1, maxWaiting: 1 })
  const { leaving } = await enterAll(slots, ['a'])
  const aborting = new AbortController()
  const waiting = slots.acquire(aborting.signal, 'a')
  expect(await slots.acquire(neverAborted, 'b')).toBeNull()
  aborting.abort(new Error('enough'))
  await expect(waiting).rejects.toThrow('enough')
  const next = slots.acquire(neverAborted, 'b')
  leaving[0]?.()
  expect(await next).not.toBeNull()
})

test('gives a slot to a key without one before others get a second', async () => {
  const slots = new BoundedSlots(4, 100, { maxSlots: 2, maxWaiting: 100 })
  const { entered, leaving } = await enterAll(slots, ['a', 'a', 'b', 'b', 'c', 'c', 'd', 'd', 'bob'])
  for (const leave of leaving.slice(0, 4)) leave()
  await setImmediate()
  expect(entered.slice(4)).toEqual(['c', 'd', 'bob', 'c'])
})
