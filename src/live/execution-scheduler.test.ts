import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { waitUntil } from '../../test/support/processes.ts'
import { ExecutionScheduler } from './execution-scheduler.ts'

/** Uses up the slice. */
const executeForLong = () => {
  for (const end = performance.now() + 2; performance.now() < end; );
}

const untilLength = (done: readonly unknown[], length: number) =>
  waitUntil(() => done.length >= length, `all ${length} have run`)

test('deliveries to the most subscribers go first; a cancelled delivery does not run', async () => {
  const scheduler = new ExecutionScheduler({ sliceMs: 1 })
  const done: number[] = []
  const deliveries = [1, 3, 2].map((liveCount) => {
    return { liveCount, deliverQueued: () => scheduler.run(() => done.push(liveCount)) }
  })
  for (const delivery of deliveries) scheduler.scheduleDelivery(delivery)
  scheduler.cancelDelivery(deliveries[2]!)
  await untilLength(done, 2)
  await nextTurn()
  expect(done).toEqual([3, 1])
})

test('subjects take turns in catching up, even while deliveries use up every slice', async () => {
  const scheduler = new ExecutionScheduler({ sliceMs: 1 })
  const done: string[] = []
  const endless = { liveCount: 1, deliverQueued: () => {} }
  endless.deliverQueued = () => {
    scheduler.run(executeForLong)
    if (done.length < 4) scheduler.scheduleDelivery(endless)
  }
  scheduler.scheduleDelivery(endless)
  const catchUp = (subject: string) => scheduler.scheduleCatchUp(subject, () => done.push(subject))
  for (const subject of ['many', 'many', 'many', 'one']) catchUp(subject)
  await untilLength(done, 4)
  expect(done).toEqual(['many', 'one', 'many', 'many'])
})
