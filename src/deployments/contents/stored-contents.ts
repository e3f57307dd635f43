import { type CopyRow, encodeInt4, encodeUuid, quoteLiteral } from '../../database/copy.ts'
import type { Database, Transaction } from '../../database/database.ts'
import { type PreparedContents, preparedContents } from '../../github/git/commit-pack.ts'
import type { PackPart } from '../../github/git/pack.ts'

/**
 * Parts written or read per statement, which must finish within its timeout: 256 KiB. With twice as many
 * parts, or a quarter, pushing 50 MB took at least 25 % more memory.
 */
const PARTS_PER_STATEMENT = 8

/** Stores the pack to push while it is created. Resolves to its length in bytes. */
export async function insertContents(
  tx: Transaction,
  deploymentId: string,
  pack: AsyncIterable<PackPart>,
): Promise<number> {
  const id = encodeUuid(deploymentId)
  const parts = pack[Symbol.asyncIterator]()
  let packBytes = 0
  let packParts = 0
  let isDone = false
  async function* nextRows(): AsyncGenerator<CopyRow> {
    for (let i = 0; i < PARTS_PER_STATEMENT; i++) {
      const { done, value } = await parts.next()
      if (done) {
        isDone = true
        return
      }
      const { kind, bytes } = value
      yield [id, Buffer.from(kind), encodeInt4(kind === 'pack' ? packParts++ : 0), bytes]
      if (kind === 'pack') packBytes += bytes.length
    }
  }
  try {
    while (!isDone) {
      await tx.copyIn(
        'copy deployment_contents (deployment_id, kind, part, bytes) from stdin (format binary)',
        nextRows(),
      )
    }
  } finally {
    await parts.return?.()
  }
  return packBytes
}

interface StoredContents {
  id: string
  plannedCommit: string
  plannedTree: string
  objectCount: number
  packBytes: number
}

/** Reads a deployment's contents back, a few parts at a time. */
export function storedContents(
  database: Database,
  { id, plannedCommit, plannedTree, objectCount, packBytes }: StoredContents,
): PreparedContents {
  async function* readPack() {
    for (let first = 0, length = 0; length < packBytes; first += PARTS_PER_STATEMENT) {
      const chunks = await readParts(database, id, 'pack', first)
      if (chunks.length === 0) return
      for (const chunk of chunks) length += chunk.length
      yield* chunks
    }
  }
  async function readIndex() {
    const chunks = await readParts(database, id, 'index', 0)
    if (chunks.length === 0) throw new Error(`The contents of deployment ${id} are no longer stored.`)
    return Buffer.concat(chunks)
  }
  return preparedContents(
    { commit: plannedCommit, tree: plannedTree, objectCount, packBytes },
    readPack,
    readIndex,
  )
}

/** The next parts, concatenated, in chunks; empty at the end. */
function readParts(
  database: Database,
  deploymentId: string,
  kind: 'pack' | 'index',
  first: number,
): Promise<Uint8Array[]> {
  return database.copyOut(
    `copy (
       select string_agg(bytes, '' order by part) from deployment_contents
       where deployment_id = ${quoteLiteral(deploymentId)} and kind = ${quoteLiteral(kind)}
         and part >= ${first} and part < ${first + PARTS_PER_STATEMENT}
     ) to stdout (format binary)`,
  )
}
