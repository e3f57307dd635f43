/** An object's id: its 20 raw bytes in a latin1 string, which sorts, compares and joins like the bytes. */
export type ObjectId = string

export type ObjectType = 'commit' | 'tree' | 'blob'

export interface GitObject {
  type: ObjectType
  id: ObjectId
  body: Uint8Array
}

/** An object's id is the SHA-1 of this and its body (git-hash-object(1)). */
export function objectHeader(type: ObjectType, length: number): string {
  return `${type} ${length}\0`
}

/** The 40 hex digits that people and git commands use. */
export function toHex(id: ObjectId): string {
  return Buffer.from(id, 'latin1').toString('hex')
}

export interface TreeEntry {
  mode: '100644' | '100755' | '40000'
  name: string
  id: ObjectId
}

/**
 * A tree's body: `mode SP name NUL id` for each entry, sorted by the bytes of the name with folders as
 * `name/`. So `a.b` comes before the folder `a`, and `a0` after it.
 * @throws when two entries have the same name, because git rejects such a tree
 */
export function treeBody(entries: readonly TreeEntry[]): Uint8Array {
  const rows = entries.map(({ mode, name, id }) => {
    // UTF-8 bytes in a latin1 string: JavaScript orders strings by UTF-16, which differs past U+D7FF.
    const bytes = Buffer.from(name, 'utf8').toString('latin1')
    return { key: mode === '40000' ? `${bytes}/` : bytes, bytes, row: `${mode} ${bytes}\0${id}` }
  })
  rows.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
  if (new Set(rows.map((row) => row.bytes)).size < rows.length) {
    throw new Error('Two files or folders of the contents have the same name.')
  }
  return Buffer.from(rows.map((row) => row.row).join(''), 'latin1')
}

/** Everything about the commit except its files; together they determine its id. */
export interface CommitPlan {
  message: string
  author: { name: string; email: string }
  /** Seconds since 1970, UTC: author and committer time. */
  unixSeconds: number
}

/** The body of a commit without parents. */
export function commitBody(tree: ObjectId, plan: CommitPlan): Uint8Array {
  const { author, message, unixSeconds } = plan
  const signature = `${cleanIdentity(author.name) || cleanIdentity(author.email)} <${cleanIdentity(author.email)}> ${unixSeconds} +0000`
  // As `git commit` writes it: without NUL, with one line feed at the end.
  const text = message.replaceAll('\0', '').replace(/\n*$/, '\n')
  return Buffer.from(`tree ${toHex(tree)}\nauthor ${signature}\ncommitter ${signature}\n\n${text}`, 'utf8')
}

/**
 * Cleans names and addresses as git does (ident.c): no `<>`, no control characters, no
 * punctuation at the ends.
 */
function cleanIdentity(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: removes them
      .replace(/[<>\u0000-\u001f\u007f]/g, '')
      .replace(/^[\s.,:;"'\\]+|[\s.,:;"'\\]+$/g, '')
  )
}
