import { randomBytes } from 'node:crypto'
import * as nodeFs from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import isomorphicGit from 'isomorphic-git'
import {
  fastImport,
  git,
  gitBytes,
  gitWithInput,
  removeFolder,
  temporaryFolder,
} from '../../../test/support/github/git.ts'
import {
  collectParts,
  type PackedContents,
  packContents,
} from '../../../test/support/github/pack-contents.ts'
import {
  codeFiles,
  EDGE_CASE_FILES,
  SAMPLE_PLAN,
  textFile,
} from '../../../test/support/github/sample-contents.ts'
import { type ContentFile, prepareContents } from './commit-pack.ts'
import type { CommitPlan } from './git-objects.ts'
import { packIndex } from './pack.ts'

const never = new AbortController().signal
const MANY = codeFiles(2000)
const LARGE = { path: 'large', content: Buffer.alloc(9_000_000, 'large and dull '), executable: false }
const NOISE = { path: 'noise', content: randomBytes(5_000_000), executable: false }

let folder: string
beforeEach(async () => {
  folder = await temporaryFolder()
})
afterEach(() => removeFolder(folder))

describe('the commit of prepareContents', () => {
  test('is a pack that git accepts, with the index that git itself creates for it', async () => {
    const packed = await packContents(EDGE_CASE_FILES, SAMPLE_PLAN)
    const repository = await repositoryOf(packed)

    expect(await git(repository, 'fsck', '--full', '--strict', '--no-dangling')).toBe('')
    const [index = ''] = (await readdir(join(repository, 'objects/pack'))).filter((name) =>
      name.endsWith('.idx'),
    )
    expect(packed.index).toEqual(new Uint8Array(await readFile(join(repository, 'objects/pack', index))))
    for (const file of EDGE_CASE_FILES) {
      const bytes = await gitBytes(repository, 'cat-file', 'blob', `${packed.commit}:${file.path}`)
      expect(bytes.equals(file.content)).toBe(true)
    }
    const modes = await git(repository, 'ls-tree', packed.commit, 'run.sh', 'crlf.txt')
    expect(modes).toMatch(/^100644 blob \w+\tcrlf.txt\n100755 blob \w+\trun.sh\n$/)
  })

  test.each([
    ['edge cases', EDGE_CASE_FILES],
    ['no files', []],
    ['1,000 files', codeFiles(1000)],
    ['large files among small ones', [...EDGE_CASE_FILES, LARGE, ...MANY.slice(0, 10), NOISE]],
  ])('is the one that git fast-import creates from %s', async (_, files) => {
    const { commit, tree } = await packContents(files, SAMPLE_PLAN)
    const other = join(folder, 'other.git')
    expect(await fastImport(other, files, SAMPLE_PLAN)).toBe(commit)
    expect((await git(other, 'rev-parse', `${commit}^{tree}`)).trim()).toBe(tree)
  })

  test('is the one that isomorphic-git creates', async () => {
    expect(await isomorphicCommit(folder, EDGE_CASE_FILES, SAMPLE_PLAN)).toBe(
      (await packContents(EDGE_CASE_FILES, SAMPLE_PLAN)).commit,
    )
  })

  test('is the one that git fast-import creates from any set of files', async () => {
    let run = 0
    await fc.assert(
      fc.asyncProperty(anyFiles(), async (files) => {
        const other = join(folder, `${run++}.git`)
        expect(await fastImport(other, files, SAMPLE_PLAN)).toBe(
          (await packContents(files, SAMPLE_PLAN)).commit,
        )
        await git(other, 'fsck', '--full', '--strict')
      }),
      { numRuns: 25 },
    )
  })

  test('stores equal files once', async () => {
    const { objectCount } = await packContents(
      [textFile('a', 'x'), textFile('b/c', 'x'), textFile('d/c', 'x')],
      SAMPLE_PLAN,
    )
    expect(objectCount).toBe(4) // the blob, the folder (b and d are equal), the root, the commit
  })

  test('has its pack in parts of 32 KiB', async () => {
    const packed = await packContents([NOISE], SAMPLE_PLAN)
    const lengths = packed.packParts.map((part) => part.length)
    expect(new Set(lengths.slice(0, -1))).toEqual(new Set([32_768]))
    expect(packed.packParts.reduce((sum, part) => sum + part.length, 0)).toBe(packed.packBytes)
  })

  test.each([
    [['a', 'a']],
    [['a', 'a/b']],
    [['a/b', 'a']],
    [['\ud800', '\ud801']], // both are U+FFFD in UTF-8
  ])('rejects %j, which cannot form a tree', async (paths) => {
    const files = paths.map((path) => textFile(path, ''))
    await expect(packContents(files, SAMPLE_PLAN)).rejects.toThrow()
  })

  test('omits characters that git rejects in a name, an address or a message', async () => {
    const author = { name: ' <Ship>\n"Cast". ', email: '<ship@example.com>\0' }
    const repository = await repositoryOf(
      await packContents([], { ...SAMPLE_PLAN, author, message: 'One\0\n\n\n' }),
    )
    const [commit = ''] = (await git(repository, 'rev-list', '--all')).split('\n')
    expect(await git(repository, 'cat-file', 'commit', commit)).toContain(
      'author Ship"Cast <ship@example.com> 1700000000 +0000\n',
    )
    expect(await git(repository, 'cat-file', 'commit', commit)).toMatch(/\n\nOne\n$/)
    await git(repository, 'fsck', '--full', '--strict')
  })
})

