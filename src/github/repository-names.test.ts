import { spawnSync } from 'node:child_process'
import { describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { validateBranch, validateOrg, validateRepo } from './repository-names.ts'

describe('validateOrg', () => {
  test.each(['a', 'A1', 'octo-org', 'a-b-c', 'x'.repeat(39)])('accepts %j', (org) =>
    expect(validateOrg(org)).toEqual([]),
  )
  test.each(['', '-a', 'a-', 'a--b', 'a_b', 'a.b', 'a b', 'é', 'a\n', 'x'.repeat(40)])('rejects %j', (org) =>
    expect(validateOrg(org)).toHaveLength(1),
  )
})

describe('validateRepo', () => {
  test.each(['a', '.github', 'a.b_c-D', '-', '_', '...', 'git', 'a.gitx', '.git.x', 'x'.repeat(100)])(
    'accepts %j',
    (repo) => expect(validateRepo(repo)).toEqual([]),
  )
  test.each(['', '.', '..', 'a.git', 'a.GIT', '.git', 'a.wiki', 'a/b', 'a b', 'ä', 'a\n', 'x'.repeat(101)])(
    'rejects %j',
    (repo) => expect(validateRepo(repo)).toHaveLength(1),
  )
})

describe('validateBranch', () => {
  const GOOD = [
    'main',
    'feature/a',
    'a.b',
    'a@b',
    'ä/日',
    'a-',
    'a{b}',
    "it's",
    'x'.repeat(244),
    'HEAD2',
    'a.lockx',
  ]
  const BAD = [
    '',
    '/a',
    'a/',
    'a//b',
    '.a',
    'a/.b',
    'a.lock',
    'a.lock/b',
    'a..b',
    'a.',
    'a b',
    'a~b',
    'a^b',
    'a:b',
    'a?b',
    'a*b',
    'a[b',
    'a\\b',
    'a@{b',
    '@',
    '-a',
    'HEAD',
    'refs/heads/a',
    'a\x7f',
    'a\tb',
    'a\ud800',
    '0123456789abcdef0123456789abcdef01234567',
    'x'.repeat(245),
  ]
  test.each(GOOD)('accepts %j', (branch) => expect(validateBranch(branch)).toEqual([]))
  test.each(BAD)('rejects %j', (branch) => expect(validateBranch(branch)).not.toEqual([]))

  test('accepts nothing that git rejects', () => {
    const parts = [
      'a',
      '/',
      '.',
      '..',
      '.lock',
      '@',
      '{',
      '-',
      ' ',
      '~',
      '^',
      ':',
      '?',
      '*',
      '[',
      '\\',
      '\x7f',
      'é',
      'HEAD',
    ]
    const branch = fc
      .array(fc.constantFrom(...parts), { minLength: 1, maxLength: 5 })
      .map((some) => some.join(''))
    const accepted = new Set(fc.sample(branch, 600).filter((sample) => validateBranch(sample).length === 0))
    for (const name of [...accepted, ...GOOD]) {
      const { status } = spawnSync('git', ['check-ref-format', '--branch', name])
      expect([name, status]).toEqual([name, 0])
    }
  })
})
