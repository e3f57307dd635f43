import { spawnSync } from 'node:child_process'
import { chmod, lstat, mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { deploySample } from '../../test/support/github/deploy-sample.ts'
import { git, removeFolder, temporaryFolder } from '../../test/support/github/git.ts'
import { openLocalForge } from './github.module.ts'

const onPosix = process.platform === 'win32' ? test.skip : test
const asRoot = process.getuid?.() === 0 ? test : test.skip
const NOBODY = 65_534

let dataDir: string
let umask: number
beforeEach(async () => {
  dataDir = await temporaryFolder()
  await chmod(dataDir, 0o755)
  umask = process.umask()
})
afterEach(async () => {
  process.umask(umask)
  await removeFolder(dataDir)
})

const open = () => openLocalForge({ dataDir, publicUrl: 'http://localhost' })
const forge = () => join(dataDir, 'forge')

/** The forge's folder and everything in it that other accounts may read, write or enter. */
async function openToOthers(): Promise<string[]> {
  const names = ['', ...(await readdir(forge(), { recursive: true }))]
  const modes = await Promise.all(
    names.map(async (name) => [name, await lstat(join(forge(), name))] as const),
  )
  return modes.flatMap(([name, { mode }]) => ((mode & 0o077) === 0 ? [] : [`${name} ${mode.toString(8)}`]))
}

onPosix.each([0o000, 0o022, 0o027, 0o077])(
  'other accounts have no access to a forge, with umask %i',
  async (mask) => {
    process.umask(mask)
    await open()
    await deploySample(forge())
    expect(await openToOthers()).toEqual([])
    expect(await git(join(forge(), 'acme', 'site.git'), 'fsck', '--strict')).toBe('')
  },
)

onPosix('a forge that other accounts can access is restricted at start', async () => {
  process.umask(0)
  await mkdir(forge(), { mode: 0o777 })
  await deploySample(forge())
  await open()
  expect((await stat(forge())).mode & 0o777).toBe(0o700)
})

asRoot('another account cannot read a repository, even with permissive modes', async () => {
  process.umask(0o022)
  await open()
  await deploySample(forge())
  const repository = join(forge(), 'acme', 'site.git')
  const isReadable = () =>
    spawnSync('git', ['-c', 'safe.directory=*', `--git-dir=${repository}`, 'rev-parse', 'HEAD'], {
      uid: NOBODY,
      gid: NOBODY,
      env: { PATH: process.env.PATH, HOME: '/', GIT_CONFIG_NOSYSTEM: '1' },
      cwd: '/',
    }).status === 0
  expect(isReadable()).toBe(false)
  spawnSync('chmod', ['-R', 'a+rX', forge()])
  expect(isReadable()).toBe(true)
  await open()
  expect(isReadable()).toBe(false)
})

test('without git, the start fails with what to install', async () => {
  const { PATH } = process.env
  process.env.PATH = dataDir
  try {
    await expect(open()).rejects.toThrow(/^The local forge needs git .* Install git/)
  } finally {
    process.env.PATH = PATH
  }
})
