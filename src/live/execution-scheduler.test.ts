import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { waitUntil } from '../../test/support/processes.ts'
import { ExecutionScheduler } from './execution-scheduler.ts'

/** Uses up the slice. */
const long = () => {
  for (const end = performance.now() + 2; performance.now() < end; );
}

const untilLength = (done: readonly unknown[], length: number) =>
  waitUntil(() => done.length >= length, `all ${length} have gone`)

test('those with the most waiting go first; a cancelled one does not run', async () => {
  const slices = new ExecutionScheduler(1)
  const done: number[] = []
  const late = [1, 3, 2].map((liveCount) => {
    return { liveCount, deliverQueued: () => slices.run(() => done.push(liveCount)) }
  })
  for (const each of late) slices.scheduleDelivery(each)
  slices.cancelDelivery(late[2]!)
  await untilLength(done, 2)
  await nextTurn()
  expect(done).toEqual([3, 1])
})

test('subjects take turns in catching up, also while deliveries use up every slice', async () => {
  const slices = new ExecutionScheduler(1)
  const done: string[] = []
  const forever = { liveCount: 1, deliverQueued: () => {} }
  forever.deliverQueued = () => {
    slices.run(long)
    if (done.length < 4) slices.scheduleDelivery(forever)
  }
  slices.scheduleDelivery(forever)
  const catchUp = (subject: string) => slices.scheduleCatchUp(subject, () => done.push(subject))
  for (const subject of ['many', 'many', 'many', 'one']) catchUp(subject)
  await untilLength(done, 4)
  expect(done).toEqual(['many', 'one', 'many', 'many'])
})
