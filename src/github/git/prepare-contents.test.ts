import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { afterAll, describe, expect, test } from '@jest/globals'
import { collectParts, packContents } from '../../../test/support/github/pack-contents.ts'
import { codeFiles, EDGE_CASE_FILES, SAMPLE_PLAN } from '../../../test/support/github/sample-contents.ts'
import { type ContentFile, prepareContents } from './commit-pack.ts'
import { closePackingThreads } from './packing-threads.ts'

const never = new AbortController().signal
const MANY = codeFiles(2000)
const LARGE = { path: 'large', content: Buffer.alloc(9_000_000, 'large and dull '), executable: false }
const NOISE = { path: 'noise', content: randomBytes(5_000_000), executable: false }

afterAll(() => closePackingThreads())

describe('prepareContents', () => {
  test.each([
    ['few files', EDGE_CASE_FILES],
    ['many files', MANY],
    ['large files among small ones', [...EDGE_CASE_FILES, LARGE, ...MANY.slice(0, 10), NOISE]],
  ])('makes of %s what packing at once makes', async (_, files) => {
    const { packParts, index, packBytes, ...facts } = await packContents(files, SAMPLE_PLAN)
    await prepareContents(files, SAMPLE_PLAN, { signal: never }, async ({ pack, ...prepared }) => {
      expect(prepared).toEqual(facts)
      for (let times = 0; times < 2; times++) {
        const parts = await collectParts(pack())
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
    await prepareContents([noise], SAMPLE_PLAN, { signal: never }, async ({ pack }) => {
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
    await prepareContents(MANY, SAMPLE_PLAN, { signal: never }, async ({ pack }) => {
      for await (const _ of pack()) break
      expect((await collectParts(pack())).length).toBeGreaterThan(1)
    })
    expect((await packed(MANY)).length).toBeGreaterThan(1)
  })

  test('rejects with the reason when aborted: before, in a thread, and in the line for one', async () => {
    const reason = new Error('cancelled')
    await expect(packed(EDGE_CASE_FILES, AbortSignal.abort(reason))).rejects.toBe(reason)

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
    const reading = prepareContents([NOISE], SAMPLE_PLAN, abort, async ({ pack }) => {
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
    const calls = Array.from({ length: 19 }, () => prepareContents(MANY, SAMPLE_PLAN, abort, () => released))
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
    const closed = prepareContents(MANY, SAMPLE_PLAN, { signal: never }, async ({ pack }) => {
      for await (const _ of pack()) await closePackingThreads()
    })
    await expect(closed).rejects.toThrow()
    expect((await packed(MANY)).length).toBeGreaterThan(1)
  })
})

function packed(files: readonly ContentFile[], signal = never): Promise<Uint8Array[]> {
  return prepareContents(files, SAMPLE_PLAN, { signal }, ({ pack }) => collectParts(pack()))
}
