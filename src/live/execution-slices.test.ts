import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { waitUntil } from '../../test/support/processes.ts'
import { ExecutionSlices } from './execution-slices.ts'

/** Uses up the slice. */
const long = () => {
  for (const end = performance.now() + 2; performance.now() < end; );
}

const untilLength = (done: readonly unknown[], length: number) =>
  waitUntil(() => done.length >= length, `all ${length} have gone`)

test('those with the most waiting go first; a cancelled one does not run', async () => {
  const slices = new ExecutionSlices(1)
  const done: number[] = []
  const late = [1, 3, 2].map((waitingCount) => {
    return { waitingCount, goOn: () => slices.run(() => done.push(waitingCount)) }
  })
  for (const each of late) slices.deliverLater(each)
  slices.cancelDelivery(late[2]!)
  await untilLength(done, 2)
  await nextTurn()
  expect(done).toEqual([3, 1])
})

test('subjects take turns in catching up, also while deliveries use up every slice', async () => {
  const slices = new ExecutionSlices(1)
  const done: string[] = []
  const forever = { waitingCount: 1, goOn: () => {} }
  forever.goOn = () => {
    slices.run(long)
    if (done.length < 4) slices.deliverLater(forever)
  }
  slices.deliverLater(forever)
  const catchUp = (subject: string) => slices.catchUpLater(subject, () => done.push(subject))
  for (const subject of ['many', 'many', 'many', 'one']) catchUp(subject)
  await untilLength(done, 4)
  expect(done).toEqual(['many', 'one', 'many', 'many'])
})
