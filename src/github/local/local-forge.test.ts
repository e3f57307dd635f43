import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { deploySample } from '../../../test/support/github/deploy-sample.ts'
import { git, removeFolder, temporaryFolder } from '../../../test/support/github/git.ts'
import { packContents } from '../../../test/support/github/pack-contents.ts'
import { EDGE_CASE_FILES, SAMPLE_PLAN, textFile } from '../../../test/support/github/sample-contents.ts'
import { withTimeout } from '../../../test/support/processes.ts'
import { type ForgeUnderTest, gitHubClientContract, inMemory } from '../github-client.contract.ts'
import { LocalForge } from './local-forge.ts'
import { toStorageError } from './storage-errors.ts'
import { newWriterTag } from './writer-tag.ts'

const calm = { signal: new AbortController().signal }
const SAMPLE = await packContents(EDGE_CASE_FILES, SAMPLE_PLAN)

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

  test('ends in one repository and one commit, killed at whichever call to the file system', async () => {
    const script = join(import.meta.dirname, '../../../test/support/github/crash-in-deployment.ts')
    const env = { ...process.env, NODE_COMPILE_CACHE: join(folder, 'cache') } // a third of the time
    const killedAt = async (n: number) => {
      const place = join(folder, String(n))
      const run = promisify(execFile)(
        process.execPath,
        ['--experimental-transform-types', script, place, String(n)],
        { env },
      )
      const isDone = await run.then(
        ({ stdout }) => stdout === 'done\n',
        (error: { signal?: string; stderr?: string }) => {
          if (error.signal !== 'SIGKILL') throw new Error(`The script failed: ${error.stderr}`)
          return false
        },
      )
      const first = await deploySample(place)
      expect(await deploySample(place)).toEqual(first)
      expect(first.commit).toBe(SAMPLE.commit)
      await expectPristine(place)
      return isDone
    }
    let kills = 0
    for (let isDone = false; !isDone; kills += 4) {
      isDone = (await Promise.all([1, 2, 3, 4].map((i) => killedAt(kills + i)))).includes(true)
    }
    expect(kills).toBeGreaterThan(20)
  })

  test('several processes that deploy the same at once end in one repository and one commit', async () => {
    const script = join(import.meta.dirname, '../../../test/support/github/crash-in-deployment.ts')
    const runs = Array.from({ length: 4 }, () =>
      promisify(execFile)(process.execPath, ['--experimental-transform-types', script, folder, '0']),
    )
    for (const { stdout } of await Promise.all(runs)) expect(stdout).toBe('done\n')
    await expectPristine(folder)
  })

  test('keeps what people wrote about a repository, and their spelling', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: 'https://ship.example/git' })
    expect(await forge.ensureOrganization({ login: 'Acme' }, calm)).toMatchObject({ login: 'Acme' })
    const created = await forge.ensureRepository({ ...wish(), owner: 'ACME', name: 'Site' }, calm)
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

  test('HEAD names the branch that was pushed first', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const { id } = await forge.ensureRepository(wish(), calm)
    const push = {
      owner: 'acme',
      name: 'site',
      repositoryId: id,
      expectedHead: null,
      contents: inMemory(SAMPLE),
    }
    await forge.pushContents({ ...push, branch: 'trunk' }, calm)
    expect(await git(repository, 'symbolic-ref', 'HEAD')).toBe('refs/heads/trunk\n')
    await forge.pushContents({ ...push, branch: 'main' }, calm)
    expect(await git(repository, 'symbolic-ref', 'HEAD')).toBe('refs/heads/trunk\n')
    await git(repository, 'fsck', '--full', '--strict')
  })

  test('moves a branch from where it was expected', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const { repositoryId } = await deploySample(folder)
    const contents = inMemory(await packContents([textFile('a', 'b')], SAMPLE_PLAN))
    const push = { owner: 'acme', name: 'site', repositoryId, branch: 'main', contents }
    await forge.pushContents({ ...push, expectedHead: SAMPLE.commit }, calm)
    expect((await git(repository, 'rev-parse', 'main')).trim()).toBe(contents.commit)
    await expectServerInfo(repository)
  })

  test('goes on with a repository that git has tidied', async () => {
    const first = await deploySample(folder)
    await git(repository, 'gc', '--quiet')
    expect(await readdir(join(repository, 'refs/heads'))).toEqual([])
    expect(await deploySample(folder)).toEqual(first)
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const contents = inMemory(await packContents([textFile('a', 'b')], SAMPLE_PLAN))
    const push = { owner: 'acme', name: 'site', repositoryId: first.repositoryId, branch: 'main', contents }
    await expect(forge.pushContents({ ...push, expectedHead: null }, calm)).rejects.toMatchObject({
      code: 'REF_MOVED',
    })
    await forge.pushContents({ ...push, expectedHead: first.commit }, calm)
    expect((await git(repository, 'rev-parse', 'main')).trim()).toBe(contents.commit)
  })

  test('goes on with a copy from which the empty folders were left out', async () => {
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    const { id } = await forge.ensureRepository(wish(), calm)
    for (const empty of ['refs', 'objects/pack', 'shipcast/tmp']) await removeFolder(join(repository, empty))
    await removeFolder(join(folder, '.tmp'))
    expect((await deploySample(folder)).repositoryId).toBe(id)
    await forge.ensureRepository({ ...wish(), name: 'next' }, calm)
    expect(await git(repository, 'fsck', '--full', '--strict')).toBe('')
  })

  test('does not take a repository for its own that somebody put there', async () => {
    await git(folder, 'init', '--quiet', '--bare', repository)
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    await expect(forge.ensureRepository(wish(), calm)).rejects.toMatchObject({ code: 'REPO_TAKEN' })
  })

  test('removes what is left of the dead, and nothing of the living or of other machines', async () => {
    await deploySample(folder) // which makes .tmp
    const [place, , start] = (await newWriterTag()).split('-')
    const dead = `${place}-${await deadPid()}-${start}-000000000000`
    const reusedPid = `${place}-${process.pid}-1-000000000000`
    const living = `${place}-${process.pid}-${start}-000000000000`
    const elsewhere = '00000000000a-1-1-000000000000'
    const elsewhereLongAgo = '00000000000b-1-1-000000000000'
    for (const name of [dead, reusedPid, living, elsewhere, elsewhereLongAgo]) {
      await mkdir(join(folder, '.tmp', name, 'objects'), { recursive: true })
    }
    await utimes(join(folder, '.tmp', elsewhereLongAgo), 1, 1)
    const forge = new LocalForge({ folder, cloneUrlBase: '' })
    await forge.ensureRepository({ ...wish(), name: 'next' }, calm)
    expect((await readdir(join(folder, '.tmp'))).sort()).toEqual([elsewhere, living].sort())
  })

  test('says what to do when the folder cannot be used', async () => {
    const file = join(folder, 'file')
    await writeFile(file, '')
    const forge = new LocalForge({ folder: file, cloneUrlBase: '' })
    await expect(forge.ensureOrganization({ login: 'acme' }, calm)).rejects.toMatchObject({
      code: 'STORAGE',
      remedy: 'person',
      message: expect.stringContaining('DATA_DIR'),
    })
  })

  test.each(['ENOSPC', 'EDQUOT', 'EACCES', 'EPERM', 'EROFS', 'EIO'])('explains %s', (code) => {
    const fault = Object.assign(new Error(`${code}: write`), { code, syscall: 'write' })
    expect(toStorageError(fault, '/data')).toMatchObject({
      code: 'STORAGE',
      message: expect.stringMatching(/\/data.*retry\.$/),
      cause: fault,
    })
  })

  test('does not take a lost database for a fault of the disk', () => {
    const fault = Object.assign(new Error('connect ENOENT'), { code: 'ENOENT', syscall: 'connect' })
    expect(toStorageError(fault, '/data')).toBe(fault)
  })
})

