import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { git, gitBytes, removeFolder, temporaryFolder } from '../../test/support/github/git.ts'
import { type PackedContents, packContents } from '../../test/support/github/pack-contents.ts'
import {
  codeFiles,
  EDGE_CASE_FILES,
  SAMPLE_PLAN,
  textFile,
} from '../../test/support/github/sample-contents.ts'
import type { ForgeErrorCode } from './forge-error.ts'
import { type PreparedContents, preparedContents } from './git/commit-pack.ts'
import type { EnsureRepositoryInput, GitHubClient, PushContentsInput } from './github-client.ts'

/** One forge, empty at first, as each test gets it. */
export interface ForgeUnderTest {
  client: GitHubClient
  /** The same forge, through a client that shares no memory with the first. */
  otherClient: GitHubClient
  /** What `git clone` takes, for reading as the forge's own people do. */
  gitUrl(owner: string, name: string): string
  /** As its owner would, behind our back. */
  deleteRepository(owner: string, name: string): Promise<void>
  close(): Promise<void>
}

const never = new AbortController().signal
const calm = { signal: never }
const FIRST = await packContents([textFile('README.md', '# First\n')], SAMPLE_PLAN)
const SECOND = await packContents([textFile('README.md', '# Second\n')], SAMPLE_PLAN)

