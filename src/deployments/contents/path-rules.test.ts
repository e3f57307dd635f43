import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'
import { findPathClashes, validatePath } from './path-rules.ts'

const GOOD = [
  'README.md',
  'src/index.js',
  '.gitignore',
  '.gitattributes',
  '.github/workflows/test.yml',
  '.git2/a',
  'a.git/b',
  'git/a',
  'git~2',
  'git~10',
  '.gitx',
  '. git',
  '-rf',
  '--help/-',
  'a b/ c /d ',
  `quo"te's`,
  'emoji/😀👩‍👩‍👧',
  'caf\u00e9',
  'cafe\u0301',
  'a\\b',
  'C:foo',
  'con/aux.txt',
  'trailing.',
  '...',
  'a/.../b',
  'a*b?c:d|e<f>g',
  '\u200b.git',
  'x'.repeat(255),
  `${'é'.repeat(127)}x`,
  Array.from({ length: 256 }, () => 'd').join('/'),
]

const BAD: [path: string, reason: RegExp][] = [
  ['', /must not be empty/],
  ['/', /must be relative/],
  ['/etc/passwd', /must be relative/],
  ['//a', /must be relative/],
  ['C:\\a', /must be relative/],
  ['c:/a', /must be relative/],
  ['\\a', /must be relative/],
  ['\\\\server\\share', /must be relative/],
  ['a/', /not ending in "\/"/],
  ['a//b', /empty segments/],
  ['.', /"\." or "\.\."/],
  ['..', /"\." or "\.\."/],
  ['a/../b', /"\." or "\.\."/],
  ['./a', /"\." or "\.\."/],
  ['a/.', /"\." or "\.\."/],
  ['a\\..\\b', /"\." or "\.\."/],
  ['.git', /"\.git"/],
  ['.git/config', /"\.git"/],
  ['a/.git/hooks/x', /"\.git"/],
  ['.GIT/config', /"\.git"/],
  ['.gIt', /"\.git"/],
  ['.g\u200cit/config', /"\.git"/],
  ['\ufeff.git', /"\.git"/],
  ['.git\u206f', /"\.git"/],
  ['git~1/config', /"\.git"/],
  ['GIT~1', /"\.git"/],
  ['.git./config', /"\.git"/],
  ['.git /config', /"\.git"/],
  ['.git . .', /"\.git"/],
  ['.git::$INDEX_ALLOCATION/config', /"\.git"/],
  ['.git:x', /"\.git"/],
  ['a\\.git\\config', /"\.git"/],
  ['a\\git~1', /"\.git"/],
  ['a\0b', /control characters/],
  ['a\nb', /control characters/],
  ['a\x7fb', /control characters/],
  ['a\x85b', /control characters/],
  ['a\ud800b', /well-formed/],
  ['\udc00', /well-formed/],
  ['x'.repeat(256), /at most 255 bytes/],
  ['é'.repeat(128), /at most 255 bytes/],
  [`${'x'.repeat(200)}/`.repeat(21), /at most 4096 bytes/],
  [Array.from({ length: 257 }, () => 'd').join('/'), /at most 256 segments/],
]

describe('validatePath', () => {
  test.each(GOOD)('accepts %j', (path) => expect(validatePath(path)).toEqual([]))

  test.each(BAD)('rejects %j', (path, reason) => {
    expect(validatePath(path)).toEqual(expect.arrayContaining([expect.stringMatching(reason)]))
  })

  test('reports everything that is wrong with a path', () => {
    expect(validatePath('/a/../.git//b\0/')).toHaveLength(6)
  })

  test('shortens a long path', () => {
    expect(validatePath('x'.repeat(100_000))[0]?.length).toBeLessThan(150)
  })

  test('accepts any path of ordinary names', () => {
    const name = fc.stringMatching(/^[A-Za-z0-9_é日😀-][A-Za-z0-9_. -]{0,20}[A-Za-z0-9]$/u)
    fc.assert(
      fc.property(fc.array(name, { minLength: 1, maxLength: 12 }), (names) => {
        expect(validatePath(names.join('/'))).toEqual([])
      }),
    )
  })
})

