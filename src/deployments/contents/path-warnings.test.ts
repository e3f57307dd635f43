import { expect, test } from '@jest/globals'
import { CooperativeScheduler } from '../../runtime/cooperative-scheduler.ts'
import { findPathWarnings } from './path-warnings.ts'

const createScheduler = () => new CooperativeScheduler(new AbortController().signal)
const warningsOf = (...paths: string[]) => findPathWarnings(paths, createScheduler())

test('ordinary names cause no warning', async () => {
  const paths = [
    'README.md',
    'src/main.ts',
    'src/con-text.ts',
    'common/aux1.c',
    'é/日本.txt',
    '❤️.md',
    'a b/.env',
    'null',
  ]
  const near = [
    'ı',
    'i',
    'context',
    'nul-',
    'auxiliary/x',
    'com10',
    'lpt',
    'docs/a',
    'docs/b',
    '.gitignore',
    'a..b',
  ]
  expect(await warningsOf(...paths, ...near)).toEqual({ messages: [], count: 0 })
})

const WINDOWS = [
  'con',
  'NUL',
  'aux.c',
  'src/PRN.tar.gz',
  'com1',
  'LPT9.txt',
  'com¹',
  'conin$',
  'con .txt',
  'aux/x.c',
]
const CHARACTERS = ['a:b', 'C:x', 'a<b', 'a>b', 'what?', 'a*', 'a|b', 'a"b', 'back\\slash', 'dir?/x']
const ENDS = ['trailing.', 'trailing ', 'folder./x', 'folder /x', 'a...']

test.each([...WINDOWS, ...CHARACTERS, ...ENDS])('%j cannot be checked out on Windows', async (path) => {
  const { messages, count } = await warningsOf('README.md', path)
  expect(count).toBe(1)
  const name = path.split('/').find((part) => !['x', 'x.c', 'src'].includes(part))
  expect(messages[0]).toContain(JSON.stringify(name).slice(1, -1))
  expect(messages[0]).toMatch(/cannot be checked out on Windows, where .*\.$/)
})

test.each([
  ['README', 'readme'],
  ['\u00e9', 'e\u0301'],
  ['src/Ä.ts', 'src/a\u0308.ts'],
  ['ΑΣ', 'ας'],
  // macOS (APFS) folds case fully.
  ['straße', 'STRASSE'],
  ['ẞ', 'ss'],
  ['ﬁle', 'file'],
  ['ſ', 's'],
  ['Docs/a', 'docs/A'],
  ['Readme', 'readme/x'],
])('%j and %j are the same name on Windows or macOS', async (one, other) => {
  const { messages } = await warningsOf(one, other)
  expect(messages.at(-1)).toMatch(
    /^".*" and ".*" are the same name on Windows or macOS, which keep only one of them\.$/,
  )
})

test('folders that differ only in case are reported once, whatever they contain', async () => {
  const paths = ['Docs/a', 'Docs/b', 'docs/c', 'docs/d', 'docs/sub/e', 'Docs/sub/f']
  expect(await warningsOf(...paths)).toEqual({
    messages: ['"Docs" and "docs" become one folder on Windows or macOS.'],
    count: 1,
  })
})

test.each(['a\u202egpj.exe', 'a\u200bb', 'a\u2028b', '\u2066x', 'a\u00adb', 'a\u3164'])(
  '%j can look like another name, and the warning shows its real characters',
  async (path) => {
    const { messages } = await warningsOf(path)
    expect(messages).toEqual([expect.stringContaining('can look like another name')])
    expect(messages[0]).toMatch(/^"[^"]*\\u[0-9a-f]{4}[^"]*" contains/)
    expect(messages[0]).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u)
  },
)

test('characters that Unicode does not define cause a warning', async () => {
  expect((await warningsOf('a\uffff')).messages).toEqual([expect.stringMatching(/macOS/)])
})

test('at most 20 warnings are messages, all are counted, and a long path is shortened to its end', async () => {
  const many = Array.from({ length: 20_000 }, (_, n) => `${'deep/'.repeat(20)}${n}?`)
  const { messages, count } = await findPathWarnings(many, createScheduler())
  expect(count).toBe(20_000)
  expect(messages).toHaveLength(20)
  expect(messages[7]).toMatch(/^"…[^"]{72,80}\/7\?" cannot/)
})
