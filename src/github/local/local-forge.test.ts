import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { deploySample } from '../../../test/support/github/deploy-sample.ts'
import { git, removeFolder, temporaryFolder } from '../../../test/support/github/git.ts'
import { type PackedContents, packContents } from '../../../test/support/github/pack-contents.ts'
import { EDGE_CASE_FILES, SAMPLE_PLAN, textFile } from '../../../test/support/github/sample-contents.ts'
import { withTimeout } from '../../../test/support/processes.ts'
import { type ForgeUnderTest, gitHubClientContract, inMemory } from '../github-client.contract.ts'
import { newWriterTag } from './durable-files.ts'
import { LocalForge } from './local-forge.ts'
import { toStorageError } from './storage-errors.ts'

const context = { signal: new AbortController().signal }
const SAMPLE = await packContents(EDGE_CASE_FILES, SAMPLE_PLAN)
const BRANCH = { owner: 'acme', name: 'site', branch: 'main' }

gitHubClientContract('LocalForge', async (): Promise<ForgeUnderTest> => {
  const folder = await temporaryFolder()
  const options = { folder, cloneUrlBase: 'http://localhost/git' }
  const path = (owner: string, name: string) => join(folder, owner, `${name}.git`)
  return {
    client: new LocalForge(options),
    otherClient: new LocalForge(options),
    gitUrl: path,
    deleteRepository: (owner, name) => removeFolder(path(owner, name)),
    close: () => removeFolder(folder),
  }
})

