import { setImmediate as nextIteration } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { FairScheduler } from './fair-scheduler.ts'

const SLICE_MS = 5

function work(ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

/** Works in a continuation of nested promises, as a request handler does. */
async function request(scheduler: FairScheduler, subject: string, ms: number, done: string[]): Promise<void> {
  await scheduler.waitForTurn(subject)
  await Promise.resolve().then(() => Promise.resolve())
  work(ms)
  done.push(subject)
}

const times = (count: number) => Array.from({ length: count }, (_, index) => index)

test('runs one of several simultaneous requests per iteration if each takes a slice', async () => {
  const scheduler = new FairScheduler(SLICE_MS)
  const done: string[] = []
  const all = times(20).map(() => request(scheduler, 'mallory', SLICE_MS, done))
  let seen = 0
  while (done.length < 20) {
    await nextIteration()
    // One at the end of an iteration, and one at the start of the next.
    expect(done.length - seen).toBeLessThanOrEqual(2)
    seen = done.length
  }
  await Promise.all(all)
})

test('runs a single request next, however many of another subject wait', async () => {
  const scheduler = new FairScheduler(SLICE_MS)
  const done: string[] = []
  const all = times(20).map(() => request(scheduler, 'mallory', SLICE_MS, done))
  await Promise.all([...all, request(scheduler, 'bob', 0, done)])
  expect(done.indexOf('bob')).toBeLessThanOrEqual(2)
})

test('runs short requests without waiting', async () => {
  const scheduler = new FairScheduler(1_000)
  const done: string[] = []
  const all = times(500).map(() => request(scheduler, 'bob', 0, done))
  await nextIteration()
  expect(done).toHaveLength(500)
  await Promise.all(all)
})

test('runs short waiting requests in one iteration, in order of arrival', async () => {
  const scheduler = new FairScheduler(SLICE_MS)
  const done: string[] = []
  const first = request(scheduler, 'first', 20 * SLICE_MS, done)
  await Promise.resolve()
  const others = times(100).map((n) => request(scheduler, `s${n}`, 0, done))
  await Promise.all([first, ...others])
  expect(done).toEqual(['first', ...times(100).map((n) => `s${n}`)])
})
