import { randomBytes } from 'node:crypto'
import * as nodeFs from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
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
import { type PackedContents, packContents } from '../../../test/support/github/pack-contents.ts'
import {
  codeFiles,
  EDGE_CASE_FILES,
  SAMPLE_PLAN,
  textFile,
} from '../../../test/support/github/sample-contents.ts'
import type { CommitPlan, ContentFile } from './commit-pack.ts'
import { packIndex } from './pack.ts'

let folder: string
beforeEach(async () => {
  folder = await temporaryFolder()
})
afterEach(() => removeFolder(folder))

describe('packContents', () => {
  test('writes what git takes, without a fault, and the very index that git makes of it', async () => {
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
    ['odd names', EDGE_CASE_FILES],
    ['nothing', []],
    ['1,000 files', codeFiles(1000)],
  ])('makes the same commit of %s as git fast-import', async (_, files) => {
    const { commit, tree } = await packContents(files, SAMPLE_PLAN)
    const other = join(folder, 'other.git')
    expect(await fastImport(other, files, SAMPLE_PLAN)).toBe(commit)
    expect((await git(other, 'rev-parse', `${commit}^{tree}`)).trim()).toBe(tree)
  })

  test('makes the same commit as isomorphic-git', async () => {
    expect(await isomorphicCommit(folder, EDGE_CASE_FILES, SAMPLE_PLAN)).toBe(
      (await packContents(EDGE_CASE_FILES, SAMPLE_PLAN)).commit,
    )
  })

  test('makes the same commit as git fast-import of any set of files', async () => {
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

  test('holds equal files once', async () => {
    const { objectCount } = await packContents(
      [textFile('a', 'x'), textFile('b/c', 'x'), textFile('d/c', 'x')],
      SAMPLE_PLAN,
    )
    expect(objectCount).toBe(4) // the blob, the folder (b and d are equal), the root, the commit
  })

  test('cuts the pack into parts of 32 KiB', async () => {
    const noise = randomBytes(150_000)
    const packed = await packContents([{ path: 'noise', content: noise, executable: false }], SAMPLE_PLAN)
    expect(packed.packParts.slice(0, -1).map((part) => part.length)).toEqual([32_768, 32_768, 32_768, 32_768])
    expect(packed.packParts.reduce((sum, part) => sum + part.length, 0)).toBe(packed.packBytes)
  })

  test.each([
    [['a', 'a']],
    [['a', 'a/b']],
    [['a/b', 'a']],
    [['\ud800', '\ud801']], // both are U+FFFD in UTF-8
  ])('refuses %j, of which no tree can be made', async (paths) => {
    const files = paths.map((path) => textFile(path, ''))
    await expect(packContents(files, SAMPLE_PLAN)).rejects.toThrow()
  })

  test('cleans what git would not accept in a name, an address or a message', async () => {
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

test('an index holds offsets beyond 2 GiB', async () => {
  const entries = [12, 0x7fffffff, 0x80000000, 0x123456789a].map((offset, i) => ({
    id: String.fromCharCode(i * 60).repeat(20),
    crc: i,
    offset,
  }))
  const index = packIndex(entries, new Uint8Array(20))
  const shown = await gitWithInput(folder, ['show-index'], index)
  expect(shown.split('\n').map((line) => line.split(' ')[0])).toEqual([
    '12',
    '2147483647',
    '2147483648',
    '78187493530',
    '',
  ])
})

/** A bare repository that git itself makes of the pack. */
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

/** Files whose names differ in few places, so that they meet in folders and in the order. */
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