function wish() {
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

/** Exactly what one deployment leaves, and git finds no fault with it. */
async function expectPristine(folder: string): Promise<void> {
  const repository = join(folder, 'acme', 'site.git')
  expect((await readdir(folder)).sort()).toEqual(['.tmp', 'acme'])
  expect(await readdir(join(folder, '.tmp'))).toEqual([])
  expect((await readdir(join(folder, 'acme'))).sort()).toEqual(['organization.json', 'site.git'])
  expect(await readdir(join(repository, 'shipcast', 'tmp'))).toEqual([])
  expect(await readdir(join(repository, 'refs', 'heads'))).toEqual(['main'])
  expect(await readdir(join(repository, 'info'))).toEqual(['refs'])
  expect(await git(repository, 'fsck', '--full', '--strict')).toBe('')
  expect(await readFile(join(repository, 'info/refs'), 'utf8')).toBe(`${SAMPLE.commit}\trefs/heads/main\n`)
  const packs = (await readdir(join(repository, 'objects/pack'))).filter((name) => name.endsWith('.pack'))
  expect(packs).toHaveLength(1)
  expect(await readFile(join(repository, 'objects/info/packs'), 'utf8')).toBe(`P ${packs[0]}\n\n`)
}

/** As git would write them. */
async function expectServerInfo(repository: string): Promise<void> {
  const files = ['info/refs', 'objects/info/packs'].map((name) => join(repository, name))
  const ours = await Promise.all(files.map((file) => readFile(file, 'utf8')))
  await git(repository, 'update-server-info', '--force')
  expect(ours.map((text) => text.split('\n').sort())).toEqual(
    (await Promise.all(files.map((file) => readFile(file, 'utf8')))).map((text) => text.split('\n').sort()),
  )
}
