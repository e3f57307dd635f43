import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { FairScheduler } from './fair-scheduler.ts'

const SLICE_MS = 5

function work(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

/** Nests promises, like the handling of a request. */
async function request(scheduler: FairScheduler, subject: string, ms: number, done: string[]): Promise<void> {
  await scheduler.waitForTurn(subject)
  await Promise.resolve().then(() => Promise.resolve())
  work(ms)
  done.push(subject)
}

const times = (count: number) => Array.from({ length: count }, (_, index) => index)

test('concurrent requests that take a slice each run one per turn', async () => {
  const scheduler = new FairScheduler(SLICE_MS)
  const done: string[] = []
  const all = times(20).map(() => request(scheduler, 'mallory', SLICE_MS, done))
  let previous = 0
  while (done.length < 20) {
    await nextTurn()
    // One at the end of a turn, and one at the beginning of the next.
    expect(done.length - previous).toBeLessThanOrEqual(2)
    previous = done.length
  }
  await Promise.all(all)
})

test('a request runs next, however many of another subject wait', async () => {
  const scheduler = new FairScheduler(SLICE_MS)
  const done: string[] = []
  const all = times(20).map(() => request(scheduler, 'mallory', SLICE_MS, done))
  await Promise.all([...all, request(scheduler, 'bob', 0, done)])
  expect(done.indexOf('bob')).toBeLessThanOrEqual(2)
})

test('short requests do not wait for each other', async () => {
  const scheduler = new FairScheduler(1_000)
  const done: string[] = []
  const all = times(500).map(() => request(scheduler, 'bob', 0, done))
  await nextTurn()
  expect(done).toHaveLength(500)
  await Promise.all(all)
})

test('waiting requests share a turn, in the order of their arrival', async () => {
  const scheduler = new FairScheduler(SLICE_MS)
  const done: string[] = []
  const first = request(scheduler, 'first', 20 * SLICE_MS, done)
  await Promise.resolve()
  const others = times(100).map((n) => request(scheduler, `s${n}`, 0, done))
  await Promise.all([first, ...others])
  expect(done).toEqual(['first', ...times(100).map((n) => `s${n}`)])
})
