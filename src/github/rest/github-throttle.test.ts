import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { withTimeout } from '../../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import { GitHubThrottle } from './github-throttle.ts'
import type { HttpResponse } from './http-client.ts'
import { PostgresRateLimitStore } from './rate-limit-store.ts'

let testDatabase: TestDatabase
let rateLimitStore: PostgresRateLimitStore
const { signal } = new AbortController()

beforeAll(async () => {
  testDatabase = await createMigratedDatabase()
  rateLimitStore = new PostgresRateLimitStore(testDatabase.database)
})
afterAll(() => testDatabase.drop())
beforeEach(async () => {
  await testDatabase.database.query('truncate github_credentials')
})

const success: HttpResponse = { status: 200, headers: {}, body: Buffer.alloc(0), url: 'http://localhost/' }
const rateLimited: HttpResponse = { ...success, status: 429, headers: { 'retry-after': '60' } }
const endPause = () =>
  testDatabase.database.query(`update github_credentials set paused_until = clock_timestamp()`)

function createThrottle({
  credentialId = 'one',
  writeSpacingMs = 0,
  maxCreationsPerHour = null as number | null,
} = {}): GitHubThrottle {
  return new GitHubThrottle({ credentialId, rateLimitStore, writeSpacingMs, maxCreationsPerHour })
}

describe('a pause', () => {
  test('applies to the credential on every node, and to no other credential', async () => {
    await expect(createThrottle().run('read', signal, async () => rateLimited)).rejects.toMatchObject({
      code: 'RATE_LIMITED',
    })
    let isSent = false
    const send = async () => {
      isSent = true
      return success
    }
    const paused = createThrottle().run('push', signal, send)
    await expect(paused).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: expect.any(Date) })
    expect(isSent).toBe(false)
    expect(await createThrottle({ credentialId: 'two' }).run('read', signal, send)).toBe(success)
  })

  test('ends on time, and a successful call resets the count', async () => {
    await createThrottle()
      .run('read', signal, async () => rateLimited)
      .catch(() => undefined)
    await endPause()
    expect((await rateLimitStore.state('one')).consecutiveRateLimits).toBe(1)
    await createThrottle().run('read', signal, async () => success)
    expect(await rateLimitStore.state('one')).toMatchObject({ consecutiveRateLimits: 0, pausedForMs: 0 })
  })

  test('for writes is not reset by a successful read', async () => {
    await createThrottle()
      .run('write', signal, async () => rateLimited)
      .catch(() => undefined)
    await endPause()
    await createThrottle().run('read', signal, async () => success)
    expect((await rateLimitStore.state('one')).consecutiveRateLimits).toBe(1)
    await createThrottle().run('write', signal, async () => success)
    expect((await rateLimitStore.state('one')).consecutiveRateLimits).toBe(0)
  })

  test('counts once for all requests in flight', async () => {
    const throttle = createThrottle()
    await Promise.allSettled([1, 2, 3, 4].map(() => throttle.run('read', signal, async () => rateLimited)))
    expect(await rateLimitStore.state('one')).toMatchObject({ consecutiveRateLimits: 1, pauseCount: 1 })
  })

  test('that follows four others requires a retry by a person', async () => {
    for (let pause = 1; pause <= 4; pause++) {
      const call = createThrottle().run('write', signal, async () => rateLimited)
      await expect(call).rejects.toMatchObject({ retryAt: expect.any(Date) })
      await endPause()
    }
    const fifth = createThrottle().run('write', signal, async () => rateLimited)
    await expect(fifth).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: undefined })
  })
})

describe('slots', () => {
  test('for writes are spaced across all nodes, and reserved only so far ahead', async () => {
    const slots = await Promise.all(
      Array.from({ length: 5 }, () => rateLimitStore.reserveWrite('one', 60_000, 150_000)),
    )
    const waitMinutes = slots
      .filter((each) => each.isReserved)
      .map((each) => Math.round(each.waitMs / 60_000))
    expect(waitMinutes.sort()).toEqual([0, 1, 2])
    expect(slots.filter((each) => !each.isReserved).every((each) => each.waitMs > 150_000)).toBe(true)
  })

  test('too far ahead reject the call instead of holding it', async () => {
    await rateLimitStore.reserveWrite('one', 60_000, 0)
    const call = createThrottle({ writeSpacingMs: 1_000 }).run('write', signal, async () => success)
    await expect(call).rejects.toMatchObject({
      code: 'RATE_LIMITED',
      message: expect.stringMatching(/Waiting for a write slot/),
    })
    expect((await rateLimitStore.state('one')).consecutiveRateLimits).toBe(0)
  })

  test('stop waiting when the call is aborted', async () => {
    await rateLimitStore.reserveWrite('one', 8_000, 0)
    const abort = new AbortController()
    const call = createThrottle({ writeSpacingMs: 1 }).run('write', abort.signal, async () => success)
    const reason = new Error('cancelled')
    abort.abort(reason)
    await expect(call).rejects.toBe(reason)
  })

  test('for creates are limited per hour', async () => {
    const throttle = createThrottle({ maxCreationsPerHour: 3 })
    const create = () => throttle.run('write', signal, async () => success, { isCreation: true })
    for (let n = 0; n < 3; n++) await create()
    await expect(create()).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: expect.any(Date) })
    expect(await throttle.run('write', signal, async () => success)).toBe(success)
    await testDatabase.database.query(
      `update github_credentials set creation_window_start = creation_window_start - interval '1 hour'`,
    )
    expect(await create()).toBe(success)
  })
})

test('sends one write and five reads at a time', async () => {
  const throttle = createThrottle()
  const maxConcurrent = async (kind: 'read' | 'write', expected: number) => {
    const allStarted = Promise.withResolvers<void>()
    let running = 0
    let max = 0
    const send = async () => {
      max = Math.max(max, ++running)
      if (running === expected) allStarted.resolve()
      await withTimeout(allStarted.promise, () => `${expected} concurrent calls; ${running} are running`)
      await new Promise(setImmediate) // lets a further call start, if one is allowed to
      running--
      return success
    }
    await Promise.all(Array.from({ length: 12 }, () => throttle.run(kind, signal, send)))
    return max
  }
  expect([await maxConcurrent('write', 1), await maxConcurrent('read', 5)]).toEqual([1, 5])
})
