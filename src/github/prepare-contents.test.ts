import { setImmediate } from 'node:timers/promises'
import { afterAll, describe, expect, test } from '@jest/globals'
import { packContents } from './pack-contents.ts'
import { closePackingThreads } from './packing-threads.ts'
import { prepareContents } from './prepare-contents.ts'
import { codeFiles, ODD_FILES, PLAN } from './testing/sample-contents.ts'

const never = new AbortController().signal
const MANY = codeFiles(2000)
const LARGE = { path: 'large', content: Buffer.alloc(9_000_000, 'large and dull '), executable: false }

afterAll(() => closePackingThreads())

describe('prepareContents', () => {
  test.each([
    ['few files', ODD_FILES],
    ['many files', MANY],
    ['a large file among small ones', [...ODD_FILES, LARGE, ...MANY.slice(0, 10)]],
  ])('makes of %s what packing at once makes', async (_, files) => {
    const prepared = await prepareContents(files, PLAN, { signal: never })
    const { packParts, index, ...facts } = packContents(files, PLAN)
    expect(prepared).toMatchObject(facts)
    expect(Buffer.concat(prepared.packParts).equals(Buffer.concat(packParts))).toBe(true)
    expect(Buffer.from(prepared.index).equals(index)).toBe(true)
  })

  test('leaves the files usable', async () => {
    await prepareContents(MANY, PLAN, { signal: never })
    expect(MANY[0]?.content.length).toBeGreaterThan(0)
  })

  test('rejects with the reason when aborted: before, in a thread, and in the line for one', async () => {
    const reason = new Error('cancelled')
    await expect(prepareContents(ODD_FILES, PLAN, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)

    const abort = new AbortController()
    const four = [1, 2, 3, 4].map(() => prepareContents(MANY, PLAN, abort))
    const fifth = prepareContents(MANY, PLAN, { signal: never })
    abort.abort(reason)
    for (const each of await Promise.allSettled(four))
      expect(each).toMatchObject({ status: 'rejected', reason })
    // Who waited behind them is served.
    expect((await fifth).commit).toBe(packContents(MANY, PLAN).commit)
  })

  test('turns away who would make the line too long', async () => {
    const abort = new AbortController()
    const calls = Array.from({ length: 19 }, () => prepareContents(MANY, PLAN, abort))
    await expect(calls[18]).rejects.toMatchObject({ code: 'TRANSIENT', remedy: 'backoff' })
    abort.abort()
    await Promise.allSettled(calls)
  })

  test('does not hold this thread while it packs', async () => {
    let turns = 0
    const packing = prepareContents(MANY, PLAN, { signal: never }).then(() => true)
    while (!(await Promise.race([packing, setImmediate(false)]))) turns++
    // Packed on this thread it would be none.
    expect(turns).toBeGreaterThan(1)
  })

  test('works again after its threads were closed', async () => {
    await closePackingThreads()
    const { commit } = await prepareContents(MANY, PLAN, { signal: never })
    expect(commit).toBe(packContents(MANY, PLAN).commit)
  })
})