describe('LocalForge', () => {
  let folder: string
  let repository: string

  beforeEach(async () => {
    folder = await temporaryFolder()
    repository = join(folder, 'acme', 'site.git')
  })
  afterEach(() => removeFolder(folder))

  test('ends in one repository and one commit after a kill at any call to the file system', async () => {
    const script = join(import.meta.dirname, '../../../test/support/github/crash-in-deployment.ts')
    const env = { ...process.env, NODE_COMPILE_CACHE: join(folder, 'cache') } // a third of the time
    const killedAt = async (n: number) => {
      const forgeFolder = join(folder, String(n))
      const run = promisify(execFile)(
        process.execPath,
        ['--experimental-transform-types', script, forgeFolder, String(n)],
        { env },
      )
      const isDone = await run.then(
        ({ stdout }) => stdout === 'done\n',
        (error: { signal?: string; stderr?: string }) => {
          if (error.signal !== 'SIGKILL') throw new Error(`The script failed: ${error.stderr}`)
          return false
        },
      )
      const first = await deploySample(forgeFolder)
      expect(await deploySample(forgeFolder)).toEqual(first)
      expect(first.commit).toBe(SAMPLE.commit)
      await expectPristine(forgeFolder)
      return isDone
    }
    let kills = 0
    for (let isDone = false; !isDone; kills += 4) {
      isDone = (await Promise.all([1, 2, 3, 4].map((i) => killedAt(kills + i)))).includes(true)
    }
    expect(kills).toBeGreaterThan(20)
  })

  test('ends in one repository and one commit when several processes deploy the same at once', async () => {
    const script = join(import.meta.dirname, '../../../test/support/github/crash-in-deployment.ts')
    const runs = Array.from({ length: 4 }, () =>
      promisify(execFile)(process.execPath, ['--experimental-transform-types', script, folder, '0']),
    )
    for (const { stdout } of await Promise.all(runs)) expect(stdout).toBe('done\n')
    await expectPristine(folder)
  })

  test('keeps the description and the spelling of names', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: 'https://ship.example/git' })
    expect(await forge.ensureOrganization({ login: 'Acme' }, context)).toMatchObject({ login: 'Acme' })
    const created = await forge.ensureRepository(
      { ...repositoryInput(), owner: 'ACME', name: 'Site' },
      context,
    )
    expect(created).toMatchObject({
      owner: 'Acme',
      name: 'Site',
      cloneUrl: 'https://ship.example/git/Acme/Site.git',
    })
    expect(JSON.parse(await readFile(join(repository, 'shipcast/repository.json'), 'utf8'))).toMatchObject({
      id: created.id,
      owner: 'Acme',
      name: 'Site',
      visibility: 'PRIVATE',
      description: 'About',
      intentId: 'intent-1',
    })
  })

  test('points HEAD at the branch that was pushed first', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const { id } = await forge.ensureRepository(repositoryInput(), context)
    const push = {
      owner: 'acme',
      name: 'site',
      repositoryId: id,
      expectedHead: null,
      contents: inMemory(SAMPLE),
    }
    await forge.pushContents({ ...push, branch: 'trunk' }, context)
    expect(await git(repository, 'symbolic-ref', 'HEAD')).toBe('refs/heads/trunk\n')
    await forge.pushContents({ ...push, branch: 'main' }, context)
    expect(await git(repository, 'symbolic-ref', 'HEAD')).toBe('refs/heads/trunk\n')
    await git(repository, 'fsck', '--full', '--strict')
  })

  test('moves a branch from the expected commit', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const { repositoryId } = await deploySample(folder)
    const contents = inMemory(await packContents([textFile('a', 'b')], SAMPLE_PLAN))
    const push = { owner: 'acme', name: 'site', repositoryId, branch: 'main', contents }
    await forge.pushContents({ ...push, expectedHead: SAMPLE.commit }, context)
    expect((await git(repository, 'rev-parse', 'main')).trim()).toBe(contents.commit)
  })

  test('lets one of several writers move a branch from the commit that all of them expect', async () => {
    const { repositoryId, commit } = await deploySample(folder)
    const candidates = await Promise.all(
      ['1', '2', '3', '4', '5', '6'].map((text) => packContents([textFile('a', text)], SAMPLE_PLAN)),
    )
    const push = (packed: PackedContents) =>
      new LocalForge({ folder, cloneUrlBase: '' }).pushContents(
        { ...BRANCH, repositoryId, expectedHead: commit, contents: inMemory(packed) },
        context,
      )
    const settled = await Promise.allSettled(candidates.map(push))
    const winners = settled.filter((each) => each.status === 'fulfilled')
    expect(winners.map((each) => each.value.commit)).toEqual([
      (await git(repository, 'rev-parse', 'main')).trim(),
    ])
    for (const each of settled) {
      if (each.status === 'rejected') expect(['REF_MOVED', 'TRANSIENT']).toContain(each.reason.code)
    }
    // A writer that finds the lock retries, and then finds that the branch has moved.
    for (const [i, packed] of candidates.entries()) {
      if (settled[i]?.status === 'rejected')
        await expect(push(packed)).rejects.toMatchObject({ code: 'REF_MOVED' })
    }
    expect(await readdir(join(repository, 'refs/heads'))).toEqual(['main'])
    expect(await readdir(join(repository, 'shipcast/tmp'))).toEqual([])
  })

  test("respects a git command's lock until it is so old that its process must have died", async () => {
    const { repositoryId, commit } = await deploySample(folder)
    const lock = join(repository, 'refs/heads/main.lock')
    const contents = inMemory(await packContents([textFile('a', 'b')], SAMPLE_PLAN))
    const push = { ...BRANCH, repositoryId, expectedHead: commit, contents }
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    await writeFile(lock, '')
    await expect(forge.pushContents(push, context)).rejects.toMatchObject({
      code: 'TRANSIENT',
      message: expect.stringContaining(lock),
    })
    expect((await git(repository, 'rev-parse', 'main')).trim()).toBe(commit)

    const aMinuteAgo = Date.now() / 1000 - 60
    await utimes(lock, aMinuteAgo, aMinuteAgo)
    await forge.pushContents(push, context)
    expect((await git(repository, 'rev-parse', 'main')).trim()).toBe(contents.commit)
    expect(await readdir(join(repository, 'refs/heads'))).toEqual(['main'])
    expect(await readdir(join(repository, 'shipcast/tmp'))).toEqual([])
  })

  test('works with a repository after git gc', async () => {
    const first = await deploySample(folder)
    await git(repository, 'gc', '--quiet')
    expect(await readdir(join(repository, 'refs/heads'))).toEqual([])
    expect(await deploySample(folder)).toEqual(first)
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const contents = inMemory(await packContents([textFile('a', 'b')], SAMPLE_PLAN))
    const push = { owner: 'acme', name: 'site', repositoryId: first.repositoryId, branch: 'main', contents }
    await expect(forge.pushContents({ ...push, expectedHead: null }, context)).rejects.toMatchObject({
      code: 'REF_MOVED',
    })
    await forge.pushContents({ ...push, expectedHead: first.commit }, context)
    expect((await git(repository, 'rev-parse', 'main')).trim()).toBe(contents.commit)
  })

  test('works with a copy that lacks empty folders', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const { id } = await forge.ensureRepository(repositoryInput(), context)
    for (const empty of ['refs', 'objects/pack', 'shipcast/tmp']) await removeFolder(join(repository, empty))
    await removeFolder(join(folder, '.tmp'))
    expect((await deploySample(folder)).repositoryId).toBe(id)
    await forge.ensureRepository({ ...repositoryInput(), name: 'next' }, context)
    expect(await git(repository, 'fsck', '--full', '--strict')).toBe('')
  })

  test('does not adopt a repository that it did not create', async () => {
    await git(folder, 'init', '--quiet', '--bare', repository)
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    await expect(forge.ensureRepository(repositoryInput(), context)).rejects.toMatchObject({
      code: 'REPO_TAKEN',
    })
  })

  test('removes temporary files of dead processes, but not of running ones or other machines', async () => {
    await deploySample(folder) // creates .tmp
    const running = newWriterTag()
    const [place] = running.split('-')
    const random = '000000000000'
    const ended = `${place}-${await deadPid()}-${random}-${random}`
    const reusedPid = `${place}-${process.pid}-${random}-${random}`
    const elsewhere = `00000000000a-1-${random}-${random}`
    const oldElsewhere = `00000000000b-1-${random}-${random}`
    for (const name of [ended, reusedPid, running, elsewhere, oldElsewhere]) {
      await mkdir(join(folder, '.tmp', name, 'objects'), { recursive: true })
    }
    await utimes(join(folder, '.tmp', oldElsewhere), 1, 1)
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    await forge.ensureRepository({ ...repositoryInput(), name: 'next' }, context)
    expect((await readdir(join(folder, '.tmp'))).sort()).toEqual([elsewhere, running].sort())
  })

  test('says what to do if the folder is not usable', async () => {
    const file = join(folder, 'file')
    await writeFile(file, '')
    const forge = new LocalForge({ folder: file, cloneUrlBase: '' })
    await expect(forge.ensureOrganization({ login: 'acme' }, context)).rejects.toMatchObject({
      code: 'STORAGE',
      remedy: 'person',
      message: expect.stringContaining('DATA_DIR'),
    })
  })

  test.each(['ENOSPC', 'EDQUOT', 'EACCES', 'EPERM', 'EROFS', 'EIO'])('explains %s', (code) => {
    const error = Object.assign(new Error(`${code}: write`), { code, syscall: 'write' })
    expect(toStorageError(error, '/data')).toMatchObject({
      code: 'STORAGE',
      message: expect.stringMatching(/\/data.*retry\.$/),
      cause: error,
    })
  })

  test('does not report a lost database as an error of the disk', () => {
    const error = Object.assign(new Error('connect ENOENT'), { code: 'ENOENT', syscall: 'connect' })
    expect(toStorageError(error, '/data')).toBe(error)
  })
})

