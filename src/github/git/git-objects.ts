import type { CommitPlan } from './commit-pack.ts'

/** The id of a git object as its 20 raw bytes in a latin1 string: sorts, compares and joins like the bytes. */
export type ObjectId = string

export type ObjectType = 'commit' | 'tree' | 'blob'

/** An object's id is the SHA-1 of this and its body (git-hash-object(1)). */
export function objectHeader(type: ObjectType, length: number): string {
  return `${type} ${length}\0`
}

/** The 40 hex digits that people and commands use. */
export function toHex(id: ObjectId): string {
  return Buffer.from(id, 'latin1').toString('hex')
}

export interface TreeEntry {
  mode: '100644' | '100755' | '40000'
  name: string
  id: ObjectId
}

/**
 * A tree's body: `mode SP name NUL id` for each entry, sorted by the bytes of the name with folders as `name/`.
 * So `a.b` comes before the folder `a`, and `a0` after it.
 * @throws when two entries have the same name: git would accept neither.
 */
export function treeBody(entries: readonly TreeEntry[]): Uint8Array {
  const rows = entries.map(({ mode, name, id }) => {
    // UTF-8 bytes in a latin1 string: JavaScript's own order of strings is UTF-16's, which differs past U+D7FF.
    const bytes = Buffer.from(name, 'utf8').toString('latin1')
    return { key: mode === '40000' ? `${bytes}/` : bytes, bytes, row: `${mode} ${bytes}\0${id}` }
  })
  rows.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
  if (new Set(rows.map((row) => row.bytes)).size < rows.length) {
    throw new Error('Two files or folders of the contents have the same name.')
  }
  return Buffer.from(rows.map((row) => row.row).join(''), 'latin1')
}

/** The body of a commit without parents. */
export function commitBody(tree: ObjectId, plan: CommitPlan): Uint8Array {
  const { author, message, unixSeconds } = plan
  const signature = `${cleanIdentity(author.name) || cleanIdentity(author.email)} <${cleanIdentity(author.email)}> ${unixSeconds} +0000`
  // As `git commit` has it: no NUL inside, and one line feed at the end.
  const text = message.replaceAll('\0', '').replace(/\n*$/, '\n')
  return Buffer.from(`tree ${toHex(tree)}\nauthor ${signature}\ncommitter ${signature}\n\n${text}`, 'utf8')
}

/** Git's own cleaning of names and addresses (ident.c): none of `<>`, no control character, no crud at the ends. */
function cleanIdentity(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is removed
      .replace(/[<>\u0000-\u001f\u007f]/g, '')
      .replace(/^[\s.,:;"'\\]+|[\s.,:;"'\\]+$/g, '')
  )
}