describe('packing', () => {
  test('returns the same parts each time, and git accepts the pack', async () => {
    const files = [...EDGE_CASE_FILES, LARGE, ...MANY.slice(0, 10), NOISE]
    const packed = await packContents(files, SAMPLE_PLAN)
    await git(await repositoryOf(packed), 'fsck', '--full', '--strict', '--no-dangling')
    using contents = await prepareContents(files, SAMPLE_PLAN, { signal: never })
    for (let times = 0; times < 2; times++) {
      const parts = await collectParts(contents.pack())
      expect(Buffer.concat(parts).equals(Buffer.concat([...packed.packParts, packed.index]))).toBe(true)
    }
  })

  test('is no faster than its reader', async () => {
    const noise = { ...NOISE, content: Buffer.from(NOISE.content) }
    using contents = await prepareContents([noise], SAMPLE_PLAN, { signal: never })
    const parts = contents.pack()[Symbol.asyncIterator]()
    await parts.next()
    // What has not been packed yet becomes compressible.
    noise.content.fill(0, 3_500_000)
    let bytes = 0
    for (let next = await parts.next(); !next.done; next = await parts.next())
      bytes += next.value.bytes.length
    expect(bytes).toBeLessThan(4_000_000)
  })

  test('can start over after its reader has stopped', async () => {
    using contents = await prepareContents([NOISE, ...MANY], SAMPLE_PLAN, { signal: never })
    for await (const _ of contents.pack()) break
    expect((await collectParts(contents.pack())).length).toBeGreaterThan(1)
  })

  test('yields to the event loop', async () => {
    let turns = 0
    const packing = packContents(MANY, SAMPLE_PLAN).then(() => true)
    while (!(await Promise.race([packing, setImmediate(false)]))) turns++
    // Without yielding, there would be none.
    expect(turns).toBeGreaterThan(1)
  })

  test('rejects with the reason when aborted before it starts', async () => {
    const reason = new Error('cancelled')
    const signal = AbortSignal.abort(reason)
    await expect(prepareContents(EDGE_CASE_FILES, SAMPLE_PLAN, { signal })).rejects.toBe(reason)
  })

  test.each([
    ['of a large file', [NOISE]],
    ['of many files', MANY],
  ])('rejects with the reason when aborted between two parts %s', async (_, files) => {
    const reason = new Error('cancelled')
    const abort = new AbortController()
    using contents = await prepareContents(files, SAMPLE_PLAN, abort)
    const reading = (async () => {
      for await (const _ of contents.pack()) abort.abort(reason)
    })()
    await expect(reading).rejects.toBe(reason)
  })
})

describe('the queue of large contents', () => {
  test('admits the next when one is disposed of, and skips those that are aborted', async () => {
    const reason = new Error('cancelled')
    const abort = new AbortController()
    const [first, second] = await Promise.all([prepared(MANY), prepared(MANY)])
    const aborted = prepared(MANY, abort.signal)
    const next = prepared(MANY)
    abort.abort(reason)
    await expect(aborted).rejects.toBe(reason)
    first[Symbol.dispose]()
    second[Symbol.dispose]()
    using admitted = await next
    expect((await collectParts(admitted.pack())).length).toBeGreaterThan(1)
  })

  test('does not delay small contents', async () => {
    using _first = await prepared(MANY)
    using _second = await prepared(MANY)
    using small = await prepared(EDGE_CASE_FILES)
    expect((await collectParts(small.pack())).length).toBeGreaterThan(1)
  })

  test('rejects further contents when it is full', async () => {
    const abort = new AbortController()
    const calls = Array.from({ length: 19 }, () => prepared(MANY, abort.signal))
    await expect(Promise.race(calls.map(rejection))).resolves.toMatchObject({
      code: 'RATE_LIMITED',
      extensions: { retryAfterMs: expect.any(Number) },
    })
    abort.abort()
    for (const each of await Promise.allSettled(calls)) {
      if (each.status === 'fulfilled') each.value[Symbol.dispose]()
    }
  })
})