/** What every implementation of `GitHubClient` keeps. */
export function gitHubClientContract(name: string, setup: () => Promise<ForgeUnderTest>): void {
  describe(`${name} as a GitHubClient`, () => {
    let forge: ForgeUnderTest
    let client: GitHubClient
    let folder: string

    beforeEach(async () => {
      forge = await setup()
      client = forge.client
      folder = await temporaryFolder()
    })
    afterEach(async () => {
      await forge.close()
      await removeFolder(folder)
    })

    async function wish(changes: Partial<EnsureRepositoryInput> = {}): Promise<EnsureRepositoryInput> {
      await client.ensureOrganization({ login: 'acme' }, calm)
      return {
        owner: 'acme',
        name: 'site',
        visibility: 'PRIVATE',
        description: 'A site',
        intentId: 'intent-1',
        knownId: null,
        branch: 'main',
        plannedCommit: FIRST.commit,
        ...changes,
      }
    }

    async function created(): Promise<{ repositoryId: string }> {
      return { repositoryId: (await client.ensureRepository(await wish(), calm)).id }
    }

    function pushOf(contents: PreparedContents, repositoryId: string): PushContentsInput {
      return { owner: 'acme', name: 'site', repositoryId, branch: 'main', expectedHead: null, contents }
    }

    function head(branch = 'main'): Promise<string | null> {
      return client.branchHead({ owner: 'acme', name: 'site', branch }, calm)
    }

    test('puts contents on a new repository, byte for byte, and git can clone it', async () => {
      const packed = await packContents([...EDGE_CASE_FILES, ...codeFiles(1000)], SAMPLE_PLAN)
      const organization = await client.ensureOrganization({ login: 'acme' }, calm)
      expect(organization.login).toBe('acme')
      const repository = await client.ensureRepository(await wish(), calm)
      expect(repository).toMatchObject({ outcome: 'created', owner: 'acme', name: 'site' })
      expect(await head()).toBeNull()

      expect(await client.pushContents(pushOf(inMemory(packed), repository.id), calm)).toEqual({
        outcome: 'pushed',
        commit: packed.commit,
      })
      expect(await head()).toBe(packed.commit)

      await git(folder, 'clone', '--quiet', '--bare', forge.gitUrl('acme', 'site'), 'clone.git')
      const clone = `${folder}/clone.git`
      expect(await git(clone, 'fsck', '--full', '--strict')).toBe('')
      expect(await git(clone, 'rev-parse', 'HEAD', 'HEAD^{tree}')).toBe(`${packed.commit}\n${packed.tree}\n`)
      expect(await git(clone, 'symbolic-ref', 'HEAD')).toBe('refs/heads/main\n')
      for (const file of EDGE_CASE_FILES) {
        const bytes = await gitBytes(clone, 'cat-file', 'blob', `HEAD:${file.path}`)
        expect([file.path, bytes.equals(file.content)]).toEqual([file.path, true])
      }
      expect(await git(clone, 'ls-tree', 'HEAD', 'run.sh', 'empty')).toMatch(/^100644 .*\n100755 .*\n$/)
    })

    test('finds an organization that is there', async () => {
      const first = await client.ensureOrganization({ login: 'acme' }, calm)
      const again = await forge.otherClient.ensureOrganization({ login: 'ACME' }, calm)
      expect(again).toEqual({ ...first, outcome: 'existed' })
    })

    test('gives the same intent its repository again, also after the contents are there', async () => {
      const first = await client.ensureRepository(await wish(), calm)
      const again = await forge.otherClient.ensureRepository(await wish({ name: 'SITE' }), calm)
      expect(again).toEqual({ ...first, outcome: 'existed' })
      await client.pushContents(pushOf(inMemory(FIRST), first.id), calm)
      expect(await client.ensureRepository(await wish(), calm)).toEqual({ ...first, outcome: 'existed' })
    })

    test('knows a repository by its id', async () => {
      const first = await client.ensureRepository(await wish(), calm)
      const again = await client.ensureRepository(await wish({ intentId: 'lost', knownId: first.id }), calm)
      expect(again).toEqual({ ...first, outcome: 'existed' })
    })

    test('knows a repository by the commit that only this deployment can have made', async () => {
      const { repositoryId } = await created()
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), calm)
      const again = await client.ensureRepository(await wish({ intentId: 'lost' }), calm)
      expect(again).toMatchObject({ outcome: 'existed', id: repositoryId })
    })

    test("never takes another's repository for its own", async () => {
      const { repositoryId } = await created()
      const other = await wish({ name: 'Site', intentId: 'other', plannedCommit: SECOND.commit })
      await rejectsWith('REPO_TAKEN', client.ensureRepository(other, calm))
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), calm)
      await rejectsWith('REPO_TAKEN', client.ensureRepository(other, calm))
      await rejectsWith('REPO_GONE', client.pushContents(pushOf(inMemory(SECOND), 'another id'), calm))
      expect(await head()).toBe(FIRST.commit)
    })

    test('says so when its repository is gone', async () => {
      const { repositoryId } = await created()
      await forge.deleteRepository('acme', 'site')
      await rejectsWith('REPO_GONE', client.ensureRepository(await wish({ knownId: repositoryId }), calm))
      await rejectsWith('REPO_GONE', client.pushContents(pushOf(inMemory(FIRST), repositoryId), calm))
      expect(await head()).toBeNull()
    })

    test('lets one of several that want the same name have it', async () => {
      const wishes = await Promise.all(['1', '2', '3', '4'].map((intentId) => wish({ intentId })))
      const settled = await Promise.allSettled(
        wishes.map((each, i) => (i % 2 ? client : forge.otherClient).ensureRepository(each, calm)),
      )
      expect(settled.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
      for (const each of settled) {
        if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'REPO_TAKEN' })
      }
    })

    test('creates one repository when one intent asks twice at once', async () => {
      const input = await wish()
      const [one, two] = await Promise.all([
        client.ensureRepository(input, calm),
        forge.otherClient.ensureRepository(input, calm),
      ])
      expect(one.id).toBe(two.id)
    })

    test('does nothing when the contents are there already', async () => {
      const { repositoryId } = await created()
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), calm)
      const unreadable = preparedContents(FIRST, unexpected, unexpected)
      expect(await forge.otherClient.pushContents(pushOf(unreadable, repositoryId), calm)).toEqual({
        outcome: 'already-pushed',
        commit: FIRST.commit,
      })
    })

    test('never overwrites a branch that is elsewhere than expected', async () => {
      const { repositoryId } = await created()
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), calm)
      const push = pushOf(inMemory(SECOND), repositoryId)
      await rejectsWith('REF_MOVED', client.pushContents(push, calm))
      await rejectsWith('REF_MOVED', client.pushContents({ ...push, expectedHead: SECOND.tree }, calm))
      const absent = { ...push, branch: 'other', expectedHead: FIRST.commit }
      await rejectsWith('REF_MOVED', client.pushContents(absent, calm))
      expect([await head(), await head('other')]).toEqual([FIRST.commit, null])
    })

    test('lets one of several pushers win', async () => {
      const { repositoryId } = await created()
      const candidates = await Promise.all(
        ['1', '2', '3', '4'].map((text) => packContents([textFile('README.md', text)], SAMPLE_PLAN)),
      )
      const settled = await Promise.allSettled(
        candidates.map((packed, i) =>
          (i % 2 ? client : forge.otherClient).pushContents(pushOf(inMemory(packed), repositoryId), calm),
        ),
      )
      const winners = settled.filter((each) => each.status === 'fulfilled')
      expect(winners.map((each) => each.value)).toEqual([{ outcome: 'pushed', commit: await head() }])
      for (const each of settled) {
        if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'REF_MOVED' })
      }
    })

    test('pushes to a branch whose name has a slash', async () => {
      const { repositoryId } = await created()
      const push = { ...pushOf(inMemory(FIRST), repositoryId), branch: 'release/1.x' }
      await client.pushContents(push, calm)
      expect(await head('release/1.x')).toBe(FIRST.commit)
      expect(await head('release')).toBeNull()
      expect(await client.pushContents(push, calm)).toMatchObject({ outcome: 'already-pushed' })
    })

    test('tells how far it is, up to the end', async () => {
      const { repositoryId } = await created()
      const progress: { done: number; total: number }[] = []
      await client.pushContents(pushOf(inParts(FIRST, 50), repositoryId), {
        signal: never,
        onProgress: (each) => progress.push(each),
      })
      expect(progress.length).toBeGreaterThan(1)
      expect(progress.at(-1)).toMatchObject({ done: progress.at(-1)?.total })
    })

    test('rejects with the reason when it is aborted, leaves nothing to be seen, and can be repeated', async () => {
      const { repositoryId } = await created()
      const abort = new AbortController()
      const reason = new Error('lease lost')
      const context = { signal: abort.signal, onProgress: () => abort.abort(reason) }
      await expect(client.pushContents(pushOf(inParts(FIRST, 50), repositoryId), context)).rejects.toBe(
        reason,
      )
      expect(await head()).toBeNull()
      await expect(client.ensureOrganization({ login: 'acme' }, context)).rejects.toBe(reason)
      await expect(client.ensureRepository(await wish(), context)).rejects.toBe(reason)
      await expect(client.pushContents(pushOf(inMemory(FIRST), repositoryId), context)).rejects.toBe(reason)

      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), calm)
      expect(await head()).toBe(FIRST.commit)
    })

    test('takes no pack that is damaged or cut off', async () => {
      const { repositoryId } = await created()
      const [part = new Uint8Array()] = FIRST.packParts
      const damaged = Uint8Array.from(part)
      damaged[40] = (damaged[40] ?? 0) ^ 1
      for (const parts of [[damaged], [part.subarray(0, 60)], [part, part]]) {
        const contents = preparedContents(
          FIRST,
          () => parts,
          async () => FIRST.index,
        )
        await expect(client.pushContents(pushOf(contents, repositoryId), calm)).rejects.toThrow()
        expect(await head()).toBeNull()
      }
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), calm)
    })

    test.each(['..', 'a/b', 'a b', '', 'x.git'])('refuses the repository name "%s"', async (bad) => {
      await rejectsWith('INVALID_NAME', client.ensureRepository(await wish({ name: bad }), calm))
    })

    test.each(['', 'a..b', '/a', 'a.lock', 'a b', '.a', 'a/'])(
      'refuses the branch name "%s"',
      async (branch) => {
        await rejectsWith('INVALID_NAME', client.ensureRepository(await wish({ branch }), calm))
      },
    )
  })
}

export function inMemory(packed: PackedContents): PreparedContents {
  return preparedContents(
    packed,
    () => packed.packParts,
    async () => packed.index,
  )
}

function inParts(packed: PackedContents, partBytes: number): PreparedContents {
  const bytes = Buffer.concat(packed.packParts)
  const parts = Array.from({ length: Math.ceil(bytes.length / partBytes) }, (_, i) =>
    bytes.subarray(i * partBytes, (i + 1) * partBytes),
  )
  return preparedContents(
    packed,
    () => parts,
    async () => packed.index,
  )
}

async function rejectsWith(code: ForgeErrorCode, call: Promise<unknown>): Promise<void> {
  await expect(call).rejects.toMatchObject({ name: 'ForgeError', code })
}

function unexpected(): never {
  throw new Error('The contents were read although they are there already.')
}
