import type { Database, Queryable } from '../../database/database.ts'
import type { PackPart } from '../../github/pack.ts'
import { type PreparedContents, preparedContents } from '../../github/prepared-contents.ts'
import type { Work } from '../deployment-work.ts'

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

/** Reads it back, a part at a time. */
export function storedContents(database: Database, work: Work): PreparedContents {
  const { id, plannedCommit, plannedTree, objectCount, packBytes } = work
  async function* readPack() {
    for (let part = 0; ; part++) {
      const bytes = await readPart(database, id, 'pack', part)
      if (!bytes) return
      yield bytes
    }
  }
  async function readIndex() {
    const bytes = await readPart(database, id, 'index', 0)
    if (!bytes) throw new Error(`The contents of deployment ${id} are not stored any more.`)
    return bytes
  }
  return preparedContents(
    { commit: plannedCommit, tree: plannedTree, objectCount, packBytes },
    readPack,
    readIndex,
  )
}

async function readPart(
  database: Database,
  deploymentId: string,
  kind: 'pack' | 'index',
  part: number,
): Promise<Uint8Array | undefined> {
  const [row] = await database.query<{ bytes: Uint8Array }>(
    `select bytes from deployment_contents where deployment_id = $1 and kind = $2 and part = $3`,
    [deploymentId, kind, part],
  )
  return row?.bytes
}
