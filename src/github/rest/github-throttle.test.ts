import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { withTimeout } from '../../../test/support/processes.ts'
import { createMigratedDatabase, type TestDatabase } from '../../../test/support/test-database.ts'
import { GitHubThrottle } from './github-throttle.ts'
import type { HttpResponse } from './http-client.ts'
import { PostgresRateLimitStore } from './rate-limit-store.ts'

let test_: TestDatabase
let pauses: PostgresRateLimitStore
const never = new AbortController().signal

beforeAll(async () => {
  test_ = await createMigratedDatabase()
  pauses = new PostgresRateLimitStore(test_.database)
})
afterAll(() => test_.drop())
beforeEach(async () => {
  await test_.database.query('truncate github_credentials')
})

const fine: HttpResponse = { status: 200, headers: {}, body: Buffer.alloc(0), url: 'http://localhost/' }
const limited: HttpResponse = { ...fine, status: 429, headers: { 'retry-after': '60' } }
const expire = () => test_.database.query(`update github_credentials set paused_until = clock_timestamp()`)

function queue({
  credentialId = 'one',
  writeSpacingMs = 0,
  most = null as number | null,
} = {}): GitHubThrottle {
  return new GitHubThrottle({
    credentialId,
    rateLimitStore: pauses,
    writeSpacingMs,
    maxCreationsPerHour: most,
  })
}

describe('a pause', () => {
  test('holds for every node that uses the credential, and for no other credential', async () => {
    await expect(queue().run('read', never, async () => limited)).rejects.toMatchObject({
      code: 'RATE_LIMITED',
    })
    let isSent = false
    const send = async () => {
      isSent = true
      return fine
    }
    const refused = queue().run('push', never, send)
    await expect(refused).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: expect.any(Date) })
    expect(isSent).toBe(false)
    expect(await queue({ credentialId: 'two' }).run('read', never, send)).toBe(fine)
  })

  test('is over when it is, and a call that gets through resets the count', async () => {
    await queue()
      .run('read', never, async () => limited)
      .catch(() => undefined)
    await expire()
    expect((await pauses.state('one')).consecutiveRateLimits).toBe(1)
    await queue().run('read', never, async () => fine)
    expect(await pauses.state('one')).toMatchObject({ consecutiveRateLimits: 0, pausedForMs: 0 })
  })

  test('for writes is not forgotten because a read gets through', async () => {
    await queue()
      .run('write', never, async () => limited)
      .catch(() => undefined)
    await expire()
    await queue().run('read', never, async () => fine)
    expect((await pauses.state('one')).consecutiveRateLimits).toBe(1)
    await queue().run('write', never, async () => fine)
    expect((await pauses.state('one')).consecutiveRateLimits).toBe(0)
  })

  test('is one strike for all the answers that were on their way', async () => {
    const node = queue()
    await Promise.allSettled([1, 2, 3, 4].map(() => node.run('read', never, async () => limited)))
    expect(await pauses.state('one')).toMatchObject({ consecutiveRateLimits: 1, pauseCount: 1 })
  })

  test('that follows four others is the last that anybody waits for by itself', async () => {
    for (let strike = 1; strike <= 4; strike++) {
      const call = queue().run('write', never, async () => limited)
      await expect(call).rejects.toMatchObject({ retryAt: expect.any(Date) })
      await expire()
    }
    const fifth = queue().run('write', never, async () => limited)
    await expect(fifth).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: undefined })
  })
})

describe('turns', () => {
  test('to write are given out one after the other, over all nodes, and not too far ahead', async () => {
    const turns = await Promise.all(
      Array.from({ length: 5 }, () => pauses.reserveWrite('one', 60_000, 150_000)),
    )
    const waits = turns.filter((each) => each.isReserved).map((each) => Math.round(each.waitMs / 60_000))
    expect(waits.sort()).toEqual([0, 1, 2])
    expect(turns.filter((each) => !each.isReserved).every((each) => each.waitMs > 150_000)).toBe(true)
  })

  test('that would be far ahead give the place free instead', async () => {
    await pauses.reserveWrite('one', 60_000, 0)
    const call = queue({ writeSpacingMs: 1_000 }).run('write', never, async () => fine)
    await expect(call).rejects.toMatchObject({
      code: 'RATE_LIMITED',
      message: expect.stringMatching(/wait its turn/),
    })
    expect((await pauses.state('one')).consecutiveRateLimits).toBe(0)
  })

  test('end when nobody waits for them any more', async () => {
    await pauses.reserveWrite('one', 8_000, 0)
    const abort = new AbortController()
    const call = queue({ writeSpacingMs: 1 }).run('write', abort.signal, async () => fine)
    const reason = new Error('cancelled')
    abort.abort(reason)
    await expect(call).rejects.toBe(reason)
  })

  test('of an hour to create are as many as GitHub bears', async () => {
    const node = queue({ most: 3 })
    const create = () => node.run('write', never, async () => fine, { isCreation: true })
    for (let n = 0; n < 3; n++) await create()
    await expect(create()).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: expect.any(Date) })
    expect(await node.run('write', never, async () => fine)).toBe(fine)
    await test_.database.query(
      `update github_credentials set creation_window_start = creation_window_start - interval '1 hour'`,
    )
    expect(await create()).toBe(fine)
  })
})

test('writes go one after the other, reads five at once', async () => {
  const node = queue()
  const countAtOnce = async (kind: 'read' | 'write', wanted: number) => {
    const areIn = Promise.withResolvers<void>()
    let running = 0
    let most = 0
    const send = async () => {
      most = Math.max(most, ++running)
      if (running === wanted) areIn.resolve()
      await withTimeout(areIn.promise, () => `${wanted} at once; there are ${running}`)
      await new Promise(setImmediate) // time for one too many
      running--
      return fine
    }
    await Promise.all(Array.from({ length: 12 }, () => node.run(kind, never, send)))
    return most
  }
  expect([await countAtOnce('write', 1), await countAtOnce('read', 5)]).toEqual([1, 5])
})