test('an index holds offsets beyond 2 GiB', async () => {
  const entries = [12, 0x7fffffff, 0x80000000, 0x123456789a].map((offset, i) => ({
    id: String.fromCharCode(i * 60).repeat(20),
    crc: i,
    offset,
  }))
  const index = packIndex(entries, new Uint8Array(20))
  const listed = await gitWithInput(folder, ['show-index'], index)
  expect(listed.split('\n').map((line) => line.split(' ')[0])).toEqual([
    '12',
    '2147483647',
    '2147483648',
    '78187493530',
    '',
  ])
})

function prepared(files: readonly ContentFile[], signal = never) {
  return prepareContents(files, SAMPLE_PLAN, { signal })
}

/** Stays pending when the promise fulfills. */
function rejection(promise: Promise<unknown>): Promise<unknown> {
  return new Promise((resolve) => promise.catch(resolve))
}

/** A bare repository that git creates from the pack. */
async function repositoryOf(packed: PackedContents): Promise<string> {
  const repository = join(folder, 'packed.git')
  await git(folder, 'init', '--quiet', '--bare', '--initial-branch=main', repository)
  await gitWithInput(repository, ['index-pack', '--strict', '--stdin'], Buffer.concat(packed.packParts))
  await git(repository, 'update-ref', 'refs/heads/main', packed.commit)
  return repository
}

async function isomorphicCommit(
  dir: string,
  files: readonly ContentFile[],
  plan: CommitPlan,
): Promise<string> {
  const repository = { fs: nodeFs, dir, gitdir: join(dir, 'iso.git') }
  await isomorphicGit.init({ ...repository, bare: true })
  async function writeFolder(inside: readonly ContentFile[]): Promise<string> {
    const byName = Map.groupBy(inside, (file) => file.path.split('/')[0] ?? '')
    const tree = await Promise.all(
      Array.from(byName, async ([path, group]) => {
        const [file] = group
        if (file !== undefined && file.path === path) {
          const oid = await isomorphicGit.writeBlob({ ...repository, blob: file.content })
          return { mode: file.executable ? '100755' : '100644', path, oid, type: 'blob' as const }
        }
        const below = group.map((entry) => ({ ...entry, path: entry.path.slice(path.length + 1) }))
        return { mode: '040000', path, oid: await writeFolder(below), type: 'tree' as const }
      }),
    )
    return isomorphicGit.writeTree({ ...repository, tree })
  }
  const person = { ...plan.author, timestamp: plan.unixSeconds, timezoneOffset: 0 }
  const tree = await writeFolder(files)
  return isomorphicGit.writeCommit({
    ...repository,
    commit: { tree, parent: [], author: person, committer: person, message: plan.message },
  })
}

/** Files whose names differ little, so that they share folders and are adjacent in the order. */
function anyFiles(): fc.Arbitrary<ContentFile[]> {
  const segment = fc
    .string({
      unit: fc.constantFrom('a', 'b', '.', '-', '0', '~', ' ', '\u00e9', '\uff5e', '\u{1f680}'),
      minLength: 1,
      maxLength: 4,
    })
    .filter((name) => name !== '.' && name !== '..')
  const file = fc.record({
    path: fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join('/')),
    content: fc.uint8Array({ maxLength: 300 }),
    executable: fc.boolean(),
  })
  return fc.array(file, { maxLength: 40 }).map((files) => {
    const kept = new Map<string, ContentFile>()
    for (const candidate of files) {
      const clashes = [...kept.keys()].some(
        (path) =>
          path === candidate.path ||
          path.startsWith(`${candidate.path}/`) ||
          candidate.path.startsWith(`${path}/`),
      )
      if (!clashes) kept.set(candidate.path, candidate)
    }
    return [...kept.values()]
  })
}