function repositoryInput() {
  return {
    owner: 'acme',
    name: 'site',
    visibility: 'PRIVATE' as const,
    description: 'About',
    intentId: 'intent-1',
    knownId: null,
    branch: 'main',
    plannedCommit: SAMPLE.commit,
  }
}

async function deadPid(): Promise<number | undefined> {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' })
  await withTimeout(once(child, 'exit'), 'the process ends')
  return child.pid
}

/** Expects exactly what one deployment leaves, valid for git. */
async function expectPristine(folder: string): Promise<void> {
  const repository = join(folder, 'acme', 'site.git')
  expect((await readdir(folder)).sort()).toEqual(['.tmp', 'acme'])
  expect(await readdir(join(folder, '.tmp'))).toEqual([])
  expect((await readdir(join(folder, 'acme'))).sort()).toEqual(['organization.json', 'site.git'])
  expect(await readdir(join(repository, 'shipcast', 'tmp'))).toEqual([])
  expect(await readdir(join(repository, 'refs', 'heads'))).toEqual(['main'])
  expect(await git(repository, 'fsck', '--full', '--strict')).toBe('')
  expect((await git(repository, 'rev-parse', 'HEAD')).trim()).toBe(SAMPLE.commit)
  const packs = (await readdir(join(repository, 'objects/pack'))).filter((name) => name.endsWith('.pack'))
  expect(packs).toHaveLength(1)
}
