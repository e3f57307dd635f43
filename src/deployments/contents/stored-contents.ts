import type { Database, Queryable } from '../../database/database.ts'
import type { PackPart } from '../../github/pack.ts'
import { type PreparedContents, preparedContents } from '../../github/prepared-contents.ts'
import type { Work } from '../deployment-work.ts'

/** Parts that are read in one statement: a mebibyte. */
const PARTS_AT_ONCE = 16

/** Stores what will be pushed, byte for byte, while it is packed. Resolves to the pack's length. */
export async function insertContents(
  tx: Queryable,
  deploymentId: string,
  packed: AsyncIterable<PackPart>,
): Promise<number> {
  let packBytes = 0
  let packParts = 0
  for await (const { kind, bytes } of packed) {
    await tx.query(
      'insert into deployment_contents (deployment_id, kind, part, bytes) values ($1, $2, $3, $4)',
      [
        deploymentId,
        kind,
        kind === 'pack' ? packParts++ : 0,
        Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      ],
    )
    if (kind === 'pack') packBytes += bytes.length
  }
  return packBytes
}

/** Reads it back, some parts at a time. */
export function storedContents(
  database: Database,
  work: Pick<Work, 'id' | 'plannedCommit' | 'plannedTree' | 'objectCount' | 'packBytes'>,
): PreparedContents {
  const { id, plannedCommit, plannedTree, objectCount, packBytes } = work
  async function* readPack() {
    for (let first = 0; ; first += PARTS_AT_ONCE) {
      const parts = await readParts(database, id, 'pack', first)
      yield* parts
      if (parts.length < PARTS_AT_ONCE) return
    }
  }
  async function readIndex() {
    const [bytes] = await readParts(database, id, 'index', 0)
    if (!bytes) throw new Error(`The contents of deployment ${id} are not stored any more.`)
    return bytes
  }
  return preparedContents(
    { commit: plannedCommit, tree: plannedTree, objectCount, packBytes },
    readPack,
    readIndex,
  )
}

async function readParts(
  database: Database,
  deploymentId: string,
  kind: 'pack' | 'index',
  first: number,
): Promise<Uint8Array[]> {
  const rows = await database.query<{ bytes: Uint8Array }>(
    `select bytes from deployment_contents
     where deployment_id = $1 and kind = $2 and part >= $3 and part < $3 + ${PARTS_AT_ONCE} order by part`,
    [deploymentId, kind, first],
  )
  return rows.map(({ bytes }) => bytes)
}
