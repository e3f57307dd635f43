import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { git, gitWithInput, removeFolder, temporaryFolder } from '../../../test/support/github/git.ts'
import { withTrailer } from './commit-message.ts'

const TRAILER = 'Deployment-Id: 0198c2f4-0000-7000-8000-000000000001'
const SCISSORS = '# ------------------------ >8 ------------------------'

let folder: string
beforeAll(async () => {
  folder = await temporaryFolder()
  await git(folder, 'init', '--quiet')
})
afterAll(() => removeFolder(folder))

describe('a trailer is added', () => {
  test('to the trailers at the end of the message, so that git finds all of them', async () => {
    const message =
      'Add the site\n\nBody.\n\nCo-authored-by: Mona <m@example.com>\nSigned-off-by: Al <al@example.com>'
    const added = withTrailer(message, TRAILER)
    expect(added).toBe(`${message}\n${TRAILER}\n`)
    expect(await readBack([added])).toEqual([
      `Co-authored-by: Mona <m@example.com>\nSigned-off-by: Al <al@example.com>\n${TRAILER}\n`,
    ])
  })

  test.each([
    ['the title alone', 'Add: the site'],
    ['a body', 'Add the site\n\nIt is new.'],
    ['a body in which a trailer is quoted', 'Add the site\n\nWe write\nReviewed-by: A\nhere and there.'],
    ['comments', 'Add the site\n\n# Why\n# Because'],
    ['a title that looks like a trailer, between blank lines', '\n \nReviewed-by: A\n\n \n'],
    ['trailers and then a body', 'Add the site\n\nReviewed-by: A\n\nThe end.'],
  ])('after an empty line to %s', async (_what, message) => {
    const added = withTrailer(`${message}\n\n`, TRAILER)
    expect(added).toBe(`${message.trim()}\n\n${TRAILER}\n`)
    expect(await readBack([added])).toEqual([`${TRAILER}\n`])
  })

  test.each([
    ['comments', 'Title\n\nReviewed-by: A', '\n\n# one\n# two'],
    ['a list of conflicts', 'Title\n\nReviewed-by: A', '\n\nConflicts:\n\ta.txt'],
    ['the cut line', 'Title\n\nReviewed-by: A', `\n${SCISSORS}\ndiff --git a b`],
  ])('before %s that git ignores', async (_what, message, rest) => {
    const added = withTrailer(message + rest, TRAILER)
    expect(added).toBe(`${message}\n${TRAILER}${rest}\n`)
    expect(await readBack([added])).toEqual([`Reviewed-by: A\n${TRAILER}\n`])
  })

  test('to any message: git finds it and every trailer that it found before, and nothing else changes', async () => {
    await fc.assert(
      fc.asyncProperty(messages(), async (originals) => {
        const ours = originals.map((each) => withTrailer(each, TRAILER))
        const before = await readBack(originals.map((each) => `${each.trimEnd()}\n`))
        expect(await readBack(ours)).toEqual(before.map((each) => `${each}${TRAILER}\n`))
        const others = ours.map((each) => linesOf(each).filter((line) => line !== TRAILER))
        expect(others).toEqual(originals.map(linesOf))
      }),
      { numRuns: 8 },
    )
  })

  test('exactly like git interpret-trailers', async () => {
    await fc.assert(
      fc.asyncProperty(messages(), async (all) => {
        // git drops comments between trailers, and treats a blank line before a comment
        // as the end of the block.
        const originals = all.filter((each) => !/^(#|Conflicts:|[ \t\r]+$)/m.test(each))
        const ours = originals.map((each) => withTrailer(each, TRAILER))
        expect(await readBack(ours)).toEqual(await readBack(await addedByGit(originals)))
      }),
      { numRuns: 8 },
    )
  })
})

/** Every kind of line that affects where trailers begin. */
function messages(): fc.Arbitrary<string[]> {
  const line = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom('', '', '', ' ', '\t', '\r') },
    {
      weight: 8,
      arbitrary: fc.constantFrom(
        'Signed-off-by: Al <al@example.com>',
        'Co-authored-by: Zoë Ünal <zoe@example.com>',
        '(cherry picked from commit 0123456789)',
        'Reviewed-by: 山田 <y@example.com>\r',
        'Closes: #12',
        'Fixes:#13',
        'See-also : there',
        'Deployment-Id: another',
        'Empty:',
      ),
    },
    { weight: 4, arbitrary: fc.constantFrom('  continued', '\tcontinued', ' Key: value') },
    {
      weight: 6,
      arbitrary: fc.constantFrom(
        'Some prose.',
        'Naïve: prose',
        'two words: here',
        'https://example.com',
        ': nothing before it',
        '-',
        '---',
        '--- a/file',
        'signed-off-by: lower case',
        'Signed-off-by:without a space',
      ),
    },
    { weight: 2, arbitrary: fc.constantFrom('# comment', '#', '#12 is fixed', 'Conflicts:', SCISSORS) },
    {
      weight: 1,
      arbitrary: fc.string({ unit: 'grapheme', maxLength: 12 }).filter((text) => !/\p{Cc}/u.test(text)),
    },
  )
  const isTitle = (text = '') => text.trim() !== '' && text !== SCISSORS
  const message = fc
    .array(line, { minLength: 1, maxLength: 14, size: 'max' })
    .filter(([title]) => isTitle(title))
    .map((lines) => lines.join('\n'))
  return fc.array(message, { minLength: 1, maxLength: 150, size: 'max' })
}

/** The trailers that `git log` finds in commits with these messages, each on one line as `key: value`. */
async function readBack(messages: readonly string[]): Promise<string[]> {
  const commits = messages.map((text, i) => {
    const bytes = Buffer.from(text)
    const head = `commit refs/heads/main\nmark :${i + 1}\ncommitter A <a@example.com> 1700000000 +0000\n`
    return Buffer.concat([Buffer.from(`${head}data ${bytes.length}\n`), bytes, Buffer.from('\n')])
  })
  const reset = Buffer.from('reset refs/heads/main\n')
  await gitWithInput(folder, ['fast-import', '--quiet', '--force'], Buffer.concat([reset, ...commits]))
  const log = await git(folder, 'log', '--reverse', '--format=%(trailers:only,unfold)%x00', 'refs/heads/main')
  return log
    .split('\0')
    .slice(0, -1)
    .map((each, i) => (i === 0 ? each : each.slice(1)))
}

async function addedByGit(messages: readonly string[]): Promise<string[]> {
  const files = messages.map((_, i) => join(folder, `${i}.txt`))
  await Promise.all(files.map((file, i) => writeFile(file, `${messages[i]?.trimEnd()}\n`)))
  if (messages.length === 0) return []
  const change = ['interpret-trailers', '--in-place', '--no-divider', '--trailer', TRAILER]
  await git(folder, ...change, ...files)
  return Promise.all(files.map((file) => readFile(file, 'utf8')))
}

/** Its lines, without trailing space and without empty ones. */
function linesOf(text: string): string[] {
  return text.split('\n').flatMap((line) => line.trimEnd() || [])
}
