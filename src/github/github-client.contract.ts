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

/** An empty forge; every test gets its own. */
export interface ForgeUnderTest {
  client: GitHubClient
  /** The same forge, through a client that shares no memory with the first. */
  otherClient: GitHubClient
  /** A URL or path for `git clone`. */
  gitUrl(owner: string, name: string): string
  /** As its owner would, unknown to the client. */
  deleteRepository(owner: string, name: string): Promise<void>
  close(): Promise<void>
}

const never = new AbortController().signal
const context = { signal: never }
const FIRST = await packContents([textFile('README.md', '# First\n')], SAMPLE_PLAN)
const SECOND = await packContents([textFile('README.md', '# Second\n')], SAMPLE_PLAN)

/** The tests that every implementation of `GitHubClient` passes. */
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

    async function repositoryInput(
      changes: Partial<EnsureRepositoryInput> = {},
    ): Promise<EnsureRepositoryInput> {
      await client.ensureOrganization({ login: 'acme' }, context)
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

    async function createRepository(): Promise<{ repositoryId: string }> {
      return { repositoryId: (await client.ensureRepository(await repositoryInput(), context)).id }
    }

    function pushOf(contents: PreparedContents, repositoryId: string): PushContentsInput {
      return { owner: 'acme', name: 'site', repositoryId, branch: 'main', expectedHead: null, contents }
    }

    function head(branch = 'main'): Promise<string | null> {
      return client.branchHead({ owner: 'acme', name: 'site', branch }, context)
    }

    test('pushes contents to a new repository, and git clones them byte for byte', async () => {
      const packed = await packContents([...EDGE_CASE_FILES, ...codeFiles(1000)], SAMPLE_PLAN)
      const organization = await client.ensureOrganization({ login: 'acme' }, context)
      expect(organization.login).toBe('acme')
      const repository = await client.ensureRepository(await repositoryInput(), context)
      expect(repository).toMatchObject({ outcome: 'created', owner: 'acme', name: 'site' })
      expect(await head()).toBeNull()

      expect(await client.pushContents(pushOf(inMemory(packed), repository.id), context)).toEqual({
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

    test('finds an existing organization, in any case', async () => {
      const first = await client.ensureOrganization({ login: 'acme' }, context)
      const again = await forge.otherClient.ensureOrganization({ login: 'ACME' }, context)
      expect(again).toEqual({ ...first, outcome: 'existed' })
    })

    test('finds the repository of the same intent again, before and after the push', async () => {
      const first = await client.ensureRepository(await repositoryInput(), context)
      const again = await forge.otherClient.ensureRepository(await repositoryInput({ name: 'SITE' }), context)
      expect(again).toEqual({ ...first, outcome: 'existed' })
      await client.pushContents(pushOf(inMemory(FIRST), first.id), context)
      expect(await client.ensureRepository(await repositoryInput(), context)).toEqual({
        ...first,
        outcome: 'existed',
      })
    })

    test('recognizes its repository by its id', async () => {
      const first = await client.ensureRepository(await repositoryInput(), context)
      const again = await client.ensureRepository(
        await repositoryInput({ intentId: 'lost', knownId: first.id }),
        context,
      )
      expect(again).toEqual({ ...first, outcome: 'existed' })
    })

    test('recognizes its repository by the commit that only this deployment could create', async () => {
      const { repositoryId } = await createRepository()
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), context)
      const again = await client.ensureRepository(await repositoryInput({ intentId: 'lost' }), context)
      expect(again).toMatchObject({ outcome: 'existed', id: repositoryId })
    })

    test("never adopts or changes another deployment's repository", async () => {
      const { repositoryId } = await createRepository()
      const other = await repositoryInput({ name: 'Site', intentId: 'other', plannedCommit: SECOND.commit })
      await rejectsWith('REPO_TAKEN', client.ensureRepository(other, context))
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), context)
      await rejectsWith('REPO_TAKEN', client.ensureRepository(other, context))
      await rejectsWith('REPO_GONE', client.pushContents(pushOf(inMemory(SECOND), 'another id'), context))
      expect(await head()).toBe(FIRST.commit)
    })

    test('rejects when its repository was deleted', async () => {
      const { repositoryId } = await createRepository()
      await forge.deleteRepository('acme', 'site')
      await rejectsWith(
        'REPO_GONE',
        client.ensureRepository(await repositoryInput({ knownId: repositoryId }), context),
      )
      await rejectsWith('REPO_GONE', client.pushContents(pushOf(inMemory(FIRST), repositoryId), context))
      expect(await head()).toBeNull()
    })

    test('assigns a name to one of several concurrent deployments', async () => {
      const inputs = await Promise.all(['1', '2', '3', '4'].map((intentId) => repositoryInput({ intentId })))
      const settled = await Promise.allSettled(
        inputs.map((each, i) => (i % 2 ? client : forge.otherClient).ensureRepository(each, context)),
      )
      expect(settled.filter((each) => each.status === 'fulfilled')).toHaveLength(1)
      for (const each of settled) {
        if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'REPO_TAKEN' })
      }
    })

    test('creates one repository for two concurrent calls of one intent', async () => {
      const input = await repositoryInput()
      const [one, two] = await Promise.all([
        client.ensureRepository(input, context),
        forge.otherClient.ensureRepository(input, context),
      ])
      expect(one.id).toBe(two.id)
    })

    test('does nothing when the contents were pushed before', async () => {
      const { repositoryId } = await createRepository()
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), context)
      const unreadable = preparedContents(FIRST, unexpected, unexpected)
      expect(await forge.otherClient.pushContents(pushOf(unreadable, repositoryId), context)).toEqual({
        outcome: 'already-pushed',
        commit: FIRST.commit,
      })
    })

    test('never overwrites a branch that is not at the expected commit', async () => {
      const { repositoryId } = await createRepository()
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), context)
      const push = pushOf(inMemory(SECOND), repositoryId)
      await rejectsWith('REF_MOVED', client.pushContents(push, context))
      await rejectsWith('REF_MOVED', client.pushContents({ ...push, expectedHead: SECOND.tree }, context))
      const absent = { ...push, branch: 'other', expectedHead: FIRST.commit }
      await rejectsWith('REF_MOVED', client.pushContents(absent, context))
      expect([await head(), await head('other')]).toEqual([FIRST.commit, null])
    })

    test('lets one of several concurrent pushes succeed', async () => {
      const { repositoryId } = await createRepository()
      const candidates = await Promise.all(
        ['1', '2', '3', '4'].map((text) => packContents([textFile('README.md', text)], SAMPLE_PLAN)),
      )
      const settled = await Promise.allSettled(
        candidates.map((packed, i) =>
          (i % 2 ? client : forge.otherClient).pushContents(pushOf(inMemory(packed), repositoryId), context),
        ),
      )
      const winners = settled.filter((each) => each.status === 'fulfilled')
      expect(winners.map((each) => each.value)).toEqual([{ outcome: 'pushed', commit: await head() }])
      for (const each of settled) {
        if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'REF_MOVED' })
      }
    })

    test('pushes to a branch whose name has a slash', async () => {
      const { repositoryId } = await createRepository()
      const push = { ...pushOf(inMemory(FIRST), repositoryId), branch: 'release/1.x' }
      await client.pushContents(push, context)
      expect(await head('release/1.x')).toBe(FIRST.commit)
      expect(await head('release')).toBeNull()
      expect(await client.pushContents(push, context)).toMatchObject({ outcome: 'already-pushed' })
    })

    test('reports progress up to the end', async () => {
      const { repositoryId } = await createRepository()
      const progress: { done: number; total: number }[] = []
      await client.pushContents(pushOf(inParts(FIRST, 50), repositoryId), {
        signal: never,
        onProgress: (each) => progress.push(each),
      })
      expect(progress.length).toBeGreaterThan(1)
      expect(progress.at(-1)).toMatchObject({ done: progress.at(-1)?.total })
    })

    test('rejects with the reason when aborted, leaves nothing visible, and can be repeated', async () => {
      const { repositoryId } = await createRepository()
      const abort = new AbortController()
      const reason = new Error('lease lost')
      const aborting = { signal: abort.signal, onProgress: () => abort.abort(reason) }
      await expect(client.pushContents(pushOf(inParts(FIRST, 50), repositoryId), aborting)).rejects.toBe(
        reason,
      )
      expect(await head()).toBeNull()
      await expect(client.ensureOrganization({ login: 'acme' }, aborting)).rejects.toBe(reason)
      await expect(client.ensureRepository(await repositoryInput(), aborting)).rejects.toBe(reason)
      await expect(client.pushContents(pushOf(inMemory(FIRST), repositoryId), aborting)).rejects.toBe(reason)

      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), context)
      expect(await head()).toBe(FIRST.commit)
    })

    test('rejects a damaged or truncated pack', async () => {
      const { repositoryId } = await createRepository()
      const [part = new Uint8Array()] = FIRST.packParts
      const damaged = Uint8Array.from(part)
      damaged[40] = (damaged[40] ?? 0) ^ 1
      for (const parts of [[damaged], [part.subarray(0, 60)], [part, part]]) {
        const contents = preparedContents(
          FIRST,
          () => parts,
          async () => FIRST.index,
        )
        await expect(client.pushContents(pushOf(contents, repositoryId), context)).rejects.toThrow()
        expect(await head()).toBeNull()
      }
      await client.pushContents(pushOf(inMemory(FIRST), repositoryId), context)
    })

    test.each(['..', 'a/b', 'a b', '', 'x.git'])('rejects the repository name "%s"', async (bad) => {
      await rejectsWith(
        'INVALID_NAME',
        client.ensureRepository(await repositoryInput({ name: bad }), context),
      )
    })

    test.each(['', 'a..b', '/a', 'a.lock', 'a b', '.a', 'a/'])(
      'rejects the branch name "%s"',
      async (branch) => {
        await rejectsWith('INVALID_NAME', client.ensureRepository(await repositoryInput({ branch }), context))
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
  throw new Error('The contents were read although they were pushed before.')
}
