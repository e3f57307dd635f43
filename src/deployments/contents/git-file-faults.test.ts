import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { gitFileFaults } from './git-file-faults.ts'

const line = (length: number) => `${'x'.repeat(length)}\n`
const CASES: [path: string, content: string, isAccepted: boolean][] = [
  ['.gitattributes', '* text=auto eol=lf\n*.png binary\n', true],
  ['.gitattributes', '', true],
  ['.gitattributes', line(2047), true],
  ['.gitattributes', line(2048), false],
  ['.gitattributes', 'x'.repeat(2047), true],
  ['.gitattributes', `a\n${'x'.repeat(2048)}`, false],
  ['a/b/.gitattributes', `${line(10).repeat(1000)}${line(2047).repeat(10)}`, true],
  ['a/b/.gitattributes', `${line(10).repeat(1000)}${line(3000)}${line(10)}`, false],
  ['.gitmodules', '[submodule "a"]\n\tpath = a\n\turl = https://example.com/a.git\n', true],
  ['.gitmodules', '[submodule "a/../../b"]\n\tpath = a\n\turl = https://example.com/a.git\n', false],
  ['.gitmodules', '[submodule "a"]\n\tpath = a\n\turl = -u./payload\n', false],
  ['.gitmodules', '[submodule "a"]\n\tpath = -a\n\turl = https://example.com/a.git\n', false],
  ['.gitmodules', '[submodule "a"]\n\tupdate = !touch /tmp/x\n', false],
]

let folder: string
const env = { PATH: process.env.PATH, GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null' }
const git = (args: string[], input = '') =>
  execFileSync('git', ['-C', folder, ...args], { env, input, encoding: 'utf8', stdio: 'pipe' }).trim()

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'shipcast-git-files-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test.each(CASES)('judges %s as git fsck does (%#)', (path, content, isAccepted) => {
  expect(gitFileFaults(path, Buffer.from(content))).toHaveLength(isAccepted ? 0 : 1)
  git(['init', '--quiet'])
  const blob = git(['hash-object', '-w', '--stdin'], content)
  const tree = git(['mktree'], `100644 blob ${blob}\t${path.split('/').at(-1)}\n`)
  const commit = git(['-c', 'user.name=a', '-c', 'user.email=a@example.com', 'commit-tree', '-m', 'x', tree])
  git(['update-ref', 'refs/heads/main', commit])
  expect(spawnSync('git', ['-C', folder, 'fsck', '--strict'], { env }).status === 0).toBe(isAccepted)
  rmSync(join(folder, '.git'), { recursive: true })
})

test('does not look into other files', () => {
  expect(gitFileFaults('src/gitattributes', Buffer.from(line(5000)))).toEqual([])
  expect(gitFileFaults('.gitignore', Buffer.from(line(5000)))).toEqual([])
})