describe('git agrees', () => {
  const env = { PATH: process.env.PATH, GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null' }
  let folder: string
  let blob: string
  const git = (args: string[], input = '') =>
    execFileSync('git', ['-C', folder, ...args], { env, input, encoding: 'utf8', stdio: 'pipe' }).trim()

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'shipcast-paths-'))
    git(['init', '--quiet'])
    git(['config', 'core.protectHFS', 'true'])
    git(['config', 'core.protectNTFS', 'true'])
    blob = git(['hash-object', '-w', '--stdin'], 'content')
  })

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  /** Whether git adds these paths together to an index and a tree, and finds no error in it. */
  function isAcceptedByGit(paths: readonly string[]): boolean {
    git(['read-tree', '--empty'])
    const lines = paths.map((path) => `100644 ${blob}\t${path}\0`).join('')
    const added = spawnSync('git', ['-C', folder, 'update-index', '-z', '--index-info'], {
      env,
      input: lines,
    })
    if (added.status !== 0 || git(['ls-files', '-z']).split('\0').length - 1 !== paths.length) return false
    git(['write-tree'])
    return spawnSync('git', ['-C', folder, 'fsck', '--strict', '--full'], { env }).status === 0
  }

  test('with every accepted example', () => expect(isAcceptedByGit(GOOD)).toBe(true))

  test.each([
    '/a',
    '.git/a',
    '.GIT',
    'git~1/a',
    '.g\u200cit/a',
    '.git /a',
    '.git:x',
    'a\\.git\\b',
    'a/../b',
    'a//b',
    'a/',
  ])('that %j is invalid', (path) => expect(isAcceptedByGit([path])).toBe(false))

  test('with any accepted path', () => {
    const names = [
      '.git',
      'git~1',
      '.',
      '..',
      ' ',
      '\\',
      ':',
      '\u200c',
      'a',
      'G',
      '.GIT',
      '~1',
      '/',
      '\ufeff',
      'é',
      '-',
    ]
    const path = fc
      .array(fc.constantFrom(...names), { minLength: 1, maxLength: 6 })
      .map((parts) => parts.join(''))
    // No path contains another: clashes have their own tests.
    const accepted = fc.sample(path, 4000).filter((sample) => validatePath(sample).length === 0)
    const apart = [...new Set(accepted)].map((sample, index) => `${index}/${sample}`)
    expect(apart.length).toBeGreaterThan(200)
    expect(isAcceptedByGit(apart)).toBe(true)
  })
})

describe('findPathClashes', () => {
  const at = (index: number) => `files[${index}]`
  const clashes = (paths: string[]) =>
    findPathClashes(paths, at, new CooperativeScheduler(new AbortController().signal))

  test('returns nothing if no paths clash', async () => {
    expect(await clashes(['a', 'b/a', 'b/c/a', 'A', 'a.b', 'ab/c', 'caf\u00e9', 'cafe\u0301'])).toEqual([])
  })

  test('names both fields of a duplicate path', async () => {
    expect(await clashes(['a', 'b', 'a', 'a'])).toEqual([
      { path: 'files[2]', reason: 'is the same as files[0]: "a"' },
      { path: 'files[3]', reason: 'is the same as files[0]: "a"' },
    ])
  })

  test.each([
    [['a', 'a/b'], 'files[1]', 'files[0]'],
    [['a/b', 'a'], 'files[1]', 'files[0]'],
    [['x', 'a/b/c/d', 'a/b'], 'files[2]', 'files[1]'],
    [['a/b/c', 'a/b/d', 'x', 'a/b'], 'files[3]', 'files[0]'],
  ])('names both fields of a path that is a file and a folder: %j', async (paths, later, earlier) => {
    const errors = await clashes(paths)
    expect(errors).toHaveLength(1)
    expect(errors[0]?.path).toBe(later)
    expect(errors[0]?.reason).toMatch(new RegExp(`^clashes with ${earlier.replace(/[[\]]/g, '\\$&')}: `))
  })

  test('limits the number of folders', async () => {
    const deep = Array.from({ length: 500 }, (_, n) => `${n}/${'d/'.repeat(250)}f`)
    expect((await clashes(deep)).map((error) => error.reason)).toEqual([
      expect.stringMatching(/limit of 100000/),
    ])
  })

  test('does not process a path that is too long', async () => {
    const endless = 'a/'.repeat(16 * 1024 * 1024)
    expect(validatePath(endless)).toEqual([expect.stringMatching(/at most 4096 bytes/)])
    expect(await clashes([endless, 'a', endless])).toEqual([])
  })
})
