import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { afterAll, describe, expect, test } from '@jest/globals'
import { collected, packContents } from '../../../test/support/github/pack-contents.ts'
import { codeFiles, ODD_FILES, PLAN } from '../../../test/support/github/sample-contents.ts'
import { type ContentFile, prepareContents } from './commit-pack.ts'
import { closePackingThreads } from './packing-threads.ts'

const never = new AbortController().signal
const MANY = codeFiles(2000)
const LARGE = { path: 'large', content: Buffer.alloc(9_000_000, 'large and dull '), executable: false }
const NOISE = { path: 'noise', content: randomBytes(5_000_000), executable: false }

afterAll(() => closePackingThreads())

describe('prepareContents', () => {
  test.each([
    ['few files', ODD_FILES],
    ['many files', MANY],
    ['large files among small ones', [...ODD_FILES, LARGE, ...MANY.slice(0, 10), NOISE]],
  ])('makes of %s what packing at once makes', async (_, files) => {
    const { packParts, index, packBytes, ...facts } = await packContents(files, PLAN)
    await prepareContents(files, PLAN, { signal: never }, async ({ pack, ...prepared }) => {
      expect(prepared).toEqual(facts)
      for (let times = 0; times < 2; times++) {
        const parts = await collected(pack())
        expect(Buffer.concat(parts).equals(Buffer.concat([...packParts, index]))).toBe(true)
      }
    })
  })

  test('leaves the files usable', async () => {
    await packed(MANY)
    expect(MANY[0]?.content.length).toBeGreaterThan(0)
  })

  test('packs no faster than it is read', async () => {
    const noise = { ...NOISE, content: Buffer.from(NOISE.content) }
    await prepareContents([noise], PLAN, { signal: never }, async ({ pack }) => {
      const parts = pack()[Symbol.asyncIterator]()
      await parts.next()
      // What is not read yet becomes dull, so if it was not packed yet, it will take no room.
      noise.content.fill(0, 3_500_000)
      let bytes = 0
      for (let next = await parts.next(); !next.done; next = await parts.next())
        bytes += next.value.bytes.length
      expect(bytes).toBeLessThan(4_000_000)
    })
  })

  test('goes on after one who has stopped reading', async () => {
    await prepareContents(MANY, PLAN, { signal: never }, async ({ pack }) => {
      for await (const _ of pack()) break
      expect((await collected(pack())).length).toBeGreaterThan(1)
    })
    expect((await packed(MANY)).length).toBeGreaterThan(1)
  })

  test('rejects with the reason when aborted: before, in a thread, and in the line for one', async () => {
    const reason = new Error('cancelled')
    await expect(packed(ODD_FILES, AbortSignal.abort(reason))).rejects.toBe(reason)

    const abort = new AbortController()
    const four = [1, 2, 3, 4].map(() => packed(MANY, abort.signal))
    const fifth = packed(MANY)
    abort.abort(reason)
    for (const each of await Promise.allSettled(four))
      expect(each).toMatchObject({ status: 'rejected', reason })
    // Who waited behind them is served.
    expect((await fifth).length).toBeGreaterThan(1)
  })

  test('rejects with the reason when aborted between two parts', async () => {
    const reason = new Error('cancelled')
    const abort = new AbortController()
    const reading = prepareContents([NOISE], PLAN, abort, async ({ pack }) => {
      for await (const _ of pack()) abort.abort(reason)
    })
    await expect(reading).rejects.toBe(reason)
  })

  test('turns away who would make the line too long', async () => {
    const abort = new AbortController()
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    const calls = Array.from({ length: 19 }, () => prepareContents(MANY, PLAN, abort, () => released))
    await expect(Promise.race(calls)).rejects.toMatchObject({
      code: 'RATE_LIMITED',
      extensions: { retryAfterMs: expect.any(Number) },
    })
    abort.abort()
    release()
    await Promise.allSettled(calls)
  })

  test('does not hold this thread while it packs', async () => {
    let turns = 0
    const packing = packed(MANY).then(() => true)
    while (!(await Promise.race([packing, setImmediate(false)]))) turns++
    // Packed on this thread it would be none.
    expect(turns).toBeGreaterThan(1)
  })

  test('works again after its threads were closed, and fails who was packing', async () => {
    const closed = prepareContents(MANY, PLAN, { signal: never }, async ({ pack }) => {
      for await (const _ of pack()) await closePackingThreads()
    })
    await expect(closed).rejects.toThrow()
    expect((await packed(MANY)).length).toBeGreaterThan(1)
  })
})

function packed(files: readonly ContentFile[], signal = never): Promise<Uint8Array[]> {
  return prepareContents(files, PLAN, { signal }, ({ pack }) => collected(pack()))
}
