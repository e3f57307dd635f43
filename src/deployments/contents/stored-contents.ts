import type { Database, Queryable } from '../../database/database.ts'
import type { PackedContents } from '../../github/prepare-contents.ts'
import { type PreparedContents, preparedContents } from '../../github/prepared-contents.ts'
import type { Work } from '../deployment-work.ts'

/** Parts of one pack that are sent to the database in one statement. */
const PARTS_AT_ONCE = 4

/** Stores what will be pushed, byte for byte. */
export async function insertContents(
  tx: Queryable,
  deploymentId: string,
  packed: PackedContents,
): Promise<void> {
  const parts = [
    ...packed.packParts.map((bytes, part) => ({ kind: 'pack', part, bytes })),
    { kind: 'index', part: 0, bytes: packed.index },
  ]
  for (let start = 0; start < parts.length; start += PARTS_AT_ONCE) {
    const some = parts.slice(start, start + PARTS_AT_ONCE)
    await tx.query(
      `insert into deployment_contents (deployment_id, kind, part, bytes)
       values ${some.map((_, i) => `($1, $${3 * i + 2}, $${3 * i + 3}, $${3 * i + 4})`).join(', ')}`,
      [
        deploymentId,
        ...some.flatMap(({ kind, part, bytes }) => [
          kind,
          part,
          Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
        ]),
      ],
    )
  }
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
