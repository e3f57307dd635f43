import type { ContentFile } from '../../../src/github/git/commit-pack.ts'
import type { CommitPlan } from '../../../src/github/git/git-objects.ts'

export const SAMPLE_PLAN: CommitPlan = {
  message: 'Initial commit\n\nDeployment-Id: 7\n',
  author: { name: 'Ship Cast', email: 'ship@example.com' },
  unixSeconds: 1_700_000_000,
}

export function textFile(path: string, text: string, executable = false): ContentFile {
  return { path, content: Buffer.from(text), executable }
}

/** Names and contents that are known to cause errors in git implementations. */
export const EDGE_CASE_FILES: ContentFile[] = [
  textFile('a', 'a file: first'),
  textFile('a.b', 'before the folder a'),
  textFile('a0', 'after the folder a'),
  textFile('folder/a.b', '1'),
  textFile('folder/a/b', '2'),
  textFile('folder/a0', '3'),
  textFile('folder/a-/x', '4'),
  textFile('nfc/\u00e9', 'composed'),
  textFile('nfc/e\u0301', 'decomposed'),
  textFile('emoji/\u{1f680} launch.txt', 'past U+FFFF'),
  textFile('emoji/\uff5e', 'U+FF5E: after the emoji in UTF-16, before it in UTF-8'),
  textFile('with space/and "quotes" and \\backslash', 'x'),
  textFile("tab\there/it's.txt", 'x'),
  textFile('line\nfeed', 'x'),
  textFile('-dash', 'x'),
  textFile('empty', ''),
  textFile('.gitignore', '*\n'),
  textFile('.gitattributes', '* text=auto\n'),
  textFile('crlf.txt', 'one\r\ntwo\r\n'),
  textFile('run.sh', '#!/bin/sh\n', true),
  textFile('same/as run.sh', '#!/bin/sh\n'),
  { path: 'binary', content: Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 256), executable: false },
  textFile(`${'deep/'.repeat(40)}file`, 'forty folders down'),
]

/** Source-like text: the same number of files always gives the same contents, and files differ. */
export function codeFiles(count: number, bytesPerFile = 2000): ContentFile[] {
  let state = 1
  const random = (below: number) => {
    state = (state * 48_271) % 2_147_483_647
    return state % below
  }
  return Array.from({ length: count }, (_, i) => {
    const minLength = bytesPerFile / 4 + random(bytesPerFile * 1.5)
    let text = `// File ${i}\n`
    while (text.length < minLength) text += codeLine(random)
    return textFile(`src/area${i % 20}/part${Math.floor(i / 400)}/file-${i}.ts`, text, i % 50 === 0)
  })
}

const WORDS =
  `const function return import export await async if else for while class interface type string number
boolean null undefined new this throw Error Promise Map Set Array length push slice map filter reduce`.split(
    /\s+/,
  )

function codeLine(random: (below: number) => number): string {
  const words = Array.from({ length: 2 + random(6) }, () =>
    random(3) === 0 ? `x${random(9999).toString(36)}` : WORDS[random(WORDS.length)],
  )
  return `${'  '.repeat(random(4))}${words.join(' ')}${random(2) === 0 ? ' {' : ';'}\n`
}
